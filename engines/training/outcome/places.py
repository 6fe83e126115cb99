"""From strengths to places, in PyTorch: the same arithmetic as `predict::strength`, exported with the model."""

import torch

NODES = 12
SPREAD = 0.7071
LEAST = 1e-5


def t4(x):
    u = x / torch.sqrt(1.0 + x * x / 4.0)
    return 0.5 + 0.375 * u * (1.0 - u * u / 12.0)


def nodes():
    low, high = torch.full((NODES,), -200.0, dtype=torch.double), torch.full((NODES,), 200.0, dtype=torch.double)
    p = (torch.arange(NODES, dtype=torch.double) + 0.5) / NODES
    for _ in range(80):
        middle = 0.5 * (low + high)
        below = t4(middle) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (0.5 * (low + high)).float()


def coins(p):
    """p [..., others]: the probability that each coin falls; distribution of how many do, [..., others]
    (all of them cannot: the car itself is one, with probability 0)."""
    n = p.shape[-1]
    counts = [torch.ones_like(p[..., 0])] + [torch.zeros_like(p[..., 0])] * (n - 1)
    counts = torch.stack(counts, -1)
    for j in range(n):
        q = p[..., j : j + 1]
        shifted = torch.cat([torch.zeros_like(counts[..., :1]), counts[..., :-1]], -1)
        counts = counts * (1.0 - q) + shifted * q
    return counts


def places(strength, retire, mask, spread=SPREAD, at=None):
    """strength, retire, mask [b, n] -> probability of each place [b, n, n]; rows and columns without a car 0."""
    b, n = strength.shape
    at = nodes() if at is None else at
    x = strength[:, :, None] + spread * at
    other = mask[:, None, :] * (1.0 - torch.eye(n))
    beats = t4((x[:, :, :, None] - strength[:, None, None, :]) / spread)
    finishing = beats * ((1.0 - retire)[:, None, :] * other)[:, :, None, :]
    ahead = coins(finishing).mean(2) * (1.0 - retire)[:, :, None]
    behind = coins((1.0 - 0.5 * retire)[:, None, :] * other) * retire[:, :, None]
    return (ahead + behind + LEAST) * mask[:, :, None] * mask[:, None, :]


def sinkhorn(table, mask, rounds):
    """Columns and rows scaled to 1 in turn; rows last, so that a car's places sum to 1."""
    for _ in range(rounds):
        table = table / (table.sum(1, keepdim=True) + (1.0 - mask)[:, None, :])
        table = table / (table.sum(2, keepdim=True) + (1.0 - mask)[:, :, None])
    return table
