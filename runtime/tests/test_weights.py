import struct
import zlib

import numpy as np
import pytest
from gossamer_runtime import weights


def test_bytes_by_hand() -> None:
    packed = weights.encode(np.array([[0, 1, 0], [0, -2, 0]], np.float32), half=True)
    header = b"GSPW" + bytes([1, 0, 1, 2]) + struct.pack("<QQII", 2, 1, 2, 3)
    body = header + b"\x12" + b"\x00\x3c\x00\xc0"
    assert packed == body + struct.pack("<I", zlib.crc32(body))


def test_gaps_by_hand() -> None:
    weight = np.zeros(600, np.float32)
    weight[[0, 255, 511]] = 1, 2, 3  # 254 zeros between, then 255
    packed = weights.encode(weight)
    assert packed[5] == weights.GAPS
    assert list(packed[28:32]) == [0, 254, 255, 0]
    np.testing.assert_array_equal(weights.decode(packed), weight)


@pytest.mark.parametrize("density", [0.0, 0.003, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("half", [False, True])
def test_there_and_back(density: float, half: bool) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((17, 5, 3, 3)).astype(np.float16).astype(np.float32)
    weight[rng.random(weight.shape) >= density] = 0
    np.testing.assert_array_equal(weights.decode(weights.encode(weight, half=half)), weight)


def test_eight_axes_are_the_most() -> None:
    weight = np.arange(2.0**8, dtype=np.float32).reshape((2,) * 8)
    np.testing.assert_array_equal(weights.decode(weights.encode(weight)), weight)
    for axes in (0, 9):
        with pytest.raises(ValueError, match=f"a weight has 1 to 8 axes, got {axes}"):
            weights.encode(np.ones((1,) * axes, np.float32))


def test_file_is_small() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((256, 1024)).astype(np.float32)
    weight[rng.random(weight.shape) >= 0.1] = 0
    kept = np.count_nonzero(weight)
    assert len(weights.encode(weight)) <= 1.1 * (4 * kept + min(weight.size / 8, kept))


def test_damage_is_found() -> None:
    packed = bytearray(weights.encode(np.eye(8, dtype=np.float32)))
    packed[30] ^= 1
    with pytest.raises(weights.DamagedWeight, match="checksum"):
        weights.decode(bytes(packed))


def test_positions_that_differ_from_the_values_are_found() -> None:
    """Somebody who writes positions of their own writes the checksum of them too."""
    weight = np.ones(64, np.float32)
    weight[:8] = [1, 0, 1, 1, 0, 1, 1, 1]
    by_mask = weights.encode(weight)
    weight[:] = 0
    weight[[3, 60]] = 1
    by_gaps = weights.encode(weight)
    assert (by_mask[5], by_gaps[5]) == (weights.BITMASK, weights.GAPS)
    first = weights.HEADER.size + 4  # behind the shape
    for packed, place, byte in [
        (by_mask, first, 0xFF),  # more bits than values
        (by_mask, first, 0x01),  # fewer
        (by_gaps, first, weights.LONG_GAP),  # fewer kept weights, their places all within the shape
        (by_gaps, first + 1, 200),  # a place behind the last element
    ]:
        body = bytearray(packed[:-4])
        body[place] = byte
        with pytest.raises(weights.DamagedWeight, match="positions"):
            weights.decode(bytes(body) + struct.pack("<I", zlib.crc32(body)))


@pytest.mark.parametrize(
    ("place", "byte", "message"),
    [
        (0, ord("X"), "not a packed weight of version 1"),
        (4, 3, "not a packed weight of version 1"),
        (5, 2, "not a packed weight of version 1"),
        (6, 3, "not a packed weight of version 1"),
        (7, 1, "the number of bytes does not match the header"),
        (8, 1, "the number of bytes does not match the header"),
        (16, 9, "the number of bytes does not match the header"),
    ],
    ids=["magic", "version", "code", "type", "axes", "kept", "positions"],
)
def test_a_header_of_another_weight_is_found(place: int, byte: int, message: str) -> None:
    body = bytearray(weights.encode(np.eye(8, dtype=np.float32))[:-4])
    body[place] = byte
    with pytest.raises(weights.DamagedWeight, match=message):
        weights.decode(bytes(body) + struct.pack("<I", zlib.crc32(body)))


def test_int8_stays_int8() -> None:
    weight = np.array([[0, 1, 0], [0, -128, 0]], np.int8)
    packed = weights.encode(weight)
    # As native/tests/sparse_weight_test.cc: bitmask, int8, rank 2; elements 1 and 4; 1 and -128.
    assert packed[4:8] == bytes([1, 0, 2, 2])
    assert packed[32:-4] == b"\x12\x01\x80"
    np.testing.assert_array_equal(weights.decode(packed), weight)
    assert weights.decode(packed).dtype == np.int8


def test_blocks_of_four_channels_are_stored_as_such() -> None:
    # As native/tests/sparse_weight_test.cc: rows of [channels 0 to 3, 4][2 places].
    by_hand = np.array([[0, 1, 0, 2, 0, 3, 0, 4, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, -5, 0]], np.int8).reshape(2, 5, 2)
    packed = weights.encode(np.concatenate([by_hand] * 4))
    np.testing.assert_array_equal(weights.decode(packed), np.concatenate([by_hand] * 4))
    rng = np.random.default_rng(0)
    for shape in [(16, 24, 3, 3), (16, 23), (8, 5, 7)]:
        weight = rng.integers(1, 127, shape).astype(np.int8)
        kept = rng.random((shape[0], -(-shape[1] // 4), *shape[2:])) < 0.1
        weight[~kept.repeat(4, axis=1)[:, : shape[1]]] = 0
        packed = weights.encode(weight)
        assert packed[5] in (weights.QUADS + weights.BITMASK, weights.QUADS + weights.GAPS)
        np.testing.assert_array_equal(weights.decode(packed), weight)
        single = weight * (rng.random(shape) < 0.2)
        np.testing.assert_array_equal(weights.decode(weights.encode(single)), single)


def test_the_shortest_there_is() -> None:
    empty = weights.encode(np.zeros(0, np.float32))
    assert weights.decode(empty).shape == (0,)
    for length in (0, 3, weights.HEADER.size, weights.HEADER.size + 3):
        with pytest.raises(weights.DamagedWeight, match="too short"):
            weights.decode(empty[:length])
