"""Runs in an engine's own environment, which has no gossamer: answers requests on standard input, one JSON line each.

    worker.py MODULE.py                            the engine: `open_network(request)` gives an object with `version`,
                                                   `outputs()` and `once()`, which is what is timed
    {"model": PATH, "inputs": PATH.npz, "threads": N, "folder": PATH, ...}
                                                   ->  {"version": ...}, the network opened
    {"outputs": PATH.npz}                          ->  {}, the outputs of one run written there
    {"time": true}                                 ->  {"seconds": ...} of one run

An answer {"problem": ...} says what went wrong.
"""

import json
import os
import runpy
import sys
import time
from typing import Any

# Engines print to standard output; answers go to a copy of it.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np  # noqa: E402


class Worker:
    """A network in an engine, and what is asked of it."""

    def __init__(self, module: str) -> None:
        self.open_network = runpy.run_path(module)["open_network"]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "model" in request:
            self.network = self.open_network(request)
            return {"version": self.network.version}
        if "outputs" in request:
            np.savez(request["outputs"], *self.network.outputs())
            return {}
        started = time.perf_counter()
        self.network.once()
        return {"seconds": time.perf_counter() - started}


def main(module: str) -> None:
    """Answers until standard input ends. What keeps the engine from being imported is the first answer."""
    worker: Worker | None = None
    for line in sys.stdin:
        try:
            worker = worker or Worker(module)
            answer = worker.answer(json.loads(line))
        except Exception as error:
            answer = {"problem": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
