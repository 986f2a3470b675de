"""Which weights are ranked with one another, when single ones stay or go, and when N of every M inputs do.

The same choice as `gossamer.prune.structure` makes in memory, of which only a piece is here at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from gossamer.files.keys import Keys
from gossamer.prune.n_of_m import most_of_groups

FEW = 8
"""Up to so many inputs a group, comparing every two of them takes less time than sorting."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Ranking:
    """Of the ranked weights of some tensors the largest are kept."""

    kept: int
    """How many of the ranked ones."""
    ranked: int
    """How many those are."""
    groups: tuple[int, int] | None = None
    """(N, M); None: every weight is ranked."""
    beyond: bool = False
    """Whether the N largest of each group stay in any case, and the others are ranked; else only those N are."""

    @classmethod
    def of(cls, shapes: Iterable[Sequence[int]], kept: int, groups: tuple[int, int] | None) -> "Ranking":
        """The ranking that keeps so many weights in all.

        Args:
            shapes: of the tensors, outputs first.
        """
        shapes = list(shapes)
        number = sum(prod(shape) for shape in shapes)
        if groups is None:
            return cls(kept, number)
        most = sum(most_of_groups(*groups, shape) for shape in shapes)
        if kept <= most:
            return cls(kept, most, groups)
        return cls(kept - most, number - most, groups, beyond=True)

    @property
    def group(self) -> int:
        """Consecutive inputs that have to be seen together."""
        return 1 if self.groups is None else self.groups[1]

    def split(self, keys: Keys) -> tuple[Mask | None, Mask | None]:
        """Which weights of a piece, (outer, inputs, inner), are ranked, and which stay in any case; None: all of them,
        and none."""
        if self.groups is None:
            return None, None
        largest = largest_of_groups(keys, *self.groups)
        return (~largest, largest) if self.beyond else (largest, None)


def largest_of_groups(keys: Keys, n: int, m: int) -> Mask:
    """The n largest in every m consecutive inputs; of equal ones the first. The last group is shorter if m does not
    divide the number of inputs.

    Args:
        keys: (outer, inputs, inner).
    """
    outer, inputs, inner = keys.shape
    whole = inputs // m * m
    chosen = np.empty(keys.shape, np.bool_)
    for part, length in ((slice(0, whole), m), (slice(whole, inputs), inputs - whole)):
        if length:
            groups = keys[:, part].reshape(outer, -1, length, inner)
            chosen[:, part] = _largest(groups, n).reshape(outer, -1, inner)
    return chosen


def _largest(groups: Keys, n: int) -> Mask:
    length = groups.shape[2]
    if length > FEW:
        order = np.argsort(~groups, axis=2, kind="stable")[:, :, :n]
        chosen = np.zeros(groups.shape, np.bool_)
        np.put_along_axis(chosen, order, True, axis=2)
        return chosen
    # One plane for each position in a group, so that whole planes are compared.
    planes = np.ascontiguousarray(np.moveaxis(groups, 2, 0))
    larger = np.zeros(planes.shape, np.uint8)
    for second in range(length):
        for first in range(second):
            first_wins = planes[first] >= planes[second]
            larger[second] += first_wins
            larger[first] += ~first_wins
    return np.moveaxis(larger < n, 0, 2)
