"""A network that is an average of the one in training (EMA, SWA), as what a round measures and keeps.

Known by what they hold, whatever package they are from: a module of the model's shapes (a deep copy, torch's
`AveragedModel`, wrappers with such a module among their attributes), or a list `shadow_params` in the order of the
model's parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.model.wrappers import unwrap


def tensors_of(average: Any, model: nn.Module) -> dict[str, Tensor]:
    """The average's own tensors, by the model's names: writing to them changes the average. Buffers may be missing.

    Raises:
        ConfigurationError: it is no average of this model.
    """
    found = _tensors(average, unwrap(model))
    if found is None:
        raise ConfigurationError(
            f"model is a {type(average).__name__}, which holds no parameters of the names and shapes of the "
            f"{type(unwrap(model)).__name__} in training; expected an average of that very model, such as a deep copy "
            f"or an AveragedModel of it"
        )
    return found


def modules_of(average: Any, model: nn.Module) -> list[nn.Module]:
    """The modules that an average of the model consists of: none, where it is a list of tensors, or no average."""
    parameters = dict(unwrap(model).named_parameters(remove_duplicate=False))
    others = dict.fromkeys(module for module in _modules(average) if module is not unwrap(model))
    return [module for module in others if _fit(dict(module.named_parameters(remove_duplicate=False)), parameters)]


@torch.no_grad()
def put_masks(average: Any, model: nn.Module, masks: Mapping[str, Tensor]) -> int:
    """Sets the pruned weights of an average to zero, and returns how many were not; leaves anything else alone."""
    tensors = _tensors(average, unwrap(model)) or {}
    count = 0
    for name, mask in masks.items():
        if name in tensors:
            pruned = ~mask.to(tensors[name].device)
            count += int(torch.count_nonzero(tensors[name][pruned]))
            tensors[name].masked_fill_(pruned, 0)
    return count


def are_same(average: Any, other: Any, model: nn.Module) -> bool:
    """Whether two objects hold one and the same average of the model (a wrapper, and what it wraps)."""
    found, others = _tensors(average, unwrap(model)) or {}, _tensors(other, unwrap(model)) or {}
    return any(name in others and others[name].data_ptr() == tensor.data_ptr() for name, tensor in found.items())


def _tensors(average: Any, model: nn.Module) -> dict[str, Tensor] | None:
    for module in modules_of(average, model):
        return {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    shadows = getattr(average, "shadow_params", None)
    own = dict(model.named_parameters())
    for names in (list(own), [name for name, parameter in own.items() if parameter.requires_grad]):
        if isinstance(shadows, Sequence) and len(shadows) == len(names):
            found = dict(zip(names, shadows, strict=True))
            if all(isinstance(shadow, Tensor) for shadow in shadows) and _fit(
                found, {name: own[name] for name in names}
            ):
                return found
    return None


def _modules(average: Any) -> Iterator[nn.Module]:
    """The module that it is, without wrappers, and those that it has as attributes."""
    if isinstance(average, nn.Module):
        yield unwrap(average)
        yield from map(unwrap, average.children())
    for value in vars(average).values() if hasattr(average, "__dict__") else ():
        if isinstance(value, nn.Module):
            yield unwrap(value)


def _fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return tensors.keys() == expected.keys() and all(tensors[name].shape == expected[name].shape for name in expected)
