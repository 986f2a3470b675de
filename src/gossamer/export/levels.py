"""A layer's weights as integer levels of one step, chosen by what they cost: error against bits.

Rounding that looks at the bits is rate-distortion-optimised quantisation; rounding of which each error is made good by
the row's other weights is the Optimal Brain Surgeon's (Hassibi and Stork 1993), used for quantisation by Frantar and
Alistarh (Optimal Brain Compression, 2022). Both weigh an error by the second moments of the layer's inputs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gossamer.export.moments import Moments

Way = Literal["nearest", "rate", "compensated"]
WAYS: tuple[Way, ...] = ("nearest", "rate", "compensated")
"""Ways to round, each with what those before it do: to the nearest level; to the one that costs least, error and bits;
with what is left of the row making the error good."""
FINEST = 64
LEVELS: tuple[int, ...] = (64, 48, 32, 24, 16, 12, 10, 8, 7, 6, 5, 4, 3, 2)
"""Levels on either side of zero that are tried."""
DAMPING = 0.01
"""The share of the mean moment that is added to each, so that inputs that are always 0 or alike can be inverted."""
MOST_KEPT = 512
"""Kept weights of a row up to which its errors are made good."""
PASSES = 2
"""Times that the numbers of bits follow from the levels, and these from them."""


@dataclass(frozen=True)
class Levels:
    """A weight in levels."""

    levels: NDArray[np.int32]
    step: float
    error: float
    """The mean squared error of the layer's outputs before the activation, summed over them."""
    bits: float
    """What levels and positions take with static tables of their frequencies."""

    @property
    def weight(self) -> NDArray[np.float32]:
        """What the decoder makes of them."""
        return self.levels.astype(np.float32) * np.float32(self.step)


@dataclass(frozen=True)
class _Bits:
    """How many bits a level takes."""

    zero: float
    kept: NDArray[np.float64]
    """By magnitude - 1, sign included."""

    def of(self, levels: NDArray[np.int32]) -> NDArray[np.float64]:
        magnitudes = np.abs(levels)
        return np.where(magnitudes == 0, self.zero, self.kept[np.maximum(magnitudes, 1) - 1])


def in_levels(weight: NDArray[np.float32], moments: Moments, count: int, price: float, way: Way) -> Levels:
    """A weight in this many levels on either side of zero.

    Args:
        weight: its zeros stay zeros.
        moments: of the inputs of its rows.
        price: what a bit costs, in units of the error.
    """
    largest = float(np.abs(weight).max(initial=0.0))
    step = float(np.float32(largest / count)) if largest else 1.0
    rows = np.asarray(weight, np.float64).reshape(len(weight), -1)
    levels = np.rint(rows / step).astype(np.int32)
    bits = _bits(levels, count)
    if way != "nearest":
        for _ in range(PASSES):
            rounded = _compensated if way == "compensated" else _cheapest
            levels = rounded(rows, moments, step, price, bits)
            bits = _bits(levels, count)
    error = _error(rows - levels * step, moments)
    total = float(np.sum(bits.of(levels)))
    return Levels(levels.reshape(weight.shape), step, error, total)


def _bits(levels: NDArray[np.int32], count: int) -> _Bits:
    kept = np.abs(levels[levels != 0])
    share = (len(kept) + 1) / (levels.size + 2)
    frequencies = np.bincount(kept, minlength=count + 2)[1:] + 0.5
    return _Bits(float(-np.log2(1 - share)), 1 - np.log2(share) - np.log2(frequencies / frequencies.sum()))


def _diagonal(moments: Moments) -> NDArray[np.float64]:
    return np.einsum("gkk->gk", moments) if moments.ndim == 3 else moments


def _error(difference: NDArray[np.float64], moments: Moments) -> float:
    rows = difference.reshape(len(moments), -1, difference.shape[1])
    if moments.ndim == 3:
        return float(np.einsum("gnk,gkl,gnl->", rows, moments, rows, optimize=True))
    return float(np.einsum("gnk,gk->", rows**2, moments))


def _cheapest(rows: NDArray[np.float64], moments: Moments, step: float, price: float, bits: _Bits) -> NDArray[np.int32]:
    """Each weight by itself, with the moment of its own input."""
    cost = np.repeat(_diagonal(moments), len(rows) // len(moments), axis=0)
    below = np.trunc(rows / step)
    candidates = np.stack([np.zeros_like(below), below, below + np.sign(rows)]).astype(np.int32)
    candidates = np.clip(candidates, -len(bits.kept), len(bits.kept))
    costs = cost * (rows - candidates * step) ** 2 + price * bits.of(candidates)
    best = np.argmin(costs, axis=0)
    return np.where(rows == 0, 0, np.take_along_axis(candidates, best[None], 0)[0]).astype(np.int32)


def _compensated(
    rows: NDArray[np.float64], moments: Moments, step: float, price: float, bits: _Bits
) -> NDArray[np.int32]:
    """Row by row, weight by weight; those that are still to come take over what an error is worth to them."""
    levels = _cheapest(rows, moments, step, price, bits)
    if moments.ndim != 3:
        return levels
    per_group = len(rows) // len(moments)
    for number, row in enumerate(rows):
        kept = np.flatnonzero(row)
        if 1 < len(kept) <= MOST_KEPT:
            own = moments[number // per_group][np.ix_(kept, kept)]
            levels[number, kept] = _row(row[kept], own, step, price, bits)
    return levels


def _row(
    weights: NDArray[np.float64], moments: NDArray[np.float64], step: float, price: float, bits: _Bits
) -> NDArray[np.int32]:
    damping = DAMPING * float(np.mean(np.diag(moments))) or 1.0
    inverse = np.linalg.inv(moments + damping * np.eye(len(weights)))
    left, levels = weights.copy(), np.zeros(len(weights), np.int32)
    most = len(bits.kept)
    for index in range(len(weights)):
        below = np.trunc(left[index] / step)
        tried = np.clip([0, below, below + np.sign(left[index])], -most, most).astype(np.int32)
        costs = (left[index] - tried * step) ** 2 / inverse[index, index] + price * bits.of(tried)
        levels[index] = tried[np.argmin(costs)]
        error = (left[index] - levels[index] * step) / inverse[index, index]
        left[index + 1 :] -= error * inverse[index + 1 :, index]
        inverse[index + 1 :, index + 1 :] -= (
            np.outer(inverse[index + 1 :, index], inverse[index, index + 1 :]) / inverse[index, index]
        )
    return levels
