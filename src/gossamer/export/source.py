"""What is exported: a round of a run, a task, a function of one's own, or an ONNX file, with inputs to compare on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx.inliner
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.export.calls import call_with
from gossamer.export.compress import unpack_weights
from gossamer.export.constants import prepared
from gossamer.export.errors import ExportError, first_line
from gossamer.export.feeds import RANDOM_BATCHES, Feed, feeds_of, read_inputs
from gossamer.export.from_torch import Traced, to_onnx
from gossamer.export.open_axes import with_open_axes
from gossamer.export.precision import in_fp32
from gossamer.export.sessions import dense_session
from gossamer.reopen import as_made, open_round
from gossamer.shrink import shrink
from gossamer.shrink.verify import verify
from gossamer.storage.files import absolute, regular, same_working_directory
from gossamer.tasks import Data, Metric, Task, find_task
from gossamer.tasks.built_in import BUILT_IN
from gossamer.tasks.own_task import call_own_function, is_own_task

EXAMPLES = 1000
"""Validation examples that outputs are compared on, at most."""
BATCH = 100
SHRINK_EXAMPLES = 64
"""Inputs that the network is traced with before its dead units are cut out."""
OLDEST_COMPLETE_IR = 4
"""Before this version of ONNX every initializer had to be an input too."""


@dataclass(frozen=True)
class Source:
    """A network to export."""

    name: str
    """For people."""
    dense: onnx.ModelProto
    """With BatchNorm folded."""
    feeds: tuple[Feed, ...]
    """Batches of inputs to compare on."""
    inputs: str
    """What those are, for people."""
    twin: nn.Module | None = None
    """The torch network, in evaluation mode."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Value of `dense` -> the path of the twin's module that returns it."""
    metric: Metric | None = None
    targets: Tensor | None = None
    """Of the feeds' examples, for the metric."""
    given: onnx.ModelProto | None = None
    """Of an ONNX file, the network as it was before constants were computed and BatchNorm was folded."""
    file: Path | None = None
    """That it was read from, which is never written over."""
    notes: tuple[str, ...] = ()
    """What of the network is not as it was given, for people."""


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
        sizes: of an ONNX file, for random inputs: name of a size that it leaves open (`gossamer.export.axes`) -> the
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
    if path.is_dir():
        return _from_run(path, round_number, data_folder, task, shrunk)
    if round_number is not None or task is not None or shrunk:
        option = "--round" if round_number is not None else "--task" if task is not None else "--shrink"
        raise ConfigurationError(
            f"{option} says what of a run to take, but {source!r} is no folder of a run; "
            f"give the folder that gossamer compress wrote (--out), or leave {option} out"
        )
    if path.suffix.lower() == ".onnx":
        if data_folder is not None:
            raise ConfigurationError(f"{path} is compared on random inputs, which need no data; leave --data out")
        return _from_onnx(path, inputs or {}, sizes or {})
    if is_own_task(source):
        return _from_function(source, data_folder)
    if source in BUILT_IN:
        return _from_task(find_task(source), f"{source}, untrained", data_folder)
    raise ConfigurationError(
        f"{source!r} is nothing to export: expected a run's folder, an ONNX file (.onnx), path/file.py:function, or a "
        f"task ({', '.join(BUILT_IN)})"
    )


def _from_run(folder: Path, number: int | None, data_folder: Path | None, task: str | None, shrunk: bool) -> Source:
    finished = open_round(folder, number, data_folder=data_folder, task=task)
    name, model = f"round {finished.record.round} of {folder}", finished.model
    if shrunk:
        inputs, _ = finished.data.validation.batch(slice(0, SHRINK_EXAMPLES))
        found = shrink(model, inputs)
        verify(model, found.model, finished.data.validation, finished.task.metric)
        name, model = f"{name} without {found.units_removed:,} dead units", found.model
    return _from_network(name, model, finished.data, finished.task.metric)


