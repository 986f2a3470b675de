"""What a convolution reads of its image, as the runtime does it (native/kernels/axis_taps.h, tap_windows.h, staging.h).

A tap, a position of the kernel, that meets nothing but padding costs nothing where that holds for a whole tile; and of
the rows between the taps of a dilated kernel none is copied.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.tiles import row_pitch, tile_size

WORTH_IT = 1 / 8
"""Share of the work that has to be saved, for tiles to be computed with different taps."""
ALIGNMENT = 8
"""Pixels. Where rows begin at multiples of half as many, they are copied for even and for odd shifts, so that every
load is aligned."""
AT_THE_EDGE = 1.5
"""How much longer a tap takes ONNX Runtime where a window's columns do not all lie within the image: such outputs are
computed one by one. 1.5 to 2 on Zen 5 (`python benchmarks/convolutions.py`), the less for certainty."""


@dataclass(frozen=True)
class Reads:
    """What is read of one channel of a convolution's input, over all tiles of its output."""

    taps: float
    """Positions of the kernel that are multiplied, the mean of all tiles."""
    floats: int
    """Floats that are copied to where the kernel reads them; 0: it reads the panel as it lies."""
    rows: int = 0
    """Rows in which these are copied, each by itself."""
    shifted: bool = False
    """Whether the columns beside the middle one are reached by shifts in registers, not by further copies."""
    pitch: int = 0
    """Pixels from one copied row to the next where that is a multiple of 4 or 8, so that what lies between is computed
    as well; 0: it is not."""


@dataclass(frozen=True)
class _Tap:
    """Reads pixel stride * (x + shift) + residue for output x."""

    shift: int
    residue: int


@dataclass(frozen=True)
class _Axis:
    kernel: int
    stride: int
    dilation: int
    pad: int
    inputs: int
    outputs: int

    def live(self) -> list[_Tap]:
        """The taps that read a pixel for any output."""
        taps = (_Tap(*divmod(index * self.dilation - self.pad, self.stride)) for index in range(self.kernel))
        return [tap for tap in taps if self._reads(tap, range(self.outputs))]

    def needed(self, taps: Sequence[_Tap], outputs: range) -> Sequence[_Tap]:
        """The ones of `taps` from the first to the last one that reads a pixel for these outputs."""
        indices = [index for index, tap in enumerate(taps) if self._reads(tap, outputs)]
        return taps[indices[0] : indices[-1] + 1] if indices else []

    def counts(self) -> NDArray[np.int64]:
        """How many taps are needed for each output, from the first to the last one that reads a pixel for it."""
        taps = self.live()
        first, last = np.full(self.outputs, len(taps)), np.full(self.outputs, len(taps) - 1)
        # Tap by tap: signals have tens of thousands of outputs, and their kernels hundreds of taps.
        for index, tap in reversed(list(enumerate(taps))):
            outputs = self._outputs_of(tap)
            first[outputs.start : outputs.stop] = index
        for index, tap in enumerate(taps):
            outputs = self._outputs_of(tap)
            last[outputs.start : outputs.stop] = index
        return np.asarray(last - first + 1, np.int64)

    def _reads(self, tap: _Tap, outputs: range) -> bool:
        found = self._outputs_of(tap)
        return max(outputs.start, found.start) < min(outputs.stop, found.stop)

    def _outputs_of(self, tap: _Tap) -> range:
        """The outputs for which a tap reads a pixel."""
        end = (self.inputs - 1 - tap.residue) // self.stride + 1 - tap.shift
        first = max(0, -tap.shift)
        return range(first, max(first, min(self.outputs, end)))


