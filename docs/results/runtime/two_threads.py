"""How much faster two threads are than one: each engine by itself, in one process.

    python docs/results/runtime/two_threads.py [resnet-50] > FILE

A line of JSON for each share of weights kept: medians in ms of 25 runs after 5, with one thread and with two.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from gossamer.bench.compare import random_inputs
from gossamer.bench.engines import Subject, open_runner
from gossamer.bench.network import build, find_network
from gossamer.export.rewrite import to_sparse

DENSITIES = (0.2, 0.1, 0.05)
WARM_UP, RUNS = 5, 25


def milliseconds(engine: str, subject: Subject) -> float:
    runner = open_runner(engine, subject)
    for _ in range(WARM_UP):
        runner.seconds()
    seconds = [runner.seconds() for _ in range(RUNS)]
    runner.close()
    return statistics.median(seconds) * 1e3


def main(network: str) -> None:
    for density in DENSITIES:
        model = build(find_network(network), density)
        sparse = to_sparse(model)
        line: dict[str, float | str] = {"network": network, "density": density, "runs": RUNS}
        for engine in ("gossamer", "dense"):
            times = []
            for threads in (1, 2):
                with tempfile.TemporaryDirectory() as folder:
                    subject = Subject(model, sparse, random_inputs(model), threads, Path(folder))
                    times.append(milliseconds(engine, subject))
            line |= {f"{engine}_1": round(times[0], 3), f"{engine}_2": round(times[1], 3)}
            line[f"{engine}_speed_up"] = round(times[0] / times[1], 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "resnet-50")
