"""The smallest file is not chosen by luck with single examples."""

import math
from collections.abc import Callable

import pytest

from gossamer.export.levels import Way
from gossamer.export.price_search import PriceSearch, Tried, smoothed


def tried(score: float, error: float, size: float = 0.0) -> Tried:
    return Tried("rate", 0.0, score, error, size)


def search(score: Callable[[float], float], least: float) -> PriceSearch:
    """One for a metric of at least so much; a bit dearer, a byte less, and as much more error."""
    return PriceSearch(
        lambda way, price: Tried(way, price, score(price), price, 1000 - price), lambda found: found >= least, "higher"
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0, 4.0, 3.0], [5.0, 4.0, 3.0]),
        # 2 and 4 are in the wrong order: 3 for both. With another 4 behind them all three are 10 / 3.
        ([5.0, 2.0, 4.0], [5.0, 3.0, 3.0]),
        ([5.0, 2.0, 4.0, 4.0], [5.0, 10 / 3, 10 / 3, 10 / 3]),
    ],
)
def test_a_smoothed_metric_never_gets_better_with_the_error(scores: list[float], expected: list[float]) -> None:
    by_error = [tried(score, error) for error, score in enumerate(scores)]
    assert smoothed(by_error, "higher") == pytest.approx(expected)
    assert smoothed(by_error[::-1], "higher") == pytest.approx(expected[::-1])
    turned = [tried(-score, error) for error, score in enumerate(scores)]
    assert smoothed(turned, "lower") == pytest.approx([-score for score in expected])


def test_what_is_no_number_stays_out_of_it() -> None:
    found = smoothed([tried(5, 0), tried(math.nan, 1), tried(6, 2), tried(-math.inf, 3), tried(9, math.nan)], "higher")
    assert found[0] == found[2] == 5.5
    assert math.isnan(found[1])
    assert found[3:] == [-math.inf, 9]
    assert smoothed([], "lower") == []


def test_halving_comes_as_near_as_asked() -> None:
    found = search(lambda price: 10 - price, least=7)
    highest = found.halve("rate", 0, 8, 0.01)
    best = found.smallest()
    assert best is not None
    assert best.price == highest
    assert 2.99 <= best.price <= 3
    assert len(found.tried) == 10


def test_a_lucky_price_is_left_for_one_whose_neighbours_agree() -> None:
    """At 3 one example more happens to be right; at all of its neighbours from 2.9 on the loss is too large."""
    found = search(lambda price: 7.0 if price == 3 or price < 2.89 else 6.0, least=7)
    found.halve("rate", 2, 4, 0.5)
    lucky = found.smallest()
    assert lucky is not None
    assert lucky.price == 3
    found.look_around()
    best = found.smallest()
    assert best is not None
    assert best.price == pytest.approx(2.85)


def test_an_unlucky_price_does_not_hide_what_is_behind_it() -> None:
    """Halving meets one price that is by chance just too low, and turns back; its neighbours are within the limit."""
    found = search(lambda price: 6.99 if price == 3 else 7.5 if price < 3.1 else 6.0, least=7)
    found.halve("rate", 2.9, 3.1, 0.03)
    found.look_around()
    best = found.smallest()
    assert best is not None
    assert best.price == pytest.approx(3.075, abs=0.03)


def test_a_way_whose_errors_are_larger_is_not_the_smallest_by_luck() -> None:
    """The smallest is of a way with ten times the error; networks with less error than it are beyond the limit."""

    def at(way: Way, price: float) -> Tried:
        if way == "nearest":
            return Tried(way, price, 7.1 if price == 1 else 0.0, 30.0, 500.0)
        return Tried(way, price, 10 - price, price, 1000 - price)

    found = PriceSearch(at, lambda score: score >= 7, "higher")
    found.halve("nearest", 0, 2, 1)
    found.halve("rate", 0, 8, 0.5)
    found.look_around()
    best = found.smallest()
    assert best is not None
    assert (best.way, best.price) == ("rate", pytest.approx(3))
    # By itself it still is the best of its way.
    assert found.smallest("nearest") == Tried("nearest", 1.0, 7.1, 30.0, 500.0)


def test_one_that_nothing_agrees_with_is_better_than_none() -> None:
    found = search(lambda price: 7.0 if price == 3 else 0.0, least=7)
    found.halve("rate", 2, 4, 0.5)
    found.look_around()
    best = found.smallest()
    assert best is not None
    assert best.price == 3


def test_nothing_is_looked_at_around_nothing() -> None:
    found = search(lambda price: 0.0, least=7)
    assert found.halve("rate", 0, 1, 0.5) is None
    found.look_around()
    assert found.smallest() is None
    assert len(found.tried) == 1
