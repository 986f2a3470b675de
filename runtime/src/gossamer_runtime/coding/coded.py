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

VERSION = 2
"""The first byte; a weight of version 1 begins with a G."""
MIXING, SWAPPED_MIXING, GAPS, GRID_MIXING = 0, 1, 2, 3
FP32, FP16, INT8 = 0, 1, 2
KINDS = 4 * 3 * 8 * 2
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
class Bias:
    """Levels of one step, one for each row of a weight."""

    levels: NDArray[np.int32]
    step: float

    def dense(self) -> NDArray[np.float32]:
        """The numbers, in fp32."""
        with np.errstate(over="ignore"):
            return np.asarray(self.levels.astype(np.float32) * np.float32(self.step))


@dataclass(frozen=True)
class Coded:
    """What a coded weight holds."""

    levels: NDArray[np.int32]
    step: float | None
    """None: the levels are weights of type int8."""
    half: bool
    """Values are rounded to fp16."""
    bias: "Bias | None" = None

    def dense(self) -> NDArray[Any]:
        """The weight, as float32 or int8: level * step in fp32, rounded once."""
        if self.step is None:
            return self.levels.astype(np.int8)
        with np.errstate(over="ignore"):
            values = self.levels.astype(np.float32) * np.float32(self.step)
            return values.astype(np.float16).astype(np.float32) if self.half else values


def encode(
    levels: Levels,
    step: float | None,
    *,
    half: bool = False,
    grid: int = 0,
    coder: int | None = None,
    bias: Bias | None = None,
) -> bytes:
    """Codes a weight of integer levels, each a multiple of ``step``.

    Args:
        levels: of any shape of 1 to 8 axes without a 0; magnitudes of at most 32767.
        step: a positive number of fp32; None for a weight of int8, whose levels are the weights themselves. One whose
            lower 16 bits are 0 takes two bytes less.
        half: values are those of fp16.
        grid: columns of the image that each row is, if it is one: 28 for the first layer of a network for MNIST. What
            does not pay is not used.
        coder: MIXING, GRID_MIXING, SWAPPED_MIXING or GAPS; by default the one that takes the fewest bytes, of those
            that are fast enough for a tensor of this size.
        bias: a number for each of at most 2^20 rows, which the op adds; not of int8.

    Raises:
        ValueError: a shape, level, step or grid beyond those bounds, or a coder that is not for this shape.
    """
    _check(levels, step)
    _check_bias(levels, step, bias)
    _check_coder(levels.shape, coder, grid)
    integers: NDArray[np.int32] = np.ascontiguousarray(levels, np.int32)
    if coder is not None:
        return _encode(integers, step, half, coder, grid, bias)
    if integers.size >= SMALL_FOR_MIXING:
        return _encode(integers, step, half, GAPS, 0, bias)
    candidates = [_encode(integers, step, half, MIXING, 0, bias)]
    if grid:
        candidates.append(_encode(integers, step, half, GRID_MIXING, grid, bias))
    if integers.ndim > 1:
        candidates.append(_encode(integers, step, half, SWAPPED_MIXING, 0, bias))
    return min(candidates, key=len)


def decode(packed: bytes) -> Coded:
    """Reads what encode wrote.

    Raises:
        DamagedWeight: the bytes are not a coded weight.
    """
    if len(packed) < 2 or packed[0] != VERSION or packed[1] >= KINDS:
        raise DamagedWeight(f"not a coded weight of version {VERSION}: {packed[:8]!r}")
    coder, value_type, axes, biased = packed[1] % 4, packed[1] // 4 % 3, packed[1] // 12 % 8 + 1, packed[1] >= 96
    end = len(packed) - _checksum_bytes(coder)
    if end < 2 or _checksum(packed[:end], coder) != packed[end:]:
        raise DamagedWeight("too short, or the checksum does not match")
    if (coder == SWAPPED_MIXING and axes < 2) or (value_type == INT8 and biased):
        raise DamagedWeight(f"not a kind of weight: {packed[1]}")
    reader = _Reader(packed, 2, end)
    shape = tuple(reader.number() for _ in range(axes))
    kept, largest = reader.number(), reader.number()
    step = None if value_type == INT8 else reader.step()
    grid = reader.number() if coder == GRID_MIXING else 0
    of_bias = (reader.number(), reader.number(), reader.step()) if biased else None
    elements = int(np.prod(np.array(shape, object)))
    if not (0 < elements <= _MOST_ELEMENTS and shape[0] <= _MOST_ROWS):
        raise DamagedWeight(f"the shape is {list(shape)}, of {kept} kept weights")
    _check_levels(kept, largest, step, elements)
    if of_bias is not None:
        _check_levels(*of_bias, min(shape[0], MIXING_ELEMENTS))
    if coder == GRID_MIXING and not 1 <= grid <= elements // shape[0]:
        raise DamagedWeight(f"the grid is {grid}, expected 1 to the columns, {elements // shape[0]}")
    try:
        if coder == GAPS:
            levels, stream = _read_gaps(reader, shape, kept, largest)
        else:
            levels, stream = _read_mixed(reader, coder, shape, grid, kept, largest)
        bias = None if of_bias is None else _read_bias(stream, shape[0], *of_bias)
    except LevelsContradict as error:
        raise DamagedWeight(str(error)) from error
    stream.finish()
    if step is None and kept and levels.max() > 127:
        raise DamagedWeight("a level of 128, expected int8")
    return Coded(levels.reshape(shape), step, value_type == FP16, bias)


