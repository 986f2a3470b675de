"""What a finished comparison says: medians, the largest compression without loss, paired differences."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtrit

from gossamer.loop.directions import Better

SAME_DENSITY = 0.02
"""Densities of two methods that differ by at most this share of the larger one are compared with one another: one-shot
cuts and rounds may differ by a weight, whole channels by some."""
HIGH_COMPRESSION = 10.0
"""From here on the differences are also averaged over all densities."""
CHOSEN = " (t by validation)"
"""Behind the name of a family of which several retraining times were tried."""


@dataclass(frozen=True)
class Point:
    """One round of one run."""

    method: str
    family: str
    """The method without its retraining time."""
    seed: int
    round: int
    """0 is the dense network."""
    density: float
    kept: int
    prunable: int
    val: float
    test: float
    seconds: float
    asked_density: float | None = None
    """What a one-shot run was to cut to, whatever it came to; None for the dense network, and in iterative runs."""

    @property
    def compression(self) -> float:
        return self.prunable / self.kept

    @property
    def place(self) -> tuple[int, float | None]:
        """What a method's networks of several seeds have in common, though with whole channels they may keep different
        numbers of weights."""
        return self.round, self.asked_density


@dataclass(frozen=True)
class Spread:
    """The spread of one measurement with several seeds."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        values = sorted(values)
        return cls(statistics.median(values), values[0], values[-1], len(values))


@dataclass(frozen=True)
class Row:
    """One method after one round (in one shot: at one density that was asked for)."""

    method: str
    density: float
    compression: float
    """Density and compression are medians over the seeds, as the metrics are."""
    val: Spread
    test: Spread


@dataclass(frozen=True)
class Largest:
    """The smallest network of a method that is no worse than the dense one, by the medians over the seeds.

    Only its own median counts: larger networks of the method, between it and the dense one, may be worse than dense.
    """

    method: str
    compression: float
    """As validation chooses it; 1 if no pruned network is as good."""
    val: float
    test: float
    """Median of the chosen network."""
    compression_by_test: float
    """The largest at which the median on test is no worse than dense: told, not chosen."""


@dataclass(frozen=True)
class Difference:
    """How much better the reference does than another method on test, seed by seed: positive is for the reference."""

    reference: str
    other: str
    compression: float | None
    """The compression of the other method. None: the mean over all densities from `HIGH_COMPRESSION`
    on, seed by seed."""
    reference_compression: float | None
    """The reference's compression: the same, or more where the reference was not tried at this density. None like
    `compression`."""
    mean: float
    low: float
    high: float
    """Limits of the 95% interval of the mean (Student's t over the seeds); infinite with one seed."""
    seeds: int


def rows(points: Sequence[Point]) -> list[Row]:
    """Every method after every round, methods in their order, from dense to sparse."""
    return [
        Row(
            method,
            _density(group),
            _compression(group),
            Spread.of(point.val for point in group),
            Spread.of(point.test for point in group),
        )
        for method in dict.fromkeys(point.method for point in points)
        for group in _over_seeds(point for point in points if point.method == method)
    ]


def with_choice_of_time(points: Sequence[Point], better: Better) -> list[Point]:
    """Adds, for each family with several retraining times, the one that is best on validation after each round (by the
    median over the seeds), as the paper does."""
    everything = list(points)
    families: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        families[point.family].append(point)
    for family, members in families.items():
        if len({point.method for point in members}) < 2:
            continue
        for group in _over_seeds(members):
            medians = {
                method: statistics.median(point.val for point in group if point.method == method)
                for method in dict.fromkeys(point.method for point in group)
            }
            best = max(medians, key=lambda method: _goodness(medians[method], better))
            name = family + CHOSEN
            everything += [replace(point, method=name, family=name) for point in group if point.method == best]
    return everything


def largest_without_loss(table: Sequence[Row], better: Better) -> list[Largest]:
    """For each method, the most compressed row no worse than its dense one."""
    found = []
    for method in dict.fromkeys(row.method for row in table):
        own = [row for row in table if row.method == method]
        dense = min(own, key=lambda row: row.compression)
        by_val = _smallest_as_good(own, [row.val.median for row in own], dense.val.median, better)
        by_test = _smallest_as_good(own, [row.test.median for row in own], dense.test.median, better)
        found.append(Largest(method, by_val.compression, by_val.val.median, by_val.test.median, by_test.compression))
    return found


