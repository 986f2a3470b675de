"""How much faster two threads are than one: each engine by itself, in one process, and where the two processors lie.

    cmake -DGOSSAMER_BUILD_BENCH=ON build/native && cmake --build build/native --target core_latency
    python docs/results/runtime/two_threads.py build/native/native/bench/libcore_latency.so [resnet-50] > FILE

A virtual machine's processors move: for seconds they share their last cache, for seconds they do not, and then each
thread reads what the other wrote from afar. So there are 12 rounds, with the way of a cache line between the processors
measured beside the runs with two threads, before and after. A line of JSON for each share of weights kept and each of
the places, "near" and "apart": medians in ms of 15 runs after 3, the median of the rounds. "possible": how much more
two sessions of one thread each get done at once than one alone, which is what the two processors had to give.
"""

import ctypes
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gossamer.bench.compare import random_inputs
from gossamer.bench.engines import Runner, Subject, open_runner
from gossamer.bench.network import build, find_network
from gossamer.export.rewrite import to_sparse

DENSITIES = (0.2, 0.1, 0.05)
ROUNDS, WARM_UP, RUNS = 12, 3, 15
ENGINES = ("gossamer", "dense")
NEAR = 60.0
"""Nanoseconds that a cache line takes at most between two processors that share their last cache."""


def core_latency(library: str) -> Callable[[], float]:
    """Measures those nanoseconds."""
    measured: Callable[[], float] = ctypes.CDLL(library).CoreLatencyNanoseconds
    measured.restype = ctypes.c_double  # type: ignore[attr-defined]
    return measured


def measure(engine: str, subject: Subject, latency: Callable[[], float]) -> tuple[float, list[float]]:
    """Milliseconds of a run, and the nanoseconds before and after them."""
    runner = open_runner(engine, subject)
    for _ in range(WARM_UP):
        runner.seconds()
    ways = [latency()]
    seconds = [runner.seconds() for _ in range(RUNS)]
    ways.append(latency())
    runner.close()
    return statistics.median(seconds) * 1e3, ways


def measure_pair(subject: Subject, other: Subject) -> tuple[float, float]:
    """Milliseconds of a run in each of two sessions that run at once."""
    runners = [open_runner("gossamer", one) for one in (subject, other)]

    def typical(runner: Runner) -> float:
        for _ in range(WARM_UP):
            runner.seconds()
        return statistics.median(runner.seconds() for _ in range(RUNS)) * 1e3

    with ThreadPoolExecutor(len(runners)) as pool:
        first, second = pool.map(typical, runners)
    for runner in runners:
        runner.close()
    return first, second


def main(library: str, network: str) -> None:
    latency = core_latency(library)
    for density in DENSITIES:
        model = build(find_network(network), density)
        sparse, inputs = to_sparse(model), random_inputs(model)
        one: dict[str, list[float]] = defaultdict(list)
        two: dict[tuple[str, str], list[float]] = defaultdict(list)
        pairs: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            for engine in ENGINES:
                for threads in (1, 2):
                    with tempfile.TemporaryDirectory() as folder:
                        subject = Subject(model, sparse, inputs, threads, Path(folder))
                        time, ways = measure(engine, subject, latency)
                    if threads == 1:
                        one[engine].append(time)
                    elif max(ways) < NEAR or min(ways) >= NEAR:
                        two[engine, "near" if max(ways) < NEAR else "apart"].append(time)
            with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
                pair = [Subject(model, sparse, inputs, 1, Path(folder)) for folder in (here, there)]
                pairs.append(measure_pair(*pair))
        for place in ("near", "apart"):
            line: dict[str, float | str] = {"network": network, "density": density, "processors": place}
            for engine in ENGINES:
                times = two[engine, place]
                if not times:
                    continue
                alone, both = statistics.median(one[engine]), statistics.median(times)
                line |= {f"{engine}_1": round(alone, 3), f"{engine}_2": round(both, 3), f"{engine}_rounds": len(times)}
                line[f"{engine}_speed_up"] = round(alone / both, 3)
            alone = statistics.median(one["gossamer"])
            line["possible"] = round(statistics.median(alone / first + alone / second for first, second in pairs), 3)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "resnet-50")
