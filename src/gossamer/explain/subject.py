"""What is looked at: a round of a run of `gossamer compress`, with its model, its task and its data."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.configuration import FILE, read_of_run
from gossamer.loop.folder import load_masks, load_round
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import read_records
from gossamer.loop.stopping import Allowance, smallest_allowed
from gossamer.storage.files import absolute, same_working_directory
from gossamer.tasks import Data, Task, find_task
from gossamer.tasks.loading import load_data
from gossamer.tasks.own_task import is_own_task
from gossamer.tasks.training import made_model


@dataclass(frozen=True)
class Subject:
    """A round, with everything that is needed to ask questions about it."""

    folder: Path
    task: Task
    record: RoundRecord
    records: tuple[RoundRecord, ...]
    """Of all rounds, the dense one first."""
    model: nn.Module
    """With the round's weights, in evaluation mode, on the CPU."""
    masks: dict[str, Tensor]
    data: Data


@same_working_directory()
def open_round(
    folder: Path, number: int | None = None, *, data_folder: Path | None = None, task: str | None = None
) -> Subject:
    """Opens a round of a run.

    Args:
        number: of the round; -1 is the last one. None: the one that `gossamer show` recommends, the smallest within
            the allowed loss (without such a limit the last one).
        data_folder: where the task's data are, if a package does not bring them along.
        task: name of the task; needed for a task of one's own only, `path/file.py:function`.

    Raises:
        GossamerError: it is no run of a task, has no such round, is damaged, or the data are missing.
    """
    settings = read_of_run(folder)
    records = read_records(folder)
    if not records:
        raise CheckpointError(f"{folder}: no round is finished yet; wait for the first, or run the same command again")
    if number is None:
        number = smallest_allowed(records, Allowance.of_run(settings["rounds"])).round
    here, data_folder = absolute(Path()), None if data_folder is None else absolute(data_folder)
    found = _task_of(folder, settings, task)
    model = made_model(found)
    # What the task's file does to the working directory is its own affair.
    place = folder if absolute(Path()) == here else here / folder
    record = load_round(place, number, model)
    data = load_data(found, data_folder, record.seed or 0)
    return Subject(folder, found, record, tuple(records), model.eval(), load_masks(place, record.round), data)


def _task_of(folder: Path, settings: dict[str, Any], given: str | None) -> Task:
    recorded = settings.get("settings", {}).get("task")
    if recorded is None:
        raise ConfigurationError(
            f"{folder} is a run of a training loop of your own, so its model and data are not known here; expected a "
            f"run of gossamer compress. From Python: gossamer.load_round, then gossamer.shrink.shrink(model, inputs) "
            f"or gossamer.explain.explain_model(model, ...)."
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
