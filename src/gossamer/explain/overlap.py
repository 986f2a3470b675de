"""How much two tickets have in common, against chance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gossamer.errors import ConfigurationError
from gossamer.explain.intervals import LEVEL, NORMAL_QUANTILE, Interval
from gossamer.prune.masks import Masks

HOW = (
    "Two tickets are compared position by position. By chance, given how many weights each keeps in a layer, the "
    "number kept by both is hypergeometric; chance is its exact interval of 95% for a layer, and for all layers "
    "together the sum's normal approximation. Hidden units have no fixed positions: two networks that are alike up "
    "to the order of their units share no more than chance, except where inputs and outputs fix the positions."
)


@dataclass(frozen=True)
class Shared:
    """The weights that two tickets both keep, of one layer or of all."""

    weights: int
    kept: int
    """The number that the first keeps."""
    kept_other: int
    """The number that the second keeps."""
    both: int
    expected: float
    """The overlap by chance: kept * kept_other / weights, summed over the layers."""
    chance: Interval
    """What chance gives in 95% of cases."""

    @property
    def jaccard(self) -> float:
        """Shared by both / kept by either."""
        either = self.kept + self.kept_other - self.both
        return self.both / either if either else 1.0


@dataclass(frozen=True)
class Overlap:
    """Two tickets compared."""

    other: str
    """Name of the other run."""
    other_round: int
    other_seed: int | None
    total: Shared
    layers: dict[str, Shared]
    how: str = HOW


def compare_tickets(masks: Masks, other: Masks, *, name: str, number: int, seed: int | None) -> Overlap:
    """Compares two tickets of one architecture.

    Args:
        name, number, seed: of the other run.

    Raises:
        ConfigurationError: they are of different networks.
    """
    if {key: mask.shape for key, mask in masks.items()} != {key: mask.shape for key, mask in other.items()}:
        raise ConfigurationError(
            f"{name} is a run of another network or scope: its prunable weights differ; expected runs of the same task"
        )
    layers = {
        key: _shared(mask.numel(), int(mask.sum()), int(other[key].sum()), int((mask & other[key]).sum()))
        for key, mask in masks.items()
    }
    return Overlap(name, number, seed, _total(layers), layers)


def _shared(weights: int, kept: int, kept_other: int, both: int) -> Shared:
    expected = kept * kept_other / weights
    return Shared(weights, kept, kept_other, both, expected, hypergeometric_interval(weights, kept, kept_other))


def _total(layers: Mapping[str, Shared]) -> Shared:
    expected = sum(shared.expected for shared in layers.values())
    deviation = math.sqrt(sum(_variance(shared) for shared in layers.values()))
    reach = NORMAL_QUANTILE * deviation
    return Shared(
        sum(shared.weights for shared in layers.values()),
        sum(shared.kept for shared in layers.values()),
        sum(shared.kept_other for shared in layers.values()),
        sum(shared.both for shared in layers.values()),
        expected,
        (expected - reach, expected + reach),
    )


def _variance(shared: Shared) -> float:
    """The variance of the hypergeometric distribution (scipy's is not a number for one weight)."""
    weights, kept, other = shared.weights, shared.kept, shared.kept_other
    if weights == 1:
        return 0.0
    return kept * other * (weights - kept) * (weights - other) / (weights**2 * (weights - 1))


def hypergeometric_interval(weights: int, kept: int, kept_other: int) -> tuple[int, int]:
    """The numbers between which the overlap of two random choices of `kept` and `kept_other` out of `weights` lies in
    95% of cases: the largest and smallest below and above which there are at most 2.5% each."""
    # It takes a second, which those who compare no tickets need not wait.
    from scipy.stats import hypergeom

    low, high = hypergeom.interval(LEVEL, weights, kept, kept_other)
    return int(low), int(high)
