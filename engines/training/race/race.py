"""Fits the parameters of the race model: src/strategy/race.toml.

    python engines/training/race/race.py DATA src/strategy/race.toml

DATA has the layout of laps/, history/ and strategy/ (see README.md beside this file). Seasons 2018-2023 only;
nothing is drawn at random: the same tables give the same file. Everything that is fitted for a circuit is
shrunk towards the field of circuits by how little is known there.
"""

import os
import sys

import numpy as np
import pandas as pd

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "floor"))
from circuits import OPENF1, circuits  # noqa: E402
from fit import write  # noqa: E402
from weekends import DRY, WET, load, qualifying_times, races, read  # noqa: E402

from by_team import crews  # noqa: E402

LAST = 2023
COMPOUNDS = DRY + WET
# Standard deviations of the priors of the pace regression (share of a lap), by column.
# Fuel: TUM's 0.031 s/kg at 1.75 kg a lap. Compounds: the means are TUM's order of magnitude; the data alone cannot
# tell a compound from the cars and the phase of the race that it was chosen for.
PRIOR = {"fuel": (6.0e-4, 1.5e-4), "slope0": (8.0e-4, 1.5e-4), "slope1": (5.5e-4, 1.5e-4), "slope2": (4.0e-4, 1.5e-4),
         "curve": (2e-6, 4e-6), "offset0": (-2.5e-3, 1e-3), "offset2": (2.0e-3, 1e-3), "dirty": (2e-3, 2e-3),
         "held": (2e-3, 2e-3), "heat": (0.0, 1.5e-5)}
# Residuals of laps of one car are alike: this many laps count as one when a circuit is weighed against the rest.
LAPS_PER_FACT = 25.0
PAIR_GAP_S = 1.5
FREE_AIR_S = 2.0
# Chosen so that simulated races of 2022 and 2023 are as widely spread as what happened (README.md): laps apart, cars
# are held up, save tyres and answer each other, and regression takes all of that for luck.
CALIBRATION = {"form": 0.6, "wear_spread": 0.4, "from_qualifying": 2.0, "start": 0.8, "life_spread": 0.7}
# Wear and fresh loss of soft, medium and hard against each other. Not fitted: teams choose a compound for a car and
# a phase of the race, and seasons of laps show soft and hard wearing alike (see README.md). An order of magnitude
# from TUM's tyre parameters and the supplier's published steps.
CONTRAST = (1.3, 1.0, 0.8)
OFFSET = (-3.0e-3, 0.0, 2.5e-3)


def tum(folder):
    """Priors: loss of a stop under full-course yellow and safety car as a share of the loss under green."""
    t = pd.read_csv(os.path.join(folder, "strategy", "tum-tracks-2014-2019.csv.zst"))
    green = t.t_pitdrive_inlap + t.t_pitdrive_outlap
    still = t.t_pit_tirechange_min
    share = lambda a, b: float(((a + b + still) / (green + still)).median())
    return {
        "virtual": share(t.t_pitdrive_inlap_fcy, t.t_pitdrive_outlap_fcy),
        "safety_car": share(t.t_pitdrive_inlap_sc, t.t_pitdrive_outlap_sc),
        "slot_s": float(t.t_loss_pergridpos.median()),
    }


