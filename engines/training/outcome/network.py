"""The network: a transformer over the cars that corrects the strengths' places.

    rows of features ──┬─ strengths (fitted, frozen) ── places ── log ─────────┐
                       └─ standardise ── 6 layers, width 256, 8 heads ── head ─┴─ + ── Sinkhorn ── probabilities

The head gives each car a few coefficients of fixed functions of the place (how much better or worse than the
strengths say, at the front, among the points, at the back), all 0 before training: an untrained network says
what the strengths say, and dropout and weight decay pull it back there. No position encoding: cars in another
order give the same answers in that order.
"""

import math

import torch
from torch import nn

from places import nodes, places, sinkhorn
from strength import KNOTS

CARS = 24
FUNCTIONS = 3
# What the network is told of the strengths' answer: strength, win, podium, expected place.
SAID = 4
# Probability of not seeing the flag: on lap 1, and per lap after it (seasons 2021-2023).
RETIRE_LAP_1, RETIRE_PER_LAP = 0.0063, 0.00224
# Share of the distance at which the temperature may differ.
PHASES = [0.0, 0.125, 0.375, 0.625, 0.875]


def functions():
    """What the head may add to the logits of the places, [FUNCTIONS, CARS]."""
    k = torch.arange(CARS, dtype=torch.float32) + 1
    return torch.stack([torch.log(k), k / 10, (k == 1).float()])


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, written out so that the export is plain products and sums."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.mix = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, absent):
        b, n, w = x.shape
        y = self.before_attention(x)
        split = lambda t: t.reshape(b, n, self.heads, w // self.heads).transpose(1, 2)
        q, k, v = split(self.queries(y)), split(self.keys(y)), split(self.values(y))
        scores = q @ k.transpose(2, 3) * (w // self.heads) ** -0.5 + absent
        y = (torch.softmax(scores, 3) @ v).transpose(1, 2).reshape(b, n, w)
        x = x + self.dropout(self.mix(y))
        y = self.down(self.dropout(torch.relu(self.up(self.before_forward(x)))))
        return x + self.dropout(y)


class Outcome(nn.Module):
    """cars [b, 24, features], mask [b, 24] -> positions [b, 24, 24], retirement [b, 24]."""

    def __init__(self, columns, strength_columns, weights, mean, scale, width=256, layers=6, heads=8, dropout=0.25, lose=0.1, rounds=12):
        super().__init__()
        at = {n: i for i, n in enumerate(columns)}
        self.share, self.left = at["share"], at["left"]
        self.rounds = rounds
        pick = torch.zeros(len(columns), len(strength_columns))
        for j, name in enumerate(strength_columns):
            pick[at[name], j] = 1.0
        fixed = lambda name, value: self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
        fixed("strength", pick @ torch.as_tensor(weights, dtype=torch.float32))
        fixed("mean", mean), fixed("scale", scale)
        fixed("nodes", nodes()), fixed("functions", functions()), fixed("knots", KNOTS)
        fixed("temperature", torch.ones(len(PHASES))), fixed("phases", PHASES)
        self.inward = nn.Linear(len(columns) + SAID, width)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, FUNCTIONS + 1)
        nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)
        self.lose = nn.Dropout(lose)

    @staticmethod
    def hats(x, knots):
        """Weights of the knots at x [b, 1], piecewise linear."""
        width = knots[1:] - knots[:-1]
        up = torch.clamp((x - knots[:-1]) / width, 0.0, 1.0)
        return torch.cat([torch.ones_like(x), up], 1) - torch.cat([up, torch.zeros_like(x)], 1)

    def base(self, cars, mask):
        """Log-probabilities of the places from strengths alone, and of retiring."""
        share = cars[:, :1, self.share]
        left = cars[:, 0, self.left] * 70.0
        survives = torch.exp(left * math.log(1.0 - RETIRE_PER_LAP))
        survives = survives * torch.where(share[:, 0] > 0, 1.0, 1.0 - RETIRE_LAP_1)
        retire = (1.0 - survives)[:, None] * mask
        weights = self.hats(share, self.knots) @ self.strength.t()
        s = (cars * weights[:, None, :]).sum(2)
        s = (s - (s * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)) * mask
        table = sinkhorn(places(s, retire, mask, at=self.nodes), mask, self.rounds)
        return torch.log(table + 1e-9), retire, s

    def correction(self, cars, mask, logs, strength):
        x = torch.clamp((cars - self.mean) / self.scale, -4.0, 4.0)
        table = torch.exp(logs)
        expected = (table * torch.arange(CARS, device=table.device)).sum(2) / 10.0 - 1.0
        said = torch.stack([strength / 3.0, table[:, :, 0], table[:, :, :3].sum(2), expected], 2)
        x = self.inward(self.lose(torch.cat([x, said], 2) * mask[:, :, None]))
        absent = (mask - 1.0)[:, None, None, :] * 1e4
        for layer in self.layers:
            x = layer(x, absent)
        return self.head(self.norm(x))

    def forward(self, cars, mask, base=None):
        logs, retire, s = self.base(cars, mask) if base is None else base
        c = self.correction(cars, mask, logs, s)
        logits = logs + c[:, :, :FUNCTIONS] @ self.functions
        t = (self.hats(cars[:, :1, self.share], self.phases) * self.temperature).sum(1)
        logits = logits * t[:, None, None]
        top = (logits - 1e4 * (1.0 - mask)[:, None, :]).amax(2, keepdim=True)
        table = torch.exp(torch.clamp(logits - top, -40.0, 0.0)) * mask[:, :, None] * mask[:, None, :]
        positions = sinkhorn(table, mask, self.rounds)
        odds = torch.log(retire + 1e-6) - torch.log(1.0 - retire) + c[:, :, FUNCTIONS]
        return positions, torch.sigmoid(odds) * mask
