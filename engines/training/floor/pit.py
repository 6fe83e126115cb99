"""When a car stops next: a discrete-time hazard as odds factors, and the compound it takes.

Mirrors src/predict/pit.rs: odds = base x one factor of each group; probability = odds / (1 + odds).
"""

import numpy as np

from order import COMPOUNDS
from pace import med
from weekends import DRY, RED, SAFETY_CAR, VSC, WET

# Upper edges of the buckets; the last bucket is open.
AGE = (0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.8)
LEFT = (2, 4, 7, 11, 16, 22, 30, 45)
SLOWER = (0.002, 0.006, 0.015)
CROSS = (0.001, 0.1, 0.25, 0.5)
STOPS = 4
GROUPS = ("age", "compound", "left", "left_rule", "status", "rival", "slower", "cross", "stops")


def bin_of(edges, x):
    return sum(x > e for e in edges)


def sizes():
    return {"age": len(AGE) + 1, "compound": 5, "left": len(LEFT) + 1, "left_rule": len(LEFT) + 1, "status": 6,
            "rival": 3, "slower": len(SLOWER) + 1, "cross": len(CROSS) + 1, "stops": STOPS}


def status_bin(now, before, share):
    """0 clear; 1 VSC; 2 safety car just out, 3 out before; each with tyres past 0.4 of their life: 4, 5."""
    old = share > 0.4
    if now == VSC:
        return 4 if old else 1
    if now == SAFETY_CAR:
        return 3 if before else 5 if old else 2
    return 0


def rows_of(race, of_race):
    season, rnd, _, cars, order = race
    place = of_race(season, rnd)
    if place is None:
        return
    total, life = place["laps"], place["life"]
    at = {}
    for end, c, i in order:
        ls = cars[c]
        l = ls[i]
        at[c] = (end, l, i)
        if i + 1 >= len(ls) or ls[i + 1].n != l.n + 1 or l.is_in or l.now == RED or l.compound not in COMPOUNDS:
            continue
        y = ls[i + 1]
        left = total - l.n
        if left < 2 or RED in y.status or l.age != l.age:
            continue
        stint = [x for x in ls[:i + 1] if x.stint == l.stint]
        clean = [x.t for x in stint if x.clean]
        slower = (l.t - med(sorted(clean)[:3])) / l.t if l.clean and len(clean) >= 4 else 0.0
        used = list(dict.fromkeys(x.compound for x in ls[:i + 1]))
        rule = all(u in DRY for u in used) and len(used) < 2
        rival = 0
        for o, (e, x, j) in at.items():
            if o != c and x.is_in and 0 <= end - e < 4.0:
                rival = 1
        wet = l.compound in WET
        field = [x.compound in WET for o, (e, x, _) in at.items() if end - e < 200]
        cross = sum(f != wet for f in field) / len(field)
        share = (l.age + 1) / max(life[COMPOUNDS.index(l.compound)] * total, 4.0)
        before = i > 0 and ls[i - 1].now == SAFETY_CAR
        stops = sum(x.is_in for x in ls[:i + 1])
        yield (season, (bin_of(AGE, share), COMPOUNDS.index(l.compound), bin_of(LEFT, left),
                        bin_of(LEFT, left) if rule else -1, status_bin(l.now, before, share), rival,
                        bin_of(SLOWER, slower), bin_of(CROSS, cross), min(stops, STOPS - 1)), bool(y.is_in), c, (season, rnd), l.n, share)


def design(rows):
    n = sizes()
    offset, at = {}, 1
    for g in GROUPS:
        offset[g] = at
        at += n[g]
    x = np.zeros((len(rows), at))
    x[:, 0] = 1.0
    for r, row in enumerate(rows):
        for g, b in zip(GROUPS, row[1]):
            if b >= 0:
                x[r, offset[g] + b] = 1.0
    return x, offset


