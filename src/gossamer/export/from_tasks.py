"""Networks of torch to export: a round of a run, a task's, or what a function of one's own returns."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError, ExportError
from gossamer.export.calls import call_with
from gossamer.export.from_torch import AsOnnx, to_onnx
from gossamer.export.precision import in_fp32
from gossamer.export.range_inputs import RangeInputs
from gossamer.export.source import InFloat, Source
from gossamer.export.twin import ExampleScore, SplitScore, Twin
from gossamer.graph.sessions import Feed
from gossamer.loop.finished import read_finished
from gossamer.loop.folder import load_ranges
from gossamer.randomness import derived_seed
from gossamer.reopen import as_made, open_round
from gossamer.shrink import shrink
from gossamer.shrink.arguments import as_call
from gossamer.shrink.verify import verify
from gossamer.tasks import Data, Metric, Task, find_task
from gossamer.tasks.built_in import BUILT_IN
from gossamer.tasks.in_memory import first_batches
from gossamer.tasks.own_task import call_own_function, is_own_task
from gossamer.tasks.sample import all_batches, chosen_batches
from gossamer.tasks.task import Split

EXAMPLES = 1000
"""Validation examples that outputs are compared on, at most."""
BATCH = 100
RANGE_EXAMPLES = 512
"""Training examples that the ranges of values are found on."""
SHRINK_EXAMPLES = 64
"""Inputs that the network is traced with before its dead units are cut out."""


def from_run(folder: Path, number: int | None, data_folder: Path | None, task: str | None, shrunk: bool) -> Source:
    """A round of a run; see `open_source`."""
    finished = open_round(folder, number, data_folder=data_folder, task=task)
    name, model = f"round {finished.record.round} of {folder}", finished.model
    if shrunk:
        validation = finished.data.validation
        found = shrink(model, as_call(first_batches(validation, SHRINK_EXAMPLES, SHRINK_EXAMPLES)[0]))
        verify(model, found.model, validation, finished.task.metric)
        name, model = f"{name} without {found.units_removed:,} dead units", found.model
    source = _from_network(name, model, finished.data, finished.task.metric)
    if not finished.record.quantised:
        return source
    if finished.record.levels is not None:
        return replace(source, in_float=_last_in_float(folder, finished.record.round))
    trained = load_ranges(folder, finished.record.round)
    ranges = {weight.removesuffix(".weight"): (found.low, found.high) for weight, found in trained.items()}
    return replace(source, trained_ranges=ranges)


def _last_in_float(folder: Path, number: int) -> InFloat | None:
    """None if that round recorded no metric."""
    last = [record for record in read_finished(folder).records[:number] if not record.quantised][-1]
    return None if last.val is None else InFloat(last.round, last.val)


def from_name(name: str, data_folder: Path | None) -> Source:
    """A built-in task's network, untrained, or what `path/file.py:function` returns: a task, or a network with example
    inputs.

    Raises:
        GossamerError: there is none.
    """
    if is_own_task(name):
        return _from_function(name, data_folder)
    if name not in BUILT_IN:
        raise ConfigurationError(
            f"{name!r} is nothing to export: expected a run's folder, an ONNX file (.onnx), path/file.py:function, or "
            f"a task ({', '.join(BUILT_IN)})"
        )
    return _untrained(find_task(name), f"{name}, untrained", data_folder)


def _untrained(task: Task, name: str, data_folder: Path | None) -> Source:
    made = as_made(task, data_folder)
    return _from_network(name, made.model, made.data, task.metric)


def _from_network(name: str, model: nn.Module, data: Data, metric: Metric) -> Source:
    batches = first_batches(data.validation, EXAMPLES, BATCH)
    few = batches[0].first(2)
    traced = to_onnx(model, few)
    feeds = tuple(_feed(traced, batch.tensors()) for batch in batches)
    with torch.no_grad():
        returned = traced.twin(*few.tensors())
    compared = f"{sum(batch.examples for batch in batches):,} validation examples"
    twin = Twin(traced.twin, traced.modules)
    scoring = ExampleScore(metric, [batch.targets for batch in batches], returned)
    splits = {
        which: SplitScore(metric, functools.partial(_scored, traced, split), returned)
        for which, split in data.splits().items()
        if which != "train"
    }
    ranges = functools.partial(_training_examples, traced, data.train)
    return Source(
        name, traced.model, feeds, compared, twin, scoring, notes=traced.notes, splits=splits, range_inputs=ranges
    )


def _scored(traced: AsOnnx, split: Split) -> Iterator[tuple[Feed, Any]]:
    """The inputs and targets of all examples of a split."""
    for batch in all_batches(split):
        yield _feed(traced, batch.tensors()), batch.targets


def _training_examples(traced: AsOnnx, train: Split) -> RangeInputs:
    batches = chosen_batches(train, RANGE_EXAMPLES, derived_seed("ranges"))
    feeds = tuple(_feed(traced, batch.tensors()) for batch in batches)
    return RangeInputs(feeds, f"{sum(batch.examples for batch in batches):,} training examples")


def _from_function(name: str, data_folder: Path | None) -> Source:
    expected = "where the function returns a gossamer.tasks.Task, or a network and example inputs: (model, inputs)"
    made = call_own_function(name, expected)
    if isinstance(made, Task):
        return _untrained(made, f"{made.name}, untrained", data_folder)
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
    twin = Twin(traced.twin, traced.modules)
    return Source(name, traced.model, feeds, compared, twin, file=file, notes=traced.notes)


def _feed(traced: AsOnnx, tensors: Sequence[Tensor]) -> Feed:
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
