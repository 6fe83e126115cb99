"""Trains the lap time network once, from one seed; `train` beside it does everything.

    python train.py FEATURES [--last 2023] [--judge 2024] [--seed N] [--keep WEIGHTS.pt]

FEATURES is a folder that `trackside evaluate laptime --features` wrote. Trains on seasons up to --last, prints
figures on --judge after each look, and with --keep saves the weights, of which `export.py` makes ONNX, fixture and
manifest entry.
"""

import argparse
import copy
import time

import numpy as np
import torch

from data import Rows
from network import QUANTILES, Network

SEED = 20231126
BATCH = 32
# Share of sequences whose sectors, weather are hidden while training: seasons differ in what they know.
HIDE_SECTORS, HIDE_WEATHER = 0.15, 0.4
SECTOR_COLUMNS = ("s1", "s2", "s3", "s_known", "s1_step", "s2_step", "s3_step", "field_s1", "field_s1_count",
                  "field_s2", "field_s2_count", "trend", "trend_late", "trend_count", "ahead_trend")
WEATHER_COLUMNS = ("track_c", "air_c", "humidity", "wind", "weather_known")
# Weights of P10, P50, P90 and of the three heads in the loss.
QUANTILE_WEIGHTS, HEAD_WEIGHTS = (0.5, 1.0, 0.5), (1.0, 1.4, 2.5)
# Later seasons are more like the next one.
RECENT = 1.12


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def scale(x):
    return x.mean(0), np.maximum(x.std(0), 0.05)


class Batches:
    """Sequences padded to the longest of their batch; of like length together."""

    def __init__(self, rows, sequences, last):
        self.rows, self.sequences, self.last = rows, sorted(sequences, key=lambda s: s[1] - s[0]), last

    def all(self, rng=None, size=BATCH):
        groups = [self.sequences[i:i + size] for i in range(0, len(self.sequences), size)]
        if rng is not None:
            # A new mix of like lengths each time.
            jitter = [(b - a + rng.normal() * 4, (a, b)) for a, b in self.sequences]
            mixed = [s for _, s in sorted(jitter)]
            groups = [mixed[i:i + size] for i in range(0, len(mixed), size)]
            rng.shuffle(groups)
        for group in groups:
            yield self.batch(group)

    def batch(self, group):
        r = self.rows
        steps = max(b - a for a, b in group)
        def pad(x):
            out = np.zeros((len(group), steps) + x.shape[1:], np.float32)
            for i, (a, b) in enumerate(group):
                out[i, :b - a] = x[a:b]
            return torch.from_numpy(out)
        target = np.nan_to_num(r.meta["truth_s"][None] - r.bases).T.astype(np.float32)
        age = self.last - r.meta["season"]
        weight = (r.learnt.T * (RECENT ** -age)[:, None]).astype(np.float32)
        return pad(r.line), [pad(r.sector1), pad(r.sector2)], pad(target), pad(weight), pad(r.judged.T.astype(np.float32))


def pinball(quantiles, target):
    """[3, B, T, 3] against [B, T, 3 heads]: [3, B, T]."""
    error = target.permute(2, 0, 1).unsqueeze(-1) - quantiles
    q = torch.tensor(QUANTILES, device=error.device)
    w = torch.tensor(QUANTILE_WEIGHTS, device=error.device)
    return (torch.maximum(q * error, (q - 1) * error) * w).sum(-1)


def predict(network, batches):
    """[rows judged or not: 3 heads, 3 quantiles] over all sequences, as one array by row."""
    r = batches.rows
    out = np.full((len(r.line), 3, 3), np.nan, np.float32)
    network.eval()
    on = next(network.parameters()).device
    with torch.no_grad():
        for i in range(0, len(batches.sequences), 64):
            group = batches.sequences[i:i + 64]
            line, sectors, *_ = batches.batch(group)
            y = network(line.to(on), [s.to(on) for s in sectors]).permute(1, 2, 0, 3).cpu().numpy()
            for k, (a, b) in enumerate(group):
                out[a:b] = y[k, :b - a]
    return out


