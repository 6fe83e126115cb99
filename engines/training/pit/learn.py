"""The pit network's policy: a double DQN in trackside's own race model.

Asks and answers go through the standard streams of `trackside environment` (src/cli/environment.rs):

    little-endian u32 n, then n records of slot u32, reward f32, over u32, legal u32, state 32 x f32
    answer: n bytes, one action each (any byte where the race is over)

Decisions last one to ten laps and nothing is discounted: the horizon is a race. Seeded, and what is learnt depends on
steps, never on the clock: the same machine and versions give the same network.
"""

import argparse
import subprocess
import time

import numpy as np
import torch
from torch import nn

STATE, ACTIONS = 32, 10
RECORD = np.dtype([("slot", "<u4"), ("reward", "<f4"), ("over", "<u4"), ("legal", "<u4"), ("state", "<f4", STATE)])
# About five minutes on one core, and the environment on another. With 25,000 regret was 4 % more.
STEPS = 60_000
SCALE = 20.0  # rewards are seconds; the network sees them over this


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network():
    return nn.Sequential(nn.Linear(STATE, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, ACTIONS))


class Environment:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1 << 20)

    def questions(self):
        n = np.frombuffer(self.process.stdout.read(4), "<u4")[0]
        return np.frombuffer(self.process.stdout.read(int(n) * RECORD.itemsize), RECORD)

    def answer(self, actions):
        self.process.stdin.write(actions.astype(np.uint8).tobytes())
        self.process.stdin.flush()


def masks(legal):
    return (legal[:, None] >> np.arange(ACTIONS)) & 1 > 0


class Memory:
    def __init__(self, size):
        self.size, self.at, self.full = size, 0, False
        self.s, self.t = np.zeros((size, STATE), np.float32), np.zeros((size, STATE), np.float32)
        self.a, self.r = np.zeros(size, np.int64), np.zeros(size, np.float32)
        self.over, self.legal = np.zeros(size, bool), np.zeros((size, ACTIONS), bool)

    def add(self, s, a, r, t, over, legal):
        at = (self.at + np.arange(len(a))) % self.size
        self.s[at], self.a[at], self.r[at], self.t[at], self.over[at], self.legal[at] = s, a, r, t, over, legal
        self.full |= self.at + len(a) >= self.size
        self.at = (self.at + len(a)) % self.size

    def sample(self, rng, n):
        return rng.integers(0, self.size if self.full else self.at, n)


def save(online, path):
    torch.save({name: tensor.cpu() for name, tensor in online.state_dict().items()}, path)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--trackside", nargs=argparse.REMAINDER, required=True, help="last: the command that runs the environment")
    args.add_argument("--steps", type=int, default=STEPS, help="gradient steps")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--out", default="policy.pt")
    args = args.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    on = device()
    online, target = network().to(on), network().to(on)
    target.load_state_dict(online.state_dict())
    optimiser = torch.optim.Adam(online.parameters(), 1e-3)
    memory = Memory(400_000)
    environment = Environment(args.trackside)
    pending_s, pending_a = {}, {}
    begun, step, lost, told = time.time(), 0, [], time.time()
    returns, running = [], {}
    while step < args.steps:
        share = step / args.steps
        explore = max(0.02, 0.5 * (1 - share / 0.5))
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (1 - 0.9 * share)
        q = environment.questions()
        legal = masks(q["legal"])
        with torch.no_grad():
            value = online(torch.from_numpy(q["state"].copy()).to(on)).cpu().numpy()
        value[~legal] = -1e9
        actions = value.argmax(1)
        # Stops are rare: exploring stays out more often than it boxes.
        weight = legal * np.array([2, 1, 1, 1, 1, 1, 1.5, 1.5, 2, 2])
        weight[~legal.any(1), 0] = 1
        random = (weight.cumsum(1) / weight.sum(1, keepdims=True) > rng.random((len(q), 1))).argmax(1)
        actions = np.where(rng.random(len(q)) < explore, random, actions)
        known = [i for i, slot in enumerate(q["slot"]) if int(slot) in pending_a]
        if known:
            slots = [int(q["slot"][i]) for i in known]
            memory.add(np.stack([pending_s[s] for s in slots]), np.array([pending_a[s] for s in slots]),
                       q["reward"][known] / SCALE, q["state"][known], q["over"][known] > 0, legal[known])
        for i, slot in enumerate(q["slot"]):
            slot = int(slot)
            running[slot] = running.get(slot, 0.0) + float(q["reward"][i])
            if q["over"][i]:
                pending_s.pop(slot, None), pending_a.pop(slot, None)
                returns.append(running.pop(slot))
            else:
                pending_s[slot], pending_a[slot] = q["state"][i], int(actions[i])
        environment.answer(actions)
        if not memory.full and memory.at < 20_000:
            continue
        for _ in range(max(1, len(q) // 96)):
            at = memory.sample(rng, 512)
            s, t = torch.from_numpy(memory.s[at]).to(on), torch.from_numpy(memory.t[at]).to(on)
            with torch.no_grad():
                ahead = online(t).masked_fill(~torch.from_numpy(memory.legal[at]).to(on), -1e9)
                best = ahead.argmax(1, keepdim=True)
                then = target(t).gather(1, best)[:, 0] * torch.from_numpy((~memory.over[at]).astype(np.float32)).to(on)
            said = online(s).gather(1, torch.from_numpy(memory.a[at]).to(on)[:, None])[:, 0]
            loss = nn.functional.smooth_l1_loss(said, torch.from_numpy(memory.r[at]).to(on) + then)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(online.parameters(), 5.0)
            optimiser.step()
            lost.append(loss.item())
            step += 1
            with torch.no_grad():
                for a, b in zip(target.parameters(), online.parameters()):
                    a.lerp_(b, 0.005)
        if time.time() - told > 20:
            told = time.time()
            print(f"{time.time() - begun:.0f} s, {step} steps, explore {explore:.2f}, loss {np.mean(lost[-500:]):.4f}, "
                  f"return {np.mean(returns[-2000:]):.2f} s over {len(returns)}", flush=True)
            save(online, args.out)
    save(online, args.out)
    environment.process.kill()


if __name__ == "__main__":
    main()
