"""Convolutions of every kind, sparse and dense in turn in one process: which are faster, and which the export chooses.

Command: python benchmarks/convolutions.py grid 60 7 --rounds 15 > FILE
n: 15 rounds of each network (5 and 9 of the series "before" and "after")
Hardware: one thread of AMD EPYC, family 26 (AVX-512)
Date: 2026-11-28, docs/results/convolutions.jsonl

`grid 60 7` are 60 of GRID, drawn with seed 7; `grid` alone is all of it, and "64>64 33x33 k3x3 d18 g1 p0.1" one.

Of every convolution there are two networks: it alone, between values in ONNX's layout, and a chain of `CHAIN` of it.
Both are run as ONNX Runtime's dense network, as gossamer writes it where all that has a zero is sparse, and as it
chooses by its own costs. The first line says where and when; then one line of JSON for each network: the `form`
chosen, medians in microseconds of the rounds' times (each the mean of some runs), the shortest, and `ratio`: dense by
sparse time, the median of the rounds. `chosen` is that ratio for what the export writes, 1 where it stays dense.
"""

import argparse
import datetime
import itertools
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from gossamer_runtime import Session
from onnx import TensorProto, helper, numpy_helper

from gossamer.bench.measure import machine
from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import rewrite

CHAIN = 4
SECONDS = 0.0005
"""Of one round of one network, at least."""
CALLS = 5_000_000_000
"""Dense multiply-adds of the largest convolution that is measured."""


