"""Boosted trees on the same features: python gbm.py FEATURES [--last 2023] [--judge 2024] [--keep FOLDER]

The baseline that the network is measured against, and the other half of the mixture that is shipped.
"""

import argparse

import lightgbm
import numpy as np

from data import Rows

PARAMETERS = dict(objective="regression_l1", num_leaves=31, learning_rate=0.06, min_data_in_leaf=100,
                  feature_fraction=0.4, bagging_fraction=0.7, bagging_freq=1, lambda_l2=5, max_bin=127, verbose=-1,
                  num_threads=1, seed=1, deterministic=True)

if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("features")
    p.add_argument("--last", type=int, default=2023)
    p.add_argument("--judge", type=int, default=2024)
    p.add_argument("--rounds", type=int, default=400)
    p.add_argument("--keep", help="save the trees in this folder, as trees-0.txt to trees-2.txt")
    a = p.parse_args()
    rows = Rows(a.features)
    season = rows.meta["season"]
    inputs = [rows.line, np.hstack([rows.line, rows.sector1]), np.hstack([rows.line, rows.sector2])]
    for head, name in enumerate(("at the line", "after sector 1", "after sector 2")):
        target = rows.meta["truth_s"] - rows.bases[head]
        fit, judge = rows.judged[head] & (season <= a.last), rows.judged[head] & (season == a.judge)
        model = lightgbm.train(PARAMETERS, lightgbm.Dataset(inputs[head][fit], target[fit]), a.rounds)
        if a.keep:
            model.save_model(f"{a.keep}/trees-{head}.txt")
        off = model.predict(inputs[head][judge]) - target[judge]
        plain = rows.plain[head][judge] - rows.bases[head][judge] - target[judge]
        print(f"{name}: MAE {np.abs(off).mean():.4f} RMSE {(off ** 2).mean() ** 0.5:.3f}, previous lap "
              f"{np.abs(plain).mean():.4f}, better by {100 * (1 - np.abs(off).mean() / np.abs(plain).mean()):.1f} %",
              flush=True)
