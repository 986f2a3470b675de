"""The smallest file is not chosen by luck with single examples."""

import math
from collections.abc import Callable, Mapping

import pytest

from gossamer.export.price_search import PriceSearch, Tried, smoothed


def search(score: Callable[[float], float], least: float) -> PriceSearch:
    """One for a metric of at least so much, that counts how often it measures; a bit dearer, a byte less."""
    return PriceSearch(lambda price: Tried(price, score(price), 1000 - price), lambda found: found >= least, "higher")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({0.0: 5.0, 1.0: 4.0, 2.0: 3.0}, {0.0: 5.0, 1.0: 4.0, 2.0: 3.0}),
        # 2 and 4 are in the wrong order: 3 for both. Then 5, 3, 3 and 4 are as well: 10 / 3.
        ({0.0: 5.0, 1.0: 2.0, 2.0: 4.0}, {0.0: 5.0, 1.0: 3.0, 2.0: 3.0}),
        ({3.0: 4.0, 0.0: 5.0, 1.0: 2.0, 2.0: 4.0}, {0.0: 5.0, 1.0: 10 / 3, 2.0: 10 / 3, 3.0: 10 / 3}),
    ],
)
def test_a_smoothed_metric_never_rises(scores: Mapping[float, float], expected: Mapping[float, float]) -> None:
    assert smoothed(scores, "higher") == pytest.approx(expected)
    turned = smoothed({price: -score for price, score in scores.items()}, "lower")
    assert turned == pytest.approx({price: -score for price, score in expected.items()})


def test_what_is_no_number_stays_out_of_it() -> None:
    found = smoothed({0.0: 5.0, 1.0: math.nan, 2.0: 6.0, 3.0: -math.inf}, "higher")
    assert (found[0.0], found[2.0], found[3.0]) == (5.5, 5.5, -math.inf)
    assert math.isnan(found[1.0])
    assert smoothed({}, "lower") == {}


def test_halving_comes_as_near_as_asked() -> None:
    found = search(lambda price: 10 - price, least=7)
    found.halve(0, 8, 0.01)
    assert found.best is not None
    assert 2.99 <= found.best.price <= 3
    assert len(found.tried) == 10


def test_a_lucky_price_is_left_for_one_whose_neighbours_agree() -> None:
    """At 3 one example more happens to be right; at all of its neighbours from 2.9 on the loss is too large."""
    found = search(lambda price: 7.0 if price == 3 or price < 2.89 else 6.0, least=7)
    found.halve(2, 4, 0.5)
    assert found.best is not None
    assert found.best.price == 3
    found.look_around()
    assert found.best.price == pytest.approx(2.85)


def test_an_unlucky_price_does_not_hide_what_is_behind_it() -> None:
    """Halving meets one price that is by chance just too low, and turns back; its neighbours are within the limit."""
    found = search(lambda price: 6.99 if price == 3 else 7.5 if price < 3.1 else 6.0, least=7)
    found.halve(2.9, 3.1, 0.03)
    assert found.best is not None
    assert found.best.price < 3
    found.look_around()
    assert found.best.price == pytest.approx(3.075, abs=0.03)


def test_one_that_nothing_agrees_with_is_better_than_none() -> None:
    found = search(lambda price: 7.0 if price == 3 else 0.0, least=7)
    found.halve(2, 4, 0.5)
    found.look_around()
    assert found.best is not None
    assert found.best.price == 3


def test_nothing_is_looked_at_around_nothing() -> None:
    found = search(lambda price: 0.0, least=7)
    found.halve(0, 1, 0.5)
    found.look_around()
    assert found.best is None
    assert len(found.tried) == 1
