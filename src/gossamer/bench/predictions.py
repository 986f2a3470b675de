"""Predicted times of whole networks beside measured ones."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gossamer.bench.engines import Subject, open_runner
from gossamer.bench.measure import machine

if TYPE_CHECKING:
    import onnx

    from gossamer.predict.calibration import Calibration

DENSITIES = (0.2, 0.1, 0.05)


def run(calibration: "Calibration", runs: int) -> dict[str, Any]:
    """Builds every network of `gossamer bench shapes` at 80, 90 and 95% zeros, predicts it and measures it.

    Returns:
        `networks`: for each the `expected` and measured `milliseconds` of the network as it would be exported, and of
        the dense one; `error`: expected / measured - 1.
    """
    from gossamer.bench.network import build, find_network, known_networks
    from gossamer.predict.network import predict

    rows = []
    for name in known_networks():
        for density in DENSITIES:
            model = build(find_network(name), density)
            prediction = predict(model, calibration)
            took, dense = _measured(model, calibration, runs)
            rows.append(
                {
                    "network": name,
                    "zeros": 1 - density,
                    "expected": 1e3 * prediction.expected,
                    "milliseconds": took,
                    "error": 1e3 * prediction.expected / took - 1,
                    "dense_expected": 1e3 * prediction.dense,
                    "dense_milliseconds": dense,
                    "dense_error": 1e3 * prediction.dense / dense - 1,
                }
            )
    return {"threads": calibration.threads, "runs": runs, "machine": machine(), "networks": rows}


def _measured(model: "onnx.ModelProto", calibration: "Calibration", runs: int) -> tuple[float, float]:
    """Medians of the sparse and the dense form, which take turns, in milliseconds."""
    from gossamer.bench.compare import random_inputs
    from gossamer.export.written import as_written
    from gossamer.predict.network import CalibratedCosts

    sparse = as_written(model, costs=CalibratedCosts(calibration)).model
    with tempfile.TemporaryDirectory(prefix="gossamer-predictions-") as folder:
        subject = Subject(model, sparse, random_inputs(model), calibration.threads, Path(folder))
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
