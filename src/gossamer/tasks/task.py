"""What a task is: data, a model and a training recipe. The built-in tasks and a user's own have this one shape."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Examples:
    """Inputs and targets of one split; the first dimension counts the examples in both."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"got {len(self.inputs)} inputs but {len(self.targets)} targets; expected as many of each")

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Data:
    """The three splits. Choices are made on `validation`; `test` is only reported."""

    train: Examples
    validation: Examples
    test: Examples


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """1.0 where the largest output is the target's, else 0.0. Shapes: (batch, classes), (batch,) -> (batch,)."""
    return (outputs.argmax(dim=1) == targets).float()


@dataclass(frozen=True)
class Metric:
    """How a model is judged: the mean of `score` over the examples of a split."""

    name: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    score: Callable[[Tensor, Tensor], Tensor] = correct
    """(outputs, targets) of a batch -> one number an example (or several; the mean is over all of them)."""


@dataclass(frozen=True)
class Recipe:
    """How the dense network is trained, from the first learning rate to the last; every round replays all of it."""

    epochs: int
    batch_size: int
    learning_rate: Callable[[float], float]
    """Progress of the training time, 0 at the first step and 1 past the last -> learning rate of that step."""
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    """(outputs, targets) of a batch -> scalar."""
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    """(inputs of a batch, generator on their device) -> inputs; applied to training batches only."""


@dataclass(frozen=True)
class Task:
    """A network to compress, and everything needed to train it."""

    name: str
    description: str
    model: Callable[[], nn.Module]
    """Makes a freshly initialised model; torch's random numbers are seeded by the caller."""
    data: Callable[[Path | None], Data]
    """Loads the splits, on the CPU. The argument is the `--data` folder, None when it was not given."""
    recipe: Recipe
    metric: Metric = Metric()
