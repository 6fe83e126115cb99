"""Races as a causal walk over completed laps.

What the daemon would know when a car completes a lap, and nothing later: the same rules, in the same
order, as src/predict/{laptime,order,pit}.rs. Reads the tables of a data folder (laps/, history/).
"""

import glob
import os

import numpy as np
import pandas as pd

DRY = ("SOFT", "MEDIUM", "HARD")
WET = ("INTERMEDIATE", "WET")
CLEAR, YELLOW, SAFETY_CAR, RED, VSC = "1", "2", "4", "5", "6"
# A clean lap slower than this many medians of the car's recent clean laps says nothing about pace.
SLOW_LAP = 1.12
RECENT = 5


def read(folder, name):
    return pd.read_csv(os.path.join(folder, "history", name + ".csv.zst"), low_memory=False)


def load(folder):
    """All laps, with the time at which each ended (s, one clock per race)."""
    parts = sorted(glob.glob(os.path.join(folder, "laps", "laps-*.csv.zst")))
    laps = pd.concat([pd.read_csv(p, dtype={"track_status": str}, low_memory=False) for p in parts],
                     ignore_index=True)
    laps["track_status"] = laps.track_status.fillna("").str.replace(".0", "", regex=False)
    start = pd.to_datetime(laps.date_start_utc, utc=True, format="ISO8601")
    start = (start - pd.Timestamp("2018-01-01", tz="UTC")) / pd.Timedelta(seconds=1)
    # 2024 R19 on have no session clock: the lap's start and its time (or the next lap's start).
    car = [laps.season, laps["round"], laps.driver_number]
    following = start.groupby(car).shift(-1)
    wall = (start + laps.lap_time_s).fillna(following)
    whole = laps.groupby(["season", "round"]).lap_end_session_s.transform("count") > 0
    laps["end"] = laps.lap_end_session_s.where(whole, wall)
    laps["compound"] = laps.compound.fillna("UNKNOWN")
    return laps


class Lap:
    __slots__ = ("n", "t", "end", "s", "is_in", "is_out", "status", "compound", "age", "clean",
                 "stint", "accurate", "now")

    def __init__(self, r):
        self.n, self.t, self.end = r.lap_number, r.lap_time_s, r.end
        self.s = (r.sector1_s, r.sector2_s, r.sector3_s)
        self.is_in, self.is_out = bool(r.is_in_lap), bool(r.is_out_lap)
        self.status, self.compound = r.track_status or "1", r.compound
        self.age, self.stint = r.tyre_life_laps, r.stint
        self.clean = (self.status == "1" and not self.is_in and not self.is_out and self.n > 1
                      and self.t == self.t)
        # As the published table of clean laps has it; where the source gives no flag, accurate.
        self.accurate = r.is_accurate != 0
        self.now = CLEAR


def between(before, after):
    """Status at the line between two laps: what both have seen (the daemon knows it from the feed)."""
    both = set(before.replace("7", VSC)) & set(after.replace("7", VSC))
    return next((s for s in (RED, SAFETY_CAR, VSC, YELLOW) if s in both), CLEAR)


def races(laps, seasons):
    """(season, round, event, laps by car, laps in order of completion)."""
    chosen = laps[laps.season.isin(seasons)]
    for (season, rnd), g in chosen.groupby(["season", "round"]):
        g = g.sort_values(["driver_number", "lap_number"])
        cars = {}
        for r in g.itertuples():
            cars.setdefault(int(r.driver_number), []).append(Lap(r))
        for ls in cars.values():
            for a, b in zip(ls, ls[1:]):
                a.now = between(a.status, b.status)
        order = sorted(((l.end, c, i) for c, ls in cars.items() for i, l in enumerate(ls)
                        if l.end == l.end))
        yield season, rnd, g.event_name.iloc[0], cars, order


def recent_clean(ls, i, most=RECENT):
    """Times of the latest clean laps up to index i in the same stint, newest first; a lap much
    slower than the median of the rest (a spin, a wave-by) is left out."""
    found = []
    stint = ls[i].stint
    j = i
    while j >= 0 and len(found) < most and ls[j].stint == stint:
        if ls[j].clean:
            found.append(ls[j])
        j -= 1
    if len(found) >= 3:
        middle = float(np.median([l.t for l in found]))
        found = [l for l in found if l.t <= SLOW_LAP * middle]
    return found


def reference(ls, i, most=RECENT, back=30):
    """Median of the latest clean laps, whatever the stint (s), or None."""
    found = []
    for j in range(i, max(-1, i - back), -1):
        if ls[j].clean:
            found.append(ls[j].t)
            if len(found) == most:
                break
    return float(np.median(found)) if found else None


def qualifying_times(folder):
    """(season, round) -> best qualifying time of each car number (s)."""
    q = read(folder, "f1db-qualifying")
    q = q[q.year >= 2018]
    best = q[["time_s", "q1_s", "q2_s", "q3_s"]].min(axis=1)
    found = {}
    for year, rnd, car, t in zip(q.year, q["round"], q.driver_number, best):
        if t == t:
            found.setdefault((int(year), int(rnd)), {})[int(car)] = float(t)
    return found
