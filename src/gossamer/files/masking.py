"""Zeros written into files: the second reading, with the threshold known."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gossamer.files.keys import Keys, keys_of, require_finite
from gossamer.files.ranking import Mask, Ranking
from gossamer.files.selecting import Advance, Open, Weight, pieces
from gossamer.files.stored import Stored
from gossamer.prune.radix import Threshold

BLOCK = 1 << 20
"""Bytes that are copied at a time."""


@dataclass
class Counted:
    """What was found and left of a tensor."""

    kept: int = 0
    zeros_before: int = 0
    ties: int = 0
    """Kept ones of exactly the threshold's magnitude."""


@dataclass(frozen=True)
class Masking:
    """How the weights of some tensors are masked that were ranked together."""

    ranking: Ranking
    threshold: Threshold
    widest: str
    open_file: Open
    open_output: Callable[[str], AbstractContextManager[BinaryIO]]
    advance: Advance

    def write(self, weight: Weight, ties_left: int) -> Counted:
        """Writes the tensor, and its copies, with zeros where it is pruned.

        Args:
            ties_left: how many weights of exactly the threshold's magnitude may be kept from here on.
        """
        counted, *_ = [self._write(weight, stored, ties_left) for stored in (weight.stored, *weight.copies)]
        return counted

    def _write(self, weight: Weight, stored: Stored, ties_left: int) -> Counted:
        with self.open_output(stored.file) as output:
            return self._write_to(output, weight, stored, ties_left)

    def _write_to(self, output: BinaryIO, weight: Weight, stored: Stored, ties_left: int) -> Counted:
        counted = Counted()
        ties = self._ties(weight, stored, ties_left)
        for position, bits in pieces(self.open_file, stored, weight.layout(self.ranking), self.ranking.group):
            keys = keys_of(bits, stored.kind, self.widest)
            require_finite(stored.name, keys, self.widest)
            keep = self._kept(keys, ties)
            counted.kept += int(np.count_nonzero(keep))
            counted.zeros_before += keys.size - int(np.count_nonzero(keys))
            # Not `bits * keep` as numbers: minus zero would stay.
            np.multiply(bits, keep, out=bits)
            output.seek(position)
            output.write(bits.data)
            self.advance(2 * bits.nbytes)
        counted.ties = ties.kept
        return counted

    def _kept(self, keys: Keys, ties: "_Ties") -> Mask:
        ranked, always = self.ranking.split(keys)
        keep: Mask = keys > keys.dtype.type(self.threshold.magnitude_bits)
        if ties.left.any():
            keep |= ties.first(self._tied(keys, ranked))
        if ranked is not None:
            keep &= ranked
        if always is not None:
            keep |= always
        return keep

    def _tied(self, keys: Keys, ranked: Mask | None) -> Mask:
        tied: Mask = keys == keys.dtype.type(self.threshold.magnitude_bits)
        return tied if ranked is None else tied & ranked

    def _ties(self, weight: Weight, stored: Stored, left: int) -> "_Ties":
        """Equal weights are kept in row-major order, with outputs first where there are groups of inputs."""
        if self.ranking.groups is None or weight.inputs_axis != 0 or not left:
            return _Ties(np.array([left]), 1)
        outputs = stored.shape[1]
        counts = np.zeros(outputs, np.int64)
        ties = _Ties(counts, outputs)
        for _, bits in pieces(self.open_file, stored, weight.layout(self.ranking), self.ranking.group):
            keys = keys_of(bits, stored.kind, self.widest)
            counts += ties.by_row(self._tied(keys, self.ranking.split(keys)[0])).sum(1)
        before = np.cumsum(counts) - counts
        return _Ties(np.clip(left - before, 0, counts), outputs)


class _Ties:
    """How many equal weights of each row may still be kept. All are one row where they come row-major; where the inputs
    come first, those of each output are one."""

    def __init__(self, left: NDArray[np.int64], rows: int) -> None:
        self.left = left
        self.kept = 0
        self._rows = rows

    def by_row(self, tied: Mask) -> Mask:
        """(rows, ...), flat within a row."""
        if self._rows == 1:
            return tied.reshape(1, -1)
        _, inputs, inner = tied.shape
        rows = tied.reshape(inputs, self._rows, inner // self._rows)
        return rows.transpose(1, 0, 2).reshape(self._rows, -1)

    def first(self, tied: Mask) -> Mask:
        """Those that are kept, of the shape of `tied`; what is left is counted down."""
        rows = self.by_row(tied)
        counts = np.array([np.count_nonzero(rows)]) if self._rows == 1 else rows.sum(1)
        if (counts > self.left).any():
            rows = rows & (np.cumsum(rows, axis=1) <= self.left[:, None])
            counts = np.minimum(counts, self.left)
            tied = rows.reshape(self._rows, tied.size // tied.shape[2], -1).transpose(1, 0, 2).reshape(tied.shape)
        self.left = self.left - counts
        self.kept += int(counts.sum())
        return tied


def copy_around(source: BinaryIO, output: BinaryIO, left_out: list[Stored], advance: Advance) -> None:
    """Copies a file but for these tensors, whose places stay free."""
    for start, end in _gaps(source, left_out):
        source.seek(start)
        output.seek(start)
        while start < end:
            block = source.read(min(BLOCK, end - start))
            if not block:
                break
            output.write(block)
            start += len(block)
            advance(len(block))


def _gaps(source: BinaryIO, left_out: list[Stored]) -> Iterator[tuple[int, int]]:
    end = source.seek(0, 2)
    start = 0
    for stored in sorted(left_out, key=lambda one: one.offset):
        yield start, stored.offset
        start = stored.offset + stored.length
    yield start, end
