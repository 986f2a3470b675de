import runpy
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from gossamer_runtime import coding, weights
from gossamer_runtime.coding.coded import GAPS, GRID_MIXING, MIXING, SWAPPED_MIXING

decode_by_the_document = runpy.run_path(str(Path(__file__).with_name("coded_reference.py")))["decode"]

SHAPES = [(1,), (9,), (1, 1), (3, 5), (1, 40), (40, 1), (6, 12), (5, 4, 3), (2, 3, 3, 3), (2, 3, 1, 2, 2)]


def drawn(shape: tuple[int, ...], density: float, largest: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    levels = rng.integers(1, largest + 1, shape) * rng.choice([-1, 1], shape)
    return np.where(rng.random(shape) < density, levels, 0).astype(np.int32)


def with_checksum(body: bytes) -> bytes:
    """Two bytes of it, or of the coder of gaps four."""
    return body + struct.pack("<I", zlib.crc32(body))[: 4 if body[1] % 4 == GAPS else 2]


def kind(coder: int, value_type: int, rank: int, biased: int = 0) -> bytes:
    return bytes([2, coder + 4 * (value_type + 3 * (rank - 1 + 8 * biased))])


def drawn_bias(rows: int, largest: int = 9) -> coding.Bias:
    return coding.Bias(drawn((rows,), 0.8, largest, seed=5), 0.375)


def test_bytes_of_gaps_by_hand() -> None:
    """All counters are new, so each decision halves the range: a 1 takes the lower half, a 0 the upper one.

    One kept weight: 000001. One zero before it: 000001. Negative: 1. Magnitude - 1: 000000. So the number begins with
    111110 111110 0 111111, and the shortest one in that range ends there.
    """
    body = bytes([2, 2 + 4 * (2 + 3 * 1)]) + bytes([1, 2, 1, 1]) + bytes([1, 1, 1, 3]) + b"\xfb\xe7\xe0"
    assert coding.encode(np.array([[0, -1]], np.int8), None, coder=GAPS) == with_checksum(body)
    np.testing.assert_array_equal(weights.decode(with_checksum(body)), np.array([[0, -1]], np.int8))


def test_bytes_of_mixing_by_hand() -> None:
    """One element, kept: q = floor(2 x 2^22 / 3), so p = 43690 for all five counters, which have one logit.

    A 1 takes the lower P(m) / 2^16 of the range, with m = floor(5 x 11796 x logit / 2^16) for both mixers; then the
    sign, which is even and a 0, takes the upper half of that. The largest level is 1, so nothing is left to say.
    """
    logit = max(x for x in range(-2047, 2048) if probability(x) <= 43690)
    share = probability(5 * 11796 * logit // 2**16)
    low, high = share / 2, share  # in units of 2^-16
    byte = -(-int(low) // 256)
    assert 256 * byte < high
    body = bytes([2, 4 * 3 * 1]) + bytes([1, 1, 1, 1]) + b"\x00\x3f" + bytes([byte])
    assert coding.encode(np.array([[1]]), 0.5, coder=MIXING) == with_checksum(body)
    np.testing.assert_array_equal(weights.decode(with_checksum(body)), np.array([[0.5]], np.float32))


def test_bytes_of_a_bias_by_hand() -> None:
    """No weight is kept, and the only bias is: its levels are a matrix of one row, coded as in the test above."""
    logit = max(x for x in range(-2047, 2048) if probability(x) <= 43690)
    share = probability(5 * 11796 * logit // 2**16)
    byte = -(-int(share / 2) // 256)
    # The step 1.00390625 needs the lower half of an fp32, so the upper one has the highest bit set.
    step = struct.pack("<f", np.float32(1 + 2**-8))
    body = bytes([2, 4 * 3 * (1 + 8)]) + bytes([1, 2, 0, 0]) + b"\x00\x3f" + bytes([1, 1])
    body += bytes([step[2], step[3] | 128, step[0], step[1]]) + bytes([byte])
    bias = coding.Bias(np.array([1]), 1 + 2**-8)
    assert coding.encode(np.array([[0, 0]]), 0.5, coder=MIXING, bias=bias) == with_checksum(body)
    assert weights.bias_of(with_checksum(body)) == np.float32(1 + 2**-8)
    assert not weights.decode(with_checksum(body)).any()


def probability(logit: int) -> int:
    """By the logistic function, which is what the table of integers comes to at this precision."""
    return int(2**16 / (1 + np.exp(-1.5 / 256 * logit)))


@pytest.mark.parametrize("coder", [MIXING, GRID_MIXING, SWAPPED_MIXING, GAPS])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_document_is_enough_to_read_it(shape: tuple[int, ...], coder: int) -> None:
    if coder == SWAPPED_MIXING and len(shape) < 2:
        return
    for density, largest in [(0.0, 1), (0.3, 3), (0.8, 127), (1.0, 32767)]:
        levels = drawn(shape, density, largest)
        columns = levels.size // len(levels)
        for grid in sorted({max(1, columns // 3), columns} if coder == GRID_MIXING else {0}):
            for bias in (None, drawn_bias(len(levels)), coding.Bias(np.zeros(len(levels), np.int32), 1.0)):
                packed = coding.encode(levels, 0.1, coder=coder, grid=grid, bias=bias)
                of_bias = None if bias is None else bias.levels.tolist()
                assert decode_by_the_document(packed) == (levels.reshape(-1).tolist(), of_bias)
                found = coding.decode(packed)
                assert (found.step, found.half) == (np.float32(0.1), False)
                np.testing.assert_array_equal(found.levels, levels)
                if bias is None:
                    assert found.bias is None
                else:
                    assert found.bias is not None
                    assert found.bias.step == bias.step
                    np.testing.assert_array_equal(found.bias.levels, bias.levels)


@pytest.mark.parametrize("half", [False, True])
def test_values_are_levels_times_the_step(half: bool) -> None:
    levels, step = drawn((17, 30), 0.3, 900), float(np.float32(0.0123))
    values = levels.astype(np.float32) * np.float32(step)
    expected = values.astype(np.float16).astype(np.float32) if half else values
    for coder in (MIXING, GAPS):
        np.testing.assert_array_equal(weights.decode(coding.encode(levels, step, half=half, coder=coder)), expected)


def test_levels_of_int8_are_the_weights() -> None:
    levels = np.array([[0, 127, -128, 1], [0, 0, 0, -1]], np.int8)
    for coder in (MIXING, SWAPPED_MIXING, GAPS):
        found = weights.decode(coding.encode(levels, None, coder=coder))
        assert found.dtype == np.int8
        np.testing.assert_array_equal(found, levels)


def test_the_shortest_is_taken_and_the_large_are_fast() -> None:
    # Every row reads one patch of an image 12 wide.
    levels = np.zeros((24, 144), np.int32)
    rng = np.random.default_rng(1)
    for row in levels:
        at = rng.integers(0, 100)
        row[[at, at + 1, at + 12, at + 13, at + 24, at + 25]] = 1
    packed = coding.encode(levels, 1.0, grid=12)
    assert packed[1] % 4 == GRID_MIXING
    assert len(packed) < 0.9 * len(coding.encode(levels, 1.0))
    assert coding.encode(np.zeros((512, 512), np.int8), None)[1] % 4 == GAPS


def test_groups_of_rows_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding.coded, "KEPT_OF_GROUP", 20)
    levels = drawn((30, 40), 0.1, 5)
    levels[7:19] = 0
    packed = coding.encode(levels, 1.0, coder=GAPS)
    assert packed[2 + 2 + 1 + 1 + 2] >= 4
    np.testing.assert_array_equal(coding.decode(packed).levels, levels)
    assert decode_by_the_document(packed) == (levels.reshape(-1).tolist(), None)


@pytest.mark.parametrize(
    ("coder", "checksum"), [(GRID_MIXING, 0xD2388C6F), (SWAPPED_MIXING, 0x59A5E26F), (GAPS, 0x0B716FFD)]
)
def test_the_same_bytes_as_in_native_code(coder: int, checksum: int) -> None:
    """native/tests/coded_weight_test.cc makes the same levels and expects the same."""
    number, levels = 1, []
    for _ in range(20 * 12 * 9):
        number = (number * 1103515245 + 12345) % 2**31
        levels.append((number >> 20) % 61 - 30 if (number >> 16) % 5 == 0 else 0)
    bias = coding.Bias(np.array(levels[:20]), 0.3)
    grid = 9 if coder == GRID_MIXING else 0
    packed = coding.encode(np.array(levels).reshape(20, 12, 3, 3), 0.75, coder=coder, grid=grid, bias=bias)
    assert zlib.crc32(packed[:-4]) == checksum


def test_fewer_bytes_than_static_tables() -> None:
    """Rows of other densities: what adapts to them beats the entropy of one density and of one table of levels."""
    rng = np.random.default_rng(0)
    of_row = rng.choice([0.01, 0.4], (120, 1))
    levels = np.where(rng.random((120, 120)) < of_row, rng.geometric(0.5, (120, 120)).clip(1, 8), 0).astype(np.int32)
    levels *= rng.choice([-1, 1], levels.shape)
    _, counts = np.unique(levels, return_counts=True)
    shares = counts / levels.size
    entropy = -(shares * np.log2(shares)).sum() * levels.size / 8
    for coder in (MIXING, GAPS):
        assert len(coding.encode(levels, 1.0, coder=coder)) < 0.97 * entropy


@pytest.mark.parametrize(
    ("levels", "step", "message"),
    [
        (np.zeros(()), 1.0, "1 to 8 axes"),
        (np.zeros((1,) * 9), 1.0, "1 to 8 axes"),
        (np.zeros((3, 0)), 1.0, "none of them 0"),
        (np.full((2, 2), 128), None, "levels are 128 to 128, expected -128 to 127"),
        (np.full((2, 2), -32768), 1.0, "expected -32767 to 32767"),
        (np.ones((2, 2)), 0.0, "the step is 0.0"),
        (np.ones((2, 2)), np.inf, "the step is inf"),
        (np.ones((2, 2)), 1e-60, "the step is 1e-60"),
    ],
)
def test_what_cannot_be_written(levels: np.ndarray, step: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coding.encode(levels.astype(np.int32), step)


@pytest.mark.parametrize(
    ("shape", "coder", "grid", "message"),
    [
        ((4, 5), 4, 0, "the coder is 4, expected 0, 1, 2 or 3"),
        ((4,), SWAPPED_MIXING, 0, "swapped axes are for at least two"),
        ((4, 5), SWAPPED_MIXING, 2, "of GRID_MIXING alone"),
        ((4, 5), GRID_MIXING, 0, "the grid is 0, expected 1 to 5"),
        ((1025, 1024), MIXING, 0, "at most 2\\^20 elements, got 1049600"),
        ((1025, 1024), SWAPPED_MIXING, 0, "at most 2\\^20 elements"),
        ((4, 5), None, 6, "the grid is 6, expected 0 to 5"),
        ((4, 5), MIXING, -1, "the grid is -1"),
    ],
)
def test_coders_that_are_not_for_it(shape: tuple[int, ...], coder: int | None, grid: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coding.encode(np.zeros(shape, np.int32), 1.0, coder=coder, grid=grid)


@pytest.mark.parametrize(
    ("step", "bias", "message"),
    [
        (None, coding.Bias(np.zeros(2, np.int32), 1.0), "a weight of floats"),
        (1.0, coding.Bias(np.zeros(3, np.int32), 1.0), "one number for each"),
        (1.0, coding.Bias(np.full(2, 32768), 1.0), "levels are 32768"),
        (1.0, coding.Bias(np.zeros(2, np.int32), 0.0), "the step is 0.0"),
    ],
)
def test_biases_that_cannot_be_written(step: float | None, bias: coding.Bias, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coding.encode(np.ones((2, 2), np.int32), step, bias=bias)


@pytest.mark.parametrize("coder", [MIXING, SWAPPED_MIXING, GAPS])
def test_damage_is_an_error_or_another_weight(coder: int) -> None:
    """Whoever changes bytes can write the checksum of them too: nothing but DamagedWeight comes of it."""
    packed = coding.encode(drawn((3, 6), 0.4, 30), 0.5, coder=coder, bias=drawn_bias(3))
    with pytest.raises(coding.DamagedWeight, match="checksum"):
        coding.decode(packed[:-1] + bytes([packed[-1] ^ 1]))
    rng = np.random.default_rng(2)
    refused = 0
    end = len(packed) - (4 if coder == GAPS else 2)
    for place in range(end):
        for changed in {packed[place] ^ 1, packed[place] ^ 128, int(rng.integers(256))} - {packed[place]}:
            body = bytearray(packed[:end])
            body[place] = changed
            try:
                found = coding.decode(with_checksum(bytes(body)))
                assert np.count_nonzero(found.levels) <= found.levels.size
            except coding.DamagedWeight:
                refused += 1
    assert refused > 20


@pytest.mark.parametrize("coder", [MIXING, GAPS])
def test_a_stream_that_ends_early_or_late_is_refused(coder: int) -> None:
    packed = coding.encode(drawn((15, 20), 0.5, 30), 0.5, coder=coder)
    size_at = 2 + 2 + 2 + 1 + 2 + 1 + 1 + 2  # of the only group
    for change in (-40, -16, 16, 400):
        body = packed[:change] if change < 0 else packed[: -4 if coder == GAPS else -2] + bytes(change)
        if coder == GAPS:
            size = len(body) - size_at - 2
            body = body[:size_at] + bytes([size & 127 | 128, size >> 7]) + body[size_at + 2 :]
        with pytest.raises(coding.DamagedWeight, match=r"the stream ends|level|weights|gap"):
            coding.decode(with_checksum(body))


def number(value: int) -> bytes:
    return bytes([value & 127 | 128]) + number(value >> 7) if value > 127 else bytes([value])


ONE = b"\x80\x3f"
"""The step 1."""


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\3\0" + number(4), "not a coded weight"),
        (bytes([2, 192]) + number(4), "not a coded weight"),
        (kind(1, 0, 1) + number(4), "not a kind"),
        (kind(0, 2, 1, 1) + number(4), "not a kind"),
        (kind(0, 0, 2) + number(2**30) + number(2**30) + number(1) + number(1) + ONE, "the shape is"),
        (kind(0, 0, 1) + number(0) + number(0) + number(0) + ONE, "the shape is"),
        (kind(0, 0, 1) + number(4) + number(5) + number(1) + ONE, "5 kept weights"),
        (kind(0, 0, 1) + number(4) + number(1) + number(0) + ONE, "the largest level is 0"),
        (kind(0, 0, 1) + number(4) + number(1) + number(32768) + ONE, "the largest level is 32768"),
        (kind(0, 2, 1) + number(4) + number(1) + number(129), "the largest level is 129"),
        (kind(0, 0, 1) + number(4) + number(1) + number(1) + b"\0\0", "the step 0"),
        (kind(0, 0, 1) + number(4) + number(1) + number(1) + b"\x80\x7f", "the step inf"),
        (kind(0, 0, 1) + number(4) + number(1) + number(1) + b"\x80\xbf\0\0", "a step that is written longer"),
        (kind(0, 0, 1) + number(4) + number(1) + number(1) + b"\x80", "too few bytes"),
        (
            kind(3, 0, 1) + number(4) + number(1) + number(1) + ONE + number(2),
            "the grid is 2, expected 1 to the columns, 1",
        ),
        (kind(3, 0, 1) + number(4) + number(1) + number(1) + ONE + number(0), "the grid is 0"),
        (
            kind(0, 0, 1, 1) + number(4) + number(0) + number(0) + ONE + number(5) + number(1) + ONE,
            "5 kept weights of 4",
        ),
        (kind(0, 0, 1, 1) + number(4) + number(0) + number(0) + ONE + number(1) + number(0) + ONE, "the largest level"),
        (kind(0, 2, 2) + number(2**11) + number(2**10) + number(1) + number(1), "not for the mixing coder"),
        (kind(2, 2, 1) + number(4) + number(0) + number(0) + number(2**40), "groups of rows"),
        (kind(2, 2, 2) + number(9) + number(2**29) + number(0) + number(0) + b"\0", "536870912 columns"),
        (
            kind(2, 2, 1) + number(400) + number(73) + number(1) + b"\1" + number(400) + b"\x49\1\0",
            "the whole weight",
        ),
        (kind(2, 2, 1) + number(4) + number(1) + number(1) + b"\1\3\1\1\0", "the whole weight"),
        (kind(2, 2, 1) + number(4) + number(0) + number(0) + b"\0\0", "the stream ends"),
        (kind(0, 2, 1) + number(4) + number(0) + number(0) + b"\0", "the stream ends"),
        (kind(0, 2, 1) + b"\x84\0" + number(1) + number(1), "longer than it is"),
        (kind(0, 2, 1) + b"\xff" * 12, "too few bytes for a header"),
    ],
)
def test_headers_that_contradict_themselves(header: bytes, message: str) -> None:
    with pytest.raises(coding.DamagedWeight, match=message):
        coding.decode(with_checksum(header))
