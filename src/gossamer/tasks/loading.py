"""A task's data, loaded and looked at before anything is computed from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from gossamer import randomness
from gossamer.errors import GossamerError
from gossamer.randomness import derived_seed
from gossamer.tasks.errors import TaskError
from gossamer.tasks.task import Data, Examples, Task

SPLITS = ("train", "validation", "test")
EXPECTED = "gossamer.tasks.Data(train, validation, test), each of them gossamer.tasks.Examples(inputs, targets)"


def load_data(task: Task, folder: Path | None, seed: int) -> Data:
    """The task's splits, the same whenever they are loaded with this seed.

    Raises:
        TaskError: what the task gives is no `Data`, or a split has no examples; or the task fails.
        GossamerError: the data cannot be had.
    """
    with randomness.seeded(derived_seed(seed, "data")):
        try:
            data = task.data(folder)
        except GossamerError:
            raise
        except Exception as error:
            raise TaskError(
                f"{task.name}: making its data failed: {in_one_line(error)}; expected {EXPECTED}"
            ) from error
    if not isinstance(data, Data):
        raise TaskError(f"{task.name}: its data are a {type(data).__name__}; expected {EXPECTED}")
    for split in SPLITS:
        _check(getattr(data, split), split, task.name)
    return data


@contextmanager
def failing(task: Task, what: str) -> Iterator[None]:
    """Tells which of a task's parts failed, in one line; what it raised stays the cause.

    Raises:
        TaskError: something was raised that is no error of gossamer's, and no lack of memory.
    """
    try:
        yield
    except (GossamerError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TaskError(f"{task.name}: {what} failed: {in_one_line(error)}") from error


def in_one_line(error: BaseException) -> str:
    """Such as "TypeError: expected a number"."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check(examples: object, split: str, task: str) -> None:
    if not isinstance(examples, Examples):
        got = "nothing" if examples is None else f"a {type(examples).__name__}"
        hint = "; set some of the training examples aside for it" if examples is None else ""
        raise TaskError(
            f"{task}: the {split} split is {got}; expected gossamer.tasks.Examples(inputs, targets), two tensors whose "
            f"first dimension counts the examples{hint}"
        )
    for name, values in (("inputs", examples.inputs), ("targets", examples.targets)):
        if not isinstance(values, Tensor):
            raise TaskError(
                f"{task}: the {name} of the {split} split are a {type(values).__name__}; expected one tensor, whose "
                f"first dimension counts the examples"
            )
    if len(examples) == 0:
        raise TaskError(f"{task}: the {split} split has no examples; expected at least one")
