"""What a task is: data, a model and a training recipe. The built-in tasks and a user's own have this one shape."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.loop.directions import direction_of
from gossamer.tasks.batch import Batch
from gossamer.tasks.loaded import Loaded


@dataclass(frozen=True)
class Examples:
    """Inputs and targets of one split; the first dimension counts the examples in both."""

    inputs: Tensor
    """As they are stored: the network's own inputs, or something smaller (bytes) that `prepare` turns into them."""
    targets: Tensor
    prepare: Callable[[Tensor], Tensor] | None = None
    """Stored inputs of a batch -> the network's inputs, on the batch's device. None: they are the same."""

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"got {len(self.inputs)} inputs but {len(self.targets)} targets; expected as many of each")

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> "Examples":
        """The same examples in the memory of `device`."""
        return Examples(self.inputs.to(device), self.targets.to(device), self.prepare)

    def first(self, count: int | None) -> "Examples":
        """So many of them, from the first on; None: all."""
        return Examples(self.inputs[:count], self.targets[:count], self.prepare)

    def batch(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """The network's inputs, and the targets, of some rows."""
        inputs = self.inputs[rows]
        return (inputs if self.prepare is None else self.prepare(inputs)), self.targets[rows]


Split = Examples | Loaded
"""Examples in memory, or read while they are used."""


@dataclass(frozen=True)
class Data:
    """The splits. Choices are made on `validation`; `test` is only reported, where there is one.

    Each is `Examples`, or what is read while it is used: a torch `Dataset` or `DataLoader` as it is, or in `Loaded`.
    """

    train: Any
    validation: Any
    test: Any = None
    batch: Callable[[Any], Batch] | None = None
    """What a loader yields -> a `Batch`; unless given, tuples and dictionaries are read by `as_batch`."""

    def to(self, device: torch.device | str) -> "Data":
        """The same splits in the memory of `device`; what is read while it is used comes there batch by batch."""
        return replace(self, **{name: split.to(device) for name, split in self.splits().items()})

    def splits(self) -> dict[str, Any]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """1.0 where the largest output is the target's, else 0.0. Shapes: (batch, classes), (batch,) -> (batch,)."""
    return (outputs.argmax(dim=1) == targets).float()


class SetMetric(Protocol):
    """A number that is no mean over examples: F1, AUC, mean IoU, mean average precision; torchmetrics has many."""

    def update(self, outputs: Any, targets: Any, /) -> Any:
        """Takes in what the network returned for a batch, and its targets."""

    def compute(self) -> Any:
        """The metric of all batches: a number, or several by their names, of which the metric's own decides."""


@dataclass(frozen=True)
class Metric:
    """How a model is measured: by the mean of `score` over the examples of a split, or by `whole_set`."""

    name: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    score: Callable[[Any, Any], Tensor] = correct
    """(outputs, targets) of a batch -> one number an example (or several; the mean is over all of them). Outputs are
    what the network returns."""
    whole_set: Callable[[], SetMetric] | None = None
    """Makes an object that measures a whole set, anew for every evaluation; `score` is not asked then."""

    @classmethod
    def over_set(
        cls,
        name: str,
        make: Callable[[], Any],
        better: Literal["higher", "lower"] | None = None,
        given: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ) -> "Metric":
        """A metric of a whole set, such as `Metric.over_set("f1", lambda: MulticlassF1Score(10))`.

            Metric.over_set("map", MeanAveragePrecision)    # several numbers; the one named "map" decides

        Args:
            make: makes an object with `update(outputs, targets)` and `compute()`; called for every evaluation.
            better: the direction; unless given, what the object says (`higher_is_better`, as torchmetrics' do; of a
                collection, the one named `name`), or else the name (`accuracy`, `val_loss`).
            given: (outputs, targets) of a batch -> what `update` takes, such as
                `lambda outputs, targets: (outputs.logits, targets)`.

        Raises:
            ConfigurationError: nothing says which direction is better, or the object lacks a method.
        """
        one = make()
        if not (callable(getattr(one, "update", None)) and callable(getattr(one, "compute", None))):
            raise ConfigurationError(
                f"the metric {name} is a {type(one).__name__}; expected an object with update(outputs, targets) and "
                f"compute()"
            )
        better = better or _direction(one, name)
        if better is None:
            raise ConfigurationError(
                f"nothing says whether the metric {name} is better when higher or lower; give better='higher' or "
                f"'lower'"
            )
        return cls(name, better, whole_set=make if given is None else functools.partial(OtherValues, make, given))


def _direction(metric: Any, name: str) -> Literal["higher", "lower"] | None:
    """Whether more or less is better of what a metric computes under a name; None if nothing says so."""
    parts = getattr(metric, "items", None)
    part = dict(parts()).get(name, metric) if callable(parts) else metric
    told = getattr(part, "higher_is_better", None)
    if told is None:
        return direction_of(name)
    return "higher" if told else "lower"


class OtherValues:
    """A metric of a whole set that is given something else than outputs and targets as they are."""

    def __init__(self, make: Callable[[], Any], given: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        self.metric = make()
        self.given = given

    def to(self, device: torch.device | str) -> "OtherValues":
        if hasattr(self.metric, "to"):
            self.metric = self.metric.to(device)
        return self

    def update(self, outputs: Any, targets: Any) -> None:
        self.metric.update(*self.given(outputs, targets))

    def compute(self) -> Any:
        return self.metric.compute()


Precision = Literal["float32", "bfloat16"]
"""The type that layers compute in while training. Weights, gradients and the optimizer are float32 in both."""


@dataclass(frozen=True)
class Recipe:
    """How the dense network is trained once, from the first learning rate to the last. Every round replays it all."""

    epochs: int
    batch_size: int | None
    """Examples a step. Those left over at the end of an epoch are left out, other ones each time. None: as the task's
    `DataLoader` has it."""
    learning_rate: Callable[[float], float]
    """Progress of the training time, 0 at the first step and 1 past the last -> learning rate of that step."""
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy
    """(outputs, targets) of a batch -> scalar. Outputs are what the network returns: a tensor, or several in tuples,
    lists, dictionaries or an object of a library; floating ones arrive in float32."""
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    """(stored inputs of a batch, generator on their device) -> inputs alike; applied to training batches only, before
    `Examples.prepare`."""
    bfloat16: bool = False
    """Whether layers compute in bfloat16 while training, where the processor has it (`processor.precision`)."""
    fine_tune_rate: float | None = None
    """The constant learning rate of fine-tuning; None: the schedule's last, as in the paper. Schedules that end near
    zero need one."""
    channels_last: bool = False
    """Whether images and convolution weights lie in memory with their channels innermost."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if name == "batch_size" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"recipe: {name} is {value!r}; expected a whole number of at least 1")


@dataclass(frozen=True)
class Task:
    """A network to compress, and everything needed to train it."""

    name: str
    description: str
    model: Callable[[], nn.Module]
    """Makes a freshly initialised model; torch's random numbers are seeded by the caller (`training.initial_model`)."""
    data: Callable[[Path | None], Data]
    """Loads the splits, on the CPU. The argument is the `--data` folder, None when it was not given."""
    recipe: Recipe
    metric: Metric = field(default_factory=Metric)
    pretrained: bool = False
    """Whether `model` comes trained, by somebody else perhaps. The dense round is then that network as it is, and the
    recipe is how it is retrained after every cut."""
    for_data: "Callable[[Path | None], Task] | None" = None
    """Makes the task for the data of a `--data` folder, where the network or the recipe depend on them (on the number
    of classes, say); what it returns is used in place of this one. None: they do not."""
    classes: tuple[str, ...] | None = None
    """Names of the network's outputs in order, where the data say them. A run records them, and is resumed with the
    same ones only."""

    def __post_init__(self) -> None:
        for name, kind in {"name": str, "recipe": Recipe, "metric": Metric}.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"task: {name} is a {type(value).__name__}; expected a {kind.__name__}")

    def at(self, folder: Path | None) -> "Task":
        """The task for the data of a folder."""
        return self if self.for_data is None else replace(self.for_data(folder), for_data=None)


def describe(recipe: Recipe) -> dict[str, str | int | float | bool]:
    """The recipe as plain values, the same in every process: for a run's configuration and for comparing two."""
    # The rate of fine-tuning decides nothing about the other methods; those that use it record it by itself.
    entries = [entry.name for entry in fields(recipe) if entry.name != "fine_tune_rate"]
    return {name: _described(getattr(recipe, name)) for name in entries}


def _described(value: object) -> str | int | float | bool:
    if isinstance(value, str | int | float | bool):
        return value
    if is_dataclass(value):
        return repr(value)
    if isinstance(value, functools.partial):
        arguments = [repr(argument) for argument in value.args]
        arguments += [f"{name}={argument!r}" for name, argument in value.keywords.items()]
        return f"{_described(value.func)}({', '.join(arguments)})"
    return "none" if value is None else str(getattr(value, "__qualname__", type(value).__qualname__))