@cache
def reads(shape: LayerShape) -> Reads:
    """Counts the reads of a convolution, a depthwise one too."""
    shape = as_it_lies(shape)
    rows, columns = _axes(shape)
    height, width = tile_size(rows.outputs, columns.outputs)
    row_taps, column_taps = rows.live(), columns.live()
    segmented = width < columns.outputs
    if _is_direct_depthwise(shape, segmented) if shape.depthwise else _lies_right(shape, row_taps, column_taps):
        return Reads(len(row_taps) * len(column_taps), 0)
    row_tiles, column_tiles = _tiles(rows.outputs, height), _tiles(columns.outputs, width)
    needed_rows = [rows.needed(row_taps, tile) for tile in row_tiles]
    if shape.depthwise:
        span = _pixels_read(column_taps, width)
        down = _all_read(needed_rows, row_tiles) * len(column_tiles)
        return Reads(_mean(needed_rows) * len(column_taps), down * span, down)
    needed_columns = [columns.needed(column_taps, tile) for tile in column_tiles]
    taps = _mean(needed_rows) * _mean(needed_columns)
    if taps > (1 - WORTH_IT) * len(row_taps) * len(column_taps):
        needed_rows, needed_columns = [row_taps] * len(row_tiles), [column_taps] * len(column_tiles)
        taps = len(row_taps) * len(column_taps)
    shifted = any(tap.shift for tap in column_taps) and all(abs(tap.shift) <= 1 for tap in column_taps)
    copies = [len({tap.residue if shifted else tap for tap in needed}) for needed in needed_columns]
    across = sum(len(tile) * count for tile, count in zip(column_tiles, copies, strict=True))
    apart = _pixels_read(row_taps, height) == height * len(row_taps)
    pitch = 0 if apart or height == 1 else row_pitch(height, width)
    down = _all_read(needed_rows, row_tiles, by_parity=pitch % ALIGNMENT != 0)
    return Reads(taps, down * across, down * sum(copies), shifted, pitch)


@cache
def dense_taps(shape: LayerShape) -> float:
    """Taps that ONNX Runtime multiplies, the mean of all outputs: for each it passes over what lies outside the image.
    Those beside an edge count more, by what they take."""
    rows, columns = (axis.counts() for axis in _axes(shape))
    weighed = columns * np.where(columns == shape.kernel[1], 1.0, AT_THE_EDGE)
    return float(rows.sum() / max(1, len(rows)) * weighed.sum() / max(1, len(columns)))


def as_it_lies(shape: LayerShape) -> LayerShape:
    """A convolution along the only column of its image as one along a row: so it lies in panels."""
    along_column = shape.width == 1 and shape.kernel[1] == 1 and shape.pads[1] == shape.pads[3] == 0
    if not along_column or shape.height == 1:
        return shape
    return replace(
        shape,
        height=1,
        width=shape.height,
        kernel=shape.kernel[::-1],
        strides=shape.strides[::-1],
        dilations=shape.dilations[::-1],
        pads=(shape.pads[1], shape.pads[0], shape.pads[3], shape.pads[2]),
    )


def _axes(shape: LayerShape) -> tuple[_Axis, _Axis]:
    first, second = (
        _Axis(shape.kernel[axis], shape.strides[axis], shape.dilations[axis], shape.pads[axis], inputs, outputs)
        for axis, (inputs, outputs) in enumerate(
            [(shape.height, shape.output_height), (shape.width, shape.output_width)]
        )
    )
    return first, second


def _tiles(outputs: int, most: int) -> list[range]:
    return [range(first, min(first + most, outputs)) for first in range(0, outputs, most)]


def _mean(needed: Sequence[Sequence[_Tap]]) -> float:
    return sum(len(taps) for taps in needed) / max(1, len(needed))


def _all_read(needed: Iterable[Sequence[_Tap]], tiles: Iterable[range], *, by_parity: bool = False) -> int:
    return sum(_pixels_read(taps, len(tile), by_parity=by_parity) for taps, tile in zip(needed, tiles, strict=True))


def _pixels_read(taps: Sequence[_Tap], outputs: int, *, by_parity: bool = False) -> int:
    """Pixels of one axis that the taps read for `outputs` of them, those that several read once.

    Args:
        by_parity: whether taps at even and at odd shifts have copies of their own.
    """
    ends: dict[tuple[int, int], int] = {}
    read = 0
    for tap in taps:
        copy = tap.residue, tap.shift % 2 if by_parity else 0
        read += outputs - max(0, ends.get(copy, tap.shift) - tap.shift)
        ends[copy] = tap.shift + outputs
    return read


def _lies_right(shape: LayerShape, rows: Sequence[_Tap], columns: Sequence[_Tap]) -> bool:
    """Whether each output reads one pixel, the one in its place."""
    same = (shape.height, shape.width) == (shape.output_height, shape.output_width)
    return same and shape.strides == (1, 1) and [*rows, *columns] == [_Tap(0, 0)] * 2


def _is_direct_depthwise(shape: LayerShape, segmented: bool) -> bool:
    plain = shape.kernel == (3, 3) and shape.dilations == (1, 1) and shape.pads[1] == 1 and max(shape.strides) <= 2
    return plain and not segmented
