"""The network: a 3-layer LSTM over a car's race, attention over its last 50 laps, three heads.

Heads: the next lap at the line, the same after sector 1, after sector 2. Each gives P10, P50 and P90 of the
difference (s) to the base that the features come with.
"""

import torch
from torch import nn

HIDDEN, LAYERS, HISTORY = 128, 3, 50
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
        steps = torch.arange(line.shape[1])
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
    """The same network one lap at a time: the state goes in and comes out, so that a lap costs one step.

    line [B, F], sector1 and sector2 [B, S] (zeros until they are in), hidden and cell [B, 3, 128], memory
    [B, 50, 128] and mask [B, 50] (the last layer's outputs of earlier laps, newest last; 1 where there is one).
    quantiles [B, 3, 3]: by head, P10, P50 and P90 (s) against the base.
    """

    INPUTS = ("line", "sector1", "sector2", "hidden", "cell", "memory", "mask")
    OUTPUTS = ("quantiles", "next_hidden", "next_cell", "next_memory", "next_mask")

    def __init__(self, network):
        super().__init__()
        self.n = network

    def forward(self, line, sector1, sector2, hidden, cell, memory, mask):
        n = self.n
        x = n.scale(line)
        below, hs, cs = x, [], []
        for layer in range(LAYERS):
            w_in, w_h = getattr(n.lstm, f"weight_ih_l{layer}"), getattr(n.lstm, f"weight_hh_l{layer}")
            bias = getattr(n.lstm, f"bias_ih_l{layer}") + getattr(n.lstm, f"bias_hh_l{layer}")
            gates = below @ w_in.t() + hidden[:, layer] @ w_h.t() + bias
            i, f, g, o = gates.split(HIDDEN, 1)
            c = torch.sigmoid(f) * cell[:, layer] + torch.sigmoid(i) * torch.tanh(g)
            below = torch.sigmoid(o) * torch.tanh(c)
            hs.append(below.unsqueeze(1))
            cs.append(c.unsqueeze(1))
        memory = torch.cat([memory[:, 1:], below.unsqueeze(1)], 1)
        mask = torch.cat([mask[:, 1:], torch.ones_like(mask[:, :1])], 1)
        scores = (memory @ n.query(below).unsqueeze(2)).squeeze(2) / HIDDEN ** 0.5
        weights = torch.softmax(scores + (mask - 1.0) * 1e4, 1)
        context = torch.relu(n.value((weights.unsqueeze(1) @ memory).squeeze(1)))
        z = torch.cat([below, context, x], 1)
        known = [scale(s) for scale, s in zip(n.sector_scales, (sector1, sector2))]
        quantiles = torch.cat([n.heads[0](z).unsqueeze(1), n.heads[1](torch.cat([z, known[0]], 1)).unsqueeze(1),
                               n.heads[2](torch.cat([z, known[1]], 1)).unsqueeze(1)], 1)
        return quantiles, torch.cat(hs, 1), torch.cat(cs, 1), memory, mask
