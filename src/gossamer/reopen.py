"""A finished round of a run of `gossamer compress`, opened again: its network, its task and its data."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.configuration import FILE
from gossamer.loop.finished import read_finished
from gossamer.loop.folder import load_masks, load_round
from gossamer.loop.record import RoundRecord
from gossamer.prune.masks import Masks
from gossamer.prune.scope import Scope
from gossamer.storage.files import absolute, same_working_directory
from gossamer.tasks.in_memory import in_memory
from gossamer.tasks.loading import load_data
from gossamer.tasks.own_task import is_own_task
from gossamer.tasks.table import find_task
from gossamer.tasks.task import Data, Examples, Task
from gossamer.tasks.training import initial_model, made_model


@dataclass(frozen=True)
class TaskNetwork:
    """A network with everything that is needed to ask questions about it."""

    task: Task
    model: nn.Module
    """The model, in evaluation mode, on the CPU."""
    data: Data
    scope: Scope
    """What of it is prunable."""

    @cached_property
    def validation(self) -> Examples:
        """Validation examples in memory: all that are there already, else the first."""
        return in_memory(self.data.validation)


@dataclass(frozen=True)
class FinishedRound(TaskNetwork):
    """A round of a run."""

    folder: Path
    record: RoundRecord
    masks: Masks

    def until_now(self) -> Iterator[tuple[int, dict[str, Tensor], Masks]]:
        """Number, weights and masks of every round up to this one."""
        model = self.task.model()
        for number in range(self.record.round + 1):
            load_round(self.folder, number, model)
            yield number, dict(model.state_dict()), load_masks(self.folder, number)


@same_working_directory()
def open_round(
    folder: Path, number: int | None = None, *, data_folder: Path | None = None, task: str | None = None
) -> FinishedRound:
    """Opens a round of a run.

    Args:
        number: of the round; -1 is the last one. None: the one that `gossamer show` recommends, the smallest within
            the allowed loss (without such a limit the last one).
        data_folder: where the task's data are, if a package does not bring them along.
        task: name of the task; needed for a task of one's own only, `path/file.py:function`.

    Raises:
        GossamerError: it is no run of a task, has no such round, is damaged, or the data are missing.
    """
    run = read_finished(folder)
    if number is None or not run.records:
        number = run.recommended.round
    here, data_folder = absolute(Path()), None if data_folder is None else absolute(data_folder)
    found = _task_of(folder, run.tables, task).at(data_folder)
    model = made_model(found)
    # What the task's file does to the working directory is its own affair.
    place = folder if absolute(Path()) == here else here / folder
    record = load_round(place, number, model)
    data = load_data(found, data_folder, record.seed or 0)
    masks = load_masks(place, record.round)
    return FinishedRound(found, model.eval(), data, Scope.from_tables(run.tables), folder, record, masks)


def as_made(task: Task, data_folder: Path | None) -> TaskNetwork:
    """A task's network as the task makes it: with the initial weights of seed 0, or trained if it comes so."""
    task = task.at(data_folder)
    return TaskNetwork(task, initial_model(task, seed=0).eval(), load_data(task, data_folder, seed=0), Scope())


def ticket_of_size(folder: Path, kept: int) -> tuple[RoundRecord, Masks]:
    """The round of a run whose number of kept weights is nearest to `kept`, and its masks.

    Raises:
        GossamerError: it is no run, has no finished round, or is damaged.
    """
    records = read_finished(folder).records
    if not records:
        raise ConfigurationError(f"{folder}: no round is finished there; expected a run to compare with")
    nearest = min(records, key=lambda record: abs(record.kept - kept))
    return nearest, load_masks(folder, nearest.round)


def _task_of(folder: Path, settings: dict[str, Any], given: str | None) -> Task:
    recorded = settings.get("settings", {}).get("task")
    if recorded is None:
        raise ConfigurationError(
            f"{folder} is a run of a training loop of your own, so its model and data are not known here; expected a "
            f"run of gossamer compress. To export it: gossamer export path/file.py:function, where the function "
            f"returns the model, with gossamer.load_round({str(folder)!r}, -1, model), and example inputs. To study "
            f"it from Python: gossamer.shrink.shrink(model, inputs), gossamer.explain.explain_model(model, ...)."
        )
    if not isinstance(recorded, str):
        raise CheckpointError(
            f"{folder / FILE} is damaged: settings.task is {recorded!r}; expected a text. Restore it."
        )
    if given is None and is_own_task(recorded):
        # As the folder says it, and a folder may come from somebody else: importing is running.
        raise ConfigurationError(
            f"{folder} is a run of the task {recorded!r}, which is not built in; say where it is with "
            f"{_task_option(settings)}"
        )
    try:
        task = find_task(given or recorded)
    except ConfigurationError as error:
        if given is not None:
            raise
        raise ConfigurationError(
            f"{folder} is a run of the task {recorded!r}, which is not built in; say where it is with "
            f"{_task_option(settings)}"
        ) from error
    if task.name != recorded:
        raise ConfigurationError(f"{folder} is a run of the task {recorded!r}, not of {task.name!r}; leave --task out")
    return task


def _task_option(settings: dict[str, Any]) -> str:
    """The option that names the task's file. The path that the folder records is shown and never imported: a folder may
    come from somebody else, and importing is running."""
    source = settings.get("origin", {}).get("task")
    if not (isinstance(source, str) and is_own_task(source) and source.isprintable()):
        return "--task path/file.py:function"
    return (
        f"--task {shlex.quote(source)}, which is where the run found it, seen from the folder in which it was started "
        f"(that file's code will be run: name it only if you trust it)"
    )
