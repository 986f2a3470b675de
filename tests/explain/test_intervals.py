"""Intervals and chance, against exact fractions and simulation."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import ConfigurationError
from gossamer.explain.intervals import mean_change, never_seen
from gossamer.explain.overlap import compare_tickets, hypergeometric_interval


def test_an_unchanged_accuracy_still_has_an_interval() -> None:
    low, high = mean_change(torch.ones(100), torch.ones(100))
    # Agresti and Min: 1.96 * sqrt(1) / 102.
    assert (low, high) == (pytest.approx(-1.959964 / 102), pytest.approx(1.959964 / 102))


def test_the_interval_of_matched_pairs() -> None:
    before = torch.tensor([1.0] * 60 + [0.0] * 40)
    after = torch.tensor([0.0] * 10 + [1.0] * 50 + [1.0] * 2 + [0.0] * 38)
    low, high = mean_change(before, after)
    middle, spread = -8 / 102, (13 - 64 / 102) ** 0.5 / 102
    assert (low, high) == (pytest.approx(middle - 1.959964 * spread), pytest.approx(middle + 1.959964 * spread))


def test_the_interval_covers_the_truth_in_about_95_percent_of_samples() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        before = generator.random(200) < 0.9
        after = np.where(before, generator.random(200) < 0.9, generator.random(200) < 0.2)
        low, high = mean_change(torch.from_numpy(before).float(), torch.from_numpy(after).float())
        covered += low <= 0.9 * 0.9 + 0.1 * 0.2 - 0.9 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_scores_that_are_no_shares_have_a_normal_interval() -> None:
    change = torch.tensor([1.0, 2.0, 3.0, 4.0])
    low, high = mean_change(torch.zeros(4), change)
    half = 1.959964 * float(change.std()) / 2
    assert (low, high) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))


def test_never_seen_is_the_rule_of_three() -> None:
    assert never_seen(1000) == pytest.approx(3 / 1000, rel=0.01)


@given(
    weights=st.integers(1, 300),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_hypergeometric_interval_by_counting(weights: int, shares: tuple[float, float]) -> None:
    kept, other = (round(share * weights) for share in shares)
    low, high = hypergeometric_interval(weights, kept, other)
    cases = [
        Fraction(comb(kept, both) * comb(weights - kept, other - both), comb(weights, other))
        for both in range(other + 1)
    ]
    assert sum(cases[:low]) <= 0.025 + 1e-9
    assert sum(cases[high + 1 :]) <= 0.025 + 1e-9
    assert sum(cases[: low + 1]) > 0.025 - 1e-9
    assert sum(cases[high:]) > 0.025 - 1e-9


def test_tickets_by_hand() -> None:
    one = {"a": torch.tensor([[True, True, False, False]]), "b": torch.tensor([True, False])}
    two = {"a": torch.tensor([[True, False, True, False]]), "b": torch.tensor([True, False])}
    overlap = compare_tickets(one, two, name="other", number=3, seed=1)
    assert (overlap.layers["a"].both, overlap.layers["a"].expected) == (1, 1.0)
    assert (overlap.layers["b"].both, overlap.layers["b"].expected) == (1, 0.5)
    assert (overlap.total.both, overlap.total.kept, overlap.total.expected) == (2, 3, 1.5)
    # 2 of 4 and 2: the overlap is 0, 1, 2 with 1/6, 4/6, 1/6; 1 of 2 and 1: 0 or 1 with 1/2.
    assert overlap.total.chance[1] == pytest.approx(1.5 + 1.959964 * (1 / 3 + 1 / 4) ** 0.5)
    assert overlap.total.jaccard == 0.5


def test_random_tickets_share_what_chance_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = [{"a": torch.rand(100, 100, generator=generator) < 0.05} for _ in range(2)]
    total = compare_tickets(masks[0], masks[1], name="other", number=1, seed=None).total
    assert total.chance[0] <= total.both <= total.chance[1]


def test_tickets_of_different_networks_are_refused() -> None:
    one, two = {"a": torch.ones(2, dtype=torch.bool)}, {"a": torch.ones(3, dtype=torch.bool)}
    with pytest.raises(ConfigurationError, match="another network"):
        compare_tickets(one, two, name="other", number=1, seed=None)
