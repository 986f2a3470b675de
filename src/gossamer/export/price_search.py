"""The smallest network within an allowed loss, by how its weights are rounded and by what a bit of them costs.

A measured metric goes up and down by single examples. Whatever is the smallest of many that are just within the limit
got there partly by luck, and loses more on other examples. So all that were tried have a say: only those count whose
metric is within the limit, and is so too when it is made to fall with the error of the outputs, by least squares over
all of them (isotonic regression, Barlow et al. 1972).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import isotonic_regression

from gossamer.export.levels import Way
from gossamer.loop.directions import Better

SPACING, NEIGHBOURS = 0.05, 4
"""Powers of ten between prices that are looked at around the best, and how many on either side."""


@dataclass(frozen=True)
class Tried:
    """What comes of a way to round and a price."""

    way: Way
    price: float
    """The power of ten that a bit costs."""
    score: float
    """The metric on the split that decides."""
    error: float
    """The squared error of the outputs, as a share of their squares."""
    size: float
    """Bytes of weights, about."""


@dataclass
class PriceSearch:
    """Looks for the smallest that is within the limit.

    Args:
        at: what comes of a way to round and a price, given as its power of ten.
        is_allowed: whether a metric is within the limit.
        better: which metrics are.
    """

    at: Callable[[Way, float], Tried]
    is_allowed: Callable[[float], bool]
    better: Better
    tried: dict[tuple[Way, float], Tried] = field(default_factory=dict)

    def halve(self, way: Way, low: float, high: float, finest: float) -> float | None:
        """Looks between two prices for the highest one that is within the limit, down to a distance; None: none was."""
        found = None
        while high - low > finest:
            middle = (low + high) / 2
            if self.is_allowed(self._look(way, middle).score):
                found = low = middle
            else:
                high = middle
        return found

    def look_around(self) -> None:
        """Looks at the neighbours of the smallest, until it is one whose neighbours were looked at."""
        looked: set[Way] = set()
        while (best := self.smallest()) is not None and best.way not in looked:
            looked.add(best.way)
            for number in range(-NEIGHBOURS, NEIGHBOURS + 1):
                self._look(best.way, best.price + number * SPACING)

    def smallest(self, way: Way | None = None) -> Tried | None:
        """The smallest one within the limit of which all others say so too, or else by itself; None: there is none.

        Args:
            way: the only one that counts; None: all do.
        """
        tried = list(self.tried.values())
        allowed = [self.is_allowed(one.score) for one in tried]
        agreed = [
            both and self.is_allowed(score) for both, score in zip(allowed, smoothed(tried, self.better), strict=True)
        ]
        for chosen in (agreed, allowed):
            found = [one for one, good in zip(tried, chosen, strict=True) if good and way in (None, one.way)]
            if found:
                return min(found, key=lambda one: one.size)
        return None

    def _look(self, way: Way, price: float) -> Tried:
        if (way, price) not in self.tried:
            self.tried[way, price] = self.at(way, price)
        return self.tried[way, price]


def smoothed(tried: Sequence[Tried], better: Better) -> list[float]:
    """The metrics, nearest to what was measured, that nowhere get better as the error rises; where either is no number,
    as it was measured.
    """
    scores = [one.score for one in tried]
    order = [index for index in np.argsort([one.error for one in tried], kind="stable") if _is_finite(tried[index])]
    if order:
        fitted = isotonic_regression([scores[index] for index in order], increasing=better == "lower").x
        for index, score in zip(order, fitted, strict=True):
            scores[index] = float(score)
    return scores


def _is_finite(one: Tried) -> bool:
    return bool(np.isfinite(one.score) and np.isfinite(one.error))
