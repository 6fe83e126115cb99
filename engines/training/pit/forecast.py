"""The pit network's forecast: when a car will stop, and onto what, from the rows that trackside wrote.

    trackside evaluate pit --data DATA --seasons 2018-2024 --features FEATURES
    python forecast.py FEATURES --out forecast.pt

Five members, each blind to a fifth of the races: their answers on the races they did not see choose the threshold,
their mean is what is shipped. A row is a car at the line; its targets are the hazard of each of the next 30 laps (as
far as it was seen) and the compound taken. 2024 is only looked at. LightGBM on the same rows stands beside it.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn

HORIZON, COMPOUNDS, MEMBERS = 30, 5, 5
MISSING = -1000.0


class Member(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, 128), nn.SiLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.SiLU(),
                                  nn.Dropout(0.1))
        self.hazard, self.compound = nn.Linear(64, HORIZON), nn.Linear(64, COMPOUNDS)

    def forward(self, x):
        h = self.body(x)
        return self.hazard(h), self.compound(h)


class Forecast(nn.Module):
    """features (n, 72), missing as -1000 -> hazard of each lap (n, 30), compound (n, 5)."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))
        self.members = nn.ModuleList(Member(len(mean)) for _ in range(MEMBERS))

    def prepare(self, x):
        x = torch.where(x < MISSING / 2, self.mean.expand_as(x), x)
        return ((x - self.mean) / self.std).clamp(-4.0, 4.0)

    def forward(self, x):
        x = self.prepare(x)
        hazard, compound = 0.0, 0.0
        for member in self.members:
            h, c = member(x)
            hazard, compound = hazard + torch.sigmoid(h) / MEMBERS, compound + torch.softmax(c, -1) / MEMBERS
        return hazard, compound


def read(folder):
    schema = json.load(open(f"{folder}/schema.json"))
    assert (schema["model"], schema["features_version"]) == ("pit", 1), "features of another model or version"
    x, meta = np.load(f"{folder}/x.npy"), np.load(f"{folder}/meta.npy")
    columns = {a["name"]: a["columns"] for a in schema["arrays"]}
    return np.where(np.isnan(x), MISSING, x).astype(np.float32), dict(zip(columns["meta"], meta.T)), columns["x"]


def within_2(hazard):
    return 1 - (1 - hazard[:, 0]) * (1 - hazard[:, 1])


def best_threshold(p, y):
    order = np.argsort(-p)
    hit = np.cumsum(y[order])
    f1 = 2 * hit / (np.arange(1, len(p) + 1) + y.sum())
    at = int(f1.argmax())
    return float(p[order][at]), float(f1[at])


def figures(p, y, yes):
    said = p >= yes
    hit = (said & y).sum()
    return dict(f1=round(2 * hit / (said.sum() + y.sum()), 4), precision=round(hit / max(said.sum(), 1), 4),
                recall=round(hit / y.sum(), 4), brier=round(float(((p - y) ** 2).mean()), 5),
                best_f1=round(best_threshold(p, y)[1], 4))


def train(member, x, target, seen, compound, weight, epochs, seed):
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(member.parameters(), 2e-3, weight_decay=1e-3)
    lap_weight = torch.tensor([1.0] * 5 + [0.3] * (HORIZON - 5))
    steps, batch = epochs * (len(x) // 1024), 1024
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    done = 0
    while done < steps:
        order = torch.from_numpy(rng.permutation(len(x)))
        for at in range(0, len(x) - batch + 1, batch):
            i = order[at:at + batch]
            hazard, said = member(x[i])
            loss = nn.functional.binary_cross_entropy_with_logits(hazard, target[i], reduction="none")
            loss = (loss * seen[i] * lap_weight).sum() / len(i)
            other = nn.functional.cross_entropy(said, compound[i], reduction="none", ignore_index=-1)
            loss = loss + 0.6 * (other * weight[i]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            done += 1
            if done == steps:
                return


def main():
    args = argparse.ArgumentParser()
    args.add_argument("features")
    args.add_argument("--out", default="forecast.pt")
    args.add_argument("--epochs", type=int, default=14)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--baseline", action="store_true", help="also fit LightGBM on the same rows")
    args = args.parse_args()
    begun = time.time()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    x, meta, _ = read(args.features)
    stop, laps = meta["laps_to_stop"], meta["laps_seen"]
    k = np.arange(1, HORIZON + 1)[None, :]
    target = (stop[:, None] == k).astype(np.float32)
    seen = (k <= laps[:, None]).astype(np.float32)
    near = np.where((stop > 0) & (stop <= 3), 1.0, 0.2).astype(np.float32)
    past = meta["season"] <= 2023
    known = np.where(x < MISSING / 2, np.nan, x)[past]
    model = Forecast(np.nanmean(known, 0), np.maximum(np.nanstd(known, 0), 1e-3))
    race = (meta["season"] * 100 + meta["round"]).astype(int)
    races = np.unique(race[past])
    fold_of = dict(zip(races, np.random.default_rng(args.seed).permutation(len(races)) % MEMBERS))
    fold = np.array([fold_of.get(r, -1) for r in race])
    with torch.no_grad():
        ready = model.prepare(torch.from_numpy(x))
    arrays = [torch.from_numpy(a) for a in (target, seen, meta["next_compound"].astype(np.int64), near)]
    blind = np.zeros((len(x), HORIZON), np.float32)
    for number, member in enumerate(model.members):
        rows = torch.from_numpy(np.flatnonzero(past & (fold != number)))
        train(member, ready[rows], *(a[rows] for a in arrays), args.epochs, args.seed + number)
        member.eval()
        with torch.no_grad():
            blind[fold == number] = torch.sigmoid(member(ready[fold == number])[0]).numpy()
        print(f"member {number}: {time.time() - begun:.0f} s", flush=True)
    model.eval()
    y, graded = (stop > 0) & (stop <= 2), meta["graded"] > 0
    old, new = past & graded, ~past & graded
    yes, _ = best_threshold(within_2(blind[old]), y[old])
    with torch.no_grad():
        parts = [model(torch.from_numpy(part)) for part in np.array_split(x, 16)]
        hazard, compound = (torch.cat(t).numpy() for t in zip(*parts))
    report = {"yes": yes, "blind_2018_2023": figures(within_2(blind[old]), y[old], yes),
              "2024": figures(within_2(hazard[new]), y[new], yes)}
    taken = ~past & (stop == 1) & (meta["next_compound"] >= 0)
    report["compound_2024"] = float((compound[taken].argmax(1) == meta["next_compound"][taken]).mean())
    torch.save({"state": model.state_dict(), "report": report}, args.out)
    print(json.dumps(report), flush=True)
    if args.baseline:
        import lightgbm
        settings = dict(objective="binary", learning_rate=0.05, num_leaves=23, min_data_in_leaf=100, lambda_l2=5.0,
                        feature_fraction=0.5, bagging_fraction=0.8, bagging_freq=1, verbose=-1, num_threads=1, seed=1)
        rows = np.where(x < MISSING / 2, np.nan, x)
        held = old & (fold == 0)
        half = lightgbm.train(settings, lightgbm.Dataset(rows[old & ~held], y[old & ~held]), 200)
        yes, _ = best_threshold(half.predict(rows[held]), y[held])
        full = lightgbm.train(settings, lightgbm.Dataset(rows[old], y[old]), 220)
        p = full.predict(rows[new])
        print(json.dumps({"gbm": figures(p, y[new], yes), "yes": yes,
                          "mean_with_network": figures((p + within_2(hazard[new])) / 2, y[new], report["yes"])}))


if __name__ == "__main__":
    main()
