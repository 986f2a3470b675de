"""N of every M consecutive input channels: what the name says, and how many weights of a shape that leaves."""

import re
from collections.abc import Sequence
from math import prod


def n_and_m(structure: str) -> tuple[int, int] | None:
    """(2, 4) of "2:4"; None of what is no such name, or has not 0 < N < M."""
    numbers = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", structure)
    n, m = (int(number) for number in numbers.groups()) if numbers else (0, 0)
    return (n, m) if 0 < n < m else None


def most_of_groups(n: int, m: int, shape: Sequence[int]) -> int:
    """The most weights that N:M leaves of a weight (outputs, inputs, ...)."""
    whole, rest = divmod(shape[1], m)
    return prod(shape) // shape[1] * (whole * min(n, m) + min(n, rest))
