"""How a torch network is called: with tensors by position and by name, alone or in tuples, lists and dictionaries."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree


@dataclass(frozen=True)
class Call:
    """The arguments of `forward`."""

    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """The tensors among them, in order."""
        return [leaf for leaf in _pytree.tree_leaves((self.positional, dict(self.named))) if isinstance(leaf, Tensor)]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Call":
        """The same call with others in their places."""
        others = iter(tensors)
        leaves, arrangement = _pytree.tree_flatten((self.positional, dict(self.named)))
        placed = [next(others) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return Call(*_pytree.tree_unflatten(placed, arrangement))

    def of(self, network: nn.Module) -> object:
        """What the network returns."""
        return network(*self.positional, **self.named)

    def of_copies(self, network: nn.Module) -> object:
        """What the network returns for copies of the tensors, which it may change."""
        return self.with_tensors([tensor.clone() for tensor in self.tensors()]).of(network)

    def names(self, network: nn.Module) -> list[str]:
        """Names of the tensors: those of `forward`'s parameters, with index or key behind where one holds several."""
        paths, _ = _pytree.tree_flatten_with_path((self.positional, dict(self.named)))
        parameters = _positional_names(network, len(self.positional))
        found = []
        for path, leaf in paths:
            if isinstance(leaf, Tensor):
                keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path[1:]]
                by_position = getattr(path[0], "idx", 0) == 0
                found.append("_".join([parameters[int(keys[0])] if by_position else keys[0], *keys[1:]]))
        return found


def _positional_names(network: nn.Module, count: int) -> list[str]:
    """The names of the first parameters of `forward`; those by name come after all that can be given by position."""
    return [name for name, _ in zip(_endless_names(network), range(count), strict=False)]


def _endless_names(network: nn.Module) -> Iterator[str]:
    try:
        parameters = list(inspect.signature(network.forward).parameters.values())
    except (TypeError, ValueError):  # of a compiled function nothing is known
        parameters = []
    several = "input"
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            several = parameter.name
            break
        yield parameter.name
    index = 0
    while True:
        yield f"{several}_{index}"
        index += 1