def clean_laps(all_races, calendar):
    """A row a clean dry lap: race, car, laps left, tyre, temperature, gap to the car ahead at its start."""
    rows = []
    for season, rnd, _, cars, order in all_races:
        if season > LAST or (season, rnd) not in calendar:
            continue
        place, planned = calendar[(season, rnd)]
        last_end = {}
        gap_at = {}
        for end, car, i in order:
            lap = cars[car][i]
            before = last_end.get(lap.n)
            gap_at[(car, lap.n)] = end - before if before is not None else 99.0
            last_end[lap.n] = max(end, before or 0.0)
        for car, laps in cars.items():
            for lap in laps:
                if lap.clean and lap.compound in DRY and lap.age == lap.age and lap.n > 2:
                    rows.append((season, rnd, place, car, lap.n, planned - lap.n, lap.t, DRY.index(lap.compound),
                                 lap.age - 1, min(gap_at.get((car, lap.n - 1), 99.0), 99.0), lap.stint,
                                 gap_at.get((car, lap.n), 99.0)))
    t = pd.DataFrame(rows, columns=["season", "round", "place", "car", "n", "left", "time", "compound", "age",
                                    "gap", "stint", "gap_after"])
    t["ref"] = t.groupby(["season", "round"]).time.transform("median")
    t["y"] = t.time / t.ref
    # A spin or a lap let past says nothing about pace.
    own = t.groupby(["season", "round", "car"]).y.transform("median")
    t = t[(t.y - own).abs() < 0.035].copy()
    return t


def design(t):
    """Columns of the pace regression, within car and race."""
    c = t.compound.to_numpy()
    close = np.clip(1.0 - t.gap.to_numpy() / 2.0, 0.0, 1.0)
    age = np.minimum(t.age.to_numpy(), 45.0)
    columns = {"fuel": t.left.to_numpy()}
    for k in range(3):
        columns[f"slope{k}"] = age * (c == k)
    columns["curve"] = age * age / 2.0
    columns["offset0"], columns["offset2"] = (c == 0) * 1.0, (c == 2) * 1.0
    # Who ends the lap right behind was held up, which is no matter of air.
    columns["held"] = ((t.gap.to_numpy() < 1.5) & (t.gap_after.to_numpy() < 1.0)) * 1.0
    columns["dirty"] = close
    columns["heat"] = age * (t.track.to_numpy() - 38.0)
    return columns


def within(t, columns):
    g = t.groupby(["season", "round", "car"], sort=False).ngroup().to_numpy()
    n = np.bincount(g)
    centre = lambda v: v - (np.bincount(g, v) / n)[g]
    return np.column_stack([centre(v) for v in columns.values()]), centre(t.y.to_numpy())


def solve(x, y, mean, deviation, sigma):
    """Ridge towards `mean`, with Huber weights."""
    w = np.ones(len(y))
    for _ in range(12):
        a = (x * w[:, None]).T @ x / sigma**2 + np.diag(1.0 / deviation**2)
        b = (x * w[:, None]).T @ y / sigma**2 + mean / deviation**2
        beta = np.linalg.solve(a, b)
        r = y - x @ beta
        sigma_r = 1.4826 * np.median(np.abs(r))
        w = np.minimum(1.0, 2.0 * sigma_r / np.maximum(np.abs(r), 1e-9))
    return beta, r


def fit_pace(t):
    columns = design(t)
    names = list(columns)
    x, y = within(t, columns)
    kind = [n.rstrip("012") for n in names]
    mean = np.array([PRIOR[k][0] for k in names])
    deviation = np.array([PRIOR[k][1] for k in names])
    beta, r = solve(x, y, mean, deviation, 3e-3 * np.sqrt(LAPS_PER_FACT))
    sigma = 1.4826 * np.median(np.abs(r))
    t = t.assign(residual=r)
    every = dict(zip(names, beta))
    print("pace (share of a lap x 1000):", {k: round(v * 1000, 4) for k, v in every.items()}, "residual", round(sigma * 1000, 3), "from lap to lap", round(lap_to_lap(t) * 1000, 3))
    places = {}
    # What a circuit may differ by: as much as circuits differ, about.
    spread = {"fuel": 1.5e-4, "slope": 3e-4, "curve": 1e-6, "offset": 1.5e-3, "dirty": 1e-4, "held": 1e-4,
              "heat": 1e-7}
    for place, part in t.groupby("place"):
        xp, yp = within(part, design(part))
        b, _ = solve(xp, yp, beta, np.array([spread[k] for k in kind]), sigma * np.sqrt(LAPS_PER_FACT))
        n = len(part) / LAPS_PER_FACT
        noise = (n * lap_to_lap(t[t.place == place]) + 20 * lap_to_lap(t)) / (n + 20)
        places[place] = dict(zip(names, b), noise=noise)
    return every, lap_to_lap(t), places, t


