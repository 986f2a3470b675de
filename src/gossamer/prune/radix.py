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

CountDigits = Callable[[int, int], Counts]
"""(prefix, digits left) -> a histogram, shape (2^16,), of one digit of the keys whose higher digits are `prefix`. With
n digits left the digit is the one above the lowest n."""


@dataclass(frozen=True)
class Threshold:
    """The smallest magnitude that is kept, and how many weights of exactly that magnitude are."""

    magnitude_bits: int
    """The magnitude's bits read as an integer, in the widest floating-point type among the tensors."""
    ties_kept: int


def find_threshold(count: CountDigits, digits: int, kept: int) -> Threshold:
    """The `kept`-th largest key, and how many of the keys equal to it are among the `kept`.

    Args:
        count: called once for each digit, highest first.
        digits: 16-bit digits of a key.
        kept: 1 to the number of keys.

    Raises:
        ValueError: there are fewer keys.
    """
    prefix, wanted = 0, kept
    for digits_left in reversed(range(digits)):
        digit, above = locate(count(prefix, digits_left), wanted)
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
