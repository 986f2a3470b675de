"""Which networks are on the front, and which one to ship, against fronts read off by hand."""

from dataclasses import replace

import numpy as np
import pytest

from gossamer.choice.choice import Choice
from gossamer.choice.front import fastest_within, front_of, points_of

DENSE = Choice("a", 0, "dense fp32", 1.0, 8.0, 400, 0.95, 0.94)


def test_the_front_by_hand() -> None:
    # Worse than a faster one; as good as a faster one; as fast as a better one; the others are on the front.
    assert front_of([5, 1, 4, 2, 2], [0.7, 0.8, 0.9, 0.9, 0.85], "higher") == {1, 3}
    # Of a loss, less is better.
    assert front_of([5, 1, 4, 2, 2], [0.7, 0.8, 0.9, 0.9, 0.85], "lower") == {0, 1}
    assert front_of([], [], "higher") == set()


def test_a_network_is_on_the_front_if_no_other_is_preferable() -> None:
    rng = np.random.default_rng(0)
    costs, values = rng.integers(0, 9, 60).astype(float), rng.integers(0, 9, 60).astype(float)
    front = front_of(list(costs), list(values), "higher")

    def preferable(one: int, other: int) -> bool:
        as_good = costs[one] <= costs[other] and values[one] >= values[other]
        return bool(as_good and (costs[one] < costs[other] or values[one] > values[other]))

    best = [index for index in range(60) if not any(preferable(other, index) for other in range(60))]
    # Of networks that are the same in both respects one stands for all.
    assert {(costs[index], values[index]) for index in best} == {(costs[index], values[index]) for index in front}
    assert len(front) == len({(costs[index], values[index]) for index in front})


def test_runs_that_differ_by_seed_only_are_one_point() -> None:
    seeds = [
        replace(DENSE, run=f"seed-{n}", round=2, form="sparse int8", density=0.1, milliseconds=ms, validation=value)
        for n, (ms, value) in enumerate([(2.0, 0.93), (3.0, 0.95), (2.5, 0.90)])
    ]
    points = points_of([DENSE, *seeds, replace(seeds[0], test=None, round=3)], "higher", lambda choice: choice.run[:4])
    dense, medians, other = points
    assert (medians.group, medians.runs, medians.milliseconds) == ("seed", 3, 2.5)
    assert (medians.low, medians.value, medians.high, medians.test) == (0.90, 0.93, 0.95, 0.94)
    assert other.test is None
    assert [point.on_front for point in points] == [True, False, True]
    assert medians.name(with_group=True) == "seed: sparse int8, 10.0% kept"
    assert dense.name(with_group=True) == "dense fp32"


@pytest.mark.parametrize(("max_drop", "expected"), [(0.0, 6.0), (0.01, 4.0), (0.02, 4.0), (0.05, 1.0), (0.5, 1.0)])
def test_the_fastest_within_a_loss(max_drop: float, expected: float) -> None:
    values = {6.0: 0.95, 4.0: 0.94, 2.0: 0.92, 1.0: 0.90}
    choices = [
        replace(DENSE, round=n, form="sparse fp32", density=0.1, milliseconds=time, validation=value)
        for n, (time, value) in enumerate(values.items(), 1)
    ]
    points = points_of([DENSE, *choices], "higher", lambda choice: choice.run)
    found = fastest_within(points, max_drop, "higher")
    assert found is not None
    assert found.milliseconds == expected
    # Of a loss: what is less is better.
    turned = points_of(
        [replace(one, validation=1 - one.validation) for one in (DENSE, *choices)], "lower", lambda choice: choice.run
    )
    again = fastest_within(turned, max_drop, "lower")
    assert again is not None
    assert again.milliseconds == expected
    assert fastest_within(points[1:], max_drop, "higher") is None