def differences(points: Sequence[Point], better: Better) -> list[Difference]:
    """The first method against each other one, with the same seed: at every density of the other, and on average.

    Where the reference was not tried at the same density, its next smaller network stands for it: it keeps fewer
    weights than the other, never more than within `SAME_DENSITY`.
    """
    methods = list(dict.fromkeys(point.method for point in points))
    if not methods:
        return []
    reference, *others = methods
    found = []
    for other in others:
        pairs = [
            (first, second, _paired(first, second, better))
            for first, second in _no_denser(points, reference, other)
            if _compression(second) > 1
        ]
        pairs = [(first, second, values) for first, second, values in pairs if values]
        found += [
            _difference(reference, other, _compression(second), _compression(first), values.values())
            for first, second, values in pairs
        ]
        sparse = [values for _, second, values in pairs if _compression(second) >= HIGH_COMPRESSION]
        seeds = set.intersection(*(set(values) for values in sparse)) if sparse else set()
        if seeds:
            means = [statistics.mean(values[seed] for values in sparse) for seed in sorted(seeds)]
            found.append(_difference(reference, other, None, None, means))
    return found


def _no_denser(points: Sequence[Point], reference: str, other: str) -> list[tuple[list[Point], list[Point]]]:
    """For each network of `other`, from dense to sparse, that of `reference` at the same density, else the densest that
    keeps less."""
    first = _over_seeds(point for point in points if point.method == reference)
    second = _over_seeds(point for point in points if point.method == other)
    of_first, of_second = [_density(group) for group in first], [_density(group) for group in second]
    partners = partners_by_density(of_second, of_first)
    found = []
    for index, density in enumerate(of_second):
        smaller = [place for place, its in enumerate(of_first) if its <= density]
        if index in partners or smaller:
            found.append((first[partners[index] if index in partners else smaller[0]], second[index]))
    return found


def partners_by_density(densities: Sequence[float], others: Sequence[float]) -> dict[int, int]:
    """Which of two methods' networks are compared: those of (nearly) the same density, the nearest first, each with one
    other at most. Index in `densities` -> index in `others`; who has no partner is left out."""
    pairs = sorted(
        (abs(density - other), index, place)
        for index, density in enumerate(densities)
        for place, other in enumerate(others)
        if is_same_density(density, other)
    )
    found: dict[int, int] = {}
    for _, index, place in pairs:
        if index not in found and place not in found.values():
            found[index] = place
    return found


def is_same_density(density: float, other: float) -> bool:
    """Whether networks of two methods may be compared."""
    return min(density, other) >= max(density, other) * (1 - SAME_DENSITY)


def _paired(first: Sequence[Point], second: Sequence[Point], better: Better) -> dict[int, float]:
    """The differences by which the first points are better, by seed."""
    of = {point.seed: _goodness(point.test, better) for point in first}
    return {point.seed: of[point.seed] - _goodness(point.test, better) for point in second if point.seed in of}


def _over_seeds(points: Iterable[Point]) -> list[list[Point]]:
    """Points of a method with those of the same round together, from dense to sparse."""
    groups: dict[tuple[int, float | None], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.place].append(point)
    return sorted(groups.values(), key=_density, reverse=True)


def _density(group: Sequence[Point]) -> float:
    return statistics.median(point.density for point in group)


def _compression(group: Sequence[Point]) -> float:
    return statistics.median(point.compression for point in group)


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the limits of its 95% interval by Student's t; infinite for one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _smallest_as_good(table: Sequence[Row], medians: Sequence[float], dense: float, better: Better) -> Row:
    as_good = [
        row for row, median in zip(table, medians, strict=True) if _goodness(median, better) >= _goodness(dense, better)
    ]
    return max(as_good, key=lambda row: row.compression)


def _difference(
    reference: str,
    other: str,
    compression: float | None,
    reference_compression: float | None,
    values: Iterable[float],
) -> Difference:
    values = list(values)
    mean, low, high = mean_with_interval(values)
    return Difference(reference, other, compression, reference_compression, mean, low, high, len(values))


def _goodness(value: float, better: Better) -> float:
    return value if better == "higher" else -value
