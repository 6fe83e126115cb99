"""Trains `outcome`: strengths, network, temperature, export. See README.md."""

import argparse
import copy
import math
import pathlib
import time

import numpy as np
import torch

import strength
from data import MOMENTS, Data, scores, show
from network import CARS, FUNCTIONS, PHASES, Outcome
from places import sinkhorn

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
        ("width", int, 256), ("layers", int, 6), ("heads", int, 8), ("dropout", float, 0.25), ("rate", float, 2e-4),
        ("decay", float, 0.1), ("steps", int, 120), ("batch", int, 32), ("warm", int, 20), ("keep", float, 0.85),
        ("noise", float, 0.1), ("lose", float, 0.3), ("seed", int, 1), ("look", int, 40), ("threads", int, 1), ("correction", float, None), ("version", str, "1"),
    ):
        p.add_argument(f"--{name}", type=kind, default=value)
    return p.parse_args()


def temper(data, args, device):
    """Temperature per phase: of strengths fitted up to two seasons earlier, on those two seasons."""
    model = make(data, range(FIRST, LAST - 1), args, device)
    rows = np.flatnonzero(np.isin(data.season, (LAST - 1, LAST)) & (data.lap % 3 == 0))
    x, mask, rank, retired = tensors(data, rows, device)
    with torch.no_grad():
        logs, retire, s = model.base(x, mask)
        hats = model.hats(x[:, :1, model.share], model.phases)
    logt = torch.zeros(len(PHASES), requires_grad=True, device=device)
    optimiser = torch.optim.LBFGS([logt], max_iter=20)

    def step():
        optimiser.zero_grad()
        table = torch.exp(logs * (hats @ torch.exp(logt))[:, None, None]) * mask[:, :, None] * mask[:, None, :]
        table = sinkhorn(table, mask, model.rounds)
        loss = total(*losses(table, retire, mask, rank, retired)).mean() + 0.02 * (logt**2).sum()
        loss.backward()
        return loss

    optimiser.step(step)
    return torch.exp(logt).detach()


def scaled(model, share):
    """The network with its corrections of the places multiplied."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.weight[:FUNCTIONS] *= share
        other.head.bias[:FUNCTIONS] *= share
    return other


def choose(model, data, rows, device):
    """How much of the network's correction of the places to believe, on the season after training."""
    found = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        other = scaled(model, share)
        other.eval()
        with torch.no_grad():
            x, mask, rank, retired = tensors(data, rows, device)
            parts = [p.mean().item() for p in losses(*other(x, mask), mask, rank, retired)]
        found.append((total(*parts), share))
        print(f"correction x {share:.2f}: loss {found[-1][0]:.4f} podium {parts[1]:.4f} win {parts[2]:.4f} place {parts[0]:.4f} out {parts[3]:.4f}", flush=True)
    return found


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.time()
    data = Data(args.features)
    temperature = temper(data, args, device)
    print("temperature", [round(t, 3) for t in temperature.tolist()], flush=True)
    model, seen = train(data, range(FIRST, LAST + 1), args, device, held=(LAST + 1,))
    model.temperature.copy_(temperature)
    rows = data.moments([LAST + 1])
    judge("network", model, data, rows, device)
    judge("strengths", scaled(model, 0.0), data, rows, device)
    found = choose(model, data, np.flatnonzero((data.season == LAST + 1) & (data.lap % 3 == 0)), device)
    share = args.correction if args.correction is not None else min(found)[1]
    model = scaled(model, share)
    judge(f"shipped (x {share})", model, data, rows, device)
    print(f"{time.time() - began:.0f} s", flush=True)
    if args.out:
        from export import enter, export

        out = pathlib.Path(args.out)
        (out / "outcome").mkdir(parents=True, exist_ok=True)
        enter(export(model, data.columns, out, args.version, args.seed), out)
        frequencies(data, out / "outcome" / "frequencies.toml")


def frequencies(data, path):
    """How often each place on track and on the grid has led to the podium: what the baselines say."""
    rows = data.moments(range(WITH_LAPS, LAST + 1))
    lines = ["# Fitted by engines/training/outcome/train.py on races of 2018-2023. Do not edit by hand.", ""]
    grids = np.rint(data.column("grid") * 10).astype(int)
    for name in ("grid", "current_order"):
        lines.append(f"{name} = [")
        for m in MOMENTS:
            podiums, cars = np.zeros(CARS + 1), np.zeros(CARS + 1)
            for row in rows[m]:
                n = data.cars[row]
                place = grids[row, :n] if name == "grid" else np.arange(1, n + 1)
                place = np.clip(place, 1, CARS)
                np.add.at(podiums, place, data.place[row, :n] <= 3)
                np.add.at(cars, place, 1)
            share = np.where(cars > 0, (podiums + 0.05) / (cars + 1.0), 0.01)
            lines.append("  [" + ", ".join(f"{s:.4f}" for s in share[1:]) + "],")
        lines.append("]")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