def next_compounds(all_races, of_race):
    """Counts of the compound taken: by [rule open][share of the race left < .35, < .6, more][from] -> to."""
    counts = np.full((2, 3, 5, 5), 0.4)
    # Prior: dry to dry, wet to anything.
    hits = [0, 0]
    for season, rnd, _, cars, _ in sorted(all_races, key=lambda r: r[0]):
        place = of_race(season, rnd)
        if place is None:
            continue
        for ls in cars.values():
            for i, l in enumerate(ls[:-1]):
                y = ls[i + 1]
                if not l.is_in or l.compound not in COMPOUNDS or y.compound not in COMPOUNDS or RED in y.status + l.status:
                    continue
                used = list(dict.fromkeys(x.compound for x in ls[:i + 1]))
                rule = int(all(u in DRY for u in used) and len(used) < 2)
                left = (place["laps"] - l.n) / place["laps"]
                key = (rule, 0 if left < 0.35 else 1 if left < 0.6 else 2, COMPOUNDS.index(l.compound))
                to = COMPOUNDS.index(y.compound)
                if season <= 2023:
                    counts[key][to] += 1
                else:
                    hits[0] += int(counts[key].argmax() == to)
                    hits[1] += 1
    print("next compound 2024: right", round(hits[0] / hits[1], 3), "of", hits[1])
    return counts / counts.sum(axis=-1, keepdims=True)


def best_yes(rows, p):
    """From which probability on "stops within two laps" is called a yes: the best F1 on 2022-2023,
    the second lap taken to be as likely as the first."""
    stops = {(r[4], r[3], r[5]): r[2] for r in rows}
    chosen = [(1 - (1 - q) ** 2, r[2] or stops.get((r[4], r[3], r[5] + 1), False))
              for r, q in zip(rows, p) if r[0] in (2022, 2023)]
    chance, truth = (np.array(v) for v in zip(*chosen))
    f1 = {}
    for yes in np.arange(0.04, 0.6, 0.01):
        said = chance >= yes
        f1[round(float(yes), 2)] = 2 * (said & truth).sum() / max(said.sum() + truth.sum(), 1)
    yes = max(f1, key=f1.get)
    print("yes from", yes, "F1 on 2022-2023", round(float(f1[yes]), 3))
    return yes


def fit_pit(all_races, of_race):
    rows = [r for race in all_races for r in rows_of(race, of_race)]
    x, offset = design(rows)
    y = np.array([r[2] for r in rows], float)
    train = np.array([r[0] <= 2023 for r in rows])
    b = np.zeros(x.shape[1])
    b[0] = -3.5
    ridge = 1.0 * np.eye(len(b))
    ridge[0, 0] = 1e-6
    xt, yt = x[train], y[train]
    for _ in range(12):
        p = 1.0 / (1.0 + np.exp(-np.clip(xt @ b, -20, 20)))
        b = b + np.linalg.solve((xt * (p * (1 - p))[:, None]).T @ xt + ridge, xt.T @ (yt - p) - ridge @ b)
    p = 1.0 / (1.0 + np.exp(-(x @ b)))
    for name, s in (("<=2023", train), ("2024", ~train)):
        q = np.clip(p[s], 1e-6, 1 - 1e-6)
        ll = -(y[s] * np.log(q) + (1 - y[s]) * np.log(1 - q)).mean()
        base = y[s].mean()
        print("stop next lap", name, s.sum(), "log-loss", round(float(ll), 4), "constant",
              round(float(-(base * np.log(base) + (1 - base) * np.log(1 - base))), 4), "mean p", round(float(q.mean()), 4), "rate", round(float(base), 4))
    n = sizes()
    out = {"yes": best_yes(rows, p), "base": float(np.exp(b[0]))}
    for g in GROUPS:
        out[g] = [float(v) for v in np.exp(b[offset[g]:offset[g] + n[g]])]
    out["age_edges"], out["left_edges"] = list(AGE), [float(v) for v in LEFT]
    out["slower_edges"], out["cross_edges"] = list(SLOWER), list(CROSS)
    out["next"] = next_compounds(all_races, of_race).tolist()
    return out
