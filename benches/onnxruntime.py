"""Models on onnxruntime, a round at a time: `trackside bench predict` runs this between its own rounds.

    python -c "$(cat benches/onnxruntime.py)" MODELS THREADS

MODELS is JSON: [{"file": an ONNX file, "inputs": {name: shape}}…]. Says what it is as one line of JSON; then, for
every line that it reads (how many ticks), the milliseconds that each model took in each tick: [[…] a model].
Needs numpy and onnxruntime; without them it says what is missing.
"""

import json
import sys
import time


def say(what):
    print(json.dumps(what), flush=True)


def main(models, threads):
    try:
        import numpy as np
        import onnxruntime
    except ImportError as e:
        say({"missing": f"{e} ({sys.executable})"})
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    rng, runs = np.random.default_rng(1), []
    for model in models:
        session = onnxruntime.InferenceSession(model["file"], options, providers=["CPUExecutionProvider"])
        runs.append((session, {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in model["inputs"].items()}))
    say({"version": onnxruntime.__version__})
    for line in sys.stdin:
        times = [[] for _ in runs]
        for _ in range(int(line)):
            for (session, feed), took in zip(runs, times):
                began = time.perf_counter()
                session.run(None, feed)
                took.append((time.perf_counter() - began) * 1e3)
        say(times)


main(json.loads(sys.argv[1]), int(sys.argv[2]))
