"""Constants of a graph, and what is said of weights that are none of a sparse layer."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network, normal, sparse_weight
from onnx import TensorProto, helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph, array_of, constants_of
from gossamer.graph.layers import OTHER_BIAS, why_no_layer

node = helper.make_node
RNG = np.random.default_rng(0)


def test_a_constant_in_another_file_is_not_read() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    with pytest.raises(ExportError, match=r"the constant w lies in another file; onnx\.load reads such files too"):
        array_of(tensor)


def test_a_damaged_constant_is_named() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], raw_data=b"12345678")
    with pytest.raises(ExportError, match="the constant w is damaged"):
        array_of(tensor)


@pytest.mark.parametrize(
    ("attribute", "value", "dtype"),
    [
        ("value_float", 0.5, np.float32),
        ("value_floats", [0.5, 2.0], np.float32),
        ("value_int", 3, np.int64),
        ("value_ints", [3, 4], np.int64),
    ],
)
def test_constants_in_every_way_that_onnx_has(attribute: str, value: object, dtype: type[np.generic]) -> None:
    graph = helper.make_graph([node("Constant", [], ["c"], **{attribute: value})], "test", [], [])
    (tensor,) = constants_of(graph).values()
    found = array_of(tensor)
    assert found.dtype == dtype
    assert found.tolist() == value


def test_what_no_array_holds_is_no_constant() -> None:
    graph = helper.make_graph([node("Constant", [], ["c"], value_string="text")], "test", [], [])
    assert constants_of(graph) == {}


def test_constants_become_initializers_and_unread_ones_go() -> None:
    """A Constant node stays where no array holds it, unless nobody reads it."""
    weight = normal(RNG, 4, 3)
    nodes = [
        node("Constant", [], ["unread"], value_string="text"),
        node("Constant", [], ["w"], value=numpy_helper.from_array(weight, "its own name")),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    found = prepared(network(nodes, {"x": ["n", 4]}, {"idle": weight}, ["y"]))
    assert [entry.op_type for entry in found.graph.node] == ["MatMul"]
    (tensor,) = found.graph.initializer
    assert tensor.name == "w"
    assert np.array_equal(numpy_helper.to_array(tensor), weight)


REASONS: dict[str, tuple[onnx.NodeProto, list[int | str], Mapping[str, np.ndarray], str | None]] = {
    "another bias": (
        node("Conv", ["x", "w", "b"], ["y"]),
        ["n", 4, 5, 5],
        {"w": sparse_weight(RNG, 8, 4, 3, 3), "b": np.zeros(8, np.float64)},
        OTHER_BIAS,
    ),
    "negative padding": (
        node("Conv", ["x", "w"], ["y"], pads=[-1, 0, 0, 0]),
        ["n", 4, 5, 5],
        {"w": sparse_weight(RNG, 8, 4, 3, 3)},
        "a negative padding, stride or dilation has no sparse op",
    ),
    "no padding": (
        node("Conv", ["x", "w"], ["y"], pads=[0, 0, 0, 0]),
        ["n", 4, 5, 5],
        {"w": sparse_weight(RNG, 8, 4, 3, 3)},
        None,
    ),
    "a factor": (
        node("Gemm", ["x", "w"], ["y"], alpha=2.0),
        ["n", 4],
        {"w": sparse_weight(RNG, 4, 8)},
        "its factor is not yet multiplied into its weight",
    ),
    "axes": (
        node("Gemm", ["x", "w"], ["y"]),
        ["n", 4],
        {"w": sparse_weight(RNG, 1, 4, 8)},
        "a weight of 3 axes has no sparse op",
    ),
    "another bias of Gemm": (
        node("Gemm", ["x", "w", "b"], ["y"]),
        ["n", 4],
        {"w": sparse_weight(RNG, 4, 8), "b": np.zeros((5, 8), np.float32)},
        OTHER_BIAS,
    ),
    "empty": (node("MatMul", ["x", "w"], ["y"]), ["n", 0], {"w": np.zeros((0, 8), np.float32)}, "its weight is empty"),
    "no weight": (node("MatMul", ["x", "x"], ["y"]), [4, 4], {}, None),
    "another op": (node("Relu", ["x"], ["y"]), [4, 4], {}, None),
}


@pytest.mark.parametrize("kind", REASONS)
def test_why_a_weight_is_none_of_a_layer(kind: str) -> None:
    made, shape, constants, reason = REASONS[kind]
    found = why_no_layer(Graph(network([made], {"x": shape}, constants, ["y"])), 0)
    assert found == reason
