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


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of an image's first tile, the largest one; an image without pixels is taken for one of one."""
    height, width = max(1, height), max(1, width)
    columns = -(-width // -(-width // TILE_PIXELS))
    return _tile_rows(height, columns), columns


@cache
def tiling(height: int, width: int, *, staged: bool = False) -> Tiling:
    """Tiles of whole rows up to 112 pixels; longer rows in equal segments.

    Args:
        staged: whether the rows of a tile's input are copied first, as for windows of several rows: each then begins
            at a multiple of 4 or 8 pixels, and what lies between them is computed as well.
    """
    rows, columns = tile_size(height, width)
    segments = -(-width // columns)
    full, rest = divmod(height, rows)
    pitch = row_pitch(rows, columns) if staged and segments == 1 else columns
    widest = _vectors((rows - 1) * pitch + columns)
    last = _vectors((rest - 1) * pitch + columns) if rest else 0.0
    return Tiling(segments * (full + (rest > 0)), segments * (full * widest + last), widest)


def row_pitch(rows: int, columns: int) -> int:
    """Pixels from one staged row to the next: a multiple of 8 where that takes no further register, else of 4."""
    by_4, by_8 = (-(-columns // step) * step for step in (4, 8))
    return by_8 if -(-rows * by_8 // VECTOR) <= -(-rows * by_4 // VECTOR) else by_4


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
