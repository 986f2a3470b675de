"""A sparse file looked at layer by layer, each with one thing wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network, normal, sparse_weight
from gossamer_runtime import weights
from onnx import helper, numpy_helper

from gossamer.export.costs import EverythingSparse
from gossamer.export.layer_checks import first_wrong_layer
from gossamer.export.rewrite import rewrite

node = helper.make_node
RNG = np.random.default_rng(0)
WEIGHT = sparse_weight(RNG, 32, 16, 3, 3)

pytestmark = pytest.mark.usefixtures("native_library")


def dense() -> onnx.ModelProto:
    constants = {"w": WEIGHT, "b": normal(RNG, 32), "c": normal(RNG, 32)}
    nodes = [node("Conv", ["x", "w", "b"], ["a"]), node("Relu", ["a"], ["r"]), node("Add", ["r", "c0"], ["y"])]
    constants["c0"] = constants.pop("c").reshape(32, 1, 1)
    return network(nodes, {"x": ["n", 16, 8, 8]}, constants, ["y"])


def packed_of(model: onnx.ModelProto) -> onnx.TensorProto:
    (layer,) = [entry for entry in model.graph.node if entry.op_type == "SparseConv"]
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == layer.input[1]]
    return tensor


def put(tensor: onnx.TensorProto, packed: bytes) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.frombuffer(packed, np.uint8), tensor.name))


def not_stored(model: onnx.ModelProto) -> None:
    packed = packed_of(model)
    value = helper.make_tensor_value_info(packed.name, packed.data_type, list(packed.dims))
    model.graph.input.append(value)


def damaged(model: onnx.ModelProto) -> None:
    packed = packed_of(model)
    content = numpy_helper.to_array(packed).tobytes()
    put(packed, content[:40] + bytes([content[40] ^ 1]) + content[41:])


def smaller(model: onnx.ModelProto) -> None:
    put(packed_of(model), weights.encode(WEIGHT[:31]))


def another_number(model: onnx.ModelProto) -> None:
    other = WEIGHT.copy()
    other.reshape(-1)[np.flatnonzero(other)[:2]] *= 2
    put(packed_of(model), weights.encode(other))


def padded(model: onnx.ModelProto) -> None:
    (layer,) = [entry for entry in model.graph.node if entry.op_type == "SparseConv"]
    kept = [entry for entry in layer.attribute if entry.name != "pads"]
    del layer.attribute[:]
    layer.attribute.extend([*kept, helper.make_attribute("pads", [1, 1, 1, 1])])


def other_bias(model: onnx.ModelProto) -> None:
    (layer,) = [entry for entry in model.graph.node if entry.op_type in ("SparseConv", "SparseMatMul")]
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == layer.input[2]]
    bias = numpy_helper.to_array(tensor).copy()
    bias[5] += 1
    tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (not_stored, "w (its weight is not stored)"),
        (damaged, "w (its weight is damaged: "),
        (smaller, f"w (it has {31 * 144} weights, expected {32 * 144})"),
        (another_number, f"w (2 of its {WEIGHT.size:,} weights are others)"),
        (padded, "w (its result has the shape [2, 32, 8, 8], expected [2, 32, 6, 6])"),
        (other_bias, "w (differs by 1 in a value of "),
    ],
    ids=lambda it: it.__name__ if callable(it) else "",
)
def test_what_is_wrong_with_a_layer(change: Callable[[onnx.ModelProto], None], told: str, tmp_path: Path) -> None:
    model = dense()
    rewritten = rewrite(model, costs=EverythingSparse())
    feed = {"x": normal(np.random.default_rng(1), 2, 16, 8, 8)}
    onnx.save(rewritten.model, tmp_path / "m.onnx")
    assert first_wrong_layer(model, onnx.load(tmp_path / "m.onnx"), rewritten, feed) is None
    change(rewritten.model)
    onnx.save(rewritten.model, tmp_path / "m.onnx")
    found = first_wrong_layer(model, onnx.load(tmp_path / "m.onnx"), rewritten, feed)
    assert found is not None
    assert found.startswith(told)


GELUS = {
    "halved last": [node("Mul", ["a", "p"], ["m"]), node("Mul", ["m", "half"], ["y"])],
    "halved first": [node("Mul", ["half", "p"], ["m"]), node("Mul", ["a", "m"], ["y"])],
}
"""The end of a GELU as exporters write it before opset 20, with an Add that belongs to the function alone."""
LAYERS = {
    "conv": [node("Conv", ["x", "w", "b"], ["a"])],
    "linear": [node("Gemm", ["x", "w", "b"], ["a"], transB=1)],
    "linear with a residual": [node("Gemm", ["x", "w", "b"], ["s"], transB=1), node("Add", ["s", "r"], ["a"])],
}


@pytest.mark.parametrize("end", GELUS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_whose_function_has_an_add_of_its_own(kind: str, end: str, tmp_path: Path) -> None:
    feed = {"x": normal(RNG, 2, 16, 8, 8) if kind == "conv" else normal(RNG, 2, 16), "r": normal(RNG, 2, 32)}
    feed = {name: feed[name] for name in feed if any(name in entry.input for entry in LAYERS[kind])}
    function = [node("Div", ["a", "root"], ["d"]), node("Erf", ["d"], ["e"]), node("Add", ["e", "one"], ["p"])]
    constants = {"w": WEIGHT if kind == "conv" else WEIGHT[..., 0, 0], "b": normal(RNG, 32)}
    scalars = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    shapes = {name: ["n", *array.shape[1:]] for name, array in feed.items()}
    model = network([*LAYERS[kind], *function, *GELUS[end]], shapes, {**constants, **scalars}, ["y"], opset=17)
    rewritten = rewrite(model, costs=EverythingSparse())
    assert [layer.form for layer in rewritten.layers] == ["sparse"]
    onnx.save(rewritten.model, tmp_path / "m.onnx")
    assert first_wrong_layer(model, onnx.load(tmp_path / "m.onnx"), rewritten, feed) is None
    other_bias(rewritten.model)
    onnx.save(rewritten.model, tmp_path / "m.onnx")
    found = first_wrong_layer(model, onnx.load(tmp_path / "m.onnx"), rewritten, feed)
    assert found is not None
    assert found.startswith("w (differs by ")


def test_a_dense_layer_that_was_stored_wrong(tmp_path: Path) -> None:
    model = dense()
    rewritten = rewrite(model, costs=EverythingSparse())
    (tensor,) = [tensor for tensor in rewritten.model.graph.initializer if tensor.name == "c0"]
    other = numpy_helper.to_array(tensor).copy()
    other[3] = float("nan")
    tensor.CopyFrom(numpy_helper.from_array(other, "c0"))
    onnx.save(rewritten.model, tmp_path / "m.onnx")
    feed = {"x": normal(np.random.default_rng(1), 2, 16, 8, 8)}
    found = first_wrong_layer(model, onnx.load(tmp_path / "m.onnx"), rewritten, feed)
    assert found == "c0 (1 of its 32 weights are others)"
