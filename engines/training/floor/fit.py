"""Fits the parameters of the statistical floor: src/predict/floor.toml.

    python engines/training/floor/fit.py DATA src/predict/floor.toml

DATA holds laps/laps-*.csv.zst and history/f1db-*.csv.zst. Everything is fitted on seasons up to 2023;
2024 is printed beside it and changes nothing. No randomness: the same tables give the same file.
"""

import sys

import numpy as np

from circuits import circuits
from order import fit_order
from pit import fit_pit
from pace import fit_pace
from weekends import load, races


def text(value):
    if isinstance(value, (list, tuple, np.ndarray)):
        return "[" + ", ".join(text(v) for v in value) + "]"
    if isinstance(value, str):
        return '"' + value + '"'
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    return f"{float(value):.6g}" if float(value) != int(value) else f"{int(value)}.0"


def write(path, parts, by="floor/fit"):
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"# Fitted by engines/training/{by}.py on seasons up to 2023. Do not edit by hand.\n")
        for name, table in parts.items():
            if isinstance(table, list):
                for row in table:
                    out.write(f"\n[[{name}]]\n" + "".join(f"{k} = {text(v)}\n" for k, v in row.items()))
            else:
                plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
                out.write(f"\n[{name}]\n" + "".join(f"{k} = {text(v)}\n" for k, v in plain.items()))
                for key, inner in table.items():
                    if isinstance(inner, dict):
                        out.write(f"\n[{name}.{key}]\n" + "".join(f"{k} = {text(v)}\n" for k, v in inner.items()))


def main(folder, path):
    laps = load(folder)
    all_races = list(races(laps, range(2018, 2025)))
    places, default, of_race = circuits(folder, laps, all_races)
    parts = {
        "pace": fit_pace(folder, all_races, of_race),
        "order": fit_order(folder, all_races, of_race),
        "pit": fit_pit(all_races, of_race),
        "elsewhere": default,
        "circuits": places,
    }
    write(path, parts)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
