"""Milliseconds of several networks: measured in turn, or predicted."""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gossamer.bench.compare import take_turns
from gossamer.bench.engines import BothForms, open_runner
from gossamer.bench.measure import machine
from gossamer.choice.written import WrittenNetwork
from gossamer.graph.axes import with_sizes
from gossamer.graph.inputs import random_inputs
from gossamer.graph.reading import read_onnx
from gossamer.predict.calibration import Calibration
from gossamer.predict.network import predict


def measured(networks: Sequence[WrittenNetwork], threads: int, runs: int, folder: Path) -> list[float]:
    """Milliseconds of each network, the median of its runs: all take turns, at batch size 1, on random inputs.

    Args:
        folder: for files on the way; the caller removes it.

    Raises:
        EngineFailed: a network does not run.
    """
    with ExitStack() as stack:
        runners = {}
        for index, network in enumerate(networks):
            model = with_sizes(read_onnx(network.file), None)
            place = folder / str(index)
            place.mkdir()
            subject = BothForms(model, model, random_inputs(model), threads, place)
            runner = open_runner("dense" if network.dense else "gossamer", subject)
            stack.callback(runner.close)
            runner.run()
            runners[str(index)] = runner
        times = take_turns(runners, runs)
    return [statistics.median(times[str(index)]) for index in range(len(networks))]


def predicted(networks: Sequence[WrittenNetwork], calibration: Calibration) -> list[float]:
    """Milliseconds of each network, as the machine's prices let expect."""
    found = []
    for network in networks:
        prediction = predict(read_onnx(network.plain), calibration)
        found.append(1e3 * (prediction.dense if network.dense else prediction.expected))
    return found


def place_text(threads: int, processor: object = None) -> str:
    """Such as "1 thread, AMD EPYC"."""
    return f"{threads} thread{'s' if threads > 1 else ''}, {processor or machine()['processor']}"
