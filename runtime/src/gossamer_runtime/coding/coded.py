"""The bytes of a coded weight: header, streams, checksum (docs/format.md; native/format/coded_weight.h)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer_runtime.coding.gaps import MOST_COLUMNS, GapCoder, LevelsContradict
from gossamer_runtime.coding.mixing import LevelMatrix, MixingCoder
from gossamer_runtime.coding.range_coder import Decoder, Encoder

MAGIC = b"GSPW"
VERSION = 2
MIXING, SWAPPED_MIXING, GAPS = 0, 1, 2
FP32, FP16, INT8 = 0, 1, 2
LARGEST_LEVEL = 32767
MIXING_ELEMENTS = 1 << 20
"""The most that a decoder takes from the mixing coder, whose work follows elements."""
SMALL_FOR_MIXING = 1 << 18
"""Fewer elements are tried with the mixing coder: decoding them takes at most 10 ms."""
KEPT_OF_GROUP = 1 << 16
_MOST_ROWS, _MOST_ELEMENTS, _MOST_AXES = 1 << 22, 1 << 36, 8
_STATE_BITS = 64

Levels = NDArray[np.integer[Any]]


class DamagedWeight(ValueError):
    """The bytes are not a sparse weight."""


@dataclass(frozen=True)
class Coded:
    """What a coded weight holds."""

    levels: NDArray[np.int32]
    step: float | None
    """None: the levels are weights of type int8."""
    half: bool
    """Values are rounded to fp16."""

    def dense(self) -> NDArray[Any]:
        """The weight, as float32 or int8: level * step in fp32, rounded once."""
        if self.step is None:
            return self.levels.astype(np.int8)
        with np.errstate(over="ignore"):
            values = self.levels.astype(np.float32) * np.float32(self.step)
            return values.astype(np.float16).astype(np.float32) if self.half else values


def encode(levels: Levels, step: float | None, *, half: bool = False, grid: int = 0, coder: int | None = None) -> bytes:
    """Codes a weight of integer levels, each a multiple of ``step``.

    Args:
        levels: of any shape of 1 to 8 axes without a 0; magnitudes of at most 32767.
        step: a positive number of fp32; None for a weight of int8, whose levels are the weights themselves.
        half: values are those of fp16.
        grid: columns of the image that each row is, if it is one: 28 for the first layer of a network for MNIST. What
            does not pay is not used.
        coder: MIXING, SWAPPED_MIXING or GAPS; by default the one that takes the fewest bytes, of those that are
            fast enough for a tensor of this size.

    Raises:
        ValueError: a shape, level, step or grid beyond those bounds, or a coder that is not for this shape.
    """
    _check(levels, step)
    _check_coder(levels.shape, coder, grid)
    integers: NDArray[np.int32] = np.ascontiguousarray(levels, np.int32)
    if coder is not None:
        return _encode(integers, step, half, coder, grid)
    if integers.size >= SMALL_FOR_MIXING:
        return _encode(integers, step, half, GAPS, 0)
    candidates = [_encode(integers, step, half, MIXING, width) for width in sorted({0, grid})]
    if integers.ndim > 1:
        candidates.append(_encode(integers, step, half, SWAPPED_MIXING, 0))
    return min(candidates, key=len)


def decode(packed: bytes) -> Coded:
    """Reads what encode wrote.

    Raises:
        DamagedWeight: the bytes are not a coded weight.
    """
    if len(packed) < 12 or zlib.crc32(packed[:-4]) != struct.unpack("<I", packed[-4:])[0]:
        raise DamagedWeight("too short, or the checksum does not match")
    coder, value_type, axes = packed[5:8]
    known = packed[:5] == MAGIC + bytes([VERSION]) and coder <= GAPS and value_type <= INT8 and 1 <= axes <= _MOST_AXES
    if not known or (coder == SWAPPED_MIXING and axes < 2):
        raise DamagedWeight(f"not a coded weight of version {VERSION}: {packed[:8]!r}")
    reader = _Reader(packed, 8, len(packed) - 4)
    shape = tuple(reader.number() for _ in range(axes))
    kept, largest = reader.number(), reader.number()
    step = None if value_type == INT8 else reader.float()
    elements = int(np.prod(np.array(shape, object)))
    if not (0 < elements <= _MOST_ELEMENTS and shape[0] <= _MOST_ROWS and kept <= elements):
        raise DamagedWeight(f"the shape is {list(shape)}, of {kept} kept weights")
    bound = 128 if step is None else LARGEST_LEVEL
    if largest > bound or (largest == 0) != (kept == 0) or (step is not None and not (np.isfinite(step) and step > 0)):
        raise DamagedWeight(f"the largest level is {largest}, the step {step}")
    try:
        read = _read_gaps if coder == GAPS else _read_mixed
        levels = read(reader, coder, shape, kept, largest)
    except LevelsContradict as error:
        raise DamagedWeight(str(error)) from error
    if step is None and kept and levels.max() > 127:
        raise DamagedWeight("a level of 128, expected int8")
    return Coded(levels.reshape(shape), step, value_type == FP16)


def _check(levels: Levels, step: float | None) -> None:
    if not 1 <= levels.ndim <= _MOST_AXES or 0 in levels.shape:
        raise ValueError(f"a coded weight has 1 to 8 axes, none of them 0; got the shape {list(levels.shape)}")
    if levels.shape[0] > _MOST_ROWS or levels.size // levels.shape[0] > MOST_COLUMNS:
        raise ValueError(f"a coded weight has at most 2^22 rows, of less than 2^28 columns; got {list(levels.shape)}")
    least, most = (-128, 127) if step is None else (-LARGEST_LEVEL, LARGEST_LEVEL)
    if levels.min() < least or levels.max() > most:
        raise ValueError(f"levels are {levels.min()} to {levels.max()}, expected {least} to {most}")
    if step is not None and not (np.isfinite(np.float32(step)) and np.float32(step) > 0):
        raise ValueError(f"the step is {step}, expected a positive number of fp32")


def _check_coder(shape: tuple[int, ...], coder: int | None, grid: int) -> None:
    columns, elements = int(np.prod(shape[1:], dtype=np.int64)), int(np.prod(shape, dtype=np.int64))
    if coder not in (None, MIXING, SWAPPED_MIXING, GAPS):
        raise ValueError(f"the coder is {coder}, expected {MIXING}, {SWAPPED_MIXING} or {GAPS}")
    if coder == SWAPPED_MIXING and (len(shape) < 2 or grid):
        raise ValueError(f"swapped axes are for at least two, without a grid; got the shape {list(shape)}, grid {grid}")
    if coder in (MIXING, SWAPPED_MIXING) and elements > MIXING_ELEMENTS:
        raise ValueError(
            f"the mixing coder is for at most 2^20 elements, got {elements}; the coder of gaps is for more"
        )
    if not 0 <= grid <= columns:
        raise ValueError(f"the grid is {grid}, expected 0 to {columns}, the columns")


def _encode(levels: NDArray[np.int32], step: float | None, half: bool, coder: int, grid: int) -> bytes:
    kept, largest = int(np.count_nonzero(levels)), int(np.abs(levels).max())
    value_type = INT8 if step is None else FP16 if half else FP32
    header = MAGIC + bytes([VERSION, coder, value_type, levels.ndim])
    header += b"".join(map(_number, (*levels.shape, kept, largest)))
    if step is not None:
        header += struct.pack("<f", step)
    if coder == GAPS:
        body = _groups(levels.reshape(len(levels), -1), kept, largest)
    else:
        body = _number(grid) + _mixed(levels, coder, grid, kept, largest)
    return header + body + struct.pack("<I", zlib.crc32(header + body))


def _matrix(shape: tuple[int, ...], coder: int) -> tuple[int, int, int]:
    """Rows, columns and places of the matrix that the mixing coder sees."""
    places = int(np.prod(shape[2:], dtype=np.int64))
    rows, channels = shape[0], shape[1] if len(shape) > 1 else 1
    return (channels, rows * places, places) if coder == SWAPPED_MIXING else (rows, channels * places, places)


def _mixed(levels: NDArray[np.int32], coder: int, grid: int, kept: int, largest: int) -> bytes:
    if kept == 0:
        return b""
    rows, columns, places = _matrix(levels.shape, coder)
    if coder == SWAPPED_MIXING:
        levels = levels.swapaxes(0, 1)
    encoder = Encoder()
    matrix = LevelMatrix(levels.reshape(rows, columns).tolist(), columns, places, grid, kept, largest)
    MixingCoder(encoder, matrix).run()
    return encoder.finish()


def _read_mixed(reader: "_Reader", coder: int, shape: tuple[int, ...], kept: int, largest: int) -> NDArray[np.int32]:
    rows, columns, places = _matrix(shape, coder)
    grid = reader.number()
    if rows * columns > MIXING_ELEMENTS or grid > columns:
        raise DamagedWeight(f"{rows} x {columns} elements, of an image {grid} wide, are not for the mixing coder")
    stream = reader.rest()
    matrix = LevelMatrix([[0] * columns for _ in range(rows)], columns, places, grid, kept, largest)
    if kept:
        decoder = Decoder(stream)
        MixingCoder(decoder, matrix).run()
        if not decoder.is_at_end:
            raise DamagedWeight("the stream ends early or late")
    elif stream:
        raise DamagedWeight("bytes behind the stream")
    levels = np.array(matrix.rows, np.int32)
    if coder == SWAPPED_MIXING:
        levels = levels.reshape(rows, shape[0], places).swapaxes(0, 1)
    return levels


def _groups(levels: NDArray[np.int32], kept: int, largest: int) -> bytes:
    table, streams = b"", b""
    borders = list(_borders(np.count_nonzero(levels, axis=1))) if kept else [0]
    for first, last in pairwise(borders):
        encoder = Encoder()
        coder = GapCoder(encoder)
        for row in levels[first:last]:
            columns = np.flatnonzero(row)
            coder.row(len(row), columns.tolist(), row[columns].tolist(), kept, largest)
        stream = encoder.finish()
        table += _number(last - first) + _number(int(np.count_nonzero(levels[first:last]))) + _number(len(stream))
        streams += stream
    return _number(len(borders) - 1) + table + streams


def _borders(kept: NDArray[np.intp]) -> Iterator[int]:
    """Where groups of rows begin; a group ends with the row that gives it KEPT_OF_GROUP."""
    yield 0
    so_far = 0
    for row, count in enumerate(kept.tolist(), 1):
        so_far += count
        if so_far >= KEPT_OF_GROUP or row == len(kept):
            yield row
            so_far = 0


def _read_gaps(reader: "_Reader", _: int, shape: tuple[int, ...], kept: int, largest: int) -> NDArray[np.int32]:
    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    count = reader.number()
    if columns > MOST_COLUMNS or count > len(reader.rest()) // 3:
        raise DamagedWeight(f"{columns} columns in {count} groups of rows are not for the coder of gaps")
    groups = [(reader.number(), reader.number(), reader.number()) for _ in range(count)]
    streams = reader.rest()
    sums = [sum(group[i] for group in groups) for i in range(3)]
    whole = sums == [rows, kept, len(streams)] or (kept == 0 and not groups and not streams)
    if not whole or any(of_group > 8 * size + _STATE_BITS for _, of_group, size in groups):
        raise DamagedWeight("the groups of rows are not the whole weight")
    levels = np.zeros((rows, columns), np.int32)
    first = begin = 0
    for of_group, left, size in groups:
        decoder = Decoder(streams[begin : begin + size])
        coder = GapCoder(decoder)
        for row in levels[first : first + of_group]:
            where, what = coder.row(columns, (), (), left, largest)
            row[where] = what
            left -= len(where)
        first += of_group
        begin += size
        if left or not decoder.is_at_end:
            raise DamagedWeight("the stream ends early or late")
    return levels


def _number(number: int) -> bytes:
    """Seven bits a byte, the lowest first; every byte but the last one has the highest bit set."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


class _Reader:
    """Takes numbers from a header."""

    def __init__(self, packed: bytes, begin: int, end: int) -> None:
        self._packed, self._at, self._end = packed, begin, end

    def number(self) -> int:
        number = 0
        for shift in range(0, 63, 7):
            if self._at == self._end:
                break
            byte = self._packed[self._at]
            self._at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    break
                return number
        raise DamagedWeight("too few bytes for a header, or a number that is written longer than it is")

    def float(self) -> float:
        if self._end - self._at < 4:
            raise DamagedWeight("too few bytes for a header")
        self._at += 4
        return float(struct.unpack_from("<f", self._packed, self._at - 4)[0])

    def rest(self) -> bytes:
        return self._packed[self._at : self._end]
