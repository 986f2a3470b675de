"""Graphs in few bytes: attributes that say what is meant without them, and shapes that Flatten needs none of."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gossamer.export.defaults import without_defaults
from gossamer.export.flattened import flattened

IMAGE = np.random.default_rng(0).standard_normal((3, 2, 9, 9), dtype=np.float32)


def model_of(
    nodes: list[onnx.NodeProto], shape: list[int | str], opset: int = 17, **constants: np.ndarray[Any, Any]
) -> onnx.ModelProto:
    """From `x` to `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def computed(model: onnx.ModelProto, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": image})
    return np.asarray(output)


def test_only_attributes_that_are_meant_anyway_are_left_out() -> None:
    spread = {"dilations": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0], "auto_pad": "NOTSET"}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], group=1, **spread),
        helper.make_node("Conv", ["a", "v"], ["b"], kernel_shape=[3, 3], group=2, **{**spread, "pads": [1, 0, 0, 1]}),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], ceil_mode=0, storage_order=0, **spread),
        helper.make_node(
            "AveragePool", ["c"], ["d"], kernel_shape=[2, 2], ceil_mode=1, count_include_pad=1, strides=[2, 1]
        ),
        helper.make_node("LeakyRelu", ["d"], ["e"], alpha=0.01),
        helper.make_node("LeakyRelu", ["e"], ["y"], alpha=0.02),
    ]
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((4, 2, 3, 3), dtype=np.float32),
        "v": rng.standard_normal((4, 2, 3, 3), dtype=np.float32),
    }
    model = model_of(nodes, [3, 2, 9, 9], **weights)
    light = without_defaults(model)
    assert [{entry.name for entry in node.attribute} for node in light.graph.node] == [
        {"kernel_shape"},
        {"kernel_shape", "group", "pads"},
        {"kernel_shape"},
        {"kernel_shape", "ceil_mode", "count_include_pad", "strides"},
        set(),
        {"alpha"},
    ]
    np.testing.assert_array_equal(computed(light, IMAGE), computed(model, IMAGE))


def test_what_is_required_stays_though_it_is_zero() -> None:
    """In opset 2 the widths of Pad are an attribute, and the first poolings say nothing about strides left out."""
    nodes = [
        helper.make_node("Pad", ["x"], ["a"], pads=[0] * 8),
        helper.make_node("AveragePool", ["a"], ["y"], kernel_shape=[2, 2], strides=[1, 1]),
    ]
    light = without_defaults(model_of(nodes, [3, 2, 9, 9], opset=9))
    assert [{entry.name for entry in node.attribute} for node in light.graph.node] == [
        {"pads"},
        {"kernel_shape", "strides"},
    ]


@pytest.mark.parametrize(
    ("batch", "asked", "rows"),
    [
        (3, [3, -1], True),
        (3, [-1, 162], True),
        ("n", [-1, 162], True),
        ("n", [0, -1], True),
        ("n", [0, 162], True),
        # As many columns as the number of images makes.
        ("n", [3, -1], False),
        (3, [-1, 81], False),
        (3, [6, 81], False),
        ("n", [-1, 81], False),
        (3, [3, 2, 81], False),
    ],
)
def test_reshape_to_rows_is_flatten(batch: int | str, asked: list[int], rows: bool) -> None:
    nodes = [helper.make_node("Reshape", ["x", "asked"], ["y"])]
    model = model_of(nodes, [batch, 2, 9, 9], asked=np.array(asked, dtype=np.int64))
    light = flattened(model)
    assert [node.op_type for node in light.graph.node] == ["Flatten" if rows else "Reshape"]
    assert len(light.graph.initializer) == (0 if rows else 1)
    np.testing.assert_array_equal(computed(light, IMAGE), computed(model, IMAGE))


def test_a_zero_that_is_meant_and_a_shape_that_others_read() -> None:
    """With allowzero a 0 is no size of the input; a constant stays while anybody reads it."""
    shape = np.array([-1, 162], dtype=np.int64)
    nodes = [
        helper.make_node("Constant", [], ["asked"], value=numpy_helper.from_array(shape)),
        helper.make_node("Reshape", ["x", "asked"], ["rows"], allowzero=1),
        helper.make_node("Cast", ["asked"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["sizes"], ["most"], keepdims=0),
        helper.make_node("Add", ["rows", "most"], ["y"]),
    ]
    model = model_of(nodes, ["n", 2, 9, 9])
    light = flattened(model)
    assert [node.op_type for node in light.graph.node] == ["Constant", "Flatten", "Cast", "ReduceMax", "Add"]
    np.testing.assert_array_equal(computed(light, IMAGE), computed(model, IMAGE))
    asked = helper.make_node("Reshape", ["x", "asked"], ["y"], allowzero=1)
    empty = model_of([asked], ["n", 2, 9, 9], asked=np.array([0, 162], dtype=np.int64))
    assert [node.op_type for node in flattened(empty).graph.node] == ["Reshape"]
