"""How far two outputs are apart, and what of it rounding explains."""

import math
from typing import Any

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network, normal
from onnx import helper

from gossamer.export.agreement import Agreement, compare, compare_arrays
from gossamer.export.rounding import Rounding, _change, last_place, moved_inputs

node = helper.make_node
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ([1.0, 2.0], [1.5, 1.0], 1.0),
        ([math.inf, 1.0], [math.inf, 2.0], 1.0),
        ([math.inf, 1.0], [3.0, 1.0], math.inf),
        ([math.nan, 1.0], [math.nan, 1.25], 0.25),
        ([1.0], [math.nan], math.inf),
        ([], [], 0.0),
        ([True, False], [True, True], 1.0),
        (["a"], ["b"], 0.0),
    ],
)
def test_how_much_an_output_changed(before: list[Any], after: list[Any], change: float) -> None:
    assert _change(np.asarray(before), np.asarray(after)) == change


@pytest.mark.parametrize(
    ("expected", "got", "difference", "largest"),
    [
        ([1.0, -3.0], [1.5, -3.0], 0.5, 3.0),
        ([math.inf, 1.0], [math.inf, 1.0], 0.0, 1.0),
        ([math.inf, 1.0], [2.0, 1.0], math.inf, 1.0),
        ([math.nan, 1.0], [math.nan, 1.0], 0.0, 1.0),
        ([], [], 0.0, 0.0),
        ([1.0], [1.0, 1.0], math.inf, 0.0),
    ],
)
def test_how_far_two_arrays_are_apart(
    expected: list[float], got: list[float], difference: float, largest: float
) -> None:
    found = compare_arrays(np.asarray(expected), np.asarray(got))
    assert (found.difference, found.largest) == (difference, largest)


def test_a_number_that_is_none_is_never_alike() -> None:
    found = compare_arrays(np.asarray([1.0]), np.asarray([math.nan]))
    assert math.isnan(found.difference)
    assert not found.within
    assert Agreement(0.0, 0.0).within


def test_last_places() -> None:
    assert last_place(np.dtype(np.float32)) == 2**-23
    assert last_place(np.dtype(np.float16)) == 2**-10
    assert last_place(np.dtype(np.int64)) == 0.0


def test_whole_numbers_among_the_inputs_stay() -> None:
    feed = {"x": np.asarray([1.0, 0.5, 3.0, 0.1], np.float32), "k": np.asarray([1, 2]), "none": None}
    found = moved_inputs(feed)
    assert found["k"] is feed["k"]
    assert found["none"] is None
    assert (found["x"] == feed["x"]).tolist() == [True, False, True, False]
    np.testing.assert_allclose(found["x"], feed["x"], rtol=1.5 * 2**-23)


def doubled() -> onnx.ModelProto:
    """One output that follows its weight, and one that follows nothing."""
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("Sub", ["x", "x"], ["z"])]
    return network(nodes, {"x": ["n", 16]}, {"w": np.ones((16, 1), np.float32)}, ["y", "z"])


def test_what_rounding_explains_follows_the_terms_of_each_output() -> None:
    feed = {"x": np.full((1, 16), 0.75, np.float32)}
    rounding = Rounding(doubled(), [feed])
    changes = rounding.changes
    assert changes is not None
    # 16 terms of 0.75: each may be off by sqrt(16) last places, all of them to one side at the most.
    assert 0 < changes[0] <= 16 * 0.75 * 5 * 2**-22
    assert changes[1] == 0.0
    assert rounding.allowed(0, 12.0, np.dtype(np.float32)) == 5 * changes[0] + 4 * 2**-23 * 12
    assert rounding.allowed(1, 2.0, np.dtype(np.float32)) == 4 * 2**-23 * 2
    # Of more outputs than were seen, the last places alone.
    assert rounding.allowed(7, 2.0, np.dtype(np.float16)) == 4 * 2**-10 * 2 + 2**-14
    assert Rounding(doubled(), [feed], ["z"]).changes == [0.0]


def test_where_a_moved_network_does_not_run_a_share_is_allowed() -> None:
    model = network([node("Reshape", ["x", "s"], ["y"])], {"x": ["n", 16]}, {"s": np.asarray([4, 4])}, ["y"])
    rounding = Rounding(model, [{"x": normal(RNG, 2, 16)}])
    assert rounding.changes is None
    assert rounding.allowed(0, 3.0, np.dtype(np.float32)) == pytest.approx(3e-4)


def test_the_worst_of_all_outputs_and_inputs_is_told() -> None:
    def run(number: float) -> Any:
        return lambda feed: [np.asarray([feed["x"], 10.0]), np.asarray([1.0 + number * feed["x"]])]

    feeds = [{"x": np.asarray(value)} for value in (1.0, 2.0, 0.5)]
    found = compare(run(0.0), run(0.25), feeds)
    # The second output differs by 0.25 of 2.0, of 1.0; allowed is 1e-4 of its largest number.
    assert (found.difference, found.largest, found.within) == (0.5, 1.0, False)
    assert found.allowed == pytest.approx(1e-4)
    same = compare(run(0.0), run(0.0), feeds)
    assert (same.difference, same.within) == (0.0, True)
    shorter = compare(run(0.0), lambda feed: run(0.0)(feed)[:1], feeds)
    assert shorter.difference == math.inf
