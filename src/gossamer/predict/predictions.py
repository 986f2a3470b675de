"""Predicted times of whole networks beside measured ones."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gossamer.bench.engines import BothForms, open_runner
from gossamer.bench.measure import machine
from gossamer.bench.network import build, find_network, known_networks
from gossamer.export.quantise import quantised_by_minmax
from gossamer.export.rounded_once import written_rounding_once
from gossamer.graph.inputs import random_inputs
from gossamer.predict.calibration import Calibration
from gossamer.predict.network import CalibratedCosts, predict

DENSITIES = (0.2, 0.1, 0.05)
VALUES = ("fp32", "int8")

ROUNDS = 3


def run(calibration: Calibration, runs: int, progress: Callable[[str], object] = lambda text: None) -> dict[str, Any]:
    """Builds every network of `gossamer bench shapes` at 80, 90 and 95% zeros, predicts it and measures it.

    Every network is measured in `ROUNDS` rounds, each time after all others, and the shortest median counts: prices are
    those of a calm machine, and another program seldom disturbs all rounds.

    Returns:
        `networks`: for each, in fp32 and in int8 (`values`), the `expected` and measured `milliseconds` of the network
        as it would be exported, and of the dense one; `error`: expected / measured - 1; `rounds`: the median of each
        round.
    """
    cells = [(name, density, values) for name in known_networks() for density in DENSITIES for values in VALUES]
    measured: dict[tuple[str, float, str], list[tuple[float, float]]] = {cell: [] for cell in cells}
    for number in range(1, ROUNDS + 1):
        for name, density, values in cells:
            progress(f"{name} at {1 - density:.0%} zeros in {values}, round {number} of {ROUNDS}")
            measured[name, density, values].append(_measured(_network(name, density, values), calibration, runs))
    rows = []
    for (name, density, values), rounds in measured.items():
        prediction = predict(_network(name, density, values), calibration)
        took, dense = (min(times) for times in zip(*rounds, strict=True))
        rows.append(
            {
                "network": name,
                "zeros": 1 - density,
                "values": values,
                "expected": 1e3 * prediction.expected,
                "milliseconds": took,
                "error": 1e3 * prediction.expected / took - 1,
                "dense_expected": 1e3 * prediction.dense,
                "dense_milliseconds": dense,
                "dense_error": 1e3 * prediction.dense / dense - 1,
                "rounds": [sparse for sparse, _ in rounds],
                "dense_rounds": [times for _, times in rounds],
            }
        )
    return {"threads": calibration.threads, "runs": runs, "machine": machine(), "networks": rows}


@cache
def _network(name: str, density: float, values: str) -> onnx.ModelProto:
    """The network; in int8 as `gossamer export --dense --int8` writes it, with the ranges of random inputs."""
    model = build(find_network(name), density)
    if values == "fp32":
        return model
    inputs = random_inputs(model)
    return quantised_by_minmax(
        model, [{name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}]
    )


def _measured(model: onnx.ModelProto, calibration: Calibration, runs: int) -> tuple[float, float]:
    """Medians of the sparse and the dense form, which take turns, in milliseconds."""
    sparse = written_rounding_once(model, CalibratedCosts(calibration))[1].model
    with tempfile.TemporaryDirectory(prefix="gossamer-predictions-") as folder:
        subject = BothForms(model, sparse, random_inputs(model), calibration.threads, Path(folder))
        runners = [open_runner(engine, subject) for engine in ("gossamer", "dense")]
        seconds: list[list[float]] = [[], []]
        for _ in range(runs + 2):
            for runner, times in zip(runners, seconds, strict=True):
                runner.seconds()
                times.append(runner.seconds())
        for runner in runners:
            runner.close()
    took, dense = (1e3 * float(np.median(times[2:])) for times in seconds)
    return took, dense