def _check_levels(kept: int, largest: int, step: float | None, elements: int) -> None:
    bound = 128 if step is None else LARGEST_LEVEL
    if kept > elements:
        raise DamagedWeight(f"{kept} kept weights of {elements}")
    if largest > bound or (largest == 0) != (kept == 0) or (step is not None and not (np.isfinite(step) and step > 0)):
        raise DamagedWeight(f"the largest level is {largest}, the step {step}")


def _check(levels: Levels, step: float | None) -> None:
    if not 1 <= levels.ndim <= _MOST_AXES or 0 in levels.shape:
        raise ValueError(f"a coded weight has 1 to 8 axes, none of them 0; got the shape {list(levels.shape)}")
    if levels.shape[0] > _MOST_ROWS or levels.size // levels.shape[0] > MOST_COLUMNS:
        raise ValueError(f"a coded weight has at most 2^22 rows, of less than 2^28 columns; got {list(levels.shape)}")
    _check_values(levels, step)


def _check_values(levels: Levels, step: float | None) -> None:
    least, most = (-128, 127) if step is None else (-LARGEST_LEVEL, LARGEST_LEVEL)
    if levels.min() < least or levels.max() > most:
        raise ValueError(f"levels are {levels.min()} to {levels.max()}, expected {least} to {most}")
    if step is not None and not (np.isfinite(np.float32(step)) and np.float32(step) > 0):
        raise ValueError(f"the step is {step}, expected a positive number of fp32")


def _check_bias(levels: Levels, step: float | None, bias: Bias | None) -> None:
    if bias is None:
        return
    if step is None or len(levels) > MIXING_ELEMENTS or bias.levels.shape != (len(levels),):
        raise ValueError(
            f"a bias is for a weight of floats of at most 2^20 rows, one number for each; got the shape "
            f"{list(bias.levels.shape)} for {len(levels)} rows"
        )
    _check_values(bias.levels, bias.step)


def _check_coder(shape: tuple[int, ...], coder: int | None, grid: int) -> None:
    columns, elements = int(np.prod(shape[1:], dtype=np.int64)), int(np.prod(shape, dtype=np.int64))
    if coder not in (None, MIXING, SWAPPED_MIXING, GAPS, GRID_MIXING):
        raise ValueError(f"the coder is {coder}, expected {MIXING}, {SWAPPED_MIXING}, {GAPS} or {GRID_MIXING}")
    if coder == SWAPPED_MIXING and len(shape) < 2:
        raise ValueError(f"swapped axes are for at least two, got the shape {list(shape)}")
    if coder not in (None, GAPS) and elements > MIXING_ELEMENTS:
        raise ValueError(
            f"the mixing coder is for at most 2^20 elements, got {elements}; the coder of gaps is for more"
        )
    least = 1 if coder == GRID_MIXING else 0
    if not least <= grid <= columns or (grid and coder not in (None, GRID_MIXING)):
        raise ValueError(f"the grid is {grid}, expected {least} to {columns}, the columns, of GRID_MIXING alone")


def _encode(
    levels: NDArray[np.int32], step: float | None, half: bool, coder: int, grid: int, bias: Bias | None
) -> bytes:
    kept, largest = _kept_and_largest(levels)
    value_type = INT8 if step is None else FP16 if half else FP32
    axes = levels.ndim - 1 + (0 if bias is None else _MOST_AXES)
    header = bytes([VERSION, coder + 4 * (value_type + 3 * axes)])
    header += b"".join(map(_number, (*levels.shape, kept, largest)))
    if step is not None:
        header += _step(step)
    if coder == GRID_MIXING:
        header += _number(grid)
    if bias is not None:
        header += b"".join(map(_number, _kept_and_largest(bias.levels))) + _step(bias.step)
    encoder = Encoder()
    if coder == GAPS:
        header += _groups(levels.reshape(len(levels), -1), kept, largest)
    elif kept:
        rows, columns, places = _matrix(levels.shape, coder)
        turned = levels.swapaxes(0, 1) if coder == SWAPPED_MIXING else levels
        matrix = LevelMatrix(turned.reshape(rows, columns).tolist(), columns, places, grid, kept, largest)
        MixingCoder(encoder, matrix).run()
    if bias is not None and bias.levels.any():
        row = [bias.levels.tolist()]
        MixingCoder(encoder, LevelMatrix(row, len(levels), 1, 0, *_kept_and_largest(bias.levels))).run()
    body = header + encoder.finish()
    return body + _checksum(body, coder)


