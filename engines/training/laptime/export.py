"""Weights to ONNX, recorded answers and the manifest's entry. One command:

    python export.py FEATURES FILE… [--weights FOLDER] --out engines [--last 2023] [--judge 2024]

Several weights become one file that answers with their mean, trees and all. The interval is widened so that it covers 80 % of
the season --judge, on which the model was chosen.
"""

import argparse
import hashlib
import json
from pathlib import Path

import lightgbm
import numpy as np
import torch
from torch import nn

from data import FEATURES_VERSION, Rows
from network import Memory, Step
from train import Batches, figures, predict, say

COVER = 0.80
# Weight of the trees beside the networks, by head: the more of the lap is in, the less they know that networks do not.
TREES = (0.5, 0.4, 0.35)
FIXTURE_ROWS, FIXTURE_STEPS = 2, 6


class Trees(nn.Module):
    """Boosted trees as matrix products, so that any engine can run them: which side of every node a row falls on,
    then which leaf has every node on its path on its side."""

    def __init__(self, model):
        super().__init__()
        trees = [t["tree_structure"] for t in model.dump_model()["tree_info"]]
        nodes = leaves = 0
        walked = []
        for tree in trees:
            inner, ends = [], []
            def walk(n, path):
                if "leaf_value" in n:
                    ends.append((n["leaf_value"], path))
                    return
                assert n["decision_type"] == "<="
                at = len(inner)
                # The largest single-precision number that is not above the threshold.
                edge = np.float32(n["threshold"])
                edge = np.nextafter(edge, np.float32(-np.inf)) if float(edge) > n["threshold"] else edge
                inner.append((n["split_feature"], edge))
                walk(n["left_child"], path + [(at, 1.0)])
                walk(n["right_child"], path + [(at, -1.0)])
            walk(tree, [])
            walked.append((inner, ends))
            nodes, leaves = max(nodes, len(inner)), max(leaves, len(ends))
        column = np.zeros((len(trees), nodes), np.int64)
        edge = np.zeros((len(trees), nodes), np.float32)
        side = np.zeros((len(trees), nodes, leaves), np.float32)
        need = np.full((len(trees), 1, leaves), 1e3, np.float32)
        value = np.zeros((len(trees), 1, leaves), np.float32)
        for k, (inner, ends) in enumerate(walked):
            for n, (c, e) in enumerate(inner):
                column[k, n], edge[k, n] = c, e
            for leaf, (v, path) in enumerate(ends):
                value[k, 0, leaf] = v
                need[k, 0, leaf] = sum(s for _, s in path if s > 0)
                for n, s in path:
                    side[k, n, leaf] = s
        self.shape = column.shape
        for name, array in (("column", column.ravel()), ("edge", edge.ravel()), ("side", side),
                            ("need", need - 1.0), ("value", value)):
            self.register_buffer(name, torch.from_numpy(array))

    def forward(self, x):
        left = 1.0 - (x.index_select(1, self.column) > self.edge).float()
        left = left.reshape(-1, *self.shape).transpose(0, 1)
        # Whole numbers: 1 for the leaf that is reached, 0 or less for the others.
        reached = torch.relu(left @ self.side - self.need)
        return (reached * self.value).sum((0, 2)).unsqueeze(1)


class Mixture(nn.Module):
    """The networks' quantiles, moved so that P50 is a mean of theirs and the trees'."""

    def __init__(self, networks, trees):
        super().__init__()
        self.networks, self.trees = networks, nn.ModuleList(trees)
        self.register_buffer("weight", torch.tensor(TREES)[:, None])

    def forward(self, line, sector1, sector2, hidden, cell, memory, mask):
        quantiles, *state = self.networks(line, sector1, sector2, hidden, cell, memory, mask)
        inputs = (line, torch.cat([line, sector1], 1), torch.cat([line, sector2], 1))
        other = torch.cat([t(x).unsqueeze(1) for t, x in zip(self.trees, inputs)], 1)
        return quantiles + self.weight * (other - quantiles[:, :, 1:2]), *state


def widening(rows, predictions, season):
    """Factors on P50 − P10 and P90 − P50 by head: each side leaves out (1 − COVER) / 2 of the truths."""
    factors = []
    for head in range(3):
        ok = rows.judged[head] & (rows.meta["season"] == season)
        truth = rows.meta["truth_s"][ok] - rows.bases[head][ok]
        low, mid, high = predictions[ok, head].T
        tail = 1 - (1 - COVER) / 2
        factors += [float(np.quantile((mid - truth) / (mid - low), tail)),
                    float(np.quantile((truth - mid) / (high - mid), tail))]
    return [round(f, 4) for f in factors]


def check(rows, model, k, whole, sequence):
    """The step by step graph against the whole sequence at once."""
    a, b = sequence
    memory, worst = Memory(1, k), 0.0
    with torch.no_grad():
        for at in range(a, b):
            given = [torch.from_numpy(x[at:at + 1]) for x in (rows.line, rows.sector1, rows.sector2)]
            answer, *new = model(*given, *memory.fed())
            memory.keep(*new)
            worst = max(worst, float((answer[0] - torch.from_numpy(whole[at])).abs().max()))
    print(f"step by step against the whole sequence: off by at most {worst:.2e}")
    assert worst < 2e-3


