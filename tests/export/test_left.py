"""Weights on the left, and those that stay as they are: named, with the reason."""

import numpy as np
import onnx
import pytest
from export.onnx_graphs import (
    assert_same,
    network,
    normal,
    ops,
    run_dense,
    run_sparse,
    sparse_weight,
)
from onnx import TensorProto, helper, numpy_helper

from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import rewrite
from gossamer.export.written import as_written

node = helper.make_node
RNG = np.random.default_rng(0)
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.mark.parametrize("tokens", [5, "t"])
@pytest.mark.parametrize("bias", [None, (24, 1), (1, 24, 1), (1,), (5,), (16, 24, 1)])
def test_a_weight_on_the_left(tokens: int | str, bias: tuple[int, ...] | None) -> None:
    """W X + b, with one bias a row; others stay additions."""
    nodes = [node("MatMul", ["w", "x"], ["a"], name="layer"), node("Relu", ["a" if bias is None else "b"], ["y"])]
    constants = {"w": sparse_weight(RNG, 24, 16)}
    if bias is not None:
        nodes.insert(1, node("Add", ["a", "added"], ["b"]))
        constants["added"] = normal(RNG, *bias)
    model = network(nodes, {"x": ["n", 16, tokens]}, constants, ["y"])
    rewritten = rewrite(model, costs=SPARSE)
    assert [(layer.name, layer.form, layer.kept) for layer in rewritten.layers] == [
        ("layer", "sparse", np.count_nonzero(constants["w"]))
    ]
    assert rewritten.left == ()
    assert ops(rewritten.model) == ["ToPanel", "SparseConv", "FromPanel"]
    assert ("Add" in ops(rewritten.model, "")) == (bias in ((5,), (16, 24, 1)))
    for batch in (1, 16):
        feed = {"x": normal(RNG, batch, 16, 5)}
        if bias == (16, 24, 1) and batch == 1:
            continue
        assert_same(run_sparse(rewritten.model, feed), run_dense(model, feed))


def test_a_chain_of_products_from_both_sides() -> None:
    """As in a network that mixes tokens and channels: the residual stays part of the sparse op."""
    nodes = [
        node("MatMul", ["tokens", "x"], ["a"]),
        node("Add", ["a", "tokens.bias"], ["b"]),
        node("Add", ["b", "x"], ["c"]),
        node("MatMul", ["c", "channels"], ["y"]),
    ]
    constants = {
        "tokens": sparse_weight(RNG, 32, 32),
        "tokens.bias": normal(RNG, 32, 1),
        "channels": sparse_weight(RNG, 48, 40),
    }
    model = network(nodes, {"x": ["n", 32, 48]}, constants, ["y"])
    rewritten = rewrite(model, costs=SPARSE)
    assert [layer.name for layer in rewritten.layers] == ["tokens", "channels"]
    assert ops(rewritten.model, "") == []
    feed = {"x": normal(RNG, 3, 32, 48)}
    assert_same(run_sparse(rewritten.model, feed), run_dense(model, feed))


def reasons(
    nodes: list[onnx.NodeProto], shape: list[int | str], weight: np.ndarray, kind: int = TensorProto.FLOAT
) -> list[str]:
    model = network(nodes, {"x": shape}, {"w": weight}, ["y"])
    model.graph.input[0].type.tensor_type.elem_type = kind
    model.graph.output[0].type.tensor_type.elem_type = kind
    rewritten = rewrite(model, costs=SPARSE)
    assert rewritten.layers == ()
    return [f"{left.name} {left.zeros:.2f} {left.reason}" for left in rewritten.left]


@pytest.mark.parametrize(("dtype", "kind"), [(np.float16, "float16"), (np.float64, "double")])
def test_other_types(dtype: type[np.generic], kind: str) -> None:
    weight = np.zeros((32, 64), dtype)
    weight[:8] = 1
    product = node("MatMul", ["x", "w"], ["y"], name="layer")
    found = reasons([product], ["n", 32], weight, TensorProto.DataType.Value(kind.upper()))
    assert found == [f"layer 0.75 its weight is of type {kind}; sparse ops compute in fp32"]


