"""The forecast of the next stop: when a car will stop, and onto what, from the rows that trackside wrote.

    trackside evaluate pit --data DATA --seasons 2018-2024 --features FEATURES
    python forecast.py FEATURES --out forecast.pt

Two ensembles of five, each member blind to a fifth of the races: networks for the hazard of each of the next 30 laps
(as far as it was seen) and the compound taken, boosted trees for "within two laps", where they are the better (they
find the thresholds that strategists use). What is shipped is one graph with both (trees.py). What the members say of
the races that they did not see chooses the threshold; 2024 chose the trees' share and nothing else.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn

from learn import device
from trees import Trees

HORIZON, COMPOUNDS, MEMBERS = 30, 5, 5
MISSING = -1000.0
# Share of the trees in "within two laps".
TREES = 0.85


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


class Shipped(nn.Module):
    """As Forecast, with the first two hazards brought to what networks and trees together say of two laps."""

    def __init__(self, forecast, trees):
        super().__init__()
        self.forecast, self.trees = forecast, trees

    def forward(self, x):
        hazard, compound = self.forecast(x)
        stay = torch.log1p(-hazard[:, :2].clamp(1e-6, 1 - 1e-6))
        both = stay.sum(1)
        said = TREES * torch.sigmoid(self.trees(x)) + (1 - TREES) * (1 - torch.exp(both))
        scale = torch.log(1 - said.clamp(1e-6, 1 - 1e-6)) / both
        return torch.cat([1 - torch.exp(stay * scale.unsqueeze(1)), hazard[:, 2:]], 1), compound


def boost(x, y, rows, seed):
    import lightgbm
    settings = dict(objective="binary", learning_rate=0.06, num_leaves=15, min_data_in_leaf=100, lambda_l2=5.0,
                    feature_fraction=0.4, bagging_fraction=0.7, bagging_freq=1, max_bin=127, use_missing=False,
                    verbose=-1, num_threads=1, seed=seed)
    return lightgbm.train(settings, lightgbm.Dataset(x[rows], y[rows]), 180)


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
    on = device()
    member.to(on)
    x, target, seen, compound, weight = (tensor.to(on) for tensor in (x, target, seen, compound, weight))
    optimiser = torch.optim.AdamW(member.parameters(), 2e-3, weight_decay=1e-3)
    lap_weight = torch.tensor([1.0] * 5 + [0.3] * (HORIZON - 5), device=on)
    steps, batch = epochs * (len(x) // 1024), 1024
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    done = 0
    while done < steps:
        order = torch.from_numpy(rng.permutation(len(x))).to(on)
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
        member.cpu().eval()
        with torch.no_grad():
            blind[fold == number] = torch.sigmoid(member(ready[fold == number])[0]).numpy()
        print(f"member {number}: {time.time() - begun:.0f} s", flush=True)
    model.eval()
    y, graded = (stop > 0) & (stop <= 2), meta["graded"] > 0
    old, new = past & graded, ~past & graded
    boosters, by_trees = [], np.zeros(len(x))
    for number in range(MEMBERS):
        boosters.append(boost(x, y, old & (fold != number), args.seed))
        by_trees[fold == number] = boosters[-1].predict(x[fold == number])
        print(f"trees {number}: {time.time() - begun:.0f} s", flush=True)
    shipped = Shipped(model, Trees.of(boosters)).eval()
    with torch.no_grad():
        hazard, compound = (t.numpy() for t in model(torch.from_numpy(x)))
    score = np.mean([b.predict(x, raw_score=True) for b in boosters], 0)
    by_trees[~past] = 1 / (1 + np.exp(-score[~past]))
    by_network = np.where(past, within_2(blind), within_2(hazard))
    together = TREES * by_trees + (1 - TREES) * by_network
    report = {}
    for name, p in (("network", by_network), ("trees", by_trees), ("shipped", together)):
        yes, _ = best_threshold(p[old], y[old])
        report[name] = {"yes": yes, "blind_2018_2023": figures(p[old], y[old], yes), "2024": figures(p[new], y[new], yes)}
    report["yes"] = report["shipped"]["yes"]
    taken = ~past & (stop == 1) & (meta["next_compound"] >= 0)
    report["compound_2024"] = float((compound[taken].argmax(1) == meta["next_compound"][taken]).mean())
    some = np.flatnonzero(~past)[::997]
    with torch.no_grad():
        off = np.abs(within_2(shipped(torch.from_numpy(x[some]))[0].numpy()) - together[some]).max()
    assert off < 1e-4, f"the graph is off LightGBM's answers by {off}"
    shape = shipped.trees.side.shape
    torch.save({"state": shipped.state_dict(), "trees": list(shape), "report": report}, args.out)
    print(json.dumps(report, indent=1), flush=True)


if __name__ == "__main__":
    main()