def _from_task(task: Task, name: str, data_folder: Path | None) -> Source:
    made = as_made(task, data_folder)
    return _from_network(name, made.model, made.data, task.metric)


def _from_network(name: str, model: nn.Module, data: Data, metric: Metric) -> Source:
    count = min(EXAMPLES, len(data.validation))
    batches = [data.validation.batch(slice(start, min(count, start + BATCH))) for start in range(0, count, BATCH)]
    traced = to_onnx(model, [batches[0][0][:2]])
    feeds = tuple(_feed(traced, [inputs]) for inputs, _ in batches)
    targets = torch.cat([targets for _, targets in batches])
    compared = f"{count:,} validation examples"
    return Source(name, traced.model, feeds, compared, traced.twin, traced.modules, metric, targets, notes=traced.notes)


def _from_function(name: str, data_folder: Path | None) -> Source:
    expected = "where the function returns a gossamer.tasks.Task, or a network and example inputs: (model, inputs)"
    made = call_own_function(name, expected)
    if isinstance(made, Task):
        return _from_task(made, f"{made.name}, untrained", data_folder)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ConfigurationError(
            f"{name}: the function returned {type(made).__name__}; expected a gossamer.tasks.Task, or a torch network "
            f"and example inputs: (model, inputs)"
        )
    model, given = made
    call = call_with(given)
    if call is None:
        raise ConfigurationError(
            f"{name}: the example inputs are {type(given).__name__}; expected a tensor, or several in a tuple or (by "
            f"the names of forward's parameters) in a dictionary, with the examples along their first axis"
        )
    traced = to_onnx(model, call)
    feeds = (_feed(traced, call.tensors()),)
    file = Path(name.rpartition(":")[0])
    compared = "the given example inputs"
    return Source(name, traced.model, feeds, compared, traced.twin, traced.modules, file=file, notes=traced.notes)


def _feed(traced: Traced, tensors: Sequence[Tensor]) -> Feed:
    """The tensors of a call by the names of the graph's inputs, in their types."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in traced.model.graph.input}
    missing = [name for name in traced.names if name not in kinds]
    if missing:
        raise ExportError(
            f"the ONNX graph has no input {', '.join(missing)}, only {', '.join(kinds)}; leave out what is not read"
        )
    arrays = [in_fp32(value.detach().cpu()).numpy() for value in tensors]
    types = [onnx.helper.tensor_dtype_to_np_dtype(kinds[name]) for name in traced.names]
    return {name: array.astype(kind) for name, array, kind in zip(traced.names, arrays, types, strict=True)}


def _from_onnx(path: Path, files: Mapping[str, Path], sizes: Mapping[str, int]) -> Source:
    model = read_onnx(path)
    given = read_inputs(model, files)
    feeds = tuple(feeds_of(model, given, sizes))
    drawn = f"{RANDOM_BATCHES} random batches of inputs (seed 0)"
    if given:
        drawn = "the given inputs" if len(given) == len(feeds[0]) else f"the given inputs and {drawn} for the others"
    return Source(str(path), prepared(unpack_weights(model)), feeds, drawn, given=model, file=path)


def read_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX file, checked, with only those inputs that somebody has to give.

    Raises:
        ExportError: it is missing, damaged, or no dense network.
    """
    try:
        model = with_open_axes(onnx.load(regular(path, links=True)))
    except FileNotFoundError as error:
        raise ExportError(f"there is no file {error.filename or path}") from error
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{path} is no valid ONNX file: {first_line(error)}") from error
    if any(entry.domain == "gossamer" for entry in model.opset_import):
        raise ExportError(f"{path} already holds sparse ops of gossamer; give the dense file that it was made from")
    try:
        # Who runs the network is also who says whether it is one.
        dense_session(model)
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(f"{path} is no valid ONNX file: {first_line(error)}") from error
    if model.ir_version < OLDEST_COMPLETE_IR:
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = OLDEST_COMPLETE_IR
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model
