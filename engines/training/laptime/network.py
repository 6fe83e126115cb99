"""The network: a 3-layer LSTM over a car's race, attention over its last 50 laps, three heads.

Heads: the next lap at the line, the same after sector 1, after sector 2. Each gives P10, P50 and P90 of the
difference (s) to the base that the features come with.
"""

import torch
from torch import nn

HIDDEN, LAYERS, HISTORY = 128, 3, 50
# Laps before the newest that are attended to.
EARLIER = HISTORY - 1
QUANTILES = (0.1, 0.5, 0.9)


class Scale(nn.Module):
    """Brings inputs to mean 0 and deviation 1; part of the graph, so that the daemon feeds plain features."""

    def __init__(self, mean, deviation):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("factor", 1.0 / torch.as_tensor(deviation, dtype=torch.float32))

    def forward(self, x):
        return torch.clamp((x - self.mean) * self.factor, -6.0, 6.0)


class Head(nn.Module):
    def __init__(self, inputs, width, dropout):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout),
                                    nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
        nn.init.zeros_(self.layers[-1].weight)
        with torch.no_grad():
            self.layers[-1].bias.copy_(torch.tensor([0.0, -0.8, -0.8]))

    def forward(self, z):
        y = self.layers(z)
        middle = y[..., 0:1]
        # The wings never cross the middle.
        down = nn.functional.softplus(y[..., 1:2])
        up = nn.functional.softplus(y[..., 2:3])
        return torch.cat([middle - down, middle, middle + up], -1)


class Network(nn.Module):
    def __init__(self, line_scale, sector_scales, dropout=0.15, width=128):
        super().__init__()
        self.scale = Scale(*line_scale)
        self.sector_scales = nn.ModuleList(Scale(*s) for s in sector_scales)
        features, sectors = len(line_scale[0]), len(sector_scales[0][0])
        self.enter = nn.Dropout(dropout / 2)
        self.lstm = nn.LSTM(features, HIDDEN, LAYERS, batch_first=True, dropout=dropout)
        self.query = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.value = nn.Linear(HIDDEN, HIDDEN)
        seen = 2 * HIDDEN + features
        self.heads = nn.ModuleList([Head(seen, width, dropout), Head(seen + sectors, width, dropout),
                                    Head(seen + sectors, width, dropout)])

    def forward(self, line, sectors):
        """Whole sequences: line [B, T, F], sectors two of [B, T, S]; [3, B, T, 3]."""
        x = self.enter(self.scale(line))
        out, _ = self.lstm(x)
        steps = torch.arange(line.shape[1], device=line.device)
        back = steps[:, None] - steps[None, :]
        unseen = (back < 0) | (back >= HISTORY)
        scores = self.query(out) @ out.transpose(1, 2) / HIDDEN ** 0.5
        weights = torch.softmax(scores.masked_fill(unseen, -1e4), -1)
        context = torch.relu(self.value(weights @ out))
        z = torch.cat([out, context, x], -1)
        known = [scale(s) for scale, s in zip(self.sector_scales, sectors)]
        return torch.stack([self.heads[0](z), self.heads[1](torch.cat([z, known[0]], -1)),
                            self.heads[2](torch.cat([z, known[1]], -1))])


