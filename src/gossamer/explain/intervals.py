"""Intervals of 95% for what was measured on a sample."""

import math
from statistics import NormalDist

import torch
from torch import Tensor

LEVEL = 0.95
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""The quantile of a standard normal: 97.5% lie below."""

Interval = tuple[float, float]


def mean_change(before: Tensor, after: Tensor) -> Interval:
    """The interval of the mean of `after - before` over the examples of which these, shape (examples,), are a sample.

    For scores that are 0 or 1 (an accuracy) the adjusted Wald interval for matched pairs of Agresti and Min (2005),
    which has a width even if no example changed; otherwise mean plus and minus the normal quantile of standard errors.
    """
    change = after.double() - before.double()
    count = len(change)
    scores = torch.cat([before, after])
    if bool(((scores == 0) | (scores == 1)).all()):
        gained, lost = float((change > 0).sum()), float((change < 0).sum())
        middle = (gained - lost) / (count + 2)
        spread = math.sqrt(max(0.0, gained + lost + 1 - (gained - lost) ** 2 / (count + 2))) / (count + 2)
    else:
        middle = float(change.mean())
        spread = float(change.std()) / math.sqrt(count) if count > 1 else math.inf
    return middle - NORMAL_QUANTILE * spread, middle + NORMAL_QUANTILE * spread


def never_seen(examples: int) -> float:
    """Upper 95% limit of the share of examples that show something which none of `examples` showed."""
    return float(1 - (1 - LEVEL) ** (1 / examples))
