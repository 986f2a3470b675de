"""What is exported: a round of a run, a task, a function of one's own, or an ONNX file, with inputs to compare on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from gossamer.errors import ConfigurationError
from gossamer.export.compress import unpack_weights
from gossamer.export.feeds import RANDOM_BATCHES, feeds_of, read_inputs
from gossamer.graph.constants import prepared
from gossamer.graph.reading import read_dense
from gossamer.graph.sessions import Feed, Opened, Remembering
from gossamer.storage.files import absolute, same_working_directory

if TYPE_CHECKING:
    from gossamer.export.range_inputs import RangeInputs
    from gossamer.export.twin import ExampleScore, SplitScore, Twin


@dataclass(frozen=True)
class InFloat:
    """The last round in float before one that was trained in levels."""

    round: int
    score: float
    """Its metric on validation."""


@dataclass(frozen=True)
class Source:
    """A network to export."""

    name: str
    """The name, for people."""
    dense: onnx.ModelProto
    """The network with BatchNorm folded."""
    feeds: tuple[Feed, ...]
    """Batches of inputs to compare on."""
    inputs: str
    """What those are, for people."""
    twin: "Twin | None" = None
    """The torch network that it was made of."""
    scoring: "ExampleScore | None" = None
    given: Opened | None = None
    """For an ONNX file, the network as it was before constants were computed and BatchNorm was folded."""
    file: Path | None = None
    """The file that it was read from, which is never written over."""
    notes: tuple[str, ...] = ()
    """What of the network is not as it was given, for people."""
    splits: "Mapping[str, SplitScore]" = field(default_factory=dict)
    """The metric on all of `validation` and, where the source has it, of `test`."""
    range_inputs: "Callable[[], RangeInputs] | None" = None
    """Chooses training examples, without augmentation, on which the ranges of values are found."""
    in_float: InFloat | None = None
    """Of a round that was trained in levels: the last one in float, from which a loss is counted."""
    trained_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Layer -> the range of its inputs that it was trained with, of a round that was trained for int8."""

    @cached_property
    def run(self) -> Remembering:
        """What computes its outputs, as it was given."""
        if self.twin is not None:
            return Remembering(self.twin.run)
        return self.dense_run if self.given is None or self.given.model is self.dense else self.given.run

    @cached_property
    def dense_run(self) -> Remembering:
        """What computes those of the dense network."""
        if self.given is not None and self.given.model is self.dense:
            return self.given.run
        return Opened(self.dense).run


@same_working_directory()
def open_source(
    source: str,
    *,
    round_number: int | None = None,
    data_folder: Path | None = None,
    task: str | None = None,
    shrunk: bool = False,
    inputs: Mapping[str, Path] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Source:
    """Opens what the command line names.

    Args:
        source: a run's folder, a built-in task's name (its network untrained), `path/file.py:function`, or an ONNX
            file.
        round_number: of a run; -1 is the last, None the recommended one.
        data_folder: where a task's data are.
        task: `path/file.py:function` of a run of one's own task.
        shrunk: of a run, the network without its dead units (`gossamer.shrink`), compared with the whole one.
        inputs: of an ONNX file, name of an input -> a file of NumPy with its values; others are random.
        sizes: of an ONNX file, for random inputs: name of a size that it leaves open (`gossamer.graph.axes`) -> the
            number.

    Raises:
        GossamerError: there is no such source, it cannot be read, or an option has no meaning for it.
    """
    data_folder = None if data_folder is None else absolute(data_folder)
    path = Path(source)
    if (inputs or sizes) and (path.is_dir() or path.suffix.lower() != ".onnx"):
        raise ConfigurationError(
            f"{'--input' if inputs else '--size'} says what an ONNX file is compared on, but {source!r} comes with "
            f"inputs of its own; leave it out"
        )
    if not path.is_dir() and (round_number is not None or task is not None or shrunk):
        option = "--round" if round_number is not None else "--task" if task is not None else "--shrink"
        raise ConfigurationError(
            f"{option} says what of a run to take, but {source!r} is no folder of a run; "
            f"give the folder that gossamer compress wrote (--out), or leave {option} out"
        )
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        if data_folder is not None:
            raise ConfigurationError(f"{path} is compared on random inputs, which need no data; leave --data out")
        return _from_onnx(path, inputs or {}, sizes or {})
    # An ONNX file does not wait the seconds that importing torch takes.
    from gossamer.export.from_tasks import from_name, from_run

    if path.is_dir():
        return from_run(path, round_number, data_folder, task, shrunk)
    return from_name(source, data_folder)


def _from_onnx(path: Path, files: Mapping[str, Path], sizes: Mapping[str, int]) -> Source:
    opened = read_dense(path)
    given = read_inputs(opened.model, files)
    feeds = tuple(feeds_of(opened, given, sizes))
    drawn = f"{RANDOM_BATCHES} random batches of inputs (seed 0)"
    if given:
        drawn = "the given inputs" if len(given) == len(feeds[0]) else f"the given inputs and {drawn} for the others"
    return Source(str(path), prepared(unpack_weights(opened.model)), feeds, drawn, given=opened, file=path)
