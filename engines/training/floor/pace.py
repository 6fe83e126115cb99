"""The next lap of a car: a linear median regression on what recent laps say, and residual tables.

Mirrors src/predict/laptime.rs; the order of the columns is the order of its `features`.
"""

import numpy as np

from weekends import CLEAR, qualifying_times, RED, SAFETY_CAR, VSC, WET, YELLOW, recent_clean, reference

# Kinds of lap that are predicted as a ratio to the car's reference lap rather than by regression.
KINDS = ("out", "out_slow", "fresh", "safety_car_first", "safety_car", "virtual", "restart", "crossover")
SCATTER = (0.0012, 0.003)


def med(x):
    x = sorted(x)
    n = len(x)
    return x[n // 2] if n % 2 else 0.5 * (x[n // 2 - 1] + x[n // 2])


def clip(x, b):
    return max(-b, min(b, x))


def features(p, lag, drift, step, ahead_gap, ahead, age, compound, n):
    m5, m3, p1 = med(p), med(p[:3]), p[0]
    d1, d2, d3 = m5 - p1, (p[1] - p1 if len(p) > 1 else 0.0), m3 - p1
    wet = 1.0 if compound in WET else 0.0
    close, near = float(ahead_gap < 1.5), float(1.5 <= ahead_gap < 3.0)
    da = ahead - p1 if ahead is not None else 0.0
    k = len(p)
    full = float(k >= 5)
    return (1.0, d1, d2, d3, clip(d1, .12), clip(d2, .12), clip(d1, .4), clip(d2, .4), clip(d1, 1), clip(d2, 1),
            clip(drift, 1), clip(drift, 5), clip(step, .3), clip(step, 3), wet * clip(drift, 3), wet * clip(step, 3),
            wet * clip(d1, 2), wet * clip(d2, 2), float(min(lag, 5)), close, close * clip(da, 1),
            close * clip(max(da, 0.0), 1), near, near * clip(da, 1), float(k == 1), float(k == 2), float(k == 3),
            min(age, 40.0) / 10, float(compound == "SOFT"), float(compound == "HARD"), wet,
            float(n == 2), float(n == 3), full * d1, full * d2)


def carried(e0, known, last, middle):
    """Columns of the model after sector 1 (or 1 and 2): known and reference sums of those sectors."""
    a, b = known - last, known - middle
    return (1.0, e0, a, b, clip(a, .3), clip(b, .3), clip(a, 1.5), clip(b, 1.5))


def lad(a, y, rounds=40):
    w = np.ones(len(y))
    for _ in range(rounds):
        aw = a * w[:, None]
        b = np.linalg.solve(aw.T @ a + 1e-3 * np.eye(a.shape[1]) * np.sqrt(len(y)), aw.T @ y)
        w = 1.0 / np.maximum(np.abs(y - a @ b), 0.01)
    return b


def bucket(p, wet):
    k, scatter = len(p), med([abs(x - med(p)) for x in p]) / p[0]
    b = 0 if k == 1 else 1 if k == 2 else 2 + (scatter >= SCATTER[0]) + (scatter >= SCATTER[1])
    return b + 5 * int(wet)


def kind_of(l, first, wet_before, has_clean):
    """What kind of lap follows lap l, as far as one knows when l ends; None: by regression."""
    now = l.now
    if now == RED:
        return "red"
    wet = l.compound in WET
    if now == SAFETY_CAR:
        return "safety_car_first" if first else "safety_car"
    if now == VSC:
        return "virtual"
    if wet_before is not None and wet != wet_before:
        return "crossover"
    if any(s in l.status for s in (SAFETY_CAR, RED, VSC)):
        return "restart"
    return None if has_clean else "fresh"


def rows_of(race):
    season, rnd, _, cars, order = race
    latest, moves, steps = {}, {}, {}
    for end, c, i in order:
        ls = cars[c]
        l = ls[i]
        recent = recent_clean(ls, i)
        p = [x.t for x in recent]
        if l.clean and recent and recent[0] is l:
            if len(p) >= 3:
                moves[c] = (end, l.t - med(p[1:]))
            if len(p) >= 2 and recent[1].n == l.n - 1:
                steps[c] = (end, l.t - p[1])
        latest[c] = (end, p[:3])
        if i + 1 >= len(ls) or ls[i + 1].n != l.n + 1 or ls[i + 1].t != ls[i + 1].t:
            continue
        y = ls[i + 1]
        ref = reference(ls, i)
        wet_before = next((ls[j].compound in WET for j in range(i, -1, -1) if ls[j].clean), None)
        if l.is_in or y.is_out:
            kind = "out" if l.now in (CLEAR, YELLOW) else "out_slow"
        else:
            kind = kind_of(l, i == 0 or ls[i - 1].now == CLEAR, wet_before, bool(p))
        shares = next((ls[j].s for j in range(i, -1, -1) if ls[j].clean and all(v == v for v in ls[j].s)), None)
        if kind is not None:
            if ref and kind in KINDS and not y.is_in:
                yield ("kind", season, rnd, kind, y, ref, shares)
            continue
        if not (y.clean and y.accurate and y.stint == l.stint):
            continue
        others = lambda d: [v for o, (e, v) in d.items() if o != c and end - e < p[0]]
        drift, step = others(moves), others(steps)
        gap, ahead = min(((end - e, o) for o, (e, _) in latest.items() if o != c and end >= e), default=(99.0, None))
        pa = latest[ahead][1] if ahead is not None else []
        x = features(p, l.n - recent[0].n, med(drift) if len(drift) >= 3 else 0.0, med(step) if len(step) >= 3 else 0.0,
                     gap, med(pa) if pa else None, l.age if l.age == l.age else 10.0, l.compound, l.n)
        s1 = [r.s[0] for r in recent if r.s[0] == r.s[0]]
        s2 = [r.s[0] + r.s[1] for r in recent if r.s[0] + r.s[1] == r.s[0] + r.s[1]]
        yield ("flying", season, rnd, x, y, p, bucket(p, l.compound in WET), s1, s2)


def quantiles(e):
    return [float(q) for q in np.quantile(e, (0.1, 0.5, 0.9))]


def fit_pace(folder, all_races, of_race):
    rows = [r for race in all_races for r in rows_of(race)]
    flying = [r for r in rows if r[0] == "flying"]
    train = np.array([r[1] <= 2023 for r in flying])
    x = np.array([r[3] for r in flying])
    y = np.array([r[4].t for r in flying])
    p1 = np.array([r[5][0] for r in flying])
    buckets = np.array([r[6] for r in flying])
    beta = lad(x[train], (y - p1)[train])
    e0 = x @ beta

    def report(what, select, guess, plain):
        for name, part in (("<=2023", train), ("2024", ~train)):
            s = select & part
            print(f"{what} {name}: n {s.sum()} mae {np.abs(y - guess)[s].mean():.4f} plain {np.abs(y - plain)[s].mean():.4f}")

    everything = np.ones(len(y), bool)
    report("lap", everything, p1 + e0, p1)
    out = {"flying": beta, "residual": residual_table(y, p1 + e0, p1, buckets, train & everything)}
    for sectors, column in ((1, 7), (2, 8)):
        known = np.array([r[4].s[0] if sectors == 1 else r[4].s[0] + r[4].s[1] for r in flying])
        have = np.array([len(r[column]) > 0 and r[5][0] == r[5][0] for r in flying]) & (known == known)
        last = np.array([r[column][0] if r[column] else 0.0 for r in flying])
        middle = np.array([med(r[column]) if r[column] else 0.0 for r in flying])
        c = np.array([carried(*v) if h else (0.0,) * 8 for v, h in zip(zip(e0, known, last, middle), have)])
        b = lad(c[have & train], (y - p1)[have & train])
        guess = p1 + c @ b
        report(f"after sector {sectors}", have, guess, p1 + known - last)
        out[f"after_{sectors}"] = b
        out[f"residual_{sectors}"] = residual_table(y, guess, p1, buckets, train & have)
    for kind in KINDS:
        chosen = [r for r in rows if r[0] == "kind" and r[3] == kind]
        for sectors in (0, 1, 2):
            ratios = {True: [], False: []}
            for _, season, rnd, _, lap, ref, shares in chosen:
                known = sum(lap.s[:sectors])
                if sectors and (shares is None or known != known):
                    continue
                rest = ref * (1.0 - (sum(shares[:sectors]) / sum(shares) if sectors else 0.0))
                place = of_race(season, rnd)
                loss = place["out_loss_s"] if place and kind.startswith("out") and sectors == 0 else 0.0
                ratios[season <= 2023].append((lap.t - known - loss) / rest)
            q = quantiles(ratios[True])
            test = np.array(ratios[False])
            print(kind, sectors, len(ratios[True]), np.round(q, 3), "2024 coverage",
                  round(float(((test >= q[0]) & (test <= q[2])).mean()), 3))
            out.setdefault(kind, []).append(q)
    opening(folder, all_races, out)
    return out


def residual_table(y, guess, p1, buckets, train):
    """P10, P50 and P90 of the residual over the last lap, by history, scatter and dry or wet."""
    e = (y - guess) / p1
    rows = []
    for b in range(10):
        s = train & (buckets == b)
        if s.sum() < 60:
            s = train & (buckets % 5 == b % 5) & (buckets >= 5 * (b >= 5))
        rows.append(quantiles(e[s] if s.sum() >= 60 else e[train]))
    return rows


def opening(folder, all_races, out):
    """Laps 1 and 2 over the field's median qualifying time."""
    best = qualifying_times(folder)
    first, second = [], []
    for season, rnd, _, cars, _ in all_races:
        times = best.get((season, rnd), {})
        if season > 2023 or len(times) < 10:
            continue
        pole = med(list(times.values()))
        for c, ls in cars.items():
            if ls[0].n == 1 and ls[0].t == ls[0].t and ls[0].compound not in WET and ls[0].now in ("1", "2"):
                first.append(ls[0].t / pole)
            if c in times and len(ls) > 1 and ls[1].clean:
                second.append(ls[1].t / pole)
    out["lap_1"], out["lap_2"] = quantiles(first), quantiles(second)
    print("opening laps over median qualifying", np.round(out["lap_1"], 3), np.round(out["lap_2"], 3))
