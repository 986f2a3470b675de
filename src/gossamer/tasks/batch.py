"""One batch of a task's data: what the network is called with, and the targets that loss and metric compare with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.model.call import Call
from gossamer.model.nested import map_tensors, tensors_in
from gossamer.tasks.errors import TaskError

TARGETS = ("labels", "label", "targets", "target")
"""Where the targets of a batch that is a dictionary are, the first that it has."""


@dataclass(frozen=True)
class Batch(Call):
    """The arguments of the network's `forward`, by position and by name, and the targets."""

    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    targets: Any = None
    """Whatever loss and metric take: a tensor, several, or a list with one entry an image."""
    targets_name: str | None = None
    """The argument by which a network that computes its own loss takes the targets (`returned_loss`)."""

    @property
    def examples(self) -> int:
        """How many it holds: the first dimension of the first tensor of its inputs."""
        first = next(tensors_in((self.positional, dict(self.named))), None)
        return len(first) if first is not None and first.dim() else 1

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch in the memory of `device`."""

        def moved(other: Any) -> Any:
            # Such as a batch of graphs, which moves itself.
            return other.to(device) if callable(getattr(other, "to", None)) else other

        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True), moved)

    def mapped(self, function: Callable[[Tensor], Any], others: Callable[[Any], Any] | None = None) -> "Batch":
        """The same batch with `function` of every tensor, and `others` of what else it holds."""
        parts = (self.positional, dict(self.named), self.targets)
        positional, named, targets = map_tensors(function, parts, others)
        return Batch(positional, named, targets, self.targets_name)

    def first(self, count: int) -> "Batch":
        """So many of its examples, where every tensor's first dimension counts them; else all."""
        size = self.examples
        tensors = list(tensors_in((self.positional, dict(self.named), self.targets)))
        if any(tensor.dim() == 0 or len(tensor) != size for tensor in tensors):
            return self
        return self.mapped(lambda tensor: tensor[:count])

    def with_targets_given(self) -> "Batch":
        """The same batch, whose targets the network is given too, by their name."""
        if self.targets_name is None:
            return self
        return replace(self, named={**self.named, self.targets_name: self.targets})


def as_batch(loaded: Any, targets: str | None = None) -> Batch:
    """What a loader yields as a batch.

    A tuple or list holds the network's positional inputs and, last, the targets. A dictionary (or `BatchEncoding`)
    holds inputs by their names, and the targets under `targets`.

    Args:
        targets: name of the targets in a dictionary; "labels", "label", "targets" or "target" by default.

    Raises:
        TaskError: it is something else, or holds no targets.
    """
    if isinstance(loaded, Batch):
        return loaded
    if isinstance(loaded, Mapping):
        named = {str(name): value for name, value in loaded.items()}
        name = next((name for name in ((targets,) if targets else TARGETS) if name in named), None)
        if name is None:
            raise TaskError(
                f"a batch holds {', '.join(named) or 'nothing'}, and no {targets or 'labels'}; say which of them are "
                f"the targets, with Data(..., batch=functools.partial(as_batch, targets=NAME))"
            )
        found = named.pop(name)
        return Batch((), named, found, name)
    if isinstance(loaded, (tuple, list)) and len(loaded) >= 2:
        return Batch(tuple(loaded[:-1]), {}, loaded[-1])
    got = f"{type(loaded).__name__} of {len(loaded)}" if isinstance(loaded, (tuple, list)) else type(loaded).__name__
    raise TaskError(
        f"a batch is a {got}; expected a tuple or list of inputs and targets, or a dictionary with labels. Make one of "
        f"it with Data(..., batch=FUNCTION), which returns a gossamer.tasks.Batch"
    )


def returned_loss(outputs: Any, targets: Any) -> Tensor:
    """The loss that the network itself returns, as transformers' do when they are given the labels: for
    `Recipe(loss=returned_loss)`. The network is then given the targets of batches that are dictionaries too.

    Raises:
        TaskError: there is none.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if loss is None:
        raise TaskError(
            f"the network returns a {type(outputs).__name__} without a loss; expected one with `loss`. Does its "
            f"forward take the targets by the name that they have in the batch?"
        )
    return loss  # type: ignore[no-any-return]


def called(network: Any, batch: Batch, loss: Any) -> Any:
    """What the network returns for a batch, given the targets too if the loss is the network's own.

    Args:
        network: the module, or its compiled forward pass.
    """
    given = batch.with_targets_given() if loss is returned_loss else batch
    if isinstance(network, nn.Module):
        return given.of(network)
    return network(*given.positional, **given.named)
