"""Builds of the op library, in turn in one process, by where the two processors lie.

    python docs/results/runtime/builds_by_place.py build/native/native/bench/libcore_latency.so resnet-50 2 0.05 40 \\
        before=LIBRARY after=LIBRARY > FILE

Arguments: what measures the way of a cache line between two processors (two_threads.py says why), network, threads,
share of weights kept, rounds, and the builds by name. In every round each build has 2 runs that do not count and 7 that
do; the next round begins with the next build. A line of JSON for the rounds "near" and "apart": of every build the
median in ms, the shortest, and the median of its ratio to the first one's within a round.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from two_threads import NEAR, core_latency

from gossamer.bench.compare import random_inputs
from gossamer.bench.engines import Runner, Subject, open_runner
from gossamer.bench.network import build, find_network
from gossamer.export.rewrite import to_sparse

WARM_UP, RUNS = 2, 7


def typical(runner: Runner) -> float:
    for _ in range(WARM_UP):
        runner.seconds()
    return statistics.median(runner.seconds() for _ in range(RUNS)) * 1e3


def main(latency_library: str, network: str, threads: int, density: float, rounds: int, builds: dict[str, str]) -> None:
    latency = core_latency(latency_library)
    model = build(find_network(network), density)
    sparse, inputs = to_sparse(model), random_inputs(model)
    names = list(builds)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        runners: dict[str, Runner] = {}
        for name, library in builds.items():
            own = Path(folder) / name
            own.mkdir()
            # The loader takes two libraries of one path for the same one.
            os.environ["GOSSAMER_OPS"] = str(shutil.copy(library, own))
            runners[name] = open_runner("gossamer", Subject(model, sparse, inputs, threads, own))
        for number in range(rounds):
            first = number % len(names)
            ways = [latency()]
            times = {name: typical(runners[name]) for name in names[first:] + names[:first]}
            ways.append(latency())
            if max(ways) < NEAR or min(ways) >= NEAR:
                found["near" if max(ways) < NEAR else "apart"].append(times)
    for place, rows in found.items():
        line: dict[str, Any] = {
            "network": network,
            "threads": threads,
            "density": density,
            "processors": place,
            "rounds": len(rows),
        }
        line["milliseconds"] = {name: round(statistics.median(row[name] for row in rows), 3) for name in names}
        line["shortest"] = {name: round(min(row[name] for row in rows), 3) for name in names}
        line["ratio"] = {name: round(statistics.median(row[name] / row[names[0]] for row in rows), 4) for name in names}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        int(sys.argv[3]),
        float(sys.argv[4]),
        int(sys.argv[5]),
        dict(argument.split("=", 1) for argument in sys.argv[6:]),
    )
