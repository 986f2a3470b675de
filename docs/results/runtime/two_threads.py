"""How much faster two threads are than one: each engine by itself, in one process, and where the two processors lie.

    cmake -DGOSSAMER_BUILD_BENCH=ON build/native && cmake --build build/native --target core_latency
    python docs/results/runtime/two_threads.py build/native/native/bench/libcore_latency.so [resnet-50] > FILE

A virtual machine's processors move: for seconds they share their last cache, for seconds they do not, and then each
thread reads what the other wrote from afar. And for seconds one of them is a third slower than the other, whatever runs
there. So there are 24 rounds, with the way of a cache line between the processors measured beside the runs with two
threads, before and after, and before and after those what the two processors have to give: how much more two
sessions of one thread each get done at once than one alone ("possible", the lesser of both).

A line of JSON for each share of weights kept and each of the places, "near" and "apart", and for the rounds near each
other in which at least 1.9 was possible, "near, both free": medians in ms of 15 runs after 3, the median of the rounds,
and of the speed-up within a round.
"""

import ctypes
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx

from gossamer.bench.compare import random_inputs
from gossamer.bench.engines import Runner, Subject, open_runner
from gossamer.bench.network import build, find_network
from gossamer.export.rewrite import to_sparse

DENSITIES = (0.2, 0.1, 0.05)
ROUNDS, WARM_UP, RUNS = 24, 3, 15
ENGINES = ("gossamer", "dense")
FREE = 1.9
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


@dataclass(frozen=True)
class Round:
    one: dict[str, float]
    two: dict[str, float]
    ways: dict[str, list[float]]
    possible: float

    def is_at(self, place: str, engine: str) -> bool:
        near = max(self.ways[engine]) < NEAR
        apart = min(self.ways[engine]) >= NEAR
        return {"near": near, "apart": apart, "near, both free": near and self.possible >= FREE}[place]


def measure_round(model: onnx.ModelProto, latency: Callable[[], float]) -> Round:
    sparse, inputs = to_sparse(model), random_inputs(model)

    def rate() -> float:
        """Runs a millisecond of two sessions at once."""
        with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
            pair = measure_pair(*(Subject(model, sparse, inputs, 1, Path(folder)) for folder in (here, there)))
        return sum(1 / milliseconds for milliseconds in pair)

    times: dict[int, dict[str, float]] = {1: {}, 2: {}}
    ways: dict[str, list[float]] = {}
    rates = [rate()]
    for engine in ENGINES:
        for threads in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                subject = Subject(model, sparse, inputs, threads, Path(folder))
                times[threads][engine], ways[engine] = measure(engine, subject, latency)
        if engine == "gossamer":
            rates.append(rate())
    return Round(times[1], times[2], ways, times[1]["gossamer"] * min(rates))


def main(library: str, network: str) -> None:
    latency = core_latency(library)
    for density in DENSITIES:
        model = build(find_network(network), density)
        rounds = [measure_round(model, latency) for _ in range(ROUNDS)]
        for place in ("near, both free", "near", "apart"):
            line: dict[str, float | str] = {"network": network, "density": density, "processors": place}
            for engine in ENGINES:
                here = [one for one in rounds if one.is_at(place, engine)]
                line[f"{engine}_rounds"] = len(here)
                if not here:
                    continue
                line[f"{engine}_1"] = round(statistics.median(one.one[engine] for one in here), 3)
                line[f"{engine}_2"] = round(statistics.median(one.two[engine] for one in here), 3)
                speed_ups = [one.one[engine] / one.two[engine] for one in here]
                line[f"{engine}_speed_up"] = round(statistics.median(speed_ups), 3)
                if engine == "gossamer":
                    line["possible"] = round(statistics.median(one.possible for one in here), 3)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "resnet-50")