def lap_to_lap(t):
    """Spread of a lap around the ones beside it: what drifts is form and wear."""
    d = t.groupby(["season", "round", "car", "stint"]).residual.diff()[t.n.diff() == 1]
    return float(1.4826 * d.abs().median() / np.sqrt(2.0))


def fit_form(t, every, noise, folder):
    """Race pace of a car from its qualifying time: slope, margin over the field, and what is left."""
    best = qualifying_times(folder)
    x = {k: v for k, v in design(t).items()}
    t = t.assign(flat=t.y - sum(x[k] * every[k] for k in x))
    # Who is held up shows the pace of the car ahead: only laps in free air tell a car's own.
    t = t[t.gap > FREE_AIR_S]
    xs, ys, base = [], [], []
    for (season, rnd), part in t.groupby(["season", "round"]):
        times = best.get((season, rnd), {})
        if len(times) < 10:
            continue
        pole = min(times.values())
        middle = float(np.median(list(times.values())))
        pace = part.groupby("car").agg(flat=("flat", "median"), n=("flat", "size"))
        pace = pace[pace.n >= 8]
        level = pace.flat.median()
        base.append(level * part.ref.iloc[0] / middle)
        for car, row in pace.iterrows():
            if car in times and times[car] < 1.04 * pole:
                xs.append(times[car] / middle - 1.0)
                ys.append(row.flat / level - 1.0)
    xs, ys = np.array(xs), np.array(ys)
    slope = float((xs * ys).sum() / (xs * xs).sum())
    left = ys - slope * xs
    # Laps of a car drift together: how far stints of a car lie apart, and how wear differs between them.
    stints = []
    for (season, rnd, _, _), part in t.groupby(["season", "round", "car", "stint"]):
        if len(part) >= 15:
            age = part.age - part.age.mean()
            stints.append((season, rnd, np.polyfit(age, part.flat, 1)[0], noise**2 / (age * age).sum()))
    stints = pd.DataFrame(stints, columns=["season", "round", "slope", "error"])
    own = stints.slope - stints.groupby(["season", "round"]).slope.transform("median")
    wear = np.sqrt(max((1.4826 * own.abs().median()) ** 2 - stints.error.median(), 0.0))
    out = {"margin": float(np.median(base)), "from_qualifying": slope,
           "form": float(1.4826 * np.median(np.abs(left - np.median(left)))), "wear_spread": float(wear)}
    print("form", out, "n", len(xs))
    return out


def fit_passing(t):
    """Per circuit: the span of the advantage at the line that passes need, from pairs within PAIR_GAP_S."""
    fitted = t.y - t.residual
    t = t.assign(pace=fitted * t.ref)
    # Around the fitted pace a car drifts by form and wear, as it does in the simulated race.
    sigma = float(1.4826 * (t.residual * t.ref).abs().median() * np.sqrt(2.0))
    tables = {}
    by = {k: g.set_index(["car", "n"]) for k, g in t.groupby(["season", "round"])}
    gaps = []
    pairs = {}
    grid = np.linspace(-2.5, 2.5, 21)
    weight = np.exp(-grid**2 / 2)
    weight /= weight.sum()
    for key, g in by.items():
        ends = ENDS[key]
        place = g.place.iloc[0]
        pace = g.pace.to_dict()
        laps = sorted({n for _, n in g.index})
        for n in laps:
            if n - 1 not in ends or n not in ends:
                continue
            line = sorted((e, c) for c, e in ends[n - 1].items())
            for (ea, a), (eb, b) in zip(line, line[1:]):
                if eb - ea > PAIR_GAP_S or (a, n) not in pace or (b, n) not in pace:
                    continue
                gaps.append(eb - ea)
                x = (pace[(a, n)] - pace[(b, n)]) - (eb - ea)
                passed = ends[n].get(b, 1e9) < ends[n].get(a, 1e9)
                pairs.setdefault(place, []).append((x, passed))
    min_gap = float(np.quantile(gaps, 0.15))

    def expected(x, span):
        lead = x[:, None] + sigma * grid[None, :]
        return float((np.clip(lead / span, 0, 1) * weight).sum())

    def span_of(xs, passes):
        low, high = 0.05, 60.0
        for _ in range(40):
            mid = np.sqrt(low * high)
            low, high = (mid, high) if expected(xs, mid) > passes else (low, mid)
        return float(np.sqrt(low * high))

    all_x = np.array([x for v in pairs.values() for x, _ in v])
    all_p = sum(p for v in pairs.values() for _, p in v)
    whole = span_of(all_x, all_p)
    print("pairs", len(all_x), "passes", all_p, "min gap", min_gap, "span", whole, "sigma", sigma)
    for place, v in pairs.items():
        xs = np.array([x for x, _ in v])
        k = sum(p for _, p in v)
        # Eight passes' worth of the field's rate.
        e = expected(xs, whole)
        tables[place] = span_of(xs, e * (k + 8.0) / (e + 8.0))
    return min_gap, whole, tables


