"""The same network on several builds of the op library, in turn in one process.

Command: python benchmarks/libraries.py usual=LIBRARY avx2=LIBRARY > docs/results/libraries-avx2.jsonl
n: 101 runs of each build (31 of avx2)
Hardware: one thread of 2 cores of AMD Zen 5 (avx2: Zen 4)
Date: 2026-11-28 (avx2: 2026-11-27)

A line of JSON for each share of weights kept: the median in ms of every build; and the speed of each beside the first
one's, run by run (above 1: faster than the first), as the median of these ratios and the 95% interval of that median.
"""

import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import onnx

from gossamer.bench.engines import BothForms, Runner, open_runner
from gossamer.bench.network import build, find_network
from gossamer.export.rewrite import to_sparse
from gossamer.graph.inputs import random_inputs

NETWORK = "resnet-50"
DENSITIES = (0.2, 0.1, 0.05)
WARM_UP, RUNS = 3, 101


def open_builds(libraries: dict[str, Path], model: onnx.ModelProto, threads: int, folder: Path) -> dict[str, Runner]:
    """A session of each build, by its name; `folder` must stay as long as they do."""
    sparse, inputs = to_sparse(model), random_inputs(model)
    runners: dict[str, Runner] = {}
    for name, library in libraries.items():
        own = folder / name
        own.mkdir()
        # The loader takes two libraries of one path for the same one.
        os.environ["GOSSAMER_OPS"] = str(shutil.copy(library, own))
        runners[name] = open_runner("gossamer", BothForms(model, sparse, inputs, threads, own))
    return runners


def paths_by_name(arguments: list[str]) -> dict[str, Path]:
    """Of arguments NAME=LIBRARY."""
    return {name: Path(path) for name, path in (argument.split("=", 1) for argument in arguments)}


def median_with_interval(values: list[float]) -> tuple[float, float, float]:
    """The median and the limits of its 95% interval: the values at the ranks that the median lies between with that
    probability, whatever the distribution (a sign test turned around; normal approximation of the binomial ranks)."""
    ordered = sorted(values)
    reach = math.ceil(1.96 * math.sqrt(len(ordered)) / 2)
    low = max(0, len(ordered) // 2 - reach)
    return statistics.median(ordered), ordered[low], ordered[len(ordered) - 1 - low]


def main(libraries: dict[str, Path]) -> None:
    for density in DENSITIES:
        model = build(find_network(NETWORK), density)
        with tempfile.TemporaryDirectory() as folder:
            runners = open_builds(libraries, model, 1, Path(folder))
            seconds: dict[str, list[float]] = {name: [] for name in runners}
            for _ in range(WARM_UP + RUNS):
                for name, runner in runners.items():
                    runner.seconds()
                    seconds[name].append(runner.seconds())
        medians = {name: statistics.median(values[WARM_UP:]) * 1e3 for name, values in seconds.items()}
        first, *others = seconds
        speed = {
            name: median_with_interval([a / b for a, b in zip(seconds[first], seconds[name], strict=True)][WARM_UP:])
            for name in others
        }
        print(
            json.dumps(
                {
                    "network": NETWORK,
                    "density": density,
                    "runs": RUNS,
                    "milliseconds": {name: round(value, 3) for name, value in medians.items()},
                    "speed": {name: [round(value, 4) for value in values] for name, values in speed.items()},
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(paths_by_name(sys.argv[1:]))
