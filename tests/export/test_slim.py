"""What the smallest file says of a network's axes, and of what it was measured at."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gossamer.export.int8 import Scores
from gossamer.export.slim import slim
from gossamer.export.smallest import Smallest


def network(*axes: tuple[str | int, ...]) -> onnx.ModelProto:
    """The sum of inputs of these axes."""
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(axes)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, axes[0])
    graph = helper.make_graph(
        [helper.make_node("Sum", [f"x{i}" for i in range(len(axes))], ["y"])], "g", inputs, [output]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def axes_of(value: onnx.ValueInfoProto) -> list[Any]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (("batch", 3), ["b", 3]),
        (("batch", "sequence"), ["b", "s"]),
        (("batch", "bands", "b"), ["bat", "ban", "b"]),
        (("n", "n_heads", "n"), ["n", "n_", "n"]),
        (("", 4), [0, 4]),
    ],
)
def test_open_axes_are_called_by_as_few_letters_as_tell_them_apart(
    axes: tuple[str | int, ...], expected: list[Any]
) -> None:
    model = network(axes, axes)
    slimmed = slim(model, {})
    onnx.checker.check_model(slimmed, full_check=True)
    assert [axes_of(value) for value in (*slimmed.graph.input, *slimmed.graph.output)] == [expected] * 3
    # The one that was given is as it was.
    assert axes_of(model.graph.input[0]) == [axis if axis != "" else 0 for axis in axes]


def test_one_line_says_what_it_was_measured_at() -> None:
    accuracy = {"validation": Scores("accuracy", 0.99, 0.9812), "test": Scores("accuracy", 0.985, 0.98)}
    for scores, words in (
        (accuracy, "accuracy: validation 0.99 -> 0.9812, test 0.985 -> 0.98"),
        ({"validation": Scores("loss", 1.5, 1.625)}, "loss: validation 1.5 -> 1.625"),
    ):
        assert Smallest(onnx.ModelProto(), {}, "", scores).facts() == {"gossamer": words}
    assert Smallest(onnx.ModelProto(), {}, "").facts() == {}


def test_branches_and_bodies_still_run() -> None:
    """Names that two branches have alike, that a branch reads from around it, and that a loop hands on."""
    rng = np.random.default_rng(0)
    value, flag = helper.make_tensor_value_info, TensorProto.BOOL
    turn = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Add", ["sum", "inner"], ["sums"])],
        "turn",
        [value("number", TensorProto.INT64, []), value("go_on", flag, []), value("sum", TensorProto.FLOAT, [None, 4])],
        [value("goes_on", flag, []), value("sums", TensorProto.FLOAT, [None, 4])],
    )
    then = helper.make_graph(
        [helper.make_node("Loop", ["three", "", "inner"], ["chosen"], body=turn)],
        "then",
        [],
        [value("chosen", TensorProto.FLOAT, [None, 4])],
    )
    otherwise = helper.make_graph(
        [helper.make_node("Neg", ["inner"], ["chosen"])], "else", [], [value("chosen", TensorProto.FLOAT, [None, 4])]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["inner"]),
            helper.make_node("If", ["which"], ["y"], then_branch=then, else_branch=otherwise),
        ],
        "outer",
        [value("x", TensorProto.FLOAT, ["n", 4]), value("which", flag, [])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(3), "three")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    session = onnxruntime.InferenceSession(slim(model, {}).SerializeToString(), providers=["CPUExecutionProvider"])
    x = rng.standard_normal((2, 4)).astype(np.float32)
    for which, times in ((True, 4), (False, -1)):
        (got,) = session.run(None, {"x": x, "which": np.asarray(which)})
        np.testing.assert_allclose(got, times * np.maximum(x, 0), rtol=1e-6)
