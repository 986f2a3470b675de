"""Tensors with an entry for every position of a value. A channel's positions mostly hold the same entry: such a tensor
is an expanded view, which takes the memory of its distinct entries and is worked on through them."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from gossamer.shrink.operations import Shape


def spread(entries: Tensor, dimension: int, shape: Shape) -> Tensor:
    """One entry for every index along a dimension, seen from all positions; (length,) -> `shape`."""
    return entries.reshape([-1 if other == dimension else 1 for other in range(len(shape))]).expand(shape)


def along(entries: Tensor, dimension: int) -> Tensor:
    """The first entry for every index along a dimension; `shape` -> (length,)."""
    return entries.movedim(dimension, 0).flatten(1)[:, 0] if entries.dim() > 1 else entries


def distinct(entries: Tensor) -> Tensor:
    """The entries without those that are only seen again: length 1 in every expanded dimension."""
    return _first_along([dimension for dimension in range(entries.dim()) if entries.stride(dimension) == 0], entries)


def on_distinct(function: Callable[[Tensor], Tensor], entries: Tensor) -> Tensor:
    """A function of each entry, computed once for entries that are seen from many positions."""
    return function(distinct(entries)).expand(entries.shape)


def distinct_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of two tensors of one shape that meet at the same position."""
    expanded = [dimension for dimension in range(left.dim()) if left.stride(dimension) == right.stride(dimension) == 0]
    return _first_along(expanded, left), _first_along(expanded, right)


def on_distinct_pairs(function: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """A function of the entries that meet, for two tensors of one shape."""
    return function(*distinct_pairs(left, right)).expand(left.shape)


def same_along(entries: Tensor, dimension: int) -> bool:
    """Whether all indices along a dimension hold the same entries."""
    first, every = distinct_pairs(entries.narrow(dimension, 0, 1).expand_as(entries), entries)
    # An unknown constant, NaN, is the same as another one here.
    return bool(((first == every) | (first != first) & (every != every)).all())


def padded(entries: Tensor, amounts: Sequence[tuple[int, int]], outside: float) -> Tensor:
    """More positions before and after every dimension: where all along it hold the same, they do too, else `outside`.

    Args:
        amounts: positions before and after, for each dimension.
    """
    for dimension, (before, after) in enumerate(amounts):
        if before + after == 0:
            continue
        if same_along(entries, dimension):
            shape = list(entries.shape)
            shape[dimension] += before + after
            entries = entries.narrow(dimension, 0, 1).expand(shape)
        else:
            ends = [0, 0] * (entries.dim() - dimension - 1) + [before, after]
            entries = F.pad(entries, ends, value=outside)
    return entries


def _first_along(dimensions: list[int], entries: Tensor) -> Tensor:
    for dimension in dimensions:
        entries = entries.narrow(dimension, 0, min(1, entries.shape[dimension]))
    return entries
