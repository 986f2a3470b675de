"""A layer's weights as integer levels of one step, chosen by what they cost: error against bits.

Rounding that looks at the bits is rate-distortion-optimised quantisation; rounding of which each error is made good by
the row's other weights is the Optimal Brain Surgeon's (Hassibi and Stork 1993), used for quantisation by Frantar and
Alistarh (Optimal Brain Compression, 2022). Both weigh an error by the second moments of the layer's inputs.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gossamer.export.coded import short_step
from gossamer.export.moments import Moments

Way = Literal["nearest", "rate", "compensated", "sequential", "trained"]
WAYS: tuple[Way, ...] = ("nearest", "rate", "compensated", "sequential")
"""Ways to round, each with what those before it do: to the nearest level; to the one that costs least, error and bits;
with what is left of the row making the error good; one layer after the other, each making good what those before it
changed (`gossamer.export.sequential`). "trained" rounds nothing that is in levels already."""
FINEST = 64
LEVELS: tuple[int, ...] = (64, 48, 32, 24, 16, 12, 10, 8, 7, 6, 5, 4, 3, 2)
"""Levels on either side of zero that are tried."""
SWEEPS = 4
"""Times at most that the levels of a row are looked at again, each with all others as they are."""
MOST_LIKELY = 0.9
"""A weight is taken to be kept with at most this probability."""
DAMPING = 0.01
"""The share of the mean moment that is added to each, so that inputs that are always 0 or alike can be inverted."""
MOST_KEPT, MOST_OF_LAYER = 512, 2**17
"""Kept weights of a row, and of a layer, up to which its errors are made good."""
PASSES = 2
"""Times that the numbers of bits follow from the levels, and these from them."""


@dataclass(frozen=True)
class Levels:
    """A weight in levels."""

    levels: NDArray[np.int32]
    step: float
    error: float
    """The mean squared error of the layer's outputs before the activation, each times its importance, summed over
    them."""
    bits: float
    """What levels and positions take, about."""
    bias_step: float = 1.0
    """That of the layer's bias."""

    @property
    def weight(self) -> NDArray[np.float32]:
        """What the decoder makes of them."""
        return self.levels.astype(np.float32) * np.float32(self.step)


@dataclass(frozen=True)
class _Bits:
    """How many bits a level takes, as the coder would learn it: positions by how full their row and column are."""

    zero: NDArray[np.float64]
    kept: NDArray[np.float64]
    """By position."""
    sizes: NDArray[np.float64]
    """By magnitude - 1, sign included; added to those of the position."""

    def of(self, levels: NDArray[np.int32]) -> NDArray[np.float64]:
        magnitudes = np.abs(levels)
        return np.where(magnitudes == 0, self.zero, self.kept + self.sizes[np.maximum(magnitudes, 1) - 1])

    def of_row(self, row: int, columns: NDArray[np.intp]) -> "_Bits":
        """Those of some weights of a row."""
        return _Bits(self.zero[row, columns], self.kept[row, columns], self.sizes)

    def at(self, price: float) -> "_Bits":
        """What they cost at so much a bit."""
        return _Bits(price * self.zero, price * self.kept, price * self.sizes)


def in_levels(
    weight: NDArray[np.float32],
    moments: Moments,
    count: int,
    price: float,
    way: Way,
    importance: NDArray[np.float64] | None = None,
) -> Levels:
    """A weight in this many levels on either side of zero.

    Args:
        weight: its zeros stay zeros.
        moments: of the inputs of its rows.
        price: what a bit costs, in units of the error.
        importance: of each row, a factor of its squared error; None: 1.
    """
    largest = float(np.abs(weight).max(initial=0.0))
    step = short_step(largest / count)
    rows = np.asarray(weight, np.float64).reshape(len(weight), -1)
    weighed = np.ones(len(rows)) if importance is None else importance
    # In units of the row's own error.
    prices = np.where(weighed > 0, price / np.maximum(weighed, 1e-300), np.inf if price else 0.0)
    levels = np.rint(rows / step).astype(np.int32)
    bits = _bits(levels, count)
    if way != "nearest":
        for _ in range(PASSES):
            rounded = _compensated if way == "compensated" else _cheapest
            levels = rounded(rows, moments, step, prices, bits)
            bits = _bits(levels, count)
    error = _error((rows - levels * step) * np.sqrt(weighed)[:, None], moments)
    total = float(np.sum(bits.of(levels)))
    return Levels(levels.reshape(weight.shape), step, error, total)


