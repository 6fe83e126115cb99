"""Parameters by team and by driver: whether the race model gains from them, by held-out log-likelihoods.

    python engines/training/race/by_team.py DATA

Four parameters that the model has for the field alone: what a crew adds to a stop, retirements a lap, mistakes a lap,
places lost on lap 1. Each is fitted for teams and for drivers, shrunk towards the field's figure; how much is chosen
on 2023 (fitted on 2018-2022), then fitted on 2018-2023 and judged on 2024. Unknown teams and drivers get the field's
figure. `crews` is what race.py takes from here. No randomness: the same tables give the same lines.
"""

import os
import sys

import numpy as np
import pandas as pd

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "floor"))
from weekends import DRY, load, races, read  # noqa: E402

FIRST, CHOICE, JUDGED = 2018, 2023, 2024
# A team under its latest name: what it is called changes, who works there hardly.
SUCCESSOR = {"force-india": "aston-martin", "racing-point": "aston-martin", "toro-rosso": "rb", "alphatauri": "rb",
             "sauber": "kick-sauber", "alfa-romeo": "kick-sauber", "renault": "alpine"}
# What a rate or a mean of a group weighs against the field's: observations (stops, races, laps, starts) of the prior.
PRIORS = (10, 30, 100, 300, 1000, 3000, 10_000, 100_000)
# A season counts this much less for each year that it lies back.
FADES = (1.0, 0.6, 0.3)
# What OpenF1 calls the teams, and has called them since 2023.
NAMES = {"alpine": ["Alpine"], "aston-martin": ["Aston Martin"], "ferrari": ["Ferrari"], "haas": ["Haas F1 Team"],
         "kick-sauber": ["Kick Sauber", "Alfa Romeo", "Audi"], "mclaren": ["McLaren"], "mercedes": ["Mercedes"],
         "rb": ["RB", "AlphaTauri", "Racing Bulls"], "red-bull": ["Red Bull Racing"], "williams": ["Williams"]}
# As chosen on 2023.
CREW_PRIOR, CREW_FADE = 10, 0.3
# A stop this much longer than the race's median was no matter of the crew's pace (s).
LONG_STOP_S = 12.0
# A clean lap this much slower than both its neighbours (share of a lap): a mistake.
MISTAKE = 0.012
# Freedom of the t distribution that deviations of stops and starts are scored by: they have heavy tails.
FREEDOM = 3.0


def team_of(constructor):
    return SUCCESSOR.get(constructor, constructor)


def weekends(folder):
    """A row a car and race: team, driver, laps, whether it retired, place on the grid."""
    r = read(folder, "f1db-results")
    r = r[r.year.between(FIRST, JUDGED)]
    out = r.position.isin(["DNF", "NC"])
    grid = pd.to_numeric(r.grid_position, errors="coerce")
    return pd.DataFrame({"season": r.year, "round": r["round"], "car": r.driver_number.astype(int),
                         "team": r.constructor_id.map(team_of), "driver": r.driver_id,
                         "laps": r.laps.fillna(0.0), "out": out, "grid": grid})


def stops(folder, cars):
    """Deviation of a stop's time in the pit lane from the median of its race (s)."""
    p = read(folder, "f1db-pit_stops")
    p = p[p.year.between(FIRST, JUDGED) & p.time_s.notna()]
    middle = p.groupby(["year", "round"]).time_s.transform("median")
    y = p.time_s - middle
    t = pd.DataFrame({"season": p.year, "round": p["round"], "car": p.driver_number.astype(int), "y": y})
    t = t[t.y.between(-LONG_STOP_S, LONG_STOP_S)]
    return t.merge(cars, on=["season", "round", "car"])


def starts(laps, cars):
    """Places lost on lap 1, less what that slot of the grid loses on average."""
    first = laps[(laps.lap_number == 1) & laps.position.notna()]
    t = first[["season", "round", "driver_number", "position"]].rename(columns={"driver_number": "car"})
    t = t.merge(cars, on=["season", "round", "car"])
    t = t[t.grid.notna()].copy()
    t["lost"] = t.position - t.grid
    past = t[t.season < JUDGED]
    of_slot = past.groupby("grid").lost.mean()
    t["y"] = t.lost - t.grid.map(of_slot).fillna(0.0)
    return t


def mistakes(laps, cars):
    """A row a car and race: clean laps with clean neighbours, and how many of them were mistakes."""
    rows = []
    for season, rnd, _, of_car, _ in races(laps, range(FIRST, JUDGED + 1)):
        for car, ls in of_car.items():
            seen = found = 0
            for a, b, c in zip(ls, ls[1:], ls[2:]):
                if a.clean and b.clean and c.clean and b.compound in DRY and a.stint == c.stint:
                    seen += 1
                    found += b.t > (1.0 + MISTAKE) * max(a.t, c.t)
            rows.append((season, rnd, car, seen, found))
    t = pd.DataFrame(rows, columns=["season", "round", "car", "exposure", "events"])
    return t.merge(cars, on=["season", "round", "car"])


