"""The gradient-boosted baseline: is this car on the podium, does it win, from the same columns.

    python baseline.py FEATURES

One LightGBM classifier per question over all moments of 2018-2023 (and the grids before), probabilities
shifted so that those of a race sum to 3 and to 1.
"""

import sys

import lightgbm
import numpy as np

from data import MOMENTS, Data, show

PARAMETERS = dict(
    objective="binary", learning_rate=0.03, num_leaves=7, min_data_in_leaf=400, feature_fraction=0.4,
    bagging_fraction=0.5, bagging_freq=1, lambda_l2=50.0, verbose=-1, num_threads=1, seed=1, deterministic=True,
    force_row_wise=True,
)
ROUNDS = 160
# More of a place, a gap or a poor rating never helps: without this the trees invent exceptions.
DOWN = {"place", "ln_place", "gap_root", "ln_served_place", "served_gap_root", "ln_grid", "grid", "qualifying", "long_pace", "long_pace_root"}
UP = {"form_race", "form_team", "form_points"}


def to_sum(logits, total):
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if (1.0 / (1.0 + np.exp(-(logits + middle)))).sum() > total:
            high = middle
        else:
            low = middle
    return 1.0 / (1.0 + np.exp(-(logits + middle)))


def fit(data, seasons, places):
    rows = np.flatnonzero(np.isin(data.season, list(seasons)) & ((data.lap == 0) | (data.lap % 3 == 0)))
    mask = data.mask[rows]
    x, y = data.x[rows][mask], (data.place[rows] <= places)[mask]
    worth = np.repeat(np.where(data.lap[rows] == 0, np.where(data.season[rows] < 2018, 2.0, 8.0), 1.0)[:, None], mask.shape[1], 1)[mask]
    constraints = [-1 if c in DOWN else 1 if c in UP else 0 for c in data.columns]
    return lightgbm.train(PARAMETERS | {"monotone_constraints": constraints}, lightgbm.Dataset(x, label=y, weight=worth), ROUNDS)


def predict(model, data, rows, total):
    return [to_sum(model.predict(data.x[r, : data.cars[r]], raw_score=True), total) for r in rows]


def main():
    data = Data(sys.argv[1])
    rows = data.moments([2024])
    podium = fit(data, range(2008, 2024), 3)
    show("gradient boosting, 2024", data, rows, {m: predict(podium, data, rows[m], 3.0) for m in MOMENTS})


if __name__ == "__main__":
    main()
