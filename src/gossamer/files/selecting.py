"""The threshold of weights in files: histograms, made in as few readings as can be.

Numbers of 16 bits are read once. Those of 32 would be read twice, once for each digit; a sample of one weight in 64
says where the first digit will be, and the reading that counts it counts the lower digits there too. Should the sample
be wrong, they are read once more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from gossamer.files.keys import Keys, keys_of, require_finite, widest_kind
from gossamer.files.ranking import Ranking
from gossamer.files.stored import PIECE, PRUNABLE, Layout, Stored, read_exactly
from gossamer.prune.radix import BUCKETS, DIGIT_BITS, Counts, Threshold, find_threshold, locate

SAMPLED = 64
SAMPLE_PIECE = 1 << 12
MARGIN = 4
"""Digits on either side of the one that the sample names. A digit of float32 is 1/128 to 1/256 of a magnitude."""

Open = Callable[[str], BinaryIO]
"""Opens a file by its name in the source's folder."""
Advance = Callable[[int], None]
"""Called with the number of bytes that were read or written."""


@dataclass(frozen=True)
class Weight:
    """A tensor that is pruned."""

    stored: Stored
    inputs_axis: int | None
    """0 to 2; None where there is no one axis of inputs."""
    copies: tuple[Stored, ...] = ()
    """The same weight stored again under other names (tied): each gets the same zeros."""

    def layout(self, ranking: Ranking) -> Layout:
        if ranking.groups is None:
            return Layout.flat(self.stored.size)
        assert self.inputs_axis is not None
        return Layout.of(self.stored.shape, self.inputs_axis)


def pieces(
    open_file: Open, stored: Stored, layout: Layout, group: int, most: int = 0, every: int = 1
) -> Iterator[tuple[int, Keys]]:
    """(bytes before it in its file, bits of the shape (outer, inputs, inner)) of one piece after another, or of one in
    `every` pieces. A piece is of about `most` weights, or of `PIECE`."""
    integers = PRUNABLE[stored.kind]
    with open_file(stored.file) as file:
        for index, (first, outer, inputs) in enumerate(layout.pieces(group, most or PIECE)):
            if index % every:
                continue
            position = stored.offset + first * integers.itemsize
            length = outer * inputs * layout.inner * integers.itemsize
            bits = read_exactly(file, position, length, stored.name).view(integers)
            yield position, bits.reshape(outer, inputs, layout.inner)


def threshold_of(weights: Sequence[Weight], ranking: Ranking, open_file: Open, advance: Advance) -> Threshold:
    """The smallest magnitude that is kept of these weights.

    Raises:
        ConfigurationError: a weight is infinite or not a number.
        CheckpointError: a file is shorter than it was.
    """
    widest = widest_kind(weight.stored.kind for weight in weights)
    digits = PRUNABLE[widest].itemsize * 8 // DIGIT_BITS
    if ranking.kept == 0:
        # Larger than every key: nothing of what is ranked is kept.
        return Threshold(np.iinfo(PRUNABLE[widest]).max, 0)
    expected = _expected_digits(weights, ranking, open_file, widest) if digits == 2 else range(0)
    lower = np.zeros(len(expected) * BUCKETS, np.int64)

    def count(prefix: int, digits_left: int) -> Counts:
        first = digits_left == digits - 1
        if not first and digits == 2 and prefix in expected:
            return lower[(prefix - expected.start) * BUCKETS :][:BUCKETS]
        counts = np.zeros(BUCKETS, np.int64)
        for weight in weights:
            for keys in _ranked_keys(weight, ranking, open_file, widest, advance if first else _unseen):
                if not first:
                    keys = keys[keys >> keys.dtype.type(DIGIT_BITS * (digits_left + 1)) == prefix]
                digit = keys.view("<u2")[digits_left::digits]
                _add(counts, digit)
                if first and expected:
                    inside = keys[digit - np.uint16(expected.start) < len(expected)]
                    np.add.at(lower, inside - inside.dtype.type(expected.start << DIGIT_BITS), 1)
        return counts

    return find_threshold(count, digits, ranking.kept)


def _expected_digits(weights: Sequence[Weight], ranking: Ranking, open_file: Open, widest: str) -> range:
    """The first digits among which the threshold's probably is."""
    counts = np.zeros(BUCKETS, np.int64)
    for weight in weights:
        for keys in _ranked_keys(weight, ranking, open_file, widest, _unseen, SAMPLE_PIECE, SAMPLED):
            _add(counts, keys.view("<u2")[1::2])
    sampled = int(counts.sum())
    if not sampled:
        return range(0)
    digit, _ = locate(counts, min(max(1, ranking.kept * sampled // ranking.ranked), sampled))
    return range(max(0, digit - MARGIN), min(BUCKETS, digit + MARGIN + 1))


def _ranked_keys(
    weight: Weight,
    ranking: Ranking,
    open_file: Open,
    widest: str,
    advance: Advance,
    most: int = 0,
    every: int = 1,
) -> Iterator[Keys]:
    """Flat arrays of the keys that are ranked."""
    stored = weight.stored
    for _, bits in pieces(open_file, stored, weight.layout(ranking), ranking.group, most, every):
        keys = keys_of(bits, stored.kind, widest)
        require_finite(stored.name, keys, widest)
        ranked, _ = ranking.split(keys)
        yield keys.reshape(-1) if ranked is None else keys[ranked]
        advance(bits.nbytes)


def _add(counts: Counts, digit: Keys) -> None:
    found = np.bincount(digit)
    counts[: len(found)] += found


def _unseen(count: int) -> None:
    pass
