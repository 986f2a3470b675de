"""Which of several networks are worth shipping: those to which no other is preferable in both respects at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from gossamer.choice.choice import Choice
from gossamer.loop.directions import Better, is_within


def front_of(costs: Sequence[float], values: Sequence[float], better: Better) -> set[int]:
    """The indices of the Pareto front: what is better than everything that costs less or as much."""
    sign = 1 if better == "higher" else -1
    best, kept = float("-inf"), set()
    # From the cheapest on; of equal costs the best one first.
    for index in sorted(range(len(costs)), key=lambda one: (costs[one], -sign * values[one])):
        if sign * values[index] > best:
            best = sign * values[index]
            kept.add(index)
    return kept


@dataclass(frozen=True)
class Point:
    """A form of a round, of all runs that differ only by their seed: medians."""

    group: str
    round: int
    form: str
    density: float
    milliseconds: float
    bytes: float
    value: float
    """The metric on validation."""
    low: float
    high: float
    """The least and the largest value of a run."""
    test: float | None
    runs: int
    on_front: bool = False

    @property
    def dense(self) -> bool:
        return self.form.startswith("dense")

    def name(self, *, with_group: bool) -> str:
        """Such as "sparse int8, 9.4% kept", with the group before it if there are several."""
        if self.dense:
            return self.form
        kept = f"{self.density:.2g}" if self.density < 1e-3 else f"{self.density:.1%}"
        return f"{self.group}: {self.form}, {kept} kept" if with_group else f"{self.form}, {kept} kept"


def points_of(choices: Sequence[Choice], better: Better, group_of: Callable[[Choice], str]) -> list[Point]:
    """The networks by group, round and form, each with whether it is on the front of milliseconds and validation.

    Args:
        group_of: what runs that differ only by their seed have in common.
    """
    grouped: dict[tuple[str, int, str], list[Choice]] = {}
    for choice in choices:
        grouped.setdefault((group_of(choice), choice.round, choice.form), []).append(choice)
    points = [_point(group, members) for (group, _, _), members in grouped.items()]
    kept = front_of([point.milliseconds for point in points], [point.value for point in points], better)
    return [replace(point, on_front=index in kept) for index, point in enumerate(points)]


def _point(group: str, members: Sequence[Choice]) -> Point:
    values = [choice.validation for choice in members]
    tests = [choice.test for choice in members if choice.test is not None]
    return Point(
        group,
        members[0].round,
        members[0].form,
        median(choice.density for choice in members),
        median(choice.milliseconds for choice in members),
        median(choice.bytes for choice in members),
        median(values),
        min(values),
        max(values),
        median(tests) if len(tests) == len(members) else None,
        len(members),
    )


def fastest_within(points: Sequence[Point], max_drop: float, better: Better) -> Point | None:
    """What to ship: the fastest network that loses at most so much of the metric on validation against the dense one
    in fp32 (the best of them, if there are several). None if there is no dense one."""
    sign = 1 if better == "higher" else -1
    dense = [point.value for point in points if point.form == "dense fp32"]
    if not dense:
        return None
    best = max(dense, key=lambda value: sign * value)
    fitting = [point for point in points if is_within(max_drop, best, point.value, better)]
    return min(fitting, key=lambda point: (point.milliseconds, -sign * point.value), default=None)