def figures(rows, predictions, season):
    """MAE, RMSE, baseline MAE, coverage by head."""
    told = []
    for head in range(3):
        ok = rows.judged[head] & (rows.meta["season"] == season)
        truth = rows.meta["truth_s"][ok] - rows.bases[head][ok]
        low, mid, high = predictions[ok, head].T
        plain = rows.plain[head][ok] - rows.bases[head][ok]
        told.append((np.abs(mid - truth).mean(), ((mid - truth) ** 2).mean() ** 0.5,
                     np.abs(plain - truth).mean(), ((truth >= low) & (truth <= high)).mean(), int(ok.sum())))
    return told


def say(told):
    return "  ".join(f"{m:.4f} ({100 * (1 - m / p):.1f} % rmse {r:.2f} cov {c:.3f})" for m, r, p, c, _ in told)


def train(rows, last, judge, epochs, seed=SEED, rate=1.5e-3, looks=1, dropout=0.15, decay=0.02):
    torch.manual_seed(seed)
    # One thread: the steps are small, and two wait for each other longer than they work.
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    sequences = rows.seasons(0, last)
    inside = np.concatenate([np.arange(a, b) for a, b in sequences])
    known = [inside[np.isfinite(rows.bases[h][inside])] for h in (1, 2)]
    network = Network(scale(rows.line[inside]), [scale(rows.sector1[known[0]]), scale(rows.sector2[known[1]])], dropout)
    on = device()
    network.to(on)
    average = copy.deepcopy(network)
    batches = Batches(rows, sequences, last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    steps = epochs * ((len(sequences) + BATCH - 1) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.15)
    hide = [(HIDE_SECTORS, rows.column("line", *SECTOR_COLUMNS)), (HIDE_WEATHER, rows.column("line", *WEATHER_COLUMNS))]
    heads = torch.tensor(HEAD_WEIGHTS, device=on)
    began, step = time.time(), 0
    for epoch in range(epochs):
        network.train()
        total = []
        for line, sectors, target, weight, _ in batches.all(rng):
            for share, columns in hide:
                # Exactly as a season looks that does not have them.
                seen = np.ones((len(line), 1, line.shape[2]), np.float32)
                seen[np.ix_(rng.random(len(line)) < share, [0], columns)] = 0.0
                line *= torch.from_numpy(seen)
            loss = pinball(network(line.to(on), [s.to(on) for s in sectors]), target.to(on))
            w = weight.to(on).permute(2, 0, 1) * heads[:, None, None]
            loss = (loss * w).sum() / w.sum()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            keep = min(0.995, 1 - 10 / (10 + step))
            with torch.no_grad():
                for a, b in zip(average.parameters(), network.parameters()):
                    a.lerp_(b, 1 - keep)
            total.append(loss.item())
        if looks and ((epoch + 1) % looks == 0 or epoch + 1 == epochs):
            judged = Batches(rows, rows.seasons(judge, judge), last)
            told = figures(rows, predict(average, judged), judge)
            print(f"epoch {epoch + 1} loss {np.mean(total):.4f}  {judge}: {say(told)}  {time.time() - began:.0f} s", flush=True)
    return average.cpu()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("features")
    p.add_argument("--last", type=int, default=2023)
    p.add_argument("--judge", type=int, default=2024)
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--rate", type=float, default=1.75e-3)
    p.add_argument("--dropout", type=float, default=0.2)
    p.add_argument("--seed", type=int, default=SEED)
    p.add_argument("--looks", type=int, default=2)
    p.add_argument("--keep", help="save the weights here")
    a = p.parse_args()
    rows = Rows(a.features)
    network = train(rows, a.last, a.judge, a.epochs, a.seed, a.rate, a.looks, a.dropout)
    if a.keep:
        torch.save(network, a.keep)
