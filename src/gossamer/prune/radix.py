"""Selection by counting: the threshold of the `kept` largest of any number of keys, from histograms of their digits.

The bits of a non-negative IEEE number, read as an integer, order as the number does. So a histogram of the highest 16
bits of the magnitudes names the bucket that holds the threshold, and one of the next 16 bits, of that bucket alone,
goes on from there. Histograms add up, over tensors as over files and machines: whoever can count can select. Counts are
Python's and 64-bit integers, so the number of weights is not bounded by 2^31.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGIT_BITS = 16
BUCKETS = 1 << DIGIT_BITS

Counts = NDArray[np.int64]
"""Shape (buckets,): elements in each bucket, smallest values first."""

STEP_BITS = 4
"""Bits of a digit that are looked for at a time where histograms have to be sent to be added up: 16 numbers instead of
65,536."""

CountDigits = Callable[[int, int], Counts]
"""(prefix, digits left) -> a histogram, shape (2^16,), of one digit of the keys whose higher digits are `prefix`. With
n digits left the digit is the one above the lowest n."""


@dataclass(frozen=True)
class Threshold:
    """The smallest magnitude that is kept, and how many weights of exactly that magnitude are."""

    magnitude_bits: int
    """The magnitude's bits read as an integer, in the widest floating-point type among the tensors."""
    ties_kept: int


Add = Callable[[NDArray[Any]], NDArray[Any]]
"""A histogram of one part of the keys -> the sum of those of all parts."""


def find_threshold(count: CountDigits, digits: int, kept: int, add: Add | None = None) -> Threshold:
    """The `kept`-th largest key, and how many of the keys equal to it are among the `kept`.

    Args:
        count: called once for each digit, highest first.
        digits: 16-bit digits of a key.
        kept: 1 to the number of keys.
        add: where `count` counts a part of the keys, such as those of one process: adds the parts up.

    Raises:
        ValueError: there are fewer keys.
    """
    prefix, wanted = 0, kept
    for digits_left in reversed(range(digits)):
        counts = count(prefix, digits_left)
        digit, above = locate(counts, wanted) if add is None else locate_in_sum(counts, wanted, add)
        prefix = (prefix << DIGIT_BITS) | digit
        wanted -= above
    return Threshold(magnitude_bits=prefix, ties_kept=wanted)


def locate(counts: Counts, wanted: int) -> tuple[int, int]:
    """The bucket that holds the `wanted`-th largest element, and how many elements lie in the buckets above it.

    Args:
        counts: elements in each bucket, smallest values first.
        wanted: rank of the element, 1 for the largest.
    """
    at_or_above = np.cumsum(np.asarray(counts)[::-1])[::-1]
    bucket = int((at_or_above >= wanted).sum()) - 1
    if bucket < 0:
        raise ValueError(f"got rank {wanted}; expected at most {int(at_or_above[0])}, the number of elements")
    return bucket, int(at_or_above[bucket]) - int(counts[bucket])


def locate_in_sum(counts: Counts, wanted: int, add: Add) -> tuple[int, int]:
    """The same of a sum of histograms, each of them known to one process only: digits of 4 bits are looked for, one
    after the other, so that 16 numbers are added up at a time."""
    bucket = above = 0
    for bits_left in reversed(range(0, DIGIT_BITS, STEP_BITS)):
        inside = counts[bucket << (bits_left + STEP_BITS) : (bucket + 1) << (bits_left + STEP_BITS)]
        digit, more = locate(add(inside.reshape(1 << STEP_BITS, -1).sum(1)), wanted - above)
        bucket, above = (bucket << STEP_BITS) | digit, above + more
    return bucket, above


@dataclass(frozen=True)
class Thresholds:
    """Those of several selections, in int64 arrays of one shape."""

    keys: Counts
    """The smallest key that is kept."""
    ties_kept: Counts
    """How many of the keys equal to it are."""
    ties: Counts
    """How many of these there are."""


def find_thresholds_in_sums(
    count: Callable[[Counts, int], Counts], bits: int, kept: Counts, numbers: Counts, add: Add
) -> Thresholds:
    """`find_threshold` of several selections at once, of whose keys each process knows a part: bits are looked for one
    after the other, so that one number of each selection is added up at a time.

    Args:
        count: (prefixes, digits left) -> histograms of this process's keys, shape (selections, 2^16).
        bits: of a key.
        kept: of each selection, 1 to the number of its keys.
        numbers: how many keys each has in all processes together.
        add: adds up arrays of all processes.
    """
    every = np.arange(len(kept))
    # In four bytes where they suffice, for they are sent.
    kind = np.int32 if int(numbers.max()) < 1 << 31 else np.int64
    keys, wanted, inside = np.zeros_like(kept), kept, numbers
    for digits_left in reversed(range(-(-bits // DIGIT_BITS))):
        before = np.zeros((len(kept), BUCKETS + 1), np.int64)
        np.cumsum(count(keys, digits_left), axis=1, out=before[:, 1:])
        digit = np.zeros_like(kept)
        for bit in reversed(range(min(DIGIT_BITS, bits - DIGIT_BITS * digits_left))):
            middle = digit + (1 << bit)
            counted = before[every, middle + (1 << bit)] - before[every, middle]
            upper = add(counted.astype(kind)).astype(np.int64)
            is_upper = upper >= wanted
            digit = np.where(is_upper, middle, digit)
            wanted = np.where(is_upper, wanted, wanted - upper)
            inside = np.where(is_upper, upper, inside - upper)
        keys = (keys << DIGIT_BITS) | digit
    return Thresholds(keys, wanted, inside)