ENDS = {}


def fit_neutral(laps, all_races, calendar, folder):
    """Hazards and lengths of safety cars, virtual ones and red flags; lap times under them."""
    counts, exposure, start = {}, {}, np.zeros(3)
    lengths = {"4": [], "6": []}
    ratio = {"4": [], "catch": [], "6": []}
    reacts = {"4": [0, 0], "6": [0, 0]}
    n_races = 0
    for season, rnd, _, cars, order in all_races:
        if season > LAST or (season, rnd) not in calendar:
            continue
        place, planned = calendar[(season, rnd)]
        n_races += 1
        last = max(l.n for ls in cars.values() for l in ls)
        leader = {}
        for end, c, i in order:
            leader.setdefault(cars[c][i].n, (c, cars[c][i]))
        clean = [l.t for ls in cars.values() for l in ls if l.clean]
        if not clean:
            continue
        ref = float(np.median(clean))
        previous = ""
        run = 0
        for n in range(1, last + 1):
            if n not in leader:
                previous = ""
                continue
            status = leader[n][1].status
            exposure[place] = exposure.get(place, 0) + (n > 1)
            for k, code in enumerate("546"):
                fresh = code in status and code not in previous
                if fresh and code == "6" and ("4" in status or "5" in status):
                    fresh = False
                if fresh and code == "4" and "5" in status:
                    fresh = False
                if fresh:
                    if n == 1:
                        start[k] += 1
                    else:
                        counts.setdefault(place, np.zeros(3))[k] += 1
            for code in "46":
                if code in status and code in previous and "5" not in status + previous:
                    lap = leader[n][1]
                    pure = status in (code, "1" + code)
                    if pure and lap.t == lap.t and not lap.is_in and not lap.is_out:
                        ratio[code].append(lap.t / ref)
            previous = status
        for code in "46":
            run = 0
            for n in range(1, last + 2):
                s = leader[n][1].status if n in leader else ""
                if code in s and not (code == "6" and "4" in s):
                    run += 1
                elif run:
                    lengths[code].append(run)
                    run = 0
        for ls in cars.values():
            for a, b in zip(ls, ls[1:]):
                if b.status and "4" in b.status and b.t == b.t and not b.is_in and not b.is_out and not a.is_in:
                    ratio["catch"].append(b.t / ref)
                for code in "46":
                    if code in b.status and code not in a.status and "5" not in b.status and a.compound in DRY:
                        life = LIFE.get(place, LIFE[None])[DRY.index(a.compound)] * planned
                        if a.age == a.age and a.age >= 0.45 * life and planned - b.n > 8:
                            reacts[code][0] += b.is_in
                            reacts[code][1] += 1
    total = sum(counts.values())
    laps_run = sum(exposure.values())
    rate = total / laps_run
    hazard = {p: (counts.get(p, np.zeros(3)) + 300.0 * rate) / (exposure[p] + 300.0) for p in exposure}
    out = {
        "hazard": rate, "hazard_start": (start + 0.5) / (n_races + 1.0),
        "safety_car_laps": np.quantile(lengths["4"], [0.1, 0.9]), "virtual_laps": np.quantile(lengths["6"], [0.1, 0.9]),
        "safety_car_lap": float(np.median(ratio["4"])), "catch_up_lap": float(np.quantile(ratio["catch"], 0.3)),
        "virtual_lap": float(np.median(ratio["6"])),
        "react": [reacts["6"][0] / max(reacts["6"][1], 1), reacts["4"][0] / max(reacts["4"][1], 1)],
    }
    print("neutral", n_races, {k: np.round(v, 5).tolist() if not isinstance(v, float) else round(v, 4) for k, v in out.items()}, reacts)
    return out, hazard


