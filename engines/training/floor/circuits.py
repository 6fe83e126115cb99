"""What a circuit asks of a race: laps, length, pit loss, how long tyres last there."""

import numpy as np

from weekends import DRY, WET, read, reference

# f1db's circuit id -> the name that OpenF1 gives it (circuit_short_name).
OPENF1 = {
    "bahrain": "Sakhir", "jeddah": "Jeddah", "melbourne": "Melbourne", "baku": "Baku", "miami": "Miami",
    "monaco": "Monte Carlo", "catalunya": "Catalunya", "montreal": "Montreal", "spielberg": "Spielberg",
    "silverstone": "Silverstone", "hungaroring": "Hungaroring", "spa-francorchamps": "Spa-Francorchamps",
    "zandvoort": "Zandvoort", "monza": "Monza", "marina-bay": "Singapore", "suzuka": "Suzuka",
    "lusail": "Lusail", "austin": "Austin", "mexico-city": "Mexico City", "interlagos": "Interlagos",
    "las-vegas": "Las Vegas", "yas-marina": "Yas Marina Circuit", "shanghai": "Shanghai", "imola": "Imola",
    "paul-ricard": "Paul Ricard", "sochi": "Sochi", "portimao": "Algarve", "mugello": "Mugello",
    "nurburgring": "Nurburgring", "istanbul": "Istanbul", "hockenheimring": "Hockenheim",
}
COMPOUNDS = DRY + WET
# A circuit's own median counts as n laps against this many of the field of circuits.
SHRINK = 12.0


def circuits(folder, laps, all_races):
    calendar = read(folder, "f1db-races")
    calendar = calendar[calendar.year.between(2014, 2024)].copy()
    calendar["planned"] = calendar.scheduled_laps.fillna(calendar.laps)
    where = {(r.year, r.round): r for r in calendar.itertuples()}

    in_loss, out_loss, stints = {}, {}, {}
    for season, rnd, event, cars, _ in all_races:
        if season > 2023 or (season, rnd) not in where:
            continue
        race = where[(season, rnd)]
        for ls in cars.values():
            for i, l in enumerate(ls):
                ref = reference(ls, i - 1) if i else None
                if ref and l.t == l.t and l.status == "1":
                    loss = l.t - ref
                    if l.is_in and not l.is_out and -5 < loss < 40:
                        in_loss.setdefault(race.circuit_id, []).append(loss)
                    if l.is_out and not l.is_in and -5 < loss < 60:
                        out_loss.setdefault(race.circuit_id, []).append(loss)
                if l.is_in and l.age == l.age and i + 1 < len(ls) and "5" not in l.status:
                    if l.compound in COMPOUNDS and l.age >= 3:
                        stints.setdefault((race.circuit_id, l.compound), []).append(l.age / race.planned)
    pooled = lambda d: float(np.median([x for v in d.values() for x in v]))
    life = {c: float(np.median([x for (_, k), v in stints.items() if k == c for x in v])) for c in COMPOUNDS}
    spread = {c: float(np.median(np.abs(np.array([x for (_, k), v in stints.items() if k == c for x in v]) - life[c])) * 1.48)
              for c in COMPOUNDS}
    every_in, every_out = pooled(in_loss), pooled(out_loss)

    def shrunk(values, to):
        values = values or []
        return (len(values) * float(np.median(values)) + SHRINK * to) / (len(values) + SHRINK) if values else to

    known, rows = {}, []
    for r in calendar[calendar.year.between(2018, 2023)].sort_values(["year", "round"]).itertuples():
        # The 2020 Sakhir race ran on another layout; later rows of the same circuit replace earlier ones.
        if r.circuit_id == "bahrain" and r.course_length < 5:
            continue
        known[r.circuit_id] = r
    for cid, r in sorted(known.items()):
        if cid not in OPENF1:
            continue
        # Events other than a circuit's usual one would mislead once a name moves to another circuit.
        rows.append({
            "name": OPENF1[cid], "laps": int(r.planned), "length_km": float(r.course_length),
            "in_loss_s": shrunk(in_loss.get(cid), every_in), "out_loss_s": shrunk(out_loss.get(cid), every_out),
            "life": [shrunk(stints.get((cid, c)), life[c]) for c in COMPOUNDS],
        })
    default = {"in_loss_s": every_in, "out_loss_s": every_out, "life": [life[c] for c in COMPOUNDS],
               "life_spread": [spread[c] for c in COMPOUNDS]}
    by_name = {row["name"]: row for row in rows}

    def of_race(season, rnd):
        race = where.get((season, rnd))
        if race is None:
            return None
        row = by_name.get(OPENF1.get(race.circuit_id, ""), None)
        return dict(row or default, laps=int(race.planned), circuit=race.circuit_id)

    return rows, default, of_race
