"""The networks of a run's rounds, written in every form, and scored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx

from gossamer.errors import ConfigurationError, ExportError
from gossamer.export.costs import Costs
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import Source, open_source
from gossamer.graph.sessions import dense_session, running, sparse_session
from gossamer.loop.directions import Better, direction_of
from gossamer.loop.finished import read_finished

Told = Callable[[str], object]
UNLIMITED = 1e9
"""A loss by int8 that is not refused: what it costs is what is to be seen."""


@dataclass(frozen=True)
class Asked:
    """Which rounds of which runs, and what they need to be opened."""

    runs: tuple[Path, ...]
    rounds: tuple[int, ...] | Literal["recommended", "all"] = "recommended"
    """Beside the dense one."""
    data: Path | None = None
    task: str | None = None
    max_drop: float | None = None
    """The allowed loss by which a round is recommended; None: the runs' own."""


@dataclass(frozen=True)
class WrittenNetwork:
    """A round's network in one form, in a file."""

    run: Path
    round: int
    form: str
    density: float
    file: Path
    plain: Path
    """The same network in ONNX's own ops, zeros and all."""
    scores: Mapping[str, float]
    """Split -> the metric."""

    @property
    def dense(self) -> bool:
        return self.form.startswith("dense")

    @property
    def name(self) -> str:
        return f"{self.form}, round {self.round} of {self.run}"


def rounds_of(text: str) -> tuple[int, ...] | Literal["recommended", "all"]:
    """ "recommended", "all", or numbers separated by commas.

    Raises:
        ConfigurationError: it is something else.
    """
    if text == "recommended":
        return "recommended"
    if text == "all":
        return "all"
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise ConfigurationError(f"--rounds is {text!r}; expected recommended, all, or numbers such as 3,5")
    return tuple(map(int, numbers))


def metric_of(run: Path) -> tuple[str, Better]:
    """The metric that a run was judged by, and which of its values are better.

    Raises:
        CheckpointError: it is no run, or has no finished round.
        ConfigurationError: its rounds recorded no metric.
    """
    found = read_finished(run)
    name = found.recommended.metric
    if name is None:
        raise ConfigurationError(f"the rounds of {run} recorded no metric, so nothing says which network is better")
    told: Better | None = found.tables.get("rounds", {}).get("better")
    return name, told or direction_of(name) or "higher"


def numbers_of(run: Path, asked: Asked) -> list[int]:
    """The rounds that are looked at, the dense one first.

    Raises:
        CheckpointError: it is no run, or lacks a round that is asked for.
    """
    found = read_finished(run, asked.max_drop)
    there = [record.round for record in found.records]
    if asked.rounds == "all":
        return there
    wanted = (found.recommended.round,) if asked.rounds == "recommended" else asked.rounds
    missing = [number for number in wanted if number not in there]
    if missing:
        raise ConfigurationError(f"{run} has no round {missing[0]}; expected some of {', '.join(map(str, there))}")
    return sorted({0, *wanted})


def written_networks(
    run: Path, asked: Asked, folder: Path, left_out: dict[str, str], costs: Costs | None, progress: Told
) -> Iterator[WrittenNetwork]:
    """The networks of a run: in fp32 and in int8, each round's sparse, the dense round's dense.

    Args:
        folder: for the files; the caller removes it.
        left_out: is told what could not be written, and why.
        costs: what decides which layers run sparse; None: rates measured when gossamer was made.
    """
    finished = read_finished(run)
    structure = "1x4" if finished.tables.get("method", {}).get("structure") == "1x4" else "sparse"
    for number in numbers_of(run, asked):
        source = open_source(str(run), round_number=number, data_folder=asked.data, task=asked.task)
        record = next(record for record in finished.records if record.round == number)
        for precision in ("fp32", "int8"):
            form = f"{'dense' if number == 0 else structure} {precision}"
            progress(f"{form}, round {number} of {run}")
            try:
                file, plain = _files(source, folder / f"{number}-{precision}", number == 0, precision == "int8", costs)
            except ExportError as error:
                left_out[f"{form}, round {number} of {run}"] = str(error)
                continue
            session = dense_session(onnx.load(file)) if number == 0 else sparse_session(str(file))
            scores = {split: metric.of(running(session)) for split, metric in source.splits.items()}
            yield WrittenNetwork(run, number, form, record.kept / record.prunable, file, plain, scores)


def _files(source: Source, folder: Path, dense: bool, int8: bool, costs: Costs | None) -> tuple[Path, Path]:
    """The file in the form that is asked for, and the same in ONNX's own ops."""
    folder.mkdir(parents=True)
    form = FileForm(int8=int8, max_drop=UNLIMITED if int8 else None)
    plain, file = folder / "plain.onnx", folder / "sparse.onnx"
    export(source, plain, form=replace(form, dense=True))
    if dense:
        return plain, plain
    export(source, file, form=form, costs=costs)
    return file, plain
