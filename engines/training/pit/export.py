"""ONNX, fixtures and manifest entries of the pit network and of the forecast.

    python export.py engines/ [--policy policy.pt] [--forecast forecast.pt]

Of the one that is not named the file and its entry stay as they are.
"""

import argparse
import hashlib
import json
import pathlib

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


def of_policy(file, folder, rng):
    policy = learn.network()
    policy.load_state_dict(torch.load(file, map_location="cpu"))
    return export(policy, "pit", "state", ["values"], learn.STATE, folder, rng.random((20, learn.STATE)),
                  ("simulated races, parameters of 2018-2023", ""))


def of_forecast(file, folder, rng):
    saved = torch.load(file, map_location="cpu", weights_only=False)
    mean, std = (saved["state"]["forecast." + k].numpy() for k in ("mean", "std"))
    model = forecast.Shipped(forecast.Forecast(mean, std), Trees(*saved["trees"]))
    model.load_state_dict(saved["state"])
    # Made-up rows, some of their numbers not known: no row of a real race is shipped.
    pick = mean + std * rng.normal(size=(20, len(mean)))
    pick[rng.random(pick.shape) < 0.1] = forecast.MISSING
    yes = saved["report"]["yes"]
    return export(model, "pit-forecast", "features", ["hazard", "compound"], len(mean), folder, pick,
                  ("2018-2023", f"calibration = {{ yes = [{yes:.4f}] }}\n"))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("folder", type=pathlib.Path)
    args.add_argument("--policy")
    args.add_argument("--forecast")
    args = args.parse_args()
    folder, rng, entries = args.folder, np.random.default_rng(7), {}
    if args.policy:
        entries["pit"] = of_policy(args.policy, folder, rng)
    if args.forecast:
        entries["pit-forecast"] = of_forecast(args.forecast, folder, rng)
    manifest = folder / "models.toml"
    parts = manifest.read_text().split("[[model]]") if manifest.exists() else [""]
    kept = [p for p in parts[1:] if not any(f'\nname = "{name}"\n' in p for name in entries)]
    text = parts[0] + "".join("[[model]]" + p.rstrip() + "\n\n" for p in kept) + "\n".join(entries.values())
    manifest.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
