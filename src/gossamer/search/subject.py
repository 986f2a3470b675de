"""What `gossamer search` works on: a trained network, its data, and how it is scored and retrained."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gossamer.loop.configuration import FILE
from gossamer.prune.enforce import attach_masks, detach_masks
from gossamer.prune.prunable import prunable_weights
from gossamer.prune.scope import Scope
from gossamer.randomness import derived_seed
from gossamer.reopen import TaskNetwork, as_made, open_round
from gossamer.search.errors import SearchError
from gossamer.storage.files import absolute, same_working_directory
from gossamer.tasks import Examples, Recipe, Split, evaluate, find_task, train
from gossamer.tasks.own_task import is_own_task
from gossamer.tasks.training import batch_size_of, in_memory_format

DENSE = 0
"""The round of a run whose network is searched."""


@dataclass(frozen=True)
class Searched(TaskNetwork):
    """A trained network, in its recipe's memory format."""

    @property
    def example(self) -> Tensor:
        """The network's input for one example."""
        return self.validation.batch(slice(0, 1))[0]

    def to(self, device: torch.device) -> "Searched":
        """The network and its data in the memory of `device`."""
        return replace(self, model=self.model.to(device), data=self.data.to(device))

    def value(self, model: nn.Module, examples: Examples) -> float:
        """The task's metric."""
        return evaluate(model, examples, self.task.metric)


@dataclass(frozen=True)
class Constant:
    """A schedule without change."""

    rate: float

    def __call__(self, progress: float) -> float:
        return self.rate


@same_working_directory()
def open_subject(run_or_task: str, *, data_folder: Path | None, task: str | None) -> Searched:
    """The dense network of a run, or the model of a task of the user's own, which has to make it trained.

    Raises:
        GossamerError: it is neither, or its data are missing.
    """
    if (Path(run_or_task) / FILE).exists():
        found = open_round(Path(run_or_task), DENSE, data_folder=data_folder, task=task)
        detach_masks(found.model.parameters())
        return _searched(found)
    if not is_own_task(run_or_task):
        raise SearchError(
            f"{run_or_task} is neither the folder of a run nor path/file.py:function of a task whose model is trained; "
            f"expected one of them. Train a built-in task first (gossamer compress TASK --rounds 1 --out RUN) and "
            f"search its run."
        )
    data_folder = None if data_folder is None else absolute(data_folder)
    return _searched(as_made(find_task(run_or_task), data_folder))


def short_retraining(
    subject: Searched, steps: int, seed: int, scope: Scope | None
) -> Callable[[nn.Module, Mapping[str, Tensor]], nn.Module]:
    """Trains a copy of a pruned model for some steps at a tenth of the recipe's largest learning rate, on the same
    training examples every time."""
    recipe = subject.task.recipe
    examples = _some(subject.data.train, recipe, steps, derived_seed(seed, "retraining"))
    short = replace(recipe, epochs=1, learning_rate=Constant(_largest_rate(recipe) / 10))

    def retrain(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        trained = copy.deepcopy(model)
        attach_masks(trained, prunable_weights(trained, scope), masks)
        for _ in train(trained, short.optimizer(trained), short, examples, seed=seed):
            pass
        return trained

    return retrain


def _some(train_on: Split, recipe: Recipe, steps: int, seed: int) -> Split:
    """Examples for so many steps, drawn from the training examples."""
    if not isinstance(train_on, Examples):
        return replace(train_on, steps=min(steps, train_on.epoch_steps))
    count = min(steps * batch_size_of(recipe, train_on), len(train_on))
    order = torch.randperm(len(train_on), generator=torch.Generator().manual_seed(seed))[:count]
    return Examples(train_on.inputs[order], train_on.targets[order], train_on.prepare)


def _searched(found: TaskNetwork) -> Searched:
    """In the recipe's memory format the model computes faster."""
    return Searched(found.task, in_memory_format(found.task, found.model), found.data, found.scope)


def _largest_rate(recipe: Recipe) -> float:
    return max(recipe.learning_rate(step / 100) for step in range(100))