def own_levels(weight: NDArray[np.float32]) -> Levels | None:
    """The levels of a weight whose numbers are whole multiples, exactly, of one step, at most `FINEST` on either side
    of zero, as a round that was trained in levels leaves them; None if they are not."""
    magnitudes = np.unique(np.abs(weight[weight != 0]))
    if len(magnitudes) > FINEST or not np.isfinite(magnitudes).all():
        return None
    ratios = [float(magnitude).as_integer_ratio() for magnitude in magnitudes]
    denominator = max((below for _, below in ratios), default=1)
    numbers = [above * (denominator // below) for above, below in ratios]
    divisor = math.gcd(*numbers) or 1
    count = max(numbers, default=0) // divisor
    if count > FINEST:
        return None
    step = divisor / denominator
    if short_step(step) != step:
        return None
    rows = np.rint(np.asarray(weight, np.float64) / step).astype(np.int32).reshape(len(weight), -1)
    return Levels(rows.reshape(weight.shape), step, 0.0, float(np.sum(_bits(rows, max(1, count)).of(rows))))


def _bits(levels: NDArray[np.int32], count: int) -> _Bits:
    kept = levels != 0
    in_rows, in_columns = kept.sum(axis=1) + 0.5, kept.sum(axis=0) + 0.5
    share = np.minimum(np.outer(in_rows, in_columns) / (kept.sum() + 0.5), MOST_LIKELY)
    frequencies = np.bincount(np.abs(levels[kept]), minlength=count + 2)[1:] + 0.5
    return _Bits(-np.log2(1 - share), -np.log2(share), 1 - np.log2(frequencies / frequencies.sum()))


def _diagonal(moments: Moments) -> NDArray[np.float64]:
    return np.einsum("gkk->gk", moments) if moments.ndim == 3 else moments


def _error(difference: NDArray[np.float64], moments: Moments) -> float:
    rows = difference.reshape(len(moments), -1, difference.shape[1])
    if moments.ndim == 3:
        return float(np.einsum("gnk,gkl,gnl->", rows, moments, rows, optimize=True))
    return float(np.einsum("gnk,gk->", rows**2, moments))


def _cheapest(
    rows: NDArray[np.float64], moments: Moments, step: float, prices: NDArray[np.float64], bits: _Bits
) -> NDArray[np.int32]:
    """Each weight by itself, with the moment of its own input."""
    cost = np.repeat(_diagonal(moments), len(rows) // len(moments), axis=0)
    below = np.trunc(rows / step)
    candidates = np.stack([np.zeros_like(below), below, below + np.sign(rows)]).astype(np.int32)
    candidates = np.clip(candidates, -len(bits.sizes), len(bits.sizes))
    worth = np.minimum(prices, 1e300)[:, None]
    costs = cost * (rows - candidates * step) ** 2 + worth * bits.of(candidates)
    best = np.argmin(costs, axis=0)
    return np.where(rows == 0, 0, np.take_along_axis(candidates, best[None], 0)[0]).astype(np.int32)


def _compensated(
    rows: NDArray[np.float64], moments: Moments, step: float, prices: NDArray[np.float64], bits: _Bits
) -> NDArray[np.int32]:
    """Row by row, weight by weight; those that are still to come take over what an error is worth to them."""
    levels = _cheapest(rows, moments, step, prices, bits)
    if moments.ndim != 3 or np.count_nonzero(rows) > MOST_OF_LAYER:
        return levels
    per_group = len(rows) // len(moments)
    for number, row in enumerate(rows):
        kept = np.flatnonzero(row)
        if 0 < len(kept) <= MOST_KEPT and np.isfinite(prices[number]):
            own = moments[number // per_group][np.ix_(kept, kept)]
            levels[number, kept] = _row(row[kept], own, step, bits.of_row(number, kept).at(prices[number]))
    return levels


def _row(weights: NDArray[np.float64], moments: NDArray[np.float64], step: float, costs: _Bits) -> NDArray[np.int32]:
    """The levels of one row's weights.

    Args:
        costs: what bits cost of them.
    """
    damping = DAMPING * float(np.mean(np.diag(moments))) or 1.0
    inverse = np.linalg.inv(moments + damping * np.eye(len(weights)))
    left, levels = weights.copy(), np.zeros(len(weights), np.int32)
    for index in range(len(weights)):
        scale = 1 / inverse[index, index]
        levels[index] = _level(left[index], scale, step, costs, index)
        error = (left[index] - levels[index] * step) * scale
        left[index + 1 :] -= error * inverse[index + 1 :, index]
        inverse[index + 1 :, index + 1 :] -= np.outer(inverse[index + 1 :, index], inverse[index, index + 1 :]) * scale
    return _settled(weights, levels, moments, step, costs)


def _settled(
    weights: NDArray[np.float64],
    levels: NDArray[np.int32],
    moments: NDArray[np.float64],
    step: float,
    costs: _Bits,
) -> NDArray[np.int32]:
    """The levels, each the cheapest with all others as they are."""
    pull = moments @ (weights - levels * step)
    for _ in range(SWEEPS):
        changed = False
        for index in range(len(weights)):
            own = moments[index, index]
            wanted = levels[index] * step + (pull[index] / own if own > 0 else 0.0)
            new = _level(wanted, own, step, costs, index)
            if new != levels[index]:
                pull -= moments[index] * ((new - levels[index]) * step)
                levels[index] = new
                changed = True
        if not changed:
            break
    return levels


def _level(weight: float, moment: float, step: float, costs: _Bits, index: int) -> int:
    """The cheapest of 0 and the two nearest levels, of the weight in a place of its row."""
    sizes = costs.sizes
    best, cheapest = 0, moment * weight**2 + costs.zero[index]
    below = min(int(abs(weight) / step), len(sizes))
    sign = 1 if weight > 0 else -1
    for magnitude in (below, below + 1):
        if 0 < magnitude <= len(sizes):
            cost = moment * (weight - sign * magnitude * step) ** 2 + costs.kept[index] + sizes[magnitude - 1]
            if cost < cheapest:
                best, cheapest = sign * magnitude, cost
    return best
