"""Strengths: of two cars that both finish, which one finishes ahead?

P(i ahead of j) = F(s_j - s_i), F the cumulative Student t with 4 degrees of freedom, s linear in a few
columns with weights that are piecewise linear in the share of the distance. Fitted by iterated weighted least
squares on every pair of finishers; pairs of cars at the front count more, because the podium is what is asked.
"""

import numpy as np

KNOTS = np.array([0.0, 0.03, 0.2, 0.45, 0.7, 0.9, 1.0])
COLUMNS = [
    "gap_root", "gap_root_squeezed", "place", "ln_place", "ahead_root", "behind_root", "gained",
    "pace", "pace_root", "long_pace", "long_pace_root",
    "tyre_age", "stops_against_field", "owed_loss_root", "in_pit", "served_gap_root", "ln_served_place",
    "served_place_root", "fresher_than_ahead",
    "ln_grid", "ln_grid_difficulty", "ln_place_difficulty", "from_pit_lane",
    "qualifying", "qualifying_known", "team_qualifying",
    "form_race", "form_team", "form_qualifying", "form_gain", "form_retires", "form_team_retires",
]
# Like this many pairs, pulling weights to 0, and those of neighbouring knots to each other.
RIDGE, SMOOTH = 200.0, 5.0
# Of the race's laps every so many; the grid counts as many laps.
EVERY, GRID_WORTH, HISTORY_WORTH = 12, 10.0, 1.0


def t4(x):
    u = x / np.sqrt(1.0 + x * x / 4.0)
    return 0.5 + 0.375 * u * (1.0 - u * u / 12.0)


def t4_density(x):
    return 0.375 * (1.0 + x * x / 4.0) ** -2.5


def hat(share):
    w = np.zeros(len(KNOTS))
    j = min(max(int(np.searchsorted(KNOTS, share, side="right")) - 1, 0), len(KNOTS) - 2)
    u = min(max((share - KNOTS[j]) / (KNOTS[j + 1] - KNOTS[j]), 0.0), 1.0)
    w[j], w[j + 1] = 1.0 - u, u
    return w


def rows_to_fit(data, seasons, every=EVERY):
    inside = np.isin(data.season, list(seasons))
    return np.flatnonzero(inside & ((data.lap == 0) | (data.lap % every == every // 2)))


def pairs(data, rows, columns):
    at = [data.index[c] for c in columns]
    differences, outcomes, weights, hats = [], [], [], []
    for row in rows:
        n = data.cars[row]
        ran = np.flatnonzero(~data.retired[row, :n])
        if len(ran) < 2:
            continue
        x, rank = data.x[row, ran][:, at], data.rank[row, ran]
        i, j = np.triu_indices(len(ran), 1)
        best = np.minimum(np.minimum(rank[i], rank[j]), 30)
        worth = np.where(best <= 3, 1.0, np.where(best <= 6, 0.5, 0.15))
        if data.lap[row] == 0:
            worth = worth * (GRID_WORTH if data.season[row] >= 2018 else HISTORY_WORTH)
        differences.append(x[j] - x[i])
        outcomes.append(rank[i] < rank[j])
        weights.append(worth)
        hats.append(np.repeat(hat(data.share[row])[None], len(i), 0))
    return (np.concatenate(v).astype(np.float32) for v in (differences, outcomes, weights, hats))


def fit(data, seasons, columns=COLUMNS, ridge=RIDGE, smooth=SMOOTH, every=EVERY):
    """Weights, columns x knots."""
    d, y, worth, hats = pairs(data, rows_to_fit(data, seasons, every), columns)
    k = len(KNOTS)
    x = (d[:, :, None] * hats[:, None, :]).reshape(len(d), -1)
    size = x.shape[1]
    penalty = ridge * np.eye(size)
    for c in range(len(columns)):
        for j in range(k - 1):
            v = np.zeros(size)
            v[c * k + j], v[c * k + j + 1] = 1.0, -1.0
            penalty += smooth * np.outer(v, v)
    b = np.zeros(size)
    for _ in range(7):
        z = x @ b
        p = np.clip(t4(z), 1e-6, 1 - 1e-6)
        f = t4_density(z)
        w = worth * f / (p * (1 - p))
        h = (x * (w * f)[:, None].astype(np.float32)).T @ x + penalty
        step = np.linalg.solve(h, x.T @ (w * (y - p)).astype(np.float32) - penalty @ b)
        b = b + np.clip(step, -1, 1)
        if np.abs(step).max() < 2e-3:
            break
    return b.reshape(len(columns), k)


def strengths(data, rows, weights, columns=COLUMNS):
    at = [data.index[c] for c in columns]
    knots = np.stack([hat(s) for s in data.share[rows]])
    return np.einsum("bnf,fk,bk->bn", data.x[rows][:, :, at], weights, knots)
