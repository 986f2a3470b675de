"""The smallest network within an allowed loss, by what a bit of its weights costs.

A measured metric goes up and down by single examples. Whatever is the smallest of many that are just within the limit
got there partly by luck, and loses more on other examples. So its neighbours, a little finer and a little coarser, have
a say: only prices count at which the metric, made to fall with the price by least squares (isotonic regression, Barlow
et al. 1972), is within the limit too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import isotonic_regression

from gossamer.loop.directions import Better

SPACING, NEIGHBOURS = 0.05, 4
"""Powers of ten between prices that are looked at around the best, and how many on either side."""


@dataclass(frozen=True)
class Tried:
    """What comes of a price."""

    price: float
    """The power of ten that a bit costs."""
    score: float
    """The metric on the split that decides."""
    size: float
    """Bytes of weights, about."""


@dataclass
class PriceSearch:
    """Looks for the smallest that is within the limit.

    Args:
        at: what comes of a price, given as its power of ten.
        is_allowed: whether a metric is within the limit.
        better: which metrics are.
    """

    at: Callable[[float], Tried]
    is_allowed: Callable[[float], bool]
    better: Better
    tried: dict[float, Tried] = field(default_factory=dict)
    """By price."""

    def halve(self, low: float, high: float, finest: float) -> None:
        """Looks between two prices for the highest one that is within the limit, down to a distance."""
        while high - low > finest:
            middle = (low + high) / 2
            if self.is_allowed(self._look(middle).score):
                low = middle
            else:
                high = middle

    def look_around(self) -> None:
        """Looks at the neighbours of the best."""
        best = self.best
        if best is not None:
            for number in range(-NEIGHBOURS, NEIGHBOURS + 1):
                self._look(best.price + number * SPACING)

    @property
    def best(self) -> Tried | None:
        """The smallest one within the limit whose neighbours say so too, or else by itself; None: there is none."""
        within = [one for one in self.tried.values() if self.is_allowed(one.score)]
        fitted = smoothed({price: one.score for price, one in self.tried.items()}, self.better)
        agreed = [one for one in within if self.is_allowed(fitted[one.price])]
        return min(agreed or within, key=lambda one: one.size, default=None)

    def _look(self, price: float) -> Tried:
        if price not in self.tried:
            self.tried[price] = self.at(price)
        return self.tried[price]


def smoothed(scores: Mapping[float, float], better: Better) -> dict[float, float]:
    """The metric by price, nearest to what was measured, that nowhere gets better as the price rises; what is no number
    stays as it is.
    """
    prices = sorted(price for price, score in scores.items() if np.isfinite(score))
    if not prices:
        return dict(scores)
    fitted = isotonic_regression([scores[price] for price in prices], increasing=better == "lower").x
    return dict(scores) | dict(zip(prices, map(float, fitted), strict=True))