class Step(nn.Module):
    """Networks side by side, one lap at a time: their mean answer, and of what they remember only what is new.

    line [B, F], sector1 and sector2 [B, S] (zeros until they are in), hidden and cell [B, 3, W] where W is 128 a
    network, memory [B, 49, W] and mask [B, 49]: the entries of earlier laps in any order, and 1 where there is one.
    quantiles [B, 3, 3]: by head, P10, P50 and P90 (s) against the base. entry [B, W] is this lap's, which has been
    attended to as well: it takes the place of the oldest. So nothing that is remembered is copied from lap to lap.
    """

    INPUTS = ("line", "sector1", "sector2", "hidden", "cell", "memory", "mask")
    OUTPUTS = ("quantiles", "next_hidden", "next_cell", "entry")

    def __init__(self, networks):
        super().__init__()
        self.count, self.width = len(networks), networks[0].heads[0].layers[3].in_features
        self.scale, self.sector_scales = networks[0].scale, networks[0].sector_scales
        for n in networks:
            for own, first in zip((n.scale, *n.sector_scales), (self.scale, *self.sector_scales)):
                assert torch.equal(own.mean, first.mean) and torch.equal(own.factor, first.factor)

        def keep(name, of):
            self.register_buffer(name, torch.stack([of(n).detach() for n in networks]))

        def gates(x):
            # The three that go through a sigmoid side by side, then the one that goes through tanh.
            i, f, g, o = x.split(HIDDEN)
            return torch.cat([i, f, o, g])

        for layer in range(LAYERS):
            of = lambda n, what: gates(getattr(n.lstm, f"{what}_l{layer}"))
            keep(f"product_{layer}", lambda n: torch.cat([of(n, "weight_ih"), of(n, "weight_hh")], 1).t())
            keep(f"bias_{layer}", lambda n: (of(n, "bias_ih") + of(n, "bias_hh"))[None])
        keep("query", lambda n: n.query.weight.t() / HIDDEN ** 0.5)
        keep("value", lambda n: n.value.weight.t())
        keep("value_bias", lambda n: n.value.bias[None])

        def enters(n):
            # All heads see all there is: what a head must not see weighs nothing.
            features, sectors = len(n.scale.mean), len(n.sector_scales[0].mean)
            first, second, third = (h.layers[0].weight for h in n.heads)
            known = first.new_zeros(3, len(first), 2 * sectors)
            known[1, :, :sectors], known[2, :, sectors:] = second[:, -sectors:], third[:, -sectors:]
            rest = torch.stack([first, second[:, :-sectors], third[:, :-sectors]])
            return torch.cat([rest, known], 2).flatten(0, 1).t()

        keep("enter", enters)
        keep("enter_bias", lambda n: torch.cat([h.layers[0].bias for h in n.heads])[None])
        keep("inner", lambda n: torch.stack([h.layers[3].weight.t() for h in n.heads]))
        keep("inner_bias", lambda n: torch.stack([h.layers[3].bias[None] for h in n.heads]))
        # The middle between its wings.
        order = [1, 0, 2]
        keep("leave", lambda n: torch.stack([h.layers[5].weight[order].t() for h in n.heads]))
        keep("leave_bias", lambda n: torch.stack([h.layers[5].bias[order][None] for h in n.heads]))
        self.register_buffer("wings", torch.tensor([-1.0, 0.0, 1.0]))
        # Which part of an entry is whose.
        self.register_buffer("own", torch.eye(self.count).repeat_interleave(HIDDEN, 1)[None])

    def forward(self, line, sector1, sector2, hidden, cell, memory, mask):
        k = self.count

        def apart(state):
            return state.reshape(-1, LAYERS, k, HIDDEN).permute(1, 2, 0, 3)

        def together(states):
            return torch.stack(states).permute(2, 0, 1, 3).reshape(-1, LAYERS, k * HIDDEN)

        x = torch.stack([self.scale(line)] * k)
        hidden, cell = apart(hidden), apart(cell)
        below, hs, cs = x, [], []
        for layer in range(LAYERS):
            product, bias = getattr(self, f"product_{layer}"), getattr(self, f"bias_{layer}")
            gates = torch.cat([below, hidden[layer]], 2) @ product + bias
            i, f, o = torch.sigmoid(gates[:, :, :3 * HIDDEN]).split(HIDDEN, 2)
            c = f * cell[layer] + i * torch.tanh(gates[:, :, 3 * HIDDEN:])
            below = o * torch.tanh(c)
            hs.append(below)
            cs.append(c)

        entry = below.permute(1, 0, 2).reshape(-1, k * HIDDEN)
        query = (below @ self.query).permute(1, 0, 2).reshape(-1, 1, k * HIDDEN) * self.own
        scores = query @ memory.transpose(1, 2) + ((mask - 1.0) * 1e4).unsqueeze(1)
        newest = (query * entry.unsqueeze(1)).sum(2, keepdim=True)
        weights = torch.softmax(torch.cat([scores, newest], 2), 2)
        remembered = weights[:, :, :-1] @ memory + weights[:, :, -1:] * entry.unsqueeze(1)
        context = (remembered * self.own).sum(1).reshape(-1, k, HIDDEN).permute(1, 0, 2)
        context = torch.relu(context @ self.value + self.value_bias)

        known = [torch.stack([scale(s)] * k) for scale, s in zip(self.sector_scales, (sector1, sector2))]
        z = torch.relu(torch.cat([below, context, x, *known], 2) @ self.enter + self.enter_bias)
        z = z.reshape(k, -1, 3, self.width).permute(0, 2, 1, 3)
        z = torch.relu(z @ self.inner + self.inner_bias)
        y = z @ self.leave + self.leave_bias
        quantiles = (y[..., 1:2] + nn.functional.softplus(y) * self.wings).mean(0)
        return quantiles.permute(1, 0, 2), together(hs), together(cs), entry


class Memory:
    """What cars remember, as whoever feeds a Step keeps it: their states, and entries in a ring."""

    def __init__(self, batch, networks):
        self.hidden, self.cell = (torch.zeros(batch, LAYERS, HIDDEN * networks) for _ in range(2))
        self.memory, self.mask = torch.zeros(batch, EARLIER, HIDDEN * networks), torch.zeros(batch, EARLIER)
        self.laps = 0

    def fed(self):
        return self.hidden, self.cell, self.memory, self.mask

    def keep(self, hidden, cell, entry):
        self.hidden, self.cell = hidden, cell
        self.memory, self.mask = self.memory.clone(), self.mask.clone()
        self.memory[:, self.laps % EARLIER], self.mask[:, self.laps % EARLIER] = entry, 1.0
        self.laps += 1
