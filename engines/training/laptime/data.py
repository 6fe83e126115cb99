"""Features as `trackside evaluate laptime --features` writes them: one row a lap, sequences one after another."""

import json
from pathlib import Path

import numpy as np

# Version of the columns that this training knows.
FEATURES_VERSION = 1


class Rows:
    """The arrays of a folder, their columns by name, and where each sequence begins."""

    def __init__(self, folder):
        folder = Path(folder)
        schema = json.loads((folder / "schema.json").read_text())
        if schema["model"] != "laptime" or schema["features_version"] != FEATURES_VERSION:
            raise SystemExit(f"{folder}: features of {schema['model']} version {schema['features_version']}; "
                             f"laptime version {FEATURES_VERSION} is wanted")
        self.columns = {a["name"]: a["columns"] for a in schema["arrays"]}
        self.line, self.sector1, self.sector2, meta = (
            np.load(folder / f"{n}.npy") for n in ("line", "sector1", "sector2", "meta"))
        self.meta = {c: meta[:, i] for i, c in enumerate(self.columns["meta"])}
        changes = np.flatnonzero(np.diff(self.meta["sequence"])) + 1
        self.bounds = list(zip(np.r_[0, changes], np.r_[changes, len(meta)]))
        m = self.meta
        self.bases = np.stack([m["base_s"], m["base_1_s"], m["base_2_s"]])
        self.plain = np.stack([m["plain_0_s"], m["plain_1_s"], m["plain_2_s"]])
        # What is judged: a clean lap after a clean lap of its stint, with what a prediction needs.
        judged = (m["graded"] == 1) & (m["flying"] == 1)
        self.judged = judged[None] & np.isfinite(self.bases) & np.isfinite(self.plain)
        # What is learnt from: also laps at racing pace that are not judged.
        learnt = judged | ((m["racing"] == 1) & (m["flying"] == 1))
        self.learnt = learnt[None] & np.isfinite(self.bases) & np.isfinite(m["truth_s"])[None]

    def column(self, array, *names):
        return [self.columns[array].index(n) for n in names]

    def seasons(self, first, last):
        """Sequences of those seasons, as (begin, end)."""
        season = self.meta["season"]
        return [(a, b) for a, b in self.bounds if first <= season[a] <= last]
