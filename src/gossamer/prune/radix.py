"""Selection by counting: the threshold of the `kept` largest of any number of keys, from histograms of their digits.

The bits of a non-negative IEEE number, read as an integer, order as the number does. So a histogram of the highest 16
bits of the magnitudes names the bucket that holds the threshold, and one of the next 16 bits, of that bucket alone,
goes on from there. Histograms add up, over tensors as over files and machines: whoever can count can select. Counts are
Python's and 64-bit integers, so the number of weights is not bounded by 2^31.
"""

from collections.abc import Callable
from dataclasses import dataclass

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


Add = Callable[[Counts], Counts]
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
