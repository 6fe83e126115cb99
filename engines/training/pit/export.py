"""ONNX, fixtures and manifest entries of the pit network and of the forecast.

    python export.py policy.pt forecast.pt engines/
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import torch

import forecast
import learn
from trees import Trees

BATCHES = [1, 20]


def export(module, name, inputs, outputs, width, folder, sample, note):
    """Writes name-1.onnx and name-1.json; returns its entry in models.toml."""
    path = folder / f"{name}-1.onnx"
    module.eval()
    torch.onnx.export(module, (torch.zeros(1, width),), str(path), input_names=[inputs], output_names=list(outputs),
                      dynamic_axes={n: {0: "batch"} for n in (inputs, *outputs)}, opset_version=17, dynamo=False)
    onnx.checker.check_model(onnx.load(str(path)))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    cases = []
    for batch in BATCHES:
        x = sample[:batch].astype(np.float32)
        with torch.no_grad():
            own = module(torch.from_numpy(x))
        own = own if isinstance(own, tuple) else (own,)
        for a, b in zip(own, session.run(None, {inputs: x})):
            assert np.abs(a.numpy() - b).max() < 1e-4, name
        tensor = lambda n, a: {"name": n, "shape": list(a.shape), "values": [float(v) for v in np.ravel(a)]}
        cases.append({"inputs": [tensor(inputs, x)], "outputs": [tensor(n, a.numpy()) for n, a in zip(outputs, own)]})
    (folder / f"{name}-1.json").write_text(json.dumps({"cases": cases}) + "\n")
    widths = {n: a.shape[1] for n, a in zip(outputs, own)}
    shape = lambda n, w: f'{{ name = "{n}", shape = [-1, {w}] }}'
    print(name, path.stat().st_size, "bytes")
    return f'''[[model]]
name = "{name}"
version = "1"
file = "{path.name}"
sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"
features = 1
trained_on = "{note[0]}"
normalisation = "in the graph"
batches = {BATCHES}
fixture = "{name}-1.json"
tolerance = 1e-3
inputs = [{shape(inputs, width)}]
outputs = [{", ".join(shape(n, w) for n, w in widths.items())}]
{note[1]}'''


def main():
    policy_file, forecast_file, folder = sys.argv[1:4]
    folder = pathlib.Path(folder)
    rng = np.random.default_rng(7)
    policy = learn.network()
    policy.load_state_dict(torch.load(policy_file, map_location="cpu"))
    entries = [export(policy, "pit", "state", ["values"], learn.STATE, folder, rng.random((20, learn.STATE)),
                      ("simulated races, parameters of 2018-2023", ""))]
    saved = torch.load(forecast_file, map_location="cpu", weights_only=False)
    mean, std = (saved["state"]["forecast." + k].numpy() for k in ("mean", "std"))
    model = forecast.Shipped(forecast.Forecast(mean, std), Trees(*saved["trees"]))
    model.load_state_dict(saved["state"])
    # Made-up rows, some of their numbers not known: no row of a real race is shipped.
    pick = mean + std * rng.normal(size=(20, len(mean)))
    pick[rng.random(pick.shape) < 0.1] = forecast.MISSING
    yes = saved["report"]["yes"]
    entries.append(export(model, "pit-forecast", "features", ["hazard", "compound"], len(mean), folder, pick,
                          ("2018-2023", f"calibration = {{ yes = [{yes:.4f}] }}\n")))
    manifest = folder / "models.toml"
    parts = manifest.read_text().split("[[model]]") if manifest.exists() else [""]
    kept = [p for p in parts[1:] if '\nname = "pit"\n' not in p and '\nname = "pit-forecast"\n' not in p]
    text = parts[0] + "".join("[[model]]" + p.rstrip() + "\n\n" for p in kept) + "\n".join(entries)
    manifest.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
