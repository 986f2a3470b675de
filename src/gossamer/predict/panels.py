"""How the runtime cuts images into tiles, as far as times depend on it (native/kernels/panel.cc and staging.cc).

It is the cut for one thread. Two cut 14 rows into 7 + 7 instead of 8 + 6: 4% more registers, which the prices of a
calibration with two threads take in.
"""

from dataclasses import dataclass
from functools import cache

TILE_PIXELS = 112
VECTOR = 16
"""Floats of the widest registers; on processors with narrower ones their number per tile grows in proportion."""
PIXEL_QUANTUM = 4


@dataclass(frozen=True)
class Tiling:
    """An image in tiles."""

    tiles: int
    vectors: float
    """Registers of one channel, over all tiles; a last one that is half full or less counts half."""
    widest: float
    """Registers of the largest tile."""


@cache
def tiling(height: int, width: int) -> Tiling:
    """Tiles of whole rows up to 112 pixels; longer rows in equal segments."""
    segments = -(-width // TILE_PIXELS)
    columns = -(-width // segments)
    rows = _tile_rows(height, columns)
    full, rest = divmod(height, rows)
    widest = _vectors(rows * columns)
    vectors = segments * (full * widest + _vectors(rest * columns))
    return Tiling(segments * (full + (rest > 0)), vectors, widest)


def _tile_rows(height: int, columns: int) -> int:
    most = max(1, min(TILE_PIXELS // columns, height))

    def cost(rows: int) -> float:
        full, rest = divmod(height, rows)
        return full * (_vectors(rows * columns) + 1.5) + (_vectors(rest * columns) + 1.5 if rest else 0)

    return min(range(most, 0, -1), key=cost)


def _vectors(pixels: int) -> float:
    full, rest = divmod(pixels, VECTOR)
    rest = -(-rest // PIXEL_QUANTUM) * PIXEL_QUANTUM
    return full + (0.0 if rest == 0 else 0.5 if rest <= VECTOR // 2 else 1.0)