@dataclass(frozen=True)
class Case:
    """A convolution with as many outputs as inputs and, at stride 1, an output as large as its input."""

    inputs: int
    outputs: int
    height: int
    width: int
    kernel: tuple[int, int] = (3, 3)
    dilation: int = 1
    groups: int = 1
    stride: int = 1
    density: float = 0.1

    @property
    def dilations(self) -> tuple[int, int]:
        return tuple(self.dilation if extent > 1 else 1 for extent in self.kernel)  # type: ignore[return-value]

    @property
    def pads(self) -> tuple[int, int]:
        return tuple(d * (k - 1) // 2 for k, d in zip(self.kernel, self.dilations, strict=True))  # type: ignore[return-value]

    @property
    def multiply_adds(self) -> int:
        pixels = self.height * self.width // self.stride**2
        return pixels * self.outputs * self.inputs // self.groups * self.kernel[0] * self.kernel[1]

    def __str__(self) -> str:
        return (
            f"{self.inputs}>{self.outputs} {self.height}x{self.width} k{self.kernel[0]}x{self.kernel[1]} "
            f"d{self.dilation} s{self.stride} g{self.groups} p{self.density}"
        )


KERNELS = ((1, 1), (1, 3), (3, 1), (1, 7), (7, 1), (3, 3), (5, 5), (7, 7), (9, 9))
CHANNELS = (4, 12, 16, 32, 64, 128, 256, 512)
EXTENTS = ((7, 7), (14, 14), (20, 20), (33, 33), (40, 40), (56, 56), (65, 65), (80, 80), (129, 129), (1, 400), (9, 120))
DILATIONS = (1, 2, 3, 6, 12, 17, 18, 36)
DENSITIES = (0.05, 0.1, 0.2, 0.3)


def grid() -> list[Case]:
    """Everything that is small enough and whose kernel meets the image with more than its middle."""
    found = []
    for channels, (height, width), kernel, dilation, density in itertools.product(
        CHANNELS, EXTENTS, KERNELS, DILATIONS, DENSITIES
    ):
        groups = sorted({1, 2, max(1, channels // 8), max(1, channels // 4), channels})
        for group, stride in itertools.product(groups, (1, 2)):
            case = Case(channels, channels, height, width, kernel, dilation, group, stride, density)
            if case.multiply_adds <= CALLS and _is_sensible(case):
                found.append(case)
    return found


def _is_sensible(case: Case) -> bool:
    if case.kernel == (1, 1) and case.dilation > 1:
        return False
    if case.dilation > 1 and case.stride > 1:
        return False
    # A tap beside the middle one reads some pixel.
    extents = (case.height, case.width)
    return all(d < n or k == 1 for k, d, n in zip(case.kernel, case.dilations, extents, strict=True))


def read(text: str) -> Case:
    """What `str(Case)` writes; what is left out has its default."""
    channels, extents, *settings = text.split()
    inputs, outputs = (int(number) for number in channels.split(">"))
    height, width = (int(number) for number in extents.split("x"))
    given: dict[str, Any] = {}
    for setting in settings:
        letter, value = setting[0], setting[1:]
        if letter == "k":
            given["kernel"] = tuple(int(number) for number in value.split("x"))
        else:
            name = {"d": "dilation", "s": "stride", "g": "groups", "p": "density"}[letter]
            given[name] = float(value) if letter == "p" else int(value)
    return Case(inputs, outputs, height, width, **given)


def network(case: Case, length: int, seed: int = 0) -> onnx.ModelProto:
    """The convolution `length` times one after the other, with random weights, zeros and biases, and ReLU."""
    generator = np.random.default_rng(seed)
    shape = (case.outputs, case.inputs // case.groups, *case.kernel)
    nodes, weights, value = [], [], "x"
    for place in range(length):
        weight = generator.standard_normal(shape).astype(np.float32)
        weight *= np.sqrt(2 / max(1.0, weight[0].size * case.density)).astype(np.float32)
        weight[generator.random(shape) >= case.density] = 0
        bias = generator.standard_normal(case.outputs).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"w{place}"), numpy_helper.from_array(bias, f"b{place}")]
        settings = {
            "pads": [*case.pads, *case.pads],
            "dilations": list(case.dilations),
            "strides": [case.stride if extent > 1 else 1 for extent in (case.height, case.width)],
            "group": case.groups,
        }
        nodes.append(helper.make_node("Conv", [value, f"w{place}", f"b{place}"], [f"c{place}"], **settings))
        value = "y" if place + 1 == length else f"r{place}"
        nodes.append(helper.make_node("Relu", [f"c{place}"], [value]))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, case.inputs, case.height, case.width])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, case.outputs, None, None])
    graph = helper.make_graph(nodes, "convolutions", [given], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


class Running:
    """A session with its input, run as often as one round takes."""

    def __init__(self, session: Any, feed: dict[str, Any]) -> None:
        self.session, self.feed = session, feed
        self.output = session.run(None, feed)[0]
        self.runs = 1
        self.runs = max(1, min(200, int(SECONDS / self.seconds())))

    def seconds(self) -> float:
        self.session.run(None, self.feed)  # its weights are then in the cache
        begin = time.perf_counter()
        for _ in range(self.runs):
            self.session.run(None, self.feed)
        return (time.perf_counter() - begin) / self.runs


def measured(case: Case, length: int, rounds: int, check: bool = True) -> dict[str, Any]:
    """Of one network, the facts of its line."""
    model = network(case, length)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    generator = np.random.default_rng(1)
    feed = {"x": generator.standard_normal((1, case.inputs, case.height, case.width)).astype(np.float32)}
    every, chosen = rewrite(model, costs=EverythingSparse()), rewrite(model)
    forms = {layer.form for layer in chosen.layers}
    running = {
        "dense": Running(onnxruntime.InferenceSession(model.SerializeToString(), options), feed),
        "sparse": Running(Session(every.model.SerializeToString(), options), feed),
    }
    if forms - {"dense"} and chosen.model.SerializeToString() != every.model.SerializeToString():
        running["chosen"] = Running(Session(chosen.model.SerializeToString(), options), feed)
    if check:
        expected = running["dense"].output
        scale = max(float(np.abs(expected).max()), 1e-6)
        for name, one in running.items():
            error = float(np.abs(one.output - expected).max()) / scale
            if not error < 1e-4:
                raise SystemExit(f"{case}: {name} differs by {error:.1e} of the largest output")
    times: dict[str, list[float]] = {name: [] for name in running}
    for number in range(rounds):
        names = list(running)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(running[name].seconds())

    def ratio(name: str) -> float:
        return statistics.median(d / s for d, s in zip(times["dense"], times[name], strict=True))

    by_choice = 1.0 if forms == {"dense"} else ratio("chosen" if "chosen" in times else "sparse")
    return {
        "case": str(case),
        "layers": length,
        "form": "+".join(sorted(forms)),
        "ratio": round(ratio("sparse"), 3),
        "chosen": round(by_choice, 3),
        "shortest_ratio": round(min(times["dense"]) / min(times["sparse"]), 3),
        "estimated_ratio": round(chosen.layers[0].dense_time / chosen.layers[0].sparse_time, 3),
        "median_us": {name: round(statistics.median(values) * 1e6, 1) for name, values in times.items()},
        "shortest_us": {name: round(min(values) * 1e6, 1) for name, values in times.items()},
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help="grid [NUMBER [SEED]], or convolutions as this writes them")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args(arguments)
    if given.what[0] == "grid":
        cases: Iterable[Case] = grid()
        if len(given.what) > 1:
            seed = int(given.what[2]) if len(given.what) > 2 else 0
            cases = random.Random(seed).sample(grid(), int(given.what[1]))
    else:
        cases = [read(text) for text in given.what]
    facts = {name: str(value) for name, value in machine().items()}
    command = " ".join(["python benchmarks/convolutions.py", *map(_quoted, arguments)])
    head = {"command": command, "n": given.rounds, "date": datetime.date.today().isoformat(), **facts}
    head |= {"threads": 1, "onnxruntime": onnxruntime.__version__}  # of the sessions, not of torch
    print(json.dumps(head), flush=True)
    for case in cases:
        lengths = (1, CHAIN) if case.stride == 1 else (1,)
        for length in lengths:
            print(json.dumps(measured(case, length, given.rounds)), flush=True)


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w.-]+", word) else f'"{word}"'


if __name__ == "__main__":
    main(sys.argv[1:])
