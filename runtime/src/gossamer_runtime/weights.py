"""The bytes of a sparse weight, written and read with numpy (docs/format.md; native/format/sparse_weight.h).

This is version 1, of weights as they are; version 2, of coded levels, is ``gossamer_runtime.coding``, read
here too.
"""

import struct
import zlib
from typing import Any

import numpy as np

from gossamer_runtime import coding
from gossamer_runtime.coding import DamagedWeight as DamagedWeight

MAGIC = b"GSPW"
VERSION = 1
HEADER = struct.Struct("<4sBBBBQQ")
BITMASK, GAPS = 0, 1
QUADS = 2
"""Added to a code whose positions are those of four neighbouring input channels each; of int8 alone."""
VALUE_TYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("i1")}
INT8 = 2
LONG_GAP = 255


def encode(weight: np.ndarray, *, half: bool = False) -> bytes:
    """Packs the nonzeros of ``weight``; the shortest of the position codes is taken.

    A weight of type int8 is packed as such, any other as fp32 or, with ``half``, as fp16.
    """
    if not 1 <= weight.ndim <= 8:
        raise ValueError(f"a weight has 1 to 8 axes, got {weight.ndim}")
    value_type = INT8 if weight.dtype == np.int8 else 1 if half else 0
    flat = np.ascontiguousarray(weight, dtype=np.int8 if value_type == INT8 else np.float32).reshape(-1)
    # Beyond the range of a half the value becomes infinite; the exporter's comparison of outputs catches that.
    with np.errstate(over="ignore"):
        values = flat[np.flatnonzero(flat)].astype(VALUE_TYPES[value_type])
    packings = [(*_positions(flat), values)]
    if value_type == INT8 and weight.ndim > 1 and weight.size:
        quads = _quads(weight)
        kept = np.asarray(quads.any(-1))
        code, encoded = _positions(kept)
        packings.append((code + QUADS, encoded, quads[kept]))
    code, encoded, values = min(packings, key=lambda packing: len(packing[1]) + packing[2].nbytes)
    body = b"".join(
        [
            HEADER.pack(MAGIC, VERSION, code, value_type, weight.ndim, len(values), len(encoded)),
            struct.pack(f"<{weight.ndim}I", *weight.shape),
            encoded,
            values.tobytes(),
        ]
    )
    return body + struct.pack("<I", zlib.crc32(body))


def _positions(kept: np.ndarray) -> tuple[int, bytes]:
    """The shorter of the two codes."""
    by_mask, by_gaps = bitmask(kept), gaps(kept)
    return (GAPS, by_gaps) if len(by_gaps) < len(by_mask) else (BITMASK, by_mask)


def _quads(weight: np.ndarray) -> np.ndarray:
    """[row x quad of channels x other axes, 4]; zeros fill up the last quad of a row."""
    rows, channels = weight.shape[:2]
    filled = np.zeros((rows, -(-channels // 4) * 4, weight[0, 0].size), weight.dtype)
    filled[:, :channels] = weight.reshape(rows, channels, -1)
    return filled.reshape(rows, -1, 4, filled.shape[2]).transpose(0, 1, 3, 2).reshape(-1, 4)


def _from_quads(quads: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What _quads was given."""
    rows, channels = shape[:2]
    places = int(np.prod(shape[2:], dtype=np.int64))
    filled = quads.reshape(rows, -1, places, 4).transpose(0, 1, 3, 2).reshape(rows, -1, places)
    return filled[:, :channels].reshape(shape)


def decode(packed: bytes) -> np.ndarray:
    """The dense weight of either version, as float32, or as int8 if that is what was packed."""
    if is_coded(packed):
        return coding.decode(packed).dense()
    if len(packed) < HEADER.size + 4 or zlib.crc32(packed[:-4]) != struct.unpack("<I", packed[-4:])[0]:
        raise DamagedWeight("too short, or the checksum does not match")
    magic, version, code, value_type, rank, kept, position_bytes = HEADER.unpack_from(packed)
    of_quads = QUADS if code >= QUADS and value_type == INT8 and rank > 1 else 0
    if magic != MAGIC or version != VERSION or code - of_quads not in (BITMASK, GAPS) or value_type not in VALUE_TYPES:
        raise DamagedWeight(f"not a packed weight of version {VERSION}: {packed[:8]!r}")
    shape = struct.unpack_from(f"<{rank}I", packed, HEADER.size)
    begin = HEADER.size + 4 * rank
    dtype = VALUE_TYPES[value_type]
    count = 4 * kept if of_quads else kept
    if begin + position_bytes + count * dtype.itemsize + 4 != len(packed):
        raise DamagedWeight("the number of bytes does not match the header")
    encoded = np.frombuffer(packed, np.uint8, position_bytes, begin)
    values = np.frombuffer(packed, dtype, count, begin + position_bytes)
    positions = _positions_of_bitmask(encoded) if code - of_quads == BITMASK else _positions_of_gaps(encoded)
    elements = int(np.prod(shape, dtype=np.int64))
    if of_quads:
        elements = elements // max(shape[1], 1) * -(-shape[1] // 4)
    if len(positions) != kept or (kept and positions[-1] >= elements):
        raise DamagedWeight("the positions do not match the number of kept weights")
    if of_quads:
        quads = np.zeros((elements, 4), np.int8)
        quads[positions] = values.reshape(-1, 4)
        return _from_quads(quads, shape)
    dense = np.zeros(elements, np.int8 if value_type == INT8 else np.float32)
    dense[positions] = values
    return dense.reshape(shape)


def is_coded(packed: bytes) -> bool:
    """Whether the bytes say that they are of version 2."""
    return packed[:1] == bytes([coding.coded.VERSION])


def bias_of(packed: bytes) -> np.ndarray | None:
    """The bias that a weight of version 2 holds, in fp32; None if it holds none."""
    bias = coding.decode(packed).bias if is_coded(packed) else None
    return None if bias is None else bias.dense()


def bitmask(weight: np.ndarray) -> bytes:
    """The positions of the nonzeros as one bit a weight."""
    return np.packbits(weight.reshape(-1) != 0, bitorder="little").tobytes()


def gaps(weight: np.ndarray) -> bytes:
    """The positions of the nonzeros as the numbers of zeros between them."""
    zeros = np.diff(np.flatnonzero(weight.reshape(-1)), prepend=-1) - 1
    long_gaps = zeros // LONG_GAP
    codes = np.full(len(zeros) + int(long_gaps.sum()), LONG_GAP, np.uint8)
    codes[np.cumsum(long_gaps) + np.arange(len(zeros))] = zeros % LONG_GAP
    return codes.tobytes()


def _positions_of_bitmask(encoded: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.unpackbits(encoded, bitorder="little"))


def _positions_of_gaps(encoded: np.ndarray) -> np.ndarray:
    # A code moves on by itself, and a kept weight takes one place more.
    kept = encoded != LONG_GAP
    ends: np.ndarray = np.cumsum(encoded.astype(np.int64) + kept)
    positions: np.ndarray = ends[kept] - 1
    return positions
