"""Models on onnxruntime, a round at a time: `trackside bench predict` and `trackside engines verify --rival` run this
between their own rounds.

    python -c "$(cat benches/onnxruntime.py)" MODELS THREADS [cpu|gpu]

MODELS is JSON: [{"file": an ONNX file, "inputs": {name: shape}}…]. With gpu it computes on CUDA where it has it, and
on the CPU else. Says what it is, and what it computes on, as one line of JSON; then, for every line that it reads (how
many ticks), the milliseconds that each model took in each tick: [[…] a model]. Inputs come from the host's memory and
answers go there. Needs numpy and onnxruntime; without them it says what is missing.
"""

import json
import sys
import time


def say(what):
    print(json.dumps(what), flush=True)


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def main(models, threads, where):
    try:
        import numpy as np
        import onnxruntime
    except ImportError as e:
        say({"missing": f"{e} ({sys.executable})"})
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    rng, runs, used = np.random.default_rng(1), [], set()
    on_gpu = where == "gpu" and CUDA in onnxruntime.get_available_providers()
    providers = [CUDA, CPU] if on_gpu else [CPU]
    for model in models:
        session = onnxruntime.InferenceSession(model["file"], options, providers=providers)
        # It takes the CPU where CUDA does not load, and says so here alone.
        used.add(session.get_providers()[0])
        runs.append((session, {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in model["inputs"].items()}))
    say({"version": onnxruntime.__version__, "provider": " and ".join(sorted(used))})
    for line in sys.stdin:
        times = [[] for _ in runs]
        for _ in range(int(line)):
            for (session, feed), took in zip(runs, times):
                began = time.perf_counter()
                session.run(None, feed)
                took.append((time.perf_counter() - began) * 1e3)
        say(times)


main(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "cpu")
