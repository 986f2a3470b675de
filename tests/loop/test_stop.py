"""Where max_drop stops, on records written by hand."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import ConfigurationError
from gossamer.loop.record import RoundRecord
from gossamer.loop.stop import Better, Stop


def records(values: list[float | None], metric: str = "accuracy") -> list[RoundRecord]:
    return [
        RoundRecord(
            round=number,
            density=0.8**number,
            kept=1000 - number,
            prunable=1000,
            parameters=1000,
            val=value,
            test=None,
            metric=metric if value is not None else None,
            seconds=0.0,
            lr_rewound_to=None,
            weights_rewound_to=None,
            seed=None,
            metrics={},
            sha256={},
        )
        for number, value in enumerate(values)
    ]


def stops_at(
    values: list[float | None], max_drop: float, metric: str = "accuracy", better: Better | None = None
) -> int:
    return Stop(max_drop=max_drop, better=better).recommended(records(values, metric)).round


def test_the_smallest_network_within_the_allowed_loss() -> None:
    assert stops_at([0.9, 0.91, 0.89, 0.85], 0.01) == 2
    assert stops_at([0.9, 0.80], 0.01) == 0
    assert stops_at([0.9, 0.91, 0.92], 0.01) == 2


def test_a_later_round_that_recovers_counts() -> None:
    assert stops_at([0.9, 0.85, 0.9], 0.01) == 2


def test_the_loss_is_compared_in_decimals() -> None:
    # In binary floating point 0.95 - 0.94 is 0.010000000000000009.
    assert stops_at([0.95, 0.94], 0.01) == 1
    assert stops_at([0.95, 0.9399999], 0.01) == 0
    assert stops_at([0.3, 0.2], 0.1) == 1


def test_no_loss_at_all_may_be_allowed() -> None:
    assert stops_at([0.9, 0.9, 0.8999], 0) == 1


def test_of_an_error_or_a_loss_less_is_better() -> None:
    assert stops_at([0.10, 0.11, 0.12], 0.01, "error") == 1
    assert stops_at([2.0, 1.5, 2.05, 2.2], 0.1, "loss") == 2


def test_the_direction_may_be_said_and_then_holds() -> None:
    assert stops_at([0.10, 0.11, 0.12], 0.01, "surprise", "lower") == 1
    assert stops_at([0.10, 0.08, 0.12], 0.01, "surprise", "higher") == 2
    assert stops_at([0.10, 0.08], 0.01, "surprise", "higher") == 0
    assert stops_at([0.10, 0.08], 0.01, "loss", "higher") == 0


def test_an_unknown_metric_without_a_direction_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"higher or a lower 'surprise' is better.*known: accuracy"):
        stops_at([0.1, 0.2], 0.01, "surprise")
    with pytest.raises(ConfigurationError, match="'surprise'"):
        Stop(max_drop=0.01, metric="surprise")


def test_a_round_without_a_metric_cannot_be_judged() -> None:
    with pytest.raises(ConfigurationError, match="round 1 recorded no metric"):
        stops_at([0.9, None], 0.01)


def test_without_an_allowance_the_last_round_is_the_one() -> None:
    assert Stop().recommended(records([0.9, 0.1, None])).round == 2


@pytest.mark.parametrize("max_drop", [-0.01, float("nan"), float("inf"), -float("inf")])
def test_an_allowed_loss_that_is_none_is_refused(max_drop: float) -> None:
    with pytest.raises(ConfigurationError, match=f"max_drop is {max_drop}; expected the allowed loss"):
        Stop(max_drop=max_drop)


def test_a_direction_must_be_higher_or_lower() -> None:
    with pytest.raises(ConfigurationError, match="better is 'up'; expected 'higher' or 'lower'"):
        Stop(max_drop=0.01, better="up")  # type: ignore[arg-type]


@given(
    dense=st.decimals(0, 100, places=3),
    pruned=st.lists(st.decimals(0, 100, places=3), min_size=1, max_size=6),
    allowed=st.decimals(0, 5, places=3),
    better=st.sampled_from(["higher", "lower"]),
)
def test_it_equals_exact_decimal_arithmetic(
    dense: Decimal, pruned: list[Decimal], allowed: Decimal, better: Better
) -> None:
    sign = 1 if better == "higher" else -1
    expected = max([0] + [number for number, value in enumerate(pruned, 1) if sign * (dense - value) <= allowed])
    assert stops_at([float(dense), *map(float, pruned)], float(allowed), "m", better) == expected
