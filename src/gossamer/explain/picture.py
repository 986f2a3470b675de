"""A picture of what a network still looks at."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.explain.inputs import InputReach
from gossamer.storage.files import write_file
from gossamer.tasks.requirements import optional_module

SMALLEST_SIDE = 280
"""Pixels. The picture of a smaller input is enlarged by a whole factor."""
MARGIN, STRIP = 12, 16
UNUSED, BACKGROUND = (255, 255, 255), (225, 225, 225)
SCALE = ((253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84))
"""Colours from one connection to the most: matplotlib's viridis from its light end, which the colour-blind can read
too."""

Pixels = NDArray[np.uint8]


def is_image(reach: InputReach) -> bool:
    """Whether the input has (channels, height, width)."""
    return len(reach.shape) == 3 and min(reach.shape[1:]) > 1


def draw_input_use(reach: InputReach, path: Path) -> str:
    """Draws how many connections read each pixel, all channels together, and writes it as PNG.

    Returns:
        The legend, in words.

    Raises:
        DataError: Pillow is not installed.
        CheckpointError: the file cannot be written.
    """
    images, drawing = optional_module("PIL.Image"), optional_module("PIL.ImageDraw")
    used = np.array(reach.connections).reshape(reach.shape).sum(axis=0)
    height, width = used.shape
    factor = max(1, math.ceil(SMALLEST_SIDE / max(height, width)))
    pixels = _colours(used).repeat(factor, axis=0).repeat(factor, axis=1)
    size = (width * factor + 2 * MARGIN, height * factor + 4 * MARGIN + 2 * STRIP)
    picture = images.new("RGB", size, BACKGROUND)
    picture.paste(images.fromarray(pixels), (MARGIN, MARGIN))
    strip = _colours(np.linspace(1, max(1, used.max()), width * factor)[None, :]).repeat(STRIP, axis=0)
    below = height * factor + 2 * MARGIN
    picture.paste(images.fromarray(strip), (MARGIN, below))
    text = drawing.Draw(picture)
    text.text((MARGIN, below + STRIP + 2), "1", fill=(0, 0, 0))
    most = f"{used.max():,}"
    text.text((MARGIN + width * factor, below + STRIP + 2), most, fill=(0, 0, 0), anchor="ra")
    text.text((MARGIN + width * factor // 2, below + STRIP + 2), "white: unused", fill=(0, 0, 0), anchor="ma")
    write_file(path, lambda temporary: picture.save(temporary, format="PNG"))
    return (
        f"{int((used > 0).sum()):,} of {used.size:,} pixels are read; white: by no connection, from yellow (1) to dark "
        f"violet ({most} connections)"
    )


def _colours(counts: NDArray[np.int64] | NDArray[np.float64]) -> Pixels:
    """Counts, shape (height, width) -> colours, shape (height, width, 3): white for 0, else from 1 to the most."""
    most = max(counts.max(), 2)
    position = np.clip((counts - 1) / (most - 1), 0, 1) * (len(SCALE) - 1)
    stops = np.array(SCALE, dtype=np.float64)
    channels = [np.interp(position, np.arange(len(SCALE)), stops[:, channel]) for channel in range(3)]
    colours = np.stack(channels, axis=-1).round().astype(np.uint8)
    colours[counts == 0] = UNUSED
    return colours
