"""Outputs that are the same whatever the input: comparing them proves nothing."""

import numpy as np
from numpy.typing import NDArray


class Unvaried:
    """Whether one output of a network is the same for all examples seen, along its first axis and in all batches."""

    def __init__(self) -> None:
        self._first: NDArray[np.generic] | None = None
        self._examples = 0
        self._same = True

    def see(self, output: NDArray[np.generic]) -> None:
        """Takes another batch's output."""
        rows = output.reshape(len(output), -1) if output.ndim and len(output) else output.reshape(1, -1)
        if self._first is None:
            self._first = rows[0]
        self._examples += len(rows)
        fits = rows.shape[1] == len(self._first)
        self._same = self._same and fits and _equal(rows, np.broadcast_to(self._first, rows.shape))

    def value(self) -> str | None:
        """What it always is, for people; None if it varies, or nothing can be said of a single example."""
        if self._first is None or not self._same:
            return None
        if not self._first.size:
            return "empty"
        if _equal(self._first, np.broadcast_to(self._first[0], self._first.shape)):
            number = self._first[0]
            alone = self._examples == 1 and self._first.size == 1 and number
            return None if alone else f"all {number}"
        return None if self._examples == 1 else "the same for every example"


def _equal(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    return bool(np.array_equal(one, other, equal_nan=np.issubdtype(one.dtype, np.inexact)))
