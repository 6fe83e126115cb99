"""Trains `outcome`: strengths, network, temperature, export. See README.md."""

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch

import strength
from data import MOMENTS, Data, scores, show
from network import CARS, PHASES, Outcome

FIRST, LAST = 2008, 2023
# Seasons without laps give their grids only.
WITH_LAPS = 2018


def tensors(data, rows, device):
    f = lambda a: torch.tensor(a, dtype=torch.float32, device=device)
    return f(data.x[rows]), f(data.mask[rows]), torch.tensor(data.rank[rows] - 1, device=device).clamp(0), f(data.retired[rows])


def losses(positions, retire, mask, rank, retired):
    """Per sample: of the place, of the podium, of the win, of retirement."""
    n = mask.sum(1)
    place = -torch.log(positions.gather(2, rank[:, :, None])[..., 0] + 1e-6) * mask
    def coin(p, y):
        p = p.clamp(1e-4, 1 - 1e-4)
        return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)) * mask
    podium = coin(positions[:, :, :3].sum(2), (rank < 3).float())
    win = coin(positions[:, :, 0], (rank < 1).float())
    gone = coin(retire, retired)
    return place.sum(1) / n, podium.sum(1) / n, win.sum(1) / n, gone.sum(1) / n


def total(place, podium, win, gone):
    return 0.3 * place + 3.0 * podium + 2.0 * win + 0.3 * gone


def without_some_cars(x, mask, rank, retired, keep):
    """Races in which a few cars never took part: those that are left move up. The network sees no order,
    so rows may stay where they are; places must not."""
    stays = (torch.rand_like(mask) < keep).float() * mask
    enough = (stays.sum(1, keepdim=True) >= 8).float()
    stays = enough * stays + (1 - enough) * mask
    order = rank + (1 - stays) * 100
    ahead = (order[:, None, :] < order[:, :, None]).float() * stays[:, None, :]
    # Columns are the first of the mask, so the rows must be, too.
    first = torch.argsort(1 - stays, dim=1, stable=True)
    take = lambda t: t.gather(1, first)
    x = x.gather(1, first[:, :, None].expand_as(x))
    return x * take(stays)[:, :, None], take(stays), take(ahead.sum(2)).long(), take(retired)


def podiums(model, data, rows, device):
    model.eval()
    with torch.no_grad():
        return [p[:, :3].sum(1) for r in rows for p in model(*tensors(data, [r], device)[:2])[0].cpu().numpy()]


def judge(name, model, data, rows, device):
    show(name, data, rows, {m: podiums(model, data, rows[m], device) for m in MOMENTS})


def make(data, seasons, args, device):
    weights = strength.fit(data, seasons)
    inside = np.isin(data.season, list(seasons))
    values = data.x[inside][data.mask[inside]]
    scale = values.std(0)
    scale[scale < 1e-3] = 1.0
    model = Outcome(data.columns, strength.COLUMNS, weights, values.mean(0), scale, args.width, args.layers, args.heads, args.dropout, args.lose)
    return model.to(device)


def train(data, seasons, args, device, held=(), steps=None):
    """Trains on `seasons`; looks at `held` every `args.look` steps. Returns the model and what it saw."""
    torch.manual_seed(args.seed)
    generator = np.random.default_rng(args.seed)
    model = make(data, seasons, args, device)
    rows = np.flatnonzero(np.isin(data.season, list(seasons)))
    races = {}
    for r in rows:
        races.setdefault((data.season[r], data.round[r]), []).append(r)
    full = [np.array(v) for k, v in races.items() if len(v) > 1]
    grids = np.array([v[0] for k, v in races.items() if len(v) == 1], dtype=int)
    held_rows = np.flatnonzero(np.isin(data.season, list(held)) & (data.lap % 6 == 0)) if held else []
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=args.decay, betas=(0.9, 0.98))
    steps = steps or args.steps
    seen, began = [], time.time()
    for step in range(steps):
        rate = args.rate * min(1.0, (step + 1) / args.warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        # A race each, most at any moment, some at the grid; and grids of the years without laps.
        batch = []
        for _ in range(args.batch):
            u = generator.random()
            if u < 0.15 and len(grids):
                batch.append(generator.choice(grids))
            else:
                race = full[generator.integers(len(full))]
                batch.append(race[0] if u < 0.3 else generator.choice(race))
        x, mask, rank, retired = tensors(data, np.array(batch), device)
        x, mask, rank, retired = without_some_cars(x, mask, rank, retired, args.keep)
        with torch.no_grad():
            base = model.base(x, mask)
        model.train()
        x = x + args.noise * model.scale * torch.randn_like(x) * mask[:, :, None]
        loss = total(*losses(*model(x, mask, base), mask, rank, retired)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if len(held_rows) and (step % args.look == args.look - 1 or step == 0):
            model.eval()
            with torch.no_grad():
                x, mask, rank, retired = tensors(data, held_rows, device)
                parts = [p.mean().item() for p in losses(*model(x, mask), mask, rank, retired)]
            seen.append((step + 1, total(*parts), parts))
            print(f"{step + 1:5d} {time.time() - began:5.0f} s  train {loss.item():.4f}  held {seen[-1][1]:.4f}  podium {parts[1]:.4f} win {parts[2]:.4f} place {parts[0]:.4f} out {parts[3]:.4f}", flush=True)
    return model, seen


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("features"), p.add_argument("out", nargs="?")
    for name, kind, value in (
        ("width", int, 256), ("layers", int, 6), ("heads", int, 8), ("dropout", float, 0.25), ("rate", float, 3e-4),
        ("decay", float, 0.1), ("steps", int, 400), ("batch", int, 32), ("warm", int, 40), ("keep", float, 0.85),
        ("noise", float, 0.1), ("lose", float, 0.3), ("seed", int, 1), ("look", int, 50), ("threads", int, 2),
    ):
        p.add_argument(f"--{name}", type=kind, default=value)
    return p.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = Data(args.features)
    model, seen = train(data, range(FIRST, LAST - 1), args, device, held=(2022, 2023))
    rows = data.moments([2022, 2023])
    judge("held 2022-23", model, data, rows, device)
    torch.nn.init.zeros_(model.head.weight), torch.nn.init.zeros_(model.head.bias)
    judge("strengths 2022-23", model, data, rows, device)


if __name__ == "__main__":
    main()
