"""The finishing order: a pairwise regression on the state of the race, and retirements.

Mirrors src/predict/order.rs. For two cars that both finish, P(i ahead of j) = F(s_i - s_j), F the
cumulative Student t with 4 degrees of freedom (which needs a square root and nothing dearer), s linear
in the features with coefficients that are piecewise linear in the share of the distance driven.
"""

import numpy as np

from pace import clip, med
from weekends import DRY, RED, SAFETY_CAR, WET, qualifying_times, read, recent_clean

KNOTS = (0.0, 0.05, 0.3, 0.6, 0.9, 1.0)
AT = (0.0, 0.02, 0.06, 0.12, 0.18, 0.25, 0.32, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.88, 0.95, 0.98)
COMPOUNDS = DRY + WET


def t4(x):
    u = x / np.sqrt(1.0 + x * x / 4.0)
    return 0.5 + 0.375 * u * (1.0 - u * u / 12.0)


def t4_density(x):
    return 0.375 * (1.0 + x * x / 4.0) ** -2.5


def hat(f):
    """Weights of the knots at a share of the distance."""
    w = np.zeros(len(KNOTS))
    j = min(max(int(np.searchsorted(KNOTS, f, side="right")) - 1, 0), len(KNOTS) - 2)
    u = min(max((f - KNOTS[j]) / (KNOTS[j + 1] - KNOTS[j]), 0.0), 1.0)
    w[j], w[j + 1] = 1.0 - u, u
    return w


def owed(compound, age, used, life, total, remaining):
    """Stops still to make (laps to go beyond the tyres' life, in lives of a hard tyre)."""
    if remaining <= 1 or compound not in COMPOUNDS:
        return 0.0
    left = max(life[COMPOUNDS.index(compound)] * total - age, 0.0)
    stops = min(max((remaining - left) / max(life[2] * total, 5.0), 0.0), 2.5)
    dry = [c for c in used if c in DRY]
    if len(set(dry)) < 2 and len(dry) == len(used):
        stops = max(stops, 1.0)
    return stops


def features(gap, squeezed, position, pace, stops, pit_loss, quali, grid, remaining):
    """Larger is worse. gap (s), pace (% of a lap), quali (%)."""
    root = np.sqrt(remaining + 1.0)
    g = min(gap, 120.0) / root
    return (0.0 if squeezed else g, g if squeezed else 0.0, position / 10.0, clip(pace, 2.0) * root / 7.0,
            stops * pit_loss / (10.0 * root), min(max(quali, 0.0), 4.0), grid / 10.0, position / root)


def states(race, of_race, grid, quali, result):
    season, rnd, _, cars, order = race
    place = of_race(season, rnd)
    if place is None or not result:
        return
    total, life = place["laps"], place["life"]
    pit_loss = place["in_loss_s"] + place["out_loss_s"]
    times = [t for t in quali.values()]
    pole = min(times) if times else None
    q = {c: 100.0 * (quali[c] / pole - 1.0) if c in quali and pole else 2.0 for c in cars}
    leader_end, wanted = {}, {max(1, round(f * total)): f for f in AT if f > 0}
    at = {}
    yield 0.0, {c: features(0.0, False, grid.get(c, 20), 0.0, 0.0, pit_loss, q[c], grid.get(c, 20), total) for c in cars}, total
    for end, c, i in order:
        ls = cars[c]
        n = ls[i].n
        at[c] = (i, end)
        if n in leader_end:
            continue
        leader_end[n] = end
        if n not in wanted or n >= total:
            continue
        now = ls[i].now
        running = {}
        for o, (j, e) in at.items():
            last = j == len(cars[o]) - 1
            if end - e > 400 or (last and end - e > 150 and cars[o][j].n < n):
                continue
            running[o] = (cars[o][j].n, e, j)
        means = {o: med([l.t for l in recent_clean(cars[o], j)]) for o, (_, _, j) in running.items() if recent_clean(cars[o], j)}
        middle = med(list(means.values())) if means else None
        ranked = sorted(running, key=lambda o: (-running[o][0], running[o][1]))
        found = {}
        for position, o in enumerate(ranked, 1):
            k, e, j = running[o]
            l = cars[o][j]
            used = [x.compound for x in cars[o][:j + 1]]
            used = list(dict.fromkeys(used))
            pace = 100.0 * (means[o] / middle - 1.0) if o in means else 0.0
            found[o] = features(e - leader_end.get(k, e), now in (SAFETY_CAR, RED), position, pace,
                                owed(l.compound, l.age if l.age == l.age else 10.0, used, life, total, total - k),
                                pit_loss, q[o], grid.get(o, 20), total - n)
        yield n / total, found, total - n


def fit_order(folder, all_races, of_race):
    quali = qualifying_times(folder)
    grids, results = {}, {}
    g = read(folder, "f1db-grids")
    for r in g[g.year >= 2018].itertuples():
        p = int(r.position) if str(r.position).isdigit() else 20
        grids.setdefault((r.year, r.round), {})[int(r.driver_number)] = p
    res = read(folder, "f1db-results")
    for r in res[res.year >= 2018].itertuples():
        p = int(r.position) if str(r.position).isdigit() else None
        results.setdefault((r.year, r.round), {})[int(r.driver_number)] = None if isinstance(r.reason_retired, str) else p
    xs, ys, test = [], [], []
    started = retired = first = laps_driven = 0
    for race in all_races:
        key = race[:2]
        result = results.get(key, {})
        for f, found, _ in states(race, of_race, grids.get(key, {}), quali.get(key, {}), result):
            names = [c for c in found if result.get(c)]
            if len(names) < 2:
                continue
            x = np.array([found[c] for c in names])
            p = np.array([result[c] for c in names])
            i, j = np.triu_indices(len(names), 1)
            d = (x[j] - x[i])[:, :, None] * hat(f)[None, None, :]
            xs.append(d.reshape(len(i), -1))
            ys.append((p[i] < p[j]).astype(float))
            test.append(np.full(len(i), key[0] > 2023))
        if 2021 <= key[0] <= 2023:
            for c, ls in race[3].items():
                if c not in result:
                    continue
                started += 1
                laps_driven += len(ls)
                if result[c] is None:
                    retired += 1
                    first += len(ls) <= 1
    x, y, test = (np.concatenate(v) for v in (xs, ys, test))
    b = np.zeros(x.shape[1])
    xt, yt = x[~test], y[~test]
    ridge = 20.0 * np.eye(x.shape[1])
    for _ in range(25):
        z = xt @ b
        p = np.clip(t4(z), 1e-6, 1 - 1e-6)
        f = t4_density(z)
        w = f / (p * (1 - p))
        step = np.linalg.solve((xt * (w * f)[:, None]).T @ xt + ridge, xt.T @ (w * (yt - p)) - ridge @ b)
        b = b + np.clip(step, -1, 1)
    for name, s in (("<=2023", ~test), ("2024", test)):
        p = np.clip(t4(x[s] @ b), 1e-6, 1 - 1e-6)
        print("pairs", name, s.sum(), "log-loss", round(float(-(y[s] * np.log(p) + (1 - y[s]) * np.log(1 - p)).mean()), 4))
    h1 = first / started
    h = (retired - first) / laps_driven
    print("retirement: lap 1", round(h1, 4), "per lap", round(h, 5))
    weights = b.reshape(-1, len(KNOTS))
    print(np.round(weights, 2))
    return {"knots": list(KNOTS), "weights": [list(w) for w in weights], "retire_lap_1": h1, "retire_per_lap": h,
            "spread": 0.7071}