@pytest.mark.parametrize(
    ("made", "shape", "weight", "reason"),
    [
        (node("Gemm", ["x", "w"], ["y"], transA=1), [32, "n"], (32, 64), "a Gemm that transposes its input"),
        (node("MatMul", ["x", "w"], ["y"]), [2, 5, 32], (2, 32, 64), "a weight of 3 axes"),
        (node("MatMul", ["w", "x"], ["y"]), [64, "n"], (32, 64), "a weight on the left"),
        (node("Conv", ["x", "w"], ["y"]), ["n", 8, 3, 9, 9], (16, 8, 2, 2, 2), "a convolution over 3 axes"),
        (node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER"), ["n", 8, "h", 9], (16, 8, 3, 3), "padding depends"),
        (node("ConvTranspose", ["x", "w"], ["y"]), ["n", 8, 5, 5], (8, 16, 3, 3), "ConvTranspose has no sparse op"),
    ],
)
def test_other_ops(made: onnx.NodeProto, shape: list[int | str], weight: tuple[int, ...], reason: str) -> None:
    values = np.zeros(weight, np.float32)
    values[..., 0] = 1
    (found,) = reasons([made], shape, values)
    assert found.startswith(f"w {np.mean(values == 0):.2f} ")
    assert reason in found


def test_a_weight_with_few_zeros_or_numbers_is_not_worth_a_word() -> None:
    product = [node("MatMul", ["x", "w"], ["y"])]
    assert reasons(product, [2, 5, 32], normal(RNG, 2, 32, 64)) == []
    assert reasons(product, [2, 5, 4], np.zeros((2, 4, 4), np.float32)) == []


def test_masks_are_no_weights() -> None:
    causal = np.tril(np.ones((64, 64), np.float32), -1)
    assert reasons([node("Add", ["x", "w"], ["y"])], ["n", 64, 64], causal) == []


def mostly_zero(*shape: int) -> np.ndarray:
    """Three of four numbers are zeros."""
    weight = np.zeros(shape, np.float32)
    weight[: shape[0] // 4] = 1
    return weight


def body(nodes: list[onnx.NodeProto], output: str, **constants: np.ndarray) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(
        nodes, "body", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], tensors
    )


def if_with(nodes: list[onnx.NodeProto], output: str, **constants: np.ndarray) -> onnx.NodeProto:
    other = body([node("Identity", ["x"], ["other"])], "other")
    return node("If", ["condition"], ["y"], then_branch=body(nodes, output, **constants), else_branch=other)


def loop_with(nodes: list[onnx.NodeProto], state: str, **constants: np.ndarray) -> onnx.NodeProto:
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inside = helper.make_graph(
        [*nodes, node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("s", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value(state, TensorProto.FLOAT, None)],
        tensors,
    )
    return node("Loop", ["trips", "condition", "x"], ["y"], body=inside)


def scan_with(nodes: list[onnx.NodeProto], state: str, **constants: np.ndarray) -> onnx.NodeProto:
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inside = helper.make_graph(
        nodes,
        "body",
        [value("s", TensorProto.FLOAT, [4, 32]), value("step", TensorProto.FLOAT, [4, 32])],
        [value(state, TensorProto.FLOAT, [4, 32])],
        tensors,
    )
    return node("Scan", ["x", "steps"], ["y"], body=inside, num_scan_inputs=1)


BODIES = {
    "If": lambda: if_with([node("MatMul", ["x", "w"], ["t"], name="layer")], "t", w=mostly_zero(32, 32)),
    "Loop": lambda: loop_with([node("MatMul", ["s", "w"], ["t"], name="layer")], "t", w=mostly_zero(32, 32)),
    "Scan": lambda: scan_with(
        [node("MatMul", ["s", "w"], ["p"], name="layer"), node("Add", ["p", "step"], ["t"])], "t", w=mostly_zero(32, 32)
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_weights_in_bodies(kind: str) -> None:
    constants = {"condition": np.asarray(True), "trips": np.asarray(2), "steps": np.zeros((3, 4, 32), np.float32)}
    made = BODIES[kind]()
    read = {name: value for name, value in constants.items() if name in made.input}
    rewritten = rewrite(network([made], {"x": [4, 32]}, read, ["y"]), costs=SPARSE)
    article = "an" if kind == "If" else "a"
    assert [(left.name, left.zeros, left.reason) for left in rewritten.left] == [
        ("layer", 0.75, f"it is read in the body of {article} {kind}, whose layers stay dense")
    ]


def test_weights_around_bodies_and_inside_of_others() -> None:
    """Transposed first, behind a Constant node, read two levels further in; a mask is still no weight."""
    deep = if_with(
        [
            node("Transpose", ["w"], ["wt"], name="turned"),
            node("MatMul", ["x", "wt"], ["z"]),
            node("Add", ["z", "m"], ["t"]),
        ],
        "t",
    )
    deep.output[0] = "d"
    held = numpy_helper.from_array(mostly_zero(32, 64), "held")
    shallow = if_with(
        [deep, node("Constant", [], ["v"], value=held), node("Gemm", ["d", "v"], ["g"], name="inner")], "g"
    )
    constants = {"condition": np.asarray(True), "w": mostly_zero(32, 32), "m": mostly_zero(32, 32)}
    rewritten = rewrite(network([shallow], {"x": [32, 32]}, constants, ["y"]), costs=SPARSE)
    assert {left.name for left in rewritten.left} == {"turned", "inner"}


def test_a_layer_whose_zeros_are_stored_with_it() -> None:
    """Before opset 11 ONNX has not all ops that put a weight together."""
    rng = np.random.default_rng(0)
    nodes = [node("Conv", ["x", "w"], ["y"], name="layer", pads=[1] * 4)]
    constants = {"w": sparse_weight(rng, 16, 16, 3, 3, density=0.25)}
    for opset, told in ((9, True), (10, True), (11, False)):
        model = network(nodes, {"x": [1, 16, 3, 3]}, constants, ["y"], opset=opset)
        written = as_written(model)
        assert [layer.form for layer in written.layers] == ["dense"]
        for left in written.left:
            assert left.zeros == pytest.approx(np.mean(constants["w"] == 0))
        reason = f"its zeros are stored too: leaving them out needs opset 11, the network is of opset {opset}"
        assert [(left.name, left.reason) for left in written.left] == ([("layer", reason)] if told else [])
        assert (len(written.model.SerializeToString()) < 4 * constants["w"].size) != told


@pytest.mark.parametrize("zero", [0, 3])
def test_quantised_weights(zero: int) -> None:
    """Zero is what the zero point stands for."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((64, 32)) < 0.75, zero, rng.integers(4, 9, (64, 32))).astype(np.int8)
    share = float(np.mean(weight == zero))
    constants = {"w": weight, "scale": np.float32(0.1), "nought": np.int8(zero)}
    dequantised = [
        node("DequantizeLinear", ["w", "scale", "nought"], ["d"], name="layer"),
        node("MatMul", ["x", "d"], ["y"]),
    ]
    (left,) = rewrite(network(dequantised, {"x": ["n", 64]}, constants, ["y"]), costs=SPARSE).left
    assert (left.name, left.reason) == ("layer", "its weight is quantised, its input is not")
    assert left.zeros == pytest.approx(share)
    whole = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z", "nought"], ["i"], name="layer"),
        node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    del constants["scale"]
    (left,) = rewrite(network(whole, {"x": ["n", 64]}, constants, ["y"]), costs=SPARSE).left
    assert (left.name, left.zeros) == ("layer", pytest.approx(share))
    assert "anew for each input" in left.reason


OF_CHANNELS = {
    "QLinearConv": (["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], (64, 32, 1, 1), 0, {}),
    "QLinearMatMul": (["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], (32, 64), 1, {}),
    "QGemm": (["x", "xs", "xz", "w", "ws", "wz", "", "ys", "yz"], (32, 64), 1, {}),
    "QGemm, transposed": (["x", "xs", "xz", "w", "ws", "wz", "", "ys", "yz"], (64, 32), 0, {"transB": 1}),
}
"""Op -> inputs, shape and output axis of its weight, attributes."""


@pytest.mark.parametrize("kind", OF_CHANNELS)
def test_weights_with_a_zero_point_for_each_channel(kind: str) -> None:
    """As quantize_static writes them where weights need not be symmetric: farther from zero than int8 goes."""
    inputs, shape, axis, attributes = OF_CHANNELS[kind]
    rng = np.random.default_rng(0)
    zeros = rng.integers(20, 40, 64).astype(np.int8)
    along = zeros.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    weight = np.where(rng.random(shape) < 0.75, along, rng.integers(-128, 128, shape)).astype(np.int8)
    one, nought = np.float32(0.1), np.uint8(3)
    constants = {"w": weight, "wz": zeros, "ws": np.full(64, one), "xs": one, "ys": one, "xz": nought, "yz": nought}
    domain = "com.microsoft" if kind.startswith("QGemm") else ""
    layer = node(kind.split(",")[0], inputs, ["y"], name="layer", domain=domain, **attributes)
    sizes = ["n", 32, 5, 5] if "Conv" in kind else ["n", 32]
    model = network([layer], {"x": sizes}, constants, ["y"])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.UINT8
    (left,) = rewrite(model, costs=SPARSE).left
    assert (left.name, left.zeros) == ("layer", pytest.approx(float(np.mean(weight == along))))
    assert left.reason.startswith("its weight, less its zero point, is -1")


def test_numbers_that_are_not_quantised_are_no_weights() -> None:
    table = np.zeros((64, 32), np.int8)
    made = [node("Gather", ["w", "k"], ["g"]), node("Cast", ["g"], ["c"], to=1), node("Add", ["x", "c"], ["y"])]
    model = network(made, {"x": ["n", 32]}, {"w": table, "k": np.asarray([1])}, ["y"])
    assert rewrite(model, costs=SPARSE).left == ()
