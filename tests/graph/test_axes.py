"""Open sizes of inputs: the batch becomes 1, the others what is said of them, by their names in the file."""

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network
from onnx import helper

from gossamer.errors import ConfigurationError
from gossamer.graph.axes import with_sizes

ADD = helper.make_node("Add", ["first", "second"], ["out"])


def two_inputs(first: list[int | str | None], second: list[int | str | None]) -> onnx.ModelProto:
    return network([ADD], {"first": first, "second": second}, {}, ["out"])  # type: ignore[dict-item]


def sizes_of(model: onnx.ModelProto) -> list[list[int]]:
    return [[axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in model.graph.input]


def test_a_name_stands_for_one_size_wherever_it_occurs() -> None:
    model = two_inputs(["batch", "tokens", 8], ["batch", "tokens", "features"])
    fixed = with_sizes(model, {"features": 8, "tokens": 5})
    assert sizes_of(fixed) == [[1, 5, 8], [1, 5, 8]]
    # The given model stays as it is.
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "tokens"


def test_sizes_without_names_are_named_by_their_input_and_axis() -> None:
    model = two_inputs([None, None, 8], [1, None, 8])
    assert sizes_of(with_sizes(model, {"first.1": 3, "second.1": 3})) == [[1, 3, 8], [1, 3, 8]]
    with pytest.raises(ConfigurationError, match=r"first\.1, second\.1; say them with --size first\.1=NUMBER"):
        with_sizes(model)


def test_zero_and_less_stand_for_open_sizes() -> None:
    model = two_inputs([-1, 0, 8], [-1, 0, 8])
    assert sizes_of(with_sizes(model, {"first.1": 2, "second.1": 2})) == [[1, 2, 8], [1, 2, 8]]


def test_what_is_fixed_stays() -> None:
    model = two_inputs([4, 5, 8], [4, 5, 8])
    assert with_sizes(model) == model
    with pytest.raises(ConfigurationError, match=r"no open size 'tokens'; it leaves none open$"):
        with_sizes(model, {"tokens": 5})


def test_the_name_of_the_batch_is_one_everywhere() -> None:
    assert sizes_of(with_sizes(two_inputs(["n", 8], [8, "n"]))) == [[1, 8], [8, 1]]


def test_an_initializer_that_is_an_input_too_is_no_open_size() -> None:
    model = network([ADD], {"first": [3], "second": ["n"]}, {"second": np.ones(3, np.float32)}, ["out"])
    assert with_sizes(model) == model
