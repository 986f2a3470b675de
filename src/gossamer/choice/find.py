"""The networks of runs in every form, scored and timed."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from gossamer.choice.choice import Choice, Choices, require_same_metric
from gossamer.choice.times import measured, place_text, predicted
from gossamer.choice.written import Asked, WrittenNetwork, metric_of, written_networks
from gossamer.errors import ConfigurationError
from gossamer.predict.calibration import Calibration
from gossamer.predict.network import CalibratedCosts


def find_choices(
    asked: Asked,
    *,
    threads: int = 1,
    runs: int = 25,
    calibration: Calibration | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> Choices:
    """Writes the networks of runs in fp32 and in int8, scores each on validation and test, and times them in turn.

    A dense network that several runs share is one.

    Args:
        threads: of each network, where times are measured.
        runs: turns of each.
        calibration: predicts times, instead of measuring them, and decides which layers run sparse.
        progress: is told what comes next, for people.

    Raises:
        GossamerError: a folder is no run of a task, its data are missing, or the runs have different metrics.
    """
    metric, better = require_same_metric([metric_of(run) for run in asked.runs])
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="gossamer-forms-") as made:
        folder = Path(made)
        networks: list[WrittenNetwork] = []
        known: set[str] = set()
        for index, run in enumerate(asked.runs):
            costs = None if calibration is None else CalibratedCosts(calibration)
            for network in written_networks(run, asked, folder / f"run-{index}", left_out, costs, progress):
                digest = hashlib.sha256(network.file.read_bytes()).hexdigest()
                if not (network.dense and digest in known):
                    networks.append(network)
                known.add(digest)
        if not networks:
            raise ConfigurationError("no network could be written: " + "; ".join(left_out.values()))
        if calibration is None:
            progress(f"{runs} turns of {len(networks)} networks")
            times, what = measured(networks, threads, runs, folder), f"measured, medians of {runs} runs"
            where = place_text(threads)
        else:
            times, what = predicted(networks, calibration), "predicted"
            where = place_text(calibration.threads, calibration.machine.get("processor"))
        choices = tuple(
            Choice(
                str(network.run),
                network.round,
                network.form,
                network.density,
                milliseconds,
                network.file.stat().st_size,
                network.scores["validation"],
                network.scores.get("test"),
            )
            for network, milliseconds in zip(networks, times, strict=True)
        )
    return Choices(choices, metric, better, what, where, left_out)
