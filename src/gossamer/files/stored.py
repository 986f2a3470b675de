"""A tensor in a file, and the pieces in which it is read: nothing here holds a whole one."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import CheckpointError

BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Type of numbers, as safetensors calls it -> bits of one."""
PRUNABLE: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<u2"),
    "F32": np.dtype("<u4"),
    "F64": np.dtype("<u8"),
}
"""Types whose weights can be ranked -> integers of the same bits, little-endian as in the files."""

PIECE = 1 << 17
"""Weights read at a time: a piece and what is computed from it stay in the second-level cache."""


@dataclass(frozen=True)
class Stored:
    """A tensor whose numbers lie row-major, one behind the other, in a file."""

    name: str
    kind: str
    """The type of its numbers, a key of `BITS`."""
    shape: tuple[int, ...]
    file: str
    """Relative to the folder of all files."""
    offset: int
    """Bytes before its first number."""

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def length(self) -> int:
        """In bytes."""
        return self.size * BITS[self.kind] // 8


@dataclass(frozen=True)
class Layout:
    """Where the inputs of a weight lie: it is seen as (outer, inputs, inner)."""

    outer: int
    inputs: int
    inner: int

    @classmethod
    def of(cls, shape: tuple[int, ...], inputs_axis: int) -> "Layout":
        return cls(prod(shape[:inputs_axis]), shape[inputs_axis], prod(shape[inputs_axis + 1 :]))

    @classmethod
    def flat(cls, size: int) -> "Layout":
        """Of a weight each of whose entries stands alone."""
        return cls(1, size, 1)

    def pieces(self, group: int, most: int) -> Iterator[tuple[int, int, int]]:
        """(first weight, outer, inputs) of pieces of about `most` weights, one behind the other, that divide no group
        of `group` consecutive inputs."""
        row = self.inputs * self.inner
        if row <= most:
            several = max(1, most // max(1, row))
            for start in range(0, self.outer, several):
                yield start * row, min(several, self.outer - start), self.inputs
            return
        inputs = max(group, most // self.inner // group * group)
        for start in range(self.outer):
            for first in range(0, self.inputs, inputs):
                yield start * row + first * self.inner, 1, min(inputs, self.inputs - first)


def read_exactly(file: BinaryIO, position: int, length: int, name: str) -> NDArray[np.uint8]:
    """Bytes of a file, in memory of their own.

    Raises:
        CheckpointError: the file is shorter.
    """
    found = np.empty(length, np.uint8)
    rest = memoryview(found.data)
    file.seek(position)
    while rest:
        count = file.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise CheckpointError(f"{name}: its file ends {len(rest)} bytes too early; expected it whole")
        rest = rest[count:]
    return found
