"""How many bytes a network needs in gossamer's format of sparse weights (docs/format.md), from its masks alone."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

HEADER, PER_AXIS, CHECKSUM = 24, 4, 4
LONG_GAP = 255
FLOAT32, FLOAT16 = 4, 2
"""Bytes a value."""


@dataclass(frozen=True)
class LayerSize:
    """A pruned weight."""

    name: str
    weights: int
    kept: int
    positions: int
    """Bytes that say which are kept: those of a bit mask or of gaps, whichever is shorter."""
    axes: int

    @property
    def density(self) -> float:
        return self.kept / self.weights

    def packed(self, value_bytes: int) -> int:
        """Bytes of the packed weight."""
        return HEADER + PER_AXIS * self.axes + self.positions + value_bytes * self.kept + CHECKSUM


def layer_size(name: str, mask: Tensor) -> LayerSize:
    """Measures a mask; True is kept."""
    kept = int(mask.count_nonzero())
    return LayerSize(name, mask.numel(), kept, _position_bytes(mask, kept), mask.dim())


def _position_bytes(mask: Tensor, kept: int) -> int:
    bits = math.ceil(mask.numel() / 8)
    if kept >= bits:
        # Gaps take at least a byte each, so there is no need to look for them.
        return bits
    positions = np.flatnonzero(mask.cpu().contiguous().numpy().reshape(-1))
    gaps = np.diff(positions, prepend=-1) - 1
    return min(bits, kept + int((gaps // LONG_GAP).sum()))
