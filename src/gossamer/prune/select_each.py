"""Exact selection in each of many tensors by itself, as allocations by layer want it: `keep_largest` of every one.

Of sharded tensors many are done at a time, and of each a bit of the threshold (`radix.find_thresholds_in_sums`): a
process sends four bytes a layer and bit. Which of equal magnitudes stay is asked only where not all of them do.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from gossamer.model.sharded import is_sharded, piece_of, with_piece
from gossamer.prune.masks import count_kept_of_each
from gossamer.prune.radix import BUCKETS, DIGIT_BITS, Counts, Threshold, Thresholds, find_thresholds_in_sums
from gossamer.prune.select import (
    fitting,
    histogram,
    indices_of_ties,
    keep_largest,
    masks_above,
    refuse_non_finite,
    widest_type,
)
from gossamer.prune.shards import Shards

AT_ONCE = 64
"""Tensors whose histograms are in memory at a time, half a megabyte each."""


def keep_largest_of_each(
    weights: Mapping[str, Tensor], kept: Mapping[str, int], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Masks that keep, of every tensor, so many of the weights that are there, as `keep_largest` would of it alone.

    Args:
        kept: by name, 0 to the number of weights that are there.
        masks: by name, True where a weight is still there.

    Raises:
        TrainingDivergedError: a weight is infinite or not a number.
    """
    if not any(map(is_sharded, weights.values())):
        return {name: keep_largest({name: one}, kept[name], {name: masks[name]})[name] for name, one in weights.items()}
    shards = Shards.of(weights)
    pieces = {name: piece_of(weight) for name, weight in weights.items()}
    there = {name: piece_of(fitting(name, masks[name], weight)) for name, weight in weights.items()}
    chosen = {name: torch.zeros_like(piece, dtype=torch.bool) for name, piece in pieces.items()}
    some = sorted((name for name in weights if kept[name]), key=lambda name: str(weights[name].dtype))
    available = count_kept_of_each(masks)
    for _, of_type in groupby(some, key=lambda name: weights[name].dtype):
        names = list(of_type)
        for first in range(0, len(names), AT_ONCE):
            selection = _Selection(shards, names[first : first + AT_ONCE], pieces, there)
            for name, threshold in selection.thresholds(kept, available).items():
                chosen[name] = masks_above({name: pieces[name]}, threshold, {name: there[name]})[name]
    return {name: with_piece(weight, chosen[name]) for name, weight in weights.items()}


class _Selection:
    """Several tensors of one type, each of which is selected in by itself."""

    def __init__(
        self, shards: Shards, names: Sequence[str], pieces: Mapping[str, Tensor], there: Mapping[str, Tensor]
    ) -> None:
        self.shards, self.names, self.pieces, self.there = shards, names, pieces, there
        self.counted = shards.counted({name: pieces[name] for name in names})
        self.kind = widest_type({names[0]: pieces[names[0]]})

    def thresholds(self, kept: Mapping[str, int], available: Mapping[str, int]) -> dict[str, Threshold]:
        """By name; of the ties how many of this process's piece are kept."""
        bits = self.kind.itemsize * 8 - 1  # without the sign
        numbers = np.array([available[name] for name in self.names], np.int64)
        found = find_thresholds_in_sums(
            self._magnitudes, bits, np.array([kept[name] for name in self.names], np.int64), numbers, self.shards.add
        )
        ends = self._last_ties(found)
        return {
            name: Threshold(int(key), self._ties_here(name, int(key), end))
            for name, key, end in zip(self.names, found.keys, ends, strict=True)
        }

    def _magnitudes(self, prefixes: Counts, digits_left: int) -> Counts:
        counts = np.zeros((len(self.names), BUCKETS), np.int64)
        for index, name in enumerate(self.names):
            if name in self.counted:
                one = {name: self.counted[name]}
                counts[index] = histogram(one, self.there, self.kind, int(prefixes[index]), digits_left).numpy()
        if digits_left == self.kind.itemsize * 8 // DIGIT_BITS - 1:
            refuse_non_finite(self.shards, torch.from_numpy(counts.sum(0)), self.kind, self.counted, self.there)
        return counts

    def _last_ties(self, found: Thresholds) -> list[int | None]:
        """Where the last tie that is kept stands in its whole tensor; None where all of them are."""
        ends: list[int | None] = [None] * len(self.names)
        divided: list[int] = np.flatnonzero(found.ties > found.ties_kept).tolist()
        if not divided:
            return ends
        # Largest first is what is looked for, and the first positions are the ones to be kept.
        last = max(self.shards.tensors[self.names[index]].numel() for index in divided) - 1

        def count(prefixes: Counts, digits_left: int) -> Counts:
            counts = np.zeros((len(divided), BUCKETS), np.int64)
            for row, index in enumerate(divided):
                name = self.names[index]
                for positions in self._ties(name, int(found.keys[index])) if name in self.counted else ():
                    keys = (last - positions).numpy()
                    keys = keys[keys >> (DIGIT_BITS * (digits_left + 1)) == prefixes[row]]
                    digits = (keys >> (DIGIT_BITS * digits_left)) & (BUCKETS - 1)
                    counts[row] += np.bincount(digits, minlength=BUCKETS)
            return counts

        ends_found = find_thresholds_in_sums(
            count, last.bit_length(), found.ties_kept[divided], found.ties[divided], self.shards.add
        )
        for index, key in zip(divided, ends_found.keys, strict=True):
            ends[index] = last - int(key)
        return ends

    def _ties_here(self, name: str, key: int, end: int | None) -> int:
        ties = self._ties(name, key)
        return sum(len(positions) if end is None else int((positions <= end).sum()) for positions in ties)

    def _ties(self, name: str, key: int) -> Iterator[Tensor]:
        for indices in indices_of_ties(self.pieces[name], self.there[name], self.kind, key):
            yield self.shards.positions_within(name, indices).cpu()
