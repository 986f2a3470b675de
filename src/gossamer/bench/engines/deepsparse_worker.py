"""Runs in DeepSparse's own environment, which has no gossamer: answers requests on standard input, one JSON line each.

    {"model": PATH, "threads": N, "inputs": PATH.npz}  ->  {"version": ...}
    {"outputs": PATH.npz}                              ->  {}, the outputs of one run written there
    {"time": true}                                     ->  {"seconds": ...} of one run

An answer {"problem": ...} says what went wrong.
"""

import json
import os
import sys
import time
from typing import Any

# DeepSparse prints to standard output; answers go to a copy of it.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
# It would report its use to its maker otherwise.
os.environ["NM_DISABLE_ANALYTICS"] = "True"

import deepsparse  # noqa: E402
import numpy as np  # noqa: E402


class Worker:
    """A network in DeepSparse, and what is asked of it."""

    def open(self, model: str, threads: int, inputs: str) -> dict[str, Any]:
        self.engine = deepsparse.Engine(model=model, batch_size=1, num_cores=threads)
        with np.load(inputs, allow_pickle=False) as arrays:
            self.inputs = [np.ascontiguousarray(arrays[name]) for name in self.engine.input_names]
        return {"version": "DeepSparse " + deepsparse.__version__}

    def write_outputs(self, path: str) -> dict[str, Any]:
        np.savez(path, *self.engine.run(self.inputs))
        return {}

    def time(self) -> dict[str, Any]:
        started = time.perf_counter()
        # The inputs were checked by the first run; the check would be counted otherwise.
        self.engine.run(self.inputs, val_inp=False)
        return {"seconds": time.perf_counter() - started}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "model" in request:
            return self.open(request["model"], request["threads"], request["inputs"])
        if "outputs" in request:
            return self.write_outputs(request["outputs"])
        return self.time()


worker = Worker()
for line in sys.stdin:
    try:
        answer = worker.answer(json.loads(line))
    except Exception as error:
        answer = {"problem": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