LIFE = {}


def fit_retirements(folder):
    r = read(folder, "f1db-results")
    r = r[r.year.between(2018, LAST)]
    out = r.position.isin(["DNF", "NC"])
    laps = r.laps.fillna(0)
    first = int((out & (laps == 0)).sum())
    later = int((out & (laps > 0)).sum())
    ran = float(laps.sum())
    return {"start": first / len(r), "lap": later / ran}


def fit_rain(all_races, calendar):
    """How often a dry race turns wet and a wet one dry, from the tyres that the field is on."""
    flips = np.zeros((2, 2))
    cross = [0, 0]
    for season, rnd, _, cars, _ in all_races:
        if season > LAST:
            continue
        on = {}
        for ls in cars.values():
            for l in ls:
                if l.compound in COMPOUNDS:
                    on.setdefault(l.n, []).append(l.compound in WET)
        state = None
        for n in sorted(on):
            wet = int(np.mean(on[n]) > 0.5)
            if state is not None:
                flips[state, wet] += 1
            state = wet
    out = {"wetter": flips[0, 1] / flips[0].sum(), "drier": flips[1, 0] / flips[1].sum()}
    print("rain", out, flips.tolist())
    return out


def fit_start(all_races, calendar, folder):
    """Lap 1 from a standing start: extra over the car's pace, and its spread, in shares of a lap."""
    best = qualifying_times(folder)
    grid = read(folder, "f1db-results")
    where = {}
    for r in grid[grid.year.between(2018, LAST)].itertuples():
        if str(r.grid_position).replace(".0", "").isdigit():
            where[(r.year, r.round, int(r.driver_number))] = int(float(r.grid_position))
    extra, left, moved = [], [], []
    for season, rnd, _, cars, _ in all_races:
        if season > LAST:
            continue
        first, slots = [], []
        for c, ls in cars.items():
            slot = where.get((season, rnd, c))
            times = best.get((season, rnd), {})
            if slot and ls[0].n == 1 and ls[0].t == ls[0].t and ls[0].status in ("1", "2", "12") and ls[0].compound in DRY and c in times:
                second = ls[1].t if len(ls) > 1 and ls[1].clean else None
                if second:
                    first.append((ls[0].t - second) / second)
                    slots.append(slot)
        if len(first) >= 10:
            a = np.polyfit(slots, first, 1)
            fit = np.polyval(a, slots)
            extra.append((a[1], a[0]))
            left += list(np.array(first) - fit)
    e = np.median(np.array(extra), axis=0)
    spread = 1.4826 * float(np.median(np.abs(left)))
    print("start", e, spread, len(extra))
    return {"extra": float(max(e[0], 0.0)), "slot": float(max(e[1], 0.0)), "spread": spread}


