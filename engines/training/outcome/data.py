"""The arrays that `trackside evaluate outcome --features OUT` wrote."""

import json
import pathlib

import numpy as np

VERSION = 1
MOMENTS = (0.0, 0.25, 0.5, 0.75)


class Data:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        schema = json.loads((folder / "schema.json").read_text())
        if (schema["model"], schema["features_version"]) != ("outcome", VERSION):
            raise SystemExit(f"{folder} holds {schema['model']} features version {schema['features_version']}; this needs outcome {VERSION}")
        columns = {a["name"]: a["columns"] for a in schema["arrays"]}
        self.columns = columns["x"]
        self.index = {n: i for i, n in enumerate(self.columns)}
        load = lambda name: np.load(folder / f"{name}.npy")
        self.x, self.rank, self.place = load("x"), load("rank").astype(int), load("place").astype(int)
        self.retired = load("retired") > 0.5
        meta = load("meta")
        self.season, self.round, self.lap, self.race_laps, self.cars = meta[:, :5].astype(int).T
        self.share = meta[:, 5]
        self.mask = np.arange(self.x.shape[1])[None] < self.cars[:, None]

    def column(self, name):
        return self.x[:, :, self.index[name]]

    def moments(self, seasons):
        """Rows of the moments that are judged: per share of the distance, one of each race with laps."""
        out = {m: [] for m in MOMENTS}
        inside = np.isin(self.season, list(seasons))
        with_laps = {(s, r) for s, r, l in zip(self.season[inside], self.round[inside], self.lap[inside]) if l > 0}
        for key in sorted(with_laps):
            rows = np.flatnonzero((self.season == key[0]) & (self.round == key[1]))
            for m in MOMENTS:
                due = rows[self.lap[rows] >= np.ceil(m * self.race_laps[rows])] if m else rows[self.lap[rows] == 0]
                if len(due):
                    out[m].append(due[np.argmin(self.lap[due])])
        return {m: np.array(v) for m, v in out.items()}


def scores(data, rows, top3):
    """Per race: podium overlap, log-loss and Brier of the podium (over all that started), all as arrays."""
    overlap, loss, brier = [], [], []
    for row, p in zip(rows, top3):
        n = data.cars[row]
        y = data.place[row, :n] <= 3
        p = np.asarray(p[:n], float)
        started = max(n, data.place[row, :n].max())
        named = np.argsort(-p, kind="stable")[:3]
        overlap.append(y[named].sum())
        q = np.clip(p, 1e-3, 1 - 1e-3)
        loss.append(-(y * np.log(q) + (~y) * np.log(1 - q)).sum() / started)
        brier.append(((p - y) ** 2).sum() / started)
    return np.array(overlap), np.array(loss), np.array(brier)


def show(name, data, rows, top3):
    cells = []
    for m in MOMENTS:
        o, l, b = scores(data, rows[m], top3[m])
        cells.append(f"{o.mean():.3f} {l.mean():.4f} {b.mean():.4f}")
    print(f"{name:26s} | " + " | ".join(cells), flush=True)
