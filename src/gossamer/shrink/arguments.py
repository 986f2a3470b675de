"""What a network is called with: example inputs, by position or by name."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.model.call import Call
from gossamer.shrink.errors import ShrinkError

Examples = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""Example inputs: the only argument of the forward pass, all of them, or some by their names. The first dimension
counts examples."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a forward pass that are tensors; all others take their defaults."""

    positional: tuple[Tensor, ...]
    named: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        return [*self.positional, *self.named.values()]

    def given_to(self, network: Any) -> Any:
        """What the network returns for copies of them, which it may change."""
        return network(
            *(tensor.clone() for tensor in self.positional),
            **{name: tensor.clone() for name, tensor in self.named.items()},
        )

    def names(self, model: nn.Module) -> list[str]:
        """The names of the forward pass's parameters that they are given to, in the order of `tensors`."""
        found: list[str] = []
        for parameter in inspect.signature(model.forward).parameters.values():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                break
            found.append(parameter.name)
        several = [f"input_{index}" for index in range(len(self.positional))]
        return [*found[: len(self.positional)], *several[len(found) :], *self.named]

    def twice(self) -> "Arguments":
        """The same with every example given twice."""
        return Arguments(
            tuple(torch.cat([tensor, tensor]) for tensor in self.positional),
            {name: torch.cat([tensor, tensor]) for name, tensor in self.named.items()},
        )


def as_arguments(examples: Examples | Call | Arguments) -> Arguments:
    """The example inputs as arguments.

    Raises:
        ShrinkError: they are no tensors.
    """
    if isinstance(examples, Arguments):
        return examples
    if isinstance(examples, Call):
        arguments = Arguments(examples.positional, dict(examples.named))
    elif isinstance(examples, Mapping):
        arguments = Arguments((), dict(examples))
    else:
        arguments = Arguments((examples,) if isinstance(examples, Tensor) else tuple(examples))
    tensors = arguments.tensors()
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.dim() for tensor in tensors):
        raise ShrinkError(
            f"the example inputs are {[type(tensor).__name__ for tensor in tensors]}; expected a tensor, a sequence of "
            f"the forward pass's positional arguments, or a dictionary of those by name, whose first dimension counts "
            f"examples"
        )
    if any(tensor.numel() == 0 for tensor in tensors):
        raise ShrinkError(
            f"the example inputs have the shapes {[tuple(tensor.shape) for tensor in tensors]}; expected at "
            f"least one example, on which the two networks are compared"
        )
    return arguments
