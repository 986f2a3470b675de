"""A task's data, loaded and looked at before anything is computed from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gossamer import randomness
from gossamer.errors import GossamerError
from gossamer.randomness import derived_seed
from gossamer.tasks.errors import TaskError
from gossamer.tasks.loaded import Loaded, bound
from gossamer.tasks.task import Data, Examples, Task

EXPECTED = (
    "gossamer.tasks.Data(train, validation, test), each of them gossamer.tasks.Examples(inputs, targets), a torch "
    "Dataset or a DataLoader (test may be left out)"
)


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
    data = _bound(task, data)
    for name, split in {"train": data.train, "validation": data.validation, **data.splits()}.items():
        _check(split, name, task.name)
    _check_recipe(task, data)
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
    if isinstance(examples, Loaded):
        if split == "train":
            # Nothing is read: it says how many steps an epoch has.
            _ = examples.epoch_steps
        return
    if not isinstance(examples, Examples):
        got = "nothing" if examples is None else f"a {type(examples).__name__}"
        hint = "; set some of the training examples aside for it" if examples is None else ""
        raise TaskError(
            f"{task}: the {split} split is {got}; expected gossamer.tasks.Examples(inputs, targets), two tensors whose "
            f"first dimension counts the examples, or a torch Dataset or DataLoader{hint}"
        )
    for name, values in (("inputs", examples.inputs), ("targets", examples.targets)):
        if not isinstance(values, Tensor):
            raise TaskError(
                f"{task}: the {name} of the {split} split are a {type(values).__name__}; expected one tensor, whose "
                f"first dimension counts the examples"
            )
    if len(examples) == 0:
        raise TaskError(f"{task}: the {split} split has no examples; expected at least one")


def _check_recipe(task: Task, data: Data) -> None:
    """Verifies that the recipe says what only it can say, and nothing that the training examples say."""
    recipe, train = task.recipe, data.train
    if isinstance(train, Examples):
        if recipe.batch_size is None:
            raise TaskError(
                f"{task.name}: the recipe's batch_size is None, which only a DataLoader knows; expected one"
            )
        return
    if recipe.augment is not None:
        raise TaskError(
            f"{task.name}: the recipe augments, and so would a Dataset or DataLoader by itself; leave augment out, and "
            f"do it where an example is read"
        )
    own = getattr(train.source, "batch_size", None)
    if isinstance(train.source, DataLoader) and own is not None and recipe.batch_size not in (None, own):
        raise TaskError(
            f"{task.name}: the recipe's batch_size is {recipe.batch_size}, but the DataLoader of the train split has "
            f"{own}; give the recipe batch_size=None, which is that of the loader"
        )


def _bound(task: Task, data: Data) -> Data:
    """The data with every split that is read while it is used told what the task says of it."""
    splits = {
        name: bound(split, f"{task.name}: the {name} split", task.recipe.batch_size, data.batch)
        for name, split in data.splits().items()
    }
    return replace(data, **splits)