def weights(t, season, fade):
    return fade ** (season - 1 - t.season.to_numpy(float))


def rates(past, season, group, prior, fade):
    """Events per exposure: of the field, and of each group, which has `prior` exposures of the field's rate."""
    w = weights(past, season, fade)
    rate = past.events.sum() / past.exposure.sum()
    if group is None:
        return rate, {}
    events = (past.events * w).groupby(past[group]).sum()
    exposure = (past.exposure * w).groupby(past[group]).sum()
    return rate, ((events + prior * rate) / (exposure + prior)).to_dict()


def score_rates(past, now, season, group, prior, fade):
    """Poisson log-likelihood, but for what does not depend on the rate."""
    rate, own = rates(past, season, group, prior, fade)
    r = now[group].map(own).fillna(rate) if group else pd.Series(rate, index=now.index)
    return float((now.events * np.log(r) - now.exposure * r).sum())


def log_t(y, scale):
    """Log density of a t distribution, but for what depends on its freedom alone."""
    return -np.log(scale) - (FREEDOM + 1) / 2 * np.log1p((y / scale) ** 2 / FREEDOM)


def scale_of(past):
    return 1.4826 * past.y.abs().median() * 0.75


def means(past, season, group, prior, fade):
    """Means of groups, and how their deviations compare with the field's; both with `prior` of the field's."""
    w = weights(past, season, fade)
    # A long stop or a spin must not pass for slow hands: clipped at what the field scatters.
    y = past.y.clip(-3 * scale_of(past), 3 * scale_of(past))
    n = pd.Series(w, index=past.index).groupby(past[group]).sum()
    mean = (y * w).groupby(past[group]).sum() / (n + prior)
    size = (y.abs() * w).groupby(past[group]).sum()
    return mean, (size + prior * y.abs().mean()) / (n + prior) / y.abs().mean()


def crews(folder):
    """What each team's stops take longer than the field's (s), by its names, for the race model."""
    t = stops(folder, weekends(folder))
    mean, _ = means(t[t.season < JUDGED], JUDGED, "team", CREW_PRIOR, CREW_FADE)
    return [{"names": names, "stop_s": float(mean[team])} for team, names in NAMES.items()]


def score_means(past, now, season, group, prior, fade, spread=False):
    """Log-likelihood of deviations around the means of their groups; with `spread`, at scales of the groups' own."""
    scale = scale_of(past)
    if group is None:
        return float(log_t(now.y, scale).sum())
    mean, own = means(past, season, group, prior, fade)
    centre = now[group].map(mean).fillna(0.0)
    widths = scale * (now[group].map(own).fillna(1.0) if spread else 1.0)
    return float(log_t(now.y - centre, widths).sum())


def compare(name, t, score, groups, unit):
    """Log-likelihood of 2024 over the field's, for each way of grouping; chosen on 2023."""
    until = lambda season: (t[t.season < season], t[t.season == season])
    past, now = until(JUDGED)
    field = score(past, now, JUDGED, None, 0, 1.0)
    print(f"{name}: {len(past)} rows of {unit} up to {CHOICE}, {len(now)} of {JUDGED}; the field {field:.2f}")
    for label, group, more in groups:
        tried = []
        for prior in PRIORS:
            for fade in FADES:
                tried.append((score(*until(CHOICE), CHOICE, group, prior, fade, **more), prior, fade))
        best, prior, fade = max(tried, key=lambda x: x[0])
        chosen = best - score(*until(CHOICE), CHOICE, None, 0, 1.0)
        gain = score(past, now, JUDGED, group, prior, fade, **more) - field
        # By race, the same figure again: how sure it is.
        by_race = []
        for _, part in now.groupby("round"):
            own = score(past, part, JUDGED, group, prior, fade, **more)
            by_race.append(own - score(past, part, JUDGED, None, 0, 1.0))
        error = float(np.std(by_race) * np.sqrt(len(by_race)))
        print(f"  by {label}: prior {prior}, fade {fade}: {CHOICE} {chosen:+.2f}, {JUDGED} {gain:+.2f} ± {error:.2f}")


def main(folder):
    cars = weekends(folder)
    laps = load(folder)
    both = [("team", "team", {}), ("driver", "driver", {})]
    wide = [(f"{n}, mean and spread", n, {"spread": True}) for n in ("team", "driver")]
    compare("stops", stops(folder, cars), score_means, both + wide, "stops")
    ran = cars[(cars.laps > 0)].assign(exposure=cars.laps, events=cars.out.astype(float))
    compare("retirements a lap", ran, score_rates, both, "cars and races")
    compare("mistakes a lap", mistakes(laps, cars), score_rates, both, "cars and races")
    compare("places lost on lap 1", starts(laps, cars), score_means, both + wide, "starts")


if __name__ == "__main__":
    main(sys.argv[1])
