"""The models against onnxruntime on the same files, in the same run: python benches/onnxruntime.py TRACKSIDE [ENGINES]

Runs `TRACKSIDE bench predict --json`, then the same models with the same batch on one thread of onnxruntime, and
prints both and `predict.ratio_to_onnxruntime` (below 1: trackside is quicker). Needs numpy and onnxruntime.
"""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime

CARS, TICKS, WARM_UP = 20, 300, 20


def main():
    trackside, engines = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "engines")
    ours = json.loads(subprocess.run([trackside, "bench", "predict", "--json"], check=True, capture_output=True).stdout)["predict"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    rng, runs = np.random.default_rng(1), []
    for model in tomllib.loads((engines / "models.toml").read_text())["model"]:
        by_car = any(-1 in i["shape"] for i in model["inputs"])
        batch = CARS if CARS in model["batches"] else 1
        session = onnxruntime.InferenceSession(str(engines / model["file"]), options)
        feed = {i["name"]: rng.uniform(-1, 1, [batch if d == -1 else d for d in i["shape"]]).astype(np.float32)
                for i in model["inputs"]}
        runs.append((session, feed, CARS // batch if by_car else 1))
    times = []
    for tick in range(WARM_UP + TICKS):
        began = time.perf_counter()
        for session, feed, count in runs:
            for _ in range(count):
                session.run(None, feed)
        if tick >= WARM_UP:
            times.append((time.perf_counter() - began) * 1e3)
    theirs = {"p50_ms": float(np.quantile(times, 0.5)), "p99_ms": float(np.quantile(times, 0.99))}
    print(json.dumps({"predict": {"p50_ms": ours["p50_ms"], "p99_ms": ours["p99_ms"], "models": ours["models"],
                                  "onnxruntime": theirs, "ratio_to_onnxruntime": ours["p50_ms"] / theirs["p50_ms"]}}, indent=1))


if __name__ == "__main__":
    main()
