"""How many weights are left after each round, against lists written by hand and Python's fractions."""

from fractions import Fraction
from itertools import islice, pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.arguments import as_written
from gossamer.errors import ConfigurationError, NothingToPruneError
from gossamer.loop.plan import Plan
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut


def test_the_densities_of_the_paper() -> None:
    # Of 10^10 weights 0.8^10 is a whole number: nothing is rounded here.
    assert list(Plan(10**10, rounds=10)) == [
        10_000_000_000,
        8_000_000_000,
        6_400_000_000,
        5_120_000_000,
        4_096_000_000,
        3_276_800_000,
        2_621_440_000,
        2_097_152_000,
        1_677_721_600,
        1_342_177_280,
        1_073_741_824,
    ]


def test_a_hundred_weights_to_95_percent() -> None:
    # 100, 80, 64, 51.2, 40.96, 32.768, 26.2144, 20.97, 16.78, 13.42, 10.74, 8.59, 6.87, 5.50, 4.4 -> the target's 5
    assert list(Plan(100, target_sparsity=0.95)) == [100, 80, 64, 52, 41, 33, 27, 21, 17, 14, 11, 9, 7, 6, 5]


def test_the_last_round_lands_on_the_target_and_not_below_it() -> None:
    assert list(Plan(1000, target_sparsity=0.3)) == [1000, 800, 700]
    assert list(Plan(1000, target_sparsity=0.2)) == [1000, 800]
    assert list(Plan(1000, target_sparsity=0.1)) == [1000, 900]


def test_a_target_that_a_round_meets_exactly_needs_no_further_round() -> None:
    assert list(Plan(1000, target_sparsity=0.488)) == [1000, 800, 640, 512]


@pytest.mark.parametrize(
    ("prunable", "target", "smallest"),
    [
        # In binary floating point 1 - 0.95 is 0.050000000000000044, and 100 times that rounds up to 6.
        (100, 0.95, 5),
        (1000, 0.9, 100),
        (10, 0.3, 7),
        (10, 0.1, 9),
        (10**15, 0.7, 3 * 10**14),
        (30, 0.9, 3),
        (3, 0.9, 1),
    ],
)
def test_a_target_is_read_as_the_decimal_that_was_typed(prunable: int, target: float, smallest: int) -> None:
    assert list(Plan(prunable, target_sparsity=target))[-1] == smallest


@pytest.mark.parametrize(
    ("per_round", "kept"), [(0.1, [1000, 900, 810, 729]), (0.3, [1000, 700, 490, 343]), (0.7, [1000, 300, 90, 27])]
)
def test_a_share_per_round_is_read_as_the_decimal_that_was_typed(per_round: float, kept: list[int]) -> None:
    assert list(Plan(1000, per_round, rounds=3)) == kept


def test_decimals_are_read_exactly() -> None:
    assert as_written(0.1) == Fraction(1, 10)
    assert as_written(0.95) == Fraction(19, 20)
    assert as_written(1e-05) == Fraction(1, 100_000)
    assert as_written(3) == 3


def test_a_number_of_rounds_counts_the_cuts() -> None:
    assert list(Plan(100, rounds=1)) == [100, 80]
    assert list(Plan(100, rounds=2)) == [100, 80, 64]


def test_the_earlier_of_target_and_number_of_rounds_ends_the_plan() -> None:
    assert list(Plan(100, target_sparsity=0.95, rounds=2)) == [100, 80, 64]
    assert list(Plan(100, target_sparsity=0.3, rounds=20)) == [100, 80, 70]


def test_without_a_target_it_ends_at_the_last_weight() -> None:
    assert list(Plan(4)) == [4, 4, 3, 3, 2, 2, 2, 1]


def test_one_shot() -> None:
    assert list(Plan(1000, per_round=0.9, target_sparsity=0.9)) == [1000, 100]


shares = st.decimals(min_value="0.01", max_value="0.99", places=3)


@given(prunable=st.integers(2, 10**12), share=shares, target=shares)
def test_every_count_is_the_formula_in_exact_fractions(prunable: int, share: Fraction, target: Fraction) -> None:
    share, target = Fraction(share), Fraction(target)
    smallest = ceil(prunable * (1 - target))
    if smallest == prunable:
        with pytest.raises(NothingToPruneError):
            Plan(prunable, float(share), float(target))
        return
    counts = list(islice(Plan(prunable, float(share), float(target)), 3000))
    for number, kept in enumerate(counts):
        assert kept == max(ceil(prunable * (1 - share) ** number), smallest)
    assert counts[0] == prunable
    assert counts[-1] == smallest
    assert all(after <= before for before, after in pairwise(counts))
    assert smallest not in counts[:-1]


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5, float("nan"), float("inf"), 20])
def test_a_share_outside_0_to_1_is_refused_with_its_value(share: float) -> None:
    with pytest.raises(ConfigurationError, match=f"per_round is {share}; expected"):
        Cut(per_round=share)
    with pytest.raises(ConfigurationError, match=f"target_sparsity is {share}; expected"):
        Stop(target_sparsity=share)


@pytest.mark.parametrize("rounds", [0, -1])
def test_fewer_than_one_round_is_refused(rounds: int) -> None:
    with pytest.raises(ConfigurationError, match=f"rounds is {rounds}; expected at least 1"):
        Stop(rounds=rounds)


def test_a_target_that_rounds_to_no_weight_at_all_is_refused() -> None:
    with pytest.raises(NothingToPruneError, match=r"target_sparsity 0.009 of 100 weights rounds to no weight"):
        Plan(100, target_sparsity=0.009)
    assert list(Plan(100, target_sparsity=0.01)) == [100, 99]