def _kept_and_largest(levels: Levels) -> tuple[int, int]:
    return int(np.count_nonzero(levels)), int(np.abs(levels.astype(np.int64)).max())


def _step(step: float) -> bytes:
    """The upper half of a positive fp32; if its sign's bit is set the lower half follows."""
    (bits,) = struct.unpack("<I", struct.pack("<f", step))
    upper, lower = bits >> 16, bits & 0xFFFF
    return struct.pack("<HH", upper | 0x8000, lower) if lower else struct.pack("<H", upper)


def _checksum_bytes(coder: int) -> int:
    return 4 if coder == GAPS else 2


def _checksum(body: bytes, coder: int) -> bytes:
    return struct.pack("<I", zlib.crc32(body))[: _checksum_bytes(coder)]


def _matrix(shape: tuple[int, ...], coder: int) -> tuple[int, int, int]:
    """Rows, columns and places of the matrix that the mixing coder sees."""
    places = int(np.prod(shape[2:], dtype=np.int64))
    rows, channels = shape[0], shape[1] if len(shape) > 1 else 1
    return (channels, rows * places, places) if coder == SWAPPED_MIXING else (rows, channels * places, places)


def _read_mixed(
    reader: "_Reader", coder: int, shape: tuple[int, ...], grid: int, kept: int, largest: int
) -> tuple[NDArray[np.int32], "_Stream"]:
    rows, columns, places = _matrix(shape, coder)
    if rows * columns > MIXING_ELEMENTS:
        raise DamagedWeight(f"{rows} x {columns} elements are not for the mixing coder")
    stream = _Stream(reader.rest())
    matrix = LevelMatrix([[0] * columns for _ in range(rows)], columns, places, grid, kept, largest)
    stream.read(matrix)
    levels = np.array(matrix.rows, np.int32)
    if coder == SWAPPED_MIXING:
        levels = levels.reshape(rows, shape[0], places).swapaxes(0, 1)
    return levels, stream


def _read_bias(stream: "_Stream", rows: int, kept: int, largest: int, step: float) -> Bias:
    matrix = LevelMatrix([[0] * rows], rows, 1, 0, kept, largest)
    stream.read(matrix)
    return Bias(np.array(matrix.rows[0], np.int32), step)


class _Stream:
    """Matrices behind each other."""

    def __init__(self, stream: bytes) -> None:
        self._bytes = stream
        self._decoder: Decoder | None = None

    def read(self, matrix: LevelMatrix) -> None:
        if matrix.kept:
            self._decoder = self._decoder or Decoder(self._bytes)
            MixingCoder(self._decoder, matrix).run()

    def finish(self) -> None:
        if bool(self._bytes) if self._decoder is None else not self._decoder.is_at_end:
            raise DamagedWeight("the stream ends early or late")


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


def _read_gaps(reader: "_Reader", shape: tuple[int, ...], kept: int, largest: int) -> tuple[NDArray[np.int32], _Stream]:
    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    count = reader.number()
    if columns > MOST_COLUMNS or count > len(reader.rest()) // 3:
        raise DamagedWeight(f"{columns} columns in {count} groups of rows are not for the coder of gaps")
    groups = [(reader.number(), reader.number(), reader.number()) for _ in range(count)]
    streams = reader.rest()
    of_rows, of_kept, of_bytes = (sum(group[i] for group in groups) for i in range(3))
    whole = (of_rows, of_kept) == (rows, kept) or (kept == 0 and not groups)
    if not whole or of_bytes > len(streams) or any(of_group > 8 * size + _STATE_BITS for _, of_group, size in groups):
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
    return levels, _Stream(streams[begin:])


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

    def step(self) -> float:
        upper = self._half()
        lower = self._half() if upper >> 15 else 0
        if upper >> 15 and not lower:
            raise DamagedWeight("a step that is written longer than it is")
        return float(struct.unpack("<f", struct.pack("<I", (upper & 0x7FFF) << 16 | lower))[0])

    def _half(self) -> int:
        if self._end - self._at < 2:
            raise DamagedWeight("too few bytes for a header")
        self._at += 2
        return int.from_bytes(self._packed[self._at - 2 : self._at], "little")

    def rest(self) -> bytes:
        return self._packed[self._at : self._end]
