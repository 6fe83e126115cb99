"""From the trained network to `outcome-N.onnx`, its fixture and its line in `models.toml`."""

import hashlib
import json

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from data import VERSION
from mix import WEIGHTS
from network import CARS

# Matrices from this size on are stored in half precision; the graph computes in single.
HALF_FROM = 4096


def halve(path):
    """Stores large weights as float16 with a cast behind each."""
    model = onnx.load(path)
    graph, casts = model.graph, []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < HALF_FROM:
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name + ".half")
        casts.append(helper.make_node("Cast", [half.name], [tensor.name], name=tensor.name + ".single", to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def invented(model, columns, generator, cars):
    """A frame that no race has had, within what races have."""
    mean, scale = model.mean.cpu().numpy(), model.scale.cpu().numpy()
    x = np.clip(mean + 0.7 * scale * generator.standard_normal((1, CARS, len(mean))), mean - 2 * scale, mean + 2 * scale)
    share = generator.uniform(0.0, 0.95)
    x[:, :, columns.index("share")], x[:, :, columns.index("left")] = share, (1.0 - share) * 57 / 70
    mask = (np.arange(CARS) < cars).astype(np.float32)[None]
    return (x * mask[:, :, None]).astype(np.float32), mask


def export(model, columns, folder, version, seed):
    """Writes the files; returns the lines for `models.toml`."""
    import onnxruntime

    model = model.cpu().eval()
    name = f"outcome-{version}"
    path = folder / f"{name}.onnx"
    generator = np.random.default_rng(seed)
    x, mask = invented(model, columns, generator, 20)
    torch.onnx.export(
        model, (torch.tensor(x), torch.tensor(mask)), str(path), input_names=["cars", "mask"],
        output_names=["positions", "retirement"], opset_version=17, dynamo=False, do_constant_folding=True,
    )
    halve(str(path))
    session = onnxruntime.InferenceSession(str(path))
    cases, worst = [], 0.0
    for cars in (20, 22, 24, 3):
        x, mask = invented(model, columns, generator, cars)
        positions, retirement = session.run(None, {"cars": x, "mask": mask})
        with torch.no_grad():
            ours = model(torch.tensor(x), torch.tensor(mask))[0].numpy()
        worst = max(worst, float(np.abs(ours - positions).max()))
        tensor = lambda n, v: {"name": n, "shape": list(v.shape), "values": [float(f"{t:.7g}") for t in v.ravel()]}
        cases.append({"inputs": [tensor("cars", x), tensor("mask", mask)], "outputs": [tensor("positions", positions), tensor("retirement", retirement)]})
    print(f"half precision moves a probability by at most {worst:.5f}; {path.stat().st_size / 1e6:.1f} MB")
    (folder / f"{name}.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    features = len(columns)
    return f"""[[model]]
name = "outcome"
version = "{version}"
file = "{name}.onnx"
sha256 = "{digest}"
features = {VERSION}
trained_on = "2018-2023, grids 2008-2023"
normalisation = "in the graph"
batches = [1]
fixture = "{name}.json"
tolerance = 1e-3
inputs = [{{ name = "cars", shape = [-1, {CARS}, {features}] }}, {{ name = "mask", shape = [-1, {CARS}] }}]
outputs = [{{ name = "positions", shape = [-1, {CARS}, {CARS}] }}, {{ name = "retirement", shape = [-1, {CARS}] }}]
# How much of the answer is that of the places' usual finishes (outcome/mix.toml), at 0, 25, 50, 75 and 95 % of the race.
calibration = {{ mix = {WEIGHTS} }}
"""


def enter(entry, folder):
    """Puts the entry into the folder's `models.toml`, in the place of an older one."""
    manifest = folder / "models.toml"
    parts = manifest.read_text().split("[[model]]") if manifest.exists() else [""]
    others = [p for p in parts[1:] if '\nname = "outcome"\n' not in p]
    manifest.write_text(parts[0] + "".join("[[model]]" + p.rstrip() + "\n\n" for p in others) + entry)