def main(folder, path):
    laps = load(folder)
    all_races = list(races(laps, range(2018, LAST + 1)))
    places, default, of_race = circuits(folder, laps, all_races)
    by_name = {row["name"]: row for row in places}
    cal = read(folder, "f1db-races")
    cal = cal[cal.year.between(2018, LAST)]
    calendar = {}
    for r in cal.itertuples():
        if r.circuit_id == "bahrain" and r.course_length < 5:
            continue
        planned = r.scheduled_laps if r.scheduled_laps == r.scheduled_laps else r.laps
        calendar[(r.year, r.round)] = (OPENF1.get(r.circuit_id, r.circuit_id), int(planned))
    for season, rnd, _, cars, order in all_races:
        ends = {}
        for end, c, i in order:
            ends.setdefault(cars[c][i].n, {})[c] = end
        ENDS[(season, rnd)] = ends
    LIFE[None] = default["life"]
    LIFE.update({row["name"]: row["life"] for row in places})

    t = clean_laps(all_races, calendar)
    heat = laps.groupby(["season", "round"]).track_temp_c.median().to_dict()
    t["track"] = [heat.get(k, np.nan) for k in zip(t.season, t["round"])]
    t["track"] = t.track.fillna(38.0)
    every, noise, pace_of, t = fit_pace(t)
    form = fit_form(t, every, noise, folder)
    min_gap, span, spans = fit_passing(t)
    neutral, hazard = fit_neutral(laps, all_races, calendar, folder)
    prior = tum(folder)
    retire = fit_retirements(folder)
    rain = fit_rain(all_races, calendar)
    start = fit_start(all_races, calendar, folder)
    print("tum", prior, "retire", retire)

    pair = lambda q: [float(round(q[0])), float(max(round(q[1]) - round(q[0]) + 1, 1))]
    slope = lambda b: [max(float(np.mean([b[f"slope{j}"] for j in range(3)])), 1e-4) * c for c in CONTRAST]
    # Wet tyres: from the order of magnitude of 2018-2023's wet races; a table of relations, see README.md.
    parts = {
        "pace": {"margin": form["margin"], 
                 "from_qualifying": CALIBRATION["from_qualifying"] * form["from_qualifying"],
                 "form": CALIBRATION["form"] * form["form"], "form_blind": 0.0054, "fuel": every["fuel"], "slope": slope(every) + [6e-4, 4e-4],
                 "curve": max(every["curve"], 0.0), "offset": [*OFFSET, 0.0, 0.0],
                 "heat": every["heat"], "heat_at": 38.0, "noise": noise, "wear_spread": CALIBRATION["wear_spread"] * form["wear_spread"],
                 "dirty": max(every["dirty"], 0.0), "dirty_gap_s": 2.0},
        "wet": {"loss": [[0.0, 0.055, 0.115], [0.115, 0.085, 0.105], [0.34, 0.17, 0.145]],
                "wetter": [rain["wetter"], 0.03, 0.0], "drier": [0.0, rain["drier"], 0.08], "cross": 0.6},
        "traffic": {"min_gap_s": min_gap, "pass_s": min_gap, "pass_span_s": span, "blue_s": 0.35},
        "start": dict(start, spread=CALIBRATION["start"] * start["spread"]),
        "neutral": {k: v for k, v in neutral.items() if k not in ("safety_car_laps", "virtual_laps")}
        | {"safety_car_laps": pair(neutral["safety_car_laps"]), "virtual_laps": pair(neutral["virtual_laps"]),
           "gap_s": 0.9},
        "stop": {"in_loss_s": default["in_loss_s"], "out_loss_s": default["out_loss_s"],
                 "virtual": prior["virtual"], "safety_car": prior["safety_car"], "crew_s": 1.4, "botch": 0.035,
                 "botch_s": 5.0, "life": default["life"], 
                 "life_spread": [CALIBRATION["life_spread"] * v for v in default["life_spread"]]},
        "retire": retire, "mistake": {"chance": 0.012, "cost": 0.03},
        "circuits": [],
    }
    for row in places:
        name = row["name"]
        b = pace_of.get(name, dict(every, noise=noise))
        parts["circuits"].append(dict(
            row, fuel=b["fuel"], slope=slope(b), noise=b["noise"],
            pass_span_s=spans.get(name, span), hazard=hazard.get(name, neutral["hazard"])))
    parts["teams"] = crews(folder)
    write(path, parts, by="race/race")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
