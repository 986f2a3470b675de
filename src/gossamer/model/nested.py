"""Tensors inside of what networks take and return: tuples, lists, dictionaries, dataclasses, outputs of libraries."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Any], value: Any, others: Callable[[Any], Any] | None = None) -> Any:
    """The same arrangement with `function` of each tensor in its place, and `others` of what is neither tensor nor
    container; without `others` that stays."""
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(
            value, **{name: map_tensors(function, entry, others) for name, entry in fields.items()}
        )
    if isinstance(value, Mapping):
        entries = {name: map_tensors(function, entry, others) for name, entry in value.items()}
        return entries if type(value) is dict else _with_entries(value, entries)
    if isinstance(value, tuple):
        found = [map_tensors(function, entry, others) for entry in value]
        return type(value)(*found) if hasattr(value, "_fields") else tuple(found)
    if isinstance(value, list):
        return [map_tensors(function, entry, others) for entry in value]
    return value if others is None else others(value)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors, in the order in which `map_tensors` goes through them."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.init:
                yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors_in(entry)


def in_float32(value: Any) -> Any:
    """The same with every floating tensor in float32."""
    return map_tensors(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, value)


def any_nan(value: Any) -> Tensor:
    """Whether an entry of any tensor is not a number; a bool tensor of no dimensions, on the tensors' device."""
    found = [tensor.isnan().any() for tensor in tensors_in(value) if tensor.is_floating_point()]
    return torch.stack(found).any() if found else torch.tensor(False)


def _with_entries(value: Any, entries: Mapping[str, Any]) -> Any:
    """A mapping of another class than dict, with these entries: as it is made by its class, which may count on more
    than its entries."""
    changed = copy.copy(value)
    for name, entry in entries.items():
        changed[name] = entry
    return changed