def main():
    p = argparse.ArgumentParser()
    p.add_argument("features")
    p.add_argument("weights", nargs="+", help="files that train.py --keep wrote")
    p.add_argument("--weights", dest="folder", default=".", help="folder of the weights")
    p.add_argument("--trees", help="folder of trees that gbm.py --keep wrote")
    p.add_argument("--out", default="engines")
    p.add_argument("--version", default="1")
    p.add_argument("--last", type=int, default=2023)
    p.add_argument("--judge", type=int, default=2024)
    a = p.parse_args()
    rows, out = Rows(a.features), Path(a.out)
    networks = [torch.load(Path(a.folder) / w, weights_only=False).eval() for w in a.weights]
    k = len(networks)
    judged = Batches(rows, rows.seasons(a.judge, a.judge), a.last)
    predictions = sum(predict(n, judged) for n in networks) / k
    print("one network:", say(figures(rows, predict(networks[0], judged), a.judge)))
    print(f"mean of {k}:", say(figures(rows, predictions, a.judge)))
    model = Step(networks)
    if a.trees:
        boosted = [lightgbm.Booster(model_file=f"{a.trees}/trees-{head}.txt") for head in range(3)]
        model = Mixture(model, [Trees(b) for b in boosted])
        inside = np.concatenate([np.arange(*s) for s in judged.sequences])
        inputs = (rows.line, np.hstack([rows.line, rows.sector1]), np.hstack([rows.line, rows.sector2]))
        for head in range(3):
            other = boosted[head].predict(inputs[head][inside])
            with torch.no_grad():
                again = model.trees[head](torch.from_numpy(inputs[head][inside[:2000]]))[:, 0].numpy()
            assert np.abs(again - other[:2000]).max() < 1e-3
            middle = predictions[inside, head, 1:2]
            predictions[inside, head] += TREES[head] * (other[:, None] - middle)
        print("with trees:", say(figures(rows, predictions, a.judge)))
    model = model.eval()
    widen = widening(rows, predictions, a.judge)
    check(rows, model, k, predictions, rows.seasons(a.judge, a.judge)[0])
    example = [torch.from_numpy(x[:2]) for x in (rows.line, rows.sector1, rows.sector2)]
    example += Memory(2, k).fed()
    name = f"laptime-{a.version}"
    path = out / f"{name}.onnx"
    names = Step.INPUTS + Step.OUTPUTS
    torch.onnx.export(model, tuple(example), path, input_names=Step.INPUTS, output_names=Step.OUTPUTS,
                      opset_version=17, dynamic_axes={n: {0: "batch"} for n in names}, dynamo=False)

    # Recorded answers, on made-up rows: no published lap is in them.
    rng = np.random.default_rng(1)
    scale, known = networks[0].scale, networks[0].sector_scales
    def made_up(s):
        return torch.from_numpy(rng.normal(size=(FIXTURE_ROWS, len(s.mean))).astype(np.float32)) / s.factor + s.mean
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path))
    cases, memory = [], Memory(1, k)
    for step in range(FIXTURE_STEPS):
        given = [t[:1] for t in (made_up(scale), made_up(known[0]), made_up(known[1]))]
        given += memory.fed()
        with torch.no_grad():
            answers = model(*given)
        again = session.run(None, {n: t.numpy() for n, t in zip(Step.INPUTS, given)})
        worst = max(float(np.abs(x.numpy() - y).max()) for x, y in zip(answers, again))
        assert worst < 1e-4, worst
        memory.keep(*answers[1:])
        if step in (0, FIXTURE_STEPS - 1):
            def tensors(names, values):
                return [{"name": n, "shape": list(v.shape), "values": [round(float(x), 6) for x in v.flatten()]}
                        for n, v in zip(names, values)]
            cases.append({"inputs": tensors(Step.INPUTS, given), "outputs": tensors(Step.OUTPUTS, answers)})
    (out / f"{name}.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")))

    def spec(n, t):
        return f'{{ name = "{n}", shape = [{", ".join(map(str, [-1, *t.shape[1:]]))}] }}'
    with torch.no_grad():
        answers = model(*example)
    inputs = ",\n  ".join(spec(n, t) for n, t in zip(Step.INPUTS, example))
    outputs = ",\n  ".join(spec(n, t) for n, t in zip(Step.OUTPUTS, answers))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = f'''[[model]]
name = "laptime"
version = "{a.version}"
file = "{name}.onnx"
sha256 = "{digest}"
features = {FEATURES_VERSION}
trained_on = "2018-{a.last}"
normalisation = "in the graph"
batches = [1, 20]
fixture = "{name}.json"
tolerance = 1e-3
inputs = [
  {inputs},
]
outputs = [
  {outputs},
]
# P50 - P10 and P90 - P50 are multiplied with these: at the line, after sector 1, after sector 2.
calibration = {{ widen = {widen} }}
'''
    manifest = out / "models.toml"
    others = manifest.read_text().split("[[model]]") if manifest.exists() else [""]
    kept = [o for o in others[1:] if '\nname = "laptime"' not in o]
    manifest.write_text(others[0] + "".join("[[model]]" + o.rstrip() + "\n\n" for o in kept) + entry)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, widen {widen}")


if __name__ == "__main__":
    main()
