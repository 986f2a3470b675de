"""How much faster two threads are than one, in one process, by where the two processors lie and what they have to give.

Command: python benchmarks/two_threads.py build/native/native/bench/libcore_latency.so [resnet-50] > FILE, or --int8
    [--blocks] [--density D ...]
n: 40 rounds of 9 runs
Hardware: 2 cores of AMD Zen 4 in a virtual machine; of Zen 5 with --int8
Date: 2026-11-27, docs/results/two-threads.jsonl; 2026-11-30 with --int8, docs/results/two-threads-int8.jsonl

First: cmake -DGOSSAMER_BUILD_BENCH=ON build/native && cmake --build build/native --target core_latency

A virtual machine's processors move: for seconds they share their last cache, for seconds they do not, and then each
thread reads what the other wrote from afar. And for seconds one of them is a third slower than the other, whatever runs
there. So there are 40 short rounds: two sessions of one thread each at once, one thread, two threads, one thread, and
the two sessions again; the way of a cache line between the processors is measured before and after the runs with two
threads. What two sessions at once get done, relative to one alone, is what the two processors have to give
("possible", the lesser of both).

A line of JSON for each share of weights kept and each of the places, "near" and "apart", and for the rounds near each
other in which at least 1.9 was possible, "near, both free": medians in ms of 9 runs after 3 (one thread: the mean of
before and after), the median of the rounds, and of the speed-up within a round.
"""

import argparse
import ctypes
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from gossamer.bench.engines import BothForms, Runner, open_runner
from gossamer.bench.network import build, find_network
from gossamer.export.quantise import quantised_by_minmax
from gossamer.export.rewrite import to_sparse
from gossamer.export.rounded_once import written_rounding_once
from gossamer.graph.inputs import random_inputs

DENSITIES = (0.2, 0.1, 0.05)
ROUNDS, WARM_UP, RUNS = 40, 3, 9
ENGINES = ("gossamer", "dense")
FREE = 1.9
NEAR = 60.0
"""Nanoseconds that a cache line takes at most between two processors that share their last cache."""


def core_latency(library: str) -> Callable[[], float]:
    """Measures those nanoseconds."""
    measured: Callable[[], float] = ctypes.CDLL(library).CoreLatencyNanoseconds
    measured.restype = ctypes.c_double  # type: ignore[attr-defined]
    return measured


def place_of(ways: Sequence[float]) -> str | None:
    """Of two processors by those nanoseconds; None if they moved meanwhile."""
    if max(ways) < NEAR:
        return "near"
    return "apart" if min(ways) >= NEAR else None


@dataclass(frozen=True)
class Times:
    """Of one engine in one round: milliseconds of a run with one and with two threads, and the place for the latter."""

    one: float
    two: float
    place: str | None


@dataclass(frozen=True)
class Round:
    engines: dict[str, Times]
    possible: float

    def is_at(self, place: str, engine: str) -> bool:
        if place == "near, both free":
            return self.engines[engine].place == "near" and self.possible >= FREE
        return self.engines[engine].place == place


def typical(runner: Runner, warm_up: int = WARM_UP, runs: int = RUNS) -> float:
    """Milliseconds of a run."""
    for _ in range(warm_up):
        runner.seconds()
    return statistics.median(runner.seconds() for _ in range(runs)) * 1e3


def rate_of_both(pair: tuple[Runner, Runner]) -> float:
    """Runs a millisecond of two sessions at once."""
    with ThreadPoolExecutor(2) as pool:
        return sum(1 / milliseconds for milliseconds in pool.map(typical, pair))


def measure_engine(one: Runner, two: Runner, latency: Callable[[], float]) -> Times:
    before = typical(one)
    ways = [latency()]
    both = typical(two)
    ways.append(latency())
    return Times((before + typical(one)) / 2, both, place_of(ways))


def measure_round(one: dict[str, Runner], two: dict[str, Runner], other: Runner, latency: Callable[[], float]) -> Round:
    pair = (one["gossamer"], other)
    before = rate_of_both(pair)
    gossamer = measure_engine(one["gossamer"], two["gossamer"], latency)
    possible = gossamer.one * min(before, rate_of_both(pair))
    return Round({"gossamer": gossamer, "dense": measure_engine(one["dense"], two["dense"], latency)}, possible)


def in_int8(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The plain and the sparse form of `gossamer export --int8`."""
    inputs = random_inputs(model)
    quantised = quantised_by_minmax(model, [{n: value for n, value in inputs.items() if isinstance(value, np.ndarray)}])
    return quantised, written_rounding_once(quantised)[1].model


def measure(model: onnx.ModelProto, sparse: onnx.ModelProto, latency: Callable[[], float]) -> list[Round]:
    inputs = random_inputs(model)
    with ExitStack() as stack:

        def opened(engine: str, threads: int) -> Runner:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            runner = open_runner(engine, BothForms(model, sparse, inputs, threads, Path(folder)))
            stack.callback(runner.close)
            return runner

        one, two = ({engine: opened(engine, threads) for engine in ENGINES} for threads in (1, 2))
        other = opened("gossamer", 1)
        return [measure_round(one, two, other, latency) for _ in range(ROUNDS)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("network", nargs="?", default="resnet-50")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--blocks", action="store_true")
    parser.add_argument("--density", type=float, nargs="+", default=DENSITIES)
    options = parser.parse_args()
    latency = core_latency(options.library)
    for density in options.density:
        model = build(find_network(options.network), density, structure="1x4" if options.blocks else "unstructured")
        rounds = measure(*(in_int8(model) if options.int8 else (model, to_sparse(model))), latency)
        for place in ("near, both free", "near", "apart"):
            line: dict[str, float | str] = {"network": options.network, "density": density, "processors": place}
            if options.int8:
                line["form"] = "int8, 1x4" if options.blocks else "int8"
            for engine in ENGINES:
                here = [found for found in rounds if found.is_at(place, engine)]
                line[f"{engine}_rounds"] = len(here)
                if not here:
                    continue
                times = [found.engines[engine] for found in here]
                line[f"{engine}_1"] = round(statistics.median(each.one for each in times), 3)
                line[f"{engine}_2"] = round(statistics.median(each.two for each in times), 3)
                line[f"{engine}_speed_up"] = round(statistics.median(each.one / each.two for each in times), 3)
                if engine == "gossamer":
                    line["possible"] = round(statistics.median(found.possible for found in here), 3)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
