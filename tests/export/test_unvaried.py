"""Outputs that are the same whatever the input."""

import numpy as np
import pytest

from gossamer.export.unvaried import Unvaried

NAN = float("nan")


@pytest.mark.parametrize(
    ("batches", "value"),
    [
        ([], None),
        ([[[0.0, 0.0], [0.0, 0.0]]], "all 0.0"),
        ([[[0.5, 0.5]], [[0.5, 0.5]]], "all 0.5"),
        ([[[1.0, 2.0], [1.0, 2.0]]], "the same for every example"),
        ([[[1.0, 2.0]], [[1.0, 2.0]]], "the same for every example"),
        ([[[1.0, 2.0]], [[1.0, 3.0]]], None),
        ([[[1.0, 2.0], [1.0, 3.0]]], None),
        ([[[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 2.0]]], None),
        # Of one example nothing can be said, unless all of its numbers are one.
        ([[[1.0, 2.0]]], None),
        ([[[3.0, 3.0]]], "all 3.0"),
        ([[[3.0]]], None),
        ([[[0.0]]], "all 0.0"),
        ([[[3.0], [3.0]]], "all 3.0"),
        ([[[NAN, NAN]], [[NAN, NAN]]], "all nan"),
        ([[[], []]], "empty"),
        ([[[1.0, 1.0]], [[1.0, 1.0, 1.0]]], None),
    ],
)
def test_what_an_output_always_is(batches: list[list[list[float]]], value: str | None) -> None:
    seen = Unvaried()
    for batch in batches:
        seen.see(np.asarray(batch))
    assert seen.value() == value


def test_numbers_without_axes_and_whole_numbers() -> None:
    seen = Unvaried()
    for _ in range(2):
        seen.see(np.asarray(2))
    assert seen.value() == "all 2"
    seen.see(np.asarray(3))
    assert seen.value() is None
