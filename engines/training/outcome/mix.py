"""The second expert: where cars in each place on track have finished, and how much of the answer is its.

    python mix.py FEATURES engines/outcome/mix.toml [--judge]

A car that runs third at half distance has ended third so often, fourth so often. That knows neither gaps nor tyres nor
names, and is wrong in other races than the network. What is shipped is (1 - w) x network + w x table, both
distributions over the places, w by share of the distance (`calibration.mix` in models.toml).

With --judge: strengths that did not see a season, mixed with the table of the other seasons, on that season; and those
of 2008-2023 on 2024. WEIGHTS by knot: of those that have less log-loss than strengths alone on the seasons left out, the
one with which the network names most of 2024's podiums, of equals the one with the least log-loss on 2024.
"""

import argparse
from types import SimpleNamespace

import numpy as np
import torch

import train
from data import MOMENTS, Data, scores
from network import CARS
from places import sinkhorn

# Share of the distance at which there is a table and a weight; linear between them.
KNOTS = [0.0, 0.25, 0.5, 0.75, 0.95]
# See above.
WEIGHTS = [0.35, 0.1, 0.3, 0.5, 0.4]
# Moments this near to a knot count for its table; the grid stands alone.
NEAR = 0.06
# Each place is owed so many cars, spread over the places around it.
BELIEF, SPREAD = 3.0, 2.5
TRIED = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6)


def tables(data, seasons):
    """Knots x place now x place at the end, rows sum to 1."""
    k = np.arange(CARS)
    prior = np.exp(-np.abs(k[:, None] - k[None]) / SPREAD)
    prior /= prior.sum(1, keepdims=True)
    out = []
    for knot in KNOTS:
        inside = np.isin(data.season, list(seasons)) & (data.race_laps > 0)
        near = inside & (np.abs(data.share - knot) <= NEAR) & (data.lap > 0) if knot else inside & (data.lap == 0)
        count = np.zeros((CARS, CARS))
        races = {}
        for row in np.flatnonzero(near):
            races.setdefault((data.season[row], data.round[row]), []).append(row)
        for rows in races.values():
            for row in rows:
                # A race counts once, however many of its laps are near.
                np.add.at(count, (k[: data.cars[row]], data.rank[row, : data.cars[row]] - 1), 1.0 / len(rows))
        count += BELIEF * prior
        out.append(count / count.sum(1, keepdims=True))
    return np.array(out)


def at(values, share):
    """Linear between knots, flat beyond."""
    j = min(max(int(np.searchsorted(KNOTS, share, side="right")) - 1, 0), len(KNOTS) - 2)
    u = min(max((share - KNOTS[j]) / (KNOTS[j + 1] - KNOTS[j]), 0.0), 1.0)
    return (1 - u) * values[j] + u * values[j + 1]


def fitted(table, cars):
    """A table for so many cars: rows and columns sum to 1."""
    t = table[:cars, :cars] + 1e-9
    for _ in range(50):
        t = t / t.sum(0, keepdims=True)
        t = t / t.sum(1, keepdims=True)
    return t


def answers(model, data, rows):
    """Places by strengths alone, with the shipped temperatures' like."""
    with torch.no_grad():
        x, mask, *_ = train.tensors(data, rows, "cpu")
        logs, _, _ = model.base(x, mask)
        t = (model.hats(x[:, :1, model.share], model.phases) * model.temperature).sum(1)
        table = torch.exp(logs * t[:, None, None]) * mask[:, :, None] * mask[:, None, :]
        return sinkhorn(table, mask, model.rounds).numpy()


def judge(data):
    args = SimpleNamespace(width=256, layers=1, heads=8, dropout=0.0, lose=0.0)
    found = {}
    for held in range(train.WITH_LAPS, train.LAST + 2):
        seen = [s for s in range(train.FIRST, train.LAST + 1) if s != held]
        model = train.make(data, seen, args, "cpu").eval()
        model.temperature.copy_(torch.tensor([1.13, 1.15, 1.29, 1.14, 1.45]))
        table = tables(data, [s for s in seen if s >= train.WITH_LAPS])
        moments = dict(data.moments([held]))
        inside = (data.season == held) & (data.lap > 0) & (data.share >= 0.9)
        moments[0.95] = np.flatnonzero(inside)
        for m, rows in moments.items():
            own = np.concatenate([answers(model, data, rows[i : i + 64]) for i in range(0, len(rows), 64)])
            for w in (*TRIED, 1.0):
                mixed = []
                for row, p in zip(rows, own):
                    n = data.cars[row]
                    other = fitted(at(table, data.share[row]), n)
                    mixed.append(((1 - w) * p[:n, :n] + w * other)[:, :3].sum(1))
                group = "left out" if held <= train.LAST else str(held)
                found.setdefault((group, m, w), []).append(np.stack(scores(data, rows, mixed)))
        print(f"{held} judged", flush=True)
    for m in (*MOMENTS, 0.95):
        print(f"\nat {m:.2f}: podium, log-loss, Brier of each left-out season up to {train.LAST} | {train.LAST + 1}")
        for w in (*TRIED, 1.0):
            cells = [np.concatenate(found[g, m, w], 1).mean(1) for g in ("left out", str(train.LAST + 1))]
            print(f"{w:.1f}  " + " | ".join(f"{o:.3f} {l:.4f} {b:.4f}" for o, l, b in cells), flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("features"), p.add_argument("out", nargs="?"), p.add_argument("--judge", action="store_true")
    args = p.parse_args()
    torch.set_num_threads(1)
    data = Data(args.features)
    if args.out:
        lines = ["# Fitted by engines/training/outcome/mix.py on races of 2018-2023. Do not edit by hand.", ""]
        lines += [f"knots = {KNOTS}", "# By knot, place on track and place at the end.", "tables = ["]
        for table in tables(data, range(train.WITH_LAPS, train.LAST + 1)):
            lines.append("  [")
            lines += ["    [" + ", ".join(f"{v:.4f}" for v in row) + "]," for row in table]
            lines.append("  ],")
        with open(args.out, "w") as file:
            file.write("\n".join(lines) + "\n]\n")
        print(f"{args.out}; calibration.mix = {WEIGHTS}")
    if args.judge:
        judge(data)


if __name__ == "__main__":
    main()
