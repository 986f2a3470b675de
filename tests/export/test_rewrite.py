"""Graphs written by hand, of which it is known which ops they become; ONNX Runtime's dense ops are the oracle."""

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
from gossamer_runtime import weights
from onnx import TensorProto, helper, numpy_helper

from gossamer.export.costs import EverythingSparse, MeasuredCosts
from gossamer.export.rewrite import rewrite, to_sparse
from gossamer.graph.layer_shape import LayerShape

node = helper.make_node
RNG = np.random.default_rng(0)
SPARSE = EverythingSparse()
PAD = {"pads": [1] * 4}

pytestmark = pytest.mark.usefixtures("native_library")


def assert_agrees(model: onnx.ModelProto, *shapes: tuple[int, ...], name: str = "x") -> onnx.ModelProto:
    """Runs a network dense and sparse on inputs of these shapes; returns the sparse one."""
    sparse = to_sparse(model, costs=SPARSE)
    for shape in shapes:
        feed = {name: normal(RNG, *shape)}
        assert_same(run_sparse(sparse, feed, threads=2), run_dense(model, feed))
    return sparse


def residual_block() -> onnx.ModelProto:
    """Two 3x3 convolutions and a projection, as in ResNet."""
    nodes = [
        node("Conv", ["x", "first.weight", "first.bias"], ["a"], strides=[2, 2], **PAD),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "second.weight"], ["c"], **PAD),
        node("Conv", ["x", "shortcut.weight"], ["d"], strides=[2, 2]),
        node("Add", ["c", "d"], ["e"]),
        node("Relu", ["e"], ["f"]),
        node("GlobalAveragePool", ["f"], ["g"]),
        node("Flatten", ["g"], ["h"]),
        node("Gemm", ["h", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    constants = {
        "first.weight": sparse_weight(RNG, 16, 8, 3, 3),
        "first.bias": normal(RNG, 16),
        "second.weight": sparse_weight(RNG, 16, 16, 3, 3),
        "shortcut.weight": sparse_weight(RNG, 16, 8, 1, 1),
        "head.weight": sparse_weight(RNG, 10, 16),
        "head.bias": normal(RNG, 10),
    }
    return network(nodes, {"x": ["batch", 8, 13, 10]}, constants, ["y"])


def test_a_residual_block_stays_in_panels() -> None:
    model = residual_block()
    rewritten = rewrite(model, costs=SPARSE)
    assert ops(rewritten.model) == ["ToPanel", "SparseConv", "SparseConv", "SparseConv", "FromPanel", "SparseMatMul"]
    assert ops(rewritten.model, "") == ["GlobalAveragePool", "Flatten"]
    assert [layer.name for layer in rewritten.layers] == ["first", "second", "shortcut", "head"]
    # The sum belongs to the later of its two convolutions, which finds the other's result.
    last = rewritten.model.graph.node[3]
    assert (last.name, last.input[3]) == ("shortcut", "c.panel")
    for batch in (1, 3):
        feed = {"x": normal(RNG, batch, 8, 13, 10)}
        assert_same(run_sparse(rewritten.model, feed), run_dense(model, feed))


def test_the_source_stays_as_it_is() -> None:
    model = residual_block()
    before = model.SerializeToString()
    to_sparse(model, costs=SPARSE)
    assert model.SerializeToString() == before


def test_the_weights_are_packed_and_nothing_else_is_kept() -> None:
    model = residual_block()
    sparse = to_sparse(model, costs=SPARSE)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in sparse.graph.initializer}
    assert sorted(held) == [
        "first.bias",
        "first.packed",
        "head.bias",
        "head.packed",
        "second.packed",
        "shortcut.packed",
    ]
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("first", "second", "shortcut", "head"):
        assert np.array_equal(weights.decode(held[f"{name}.packed"].tobytes()), original[f"{name}.weight"])


def test_a_value_read_in_both_layouts_is_converted_once() -> None:
    """MaxPool and the graph's output read planes, two convolutions panels."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], **PAD),
        node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2]),
        node("Conv", ["a", "w"], ["b"], **PAD),
        node("Conv", ["a", "v"], ["c"]),
        node("Add", ["b", "c"], ["d"]),
    ]
    constants = {"w": sparse_weight(RNG, 6, 6, 3, 3), "v": sparse_weight(RNG, 6, 6, 1, 1)}
    model = network(nodes, {"x": [2, 6, 9, 9]}, constants, ["a", "p", "d"])
    sparse = assert_agrees(model, (2, 6, 9, 9))
    assert ops(sparse).count("ToPanel") == 1
    assert ops(sparse).count("FromPanel") == 2
    # One weight, two layers: its bytes are there once.
    assert [t.name for t in sparse.graph.initializer if t.data_type == TensorProto.UINT8] == ["w.packed", "v.packed"]


def test_depthwise_layers_between_sparse_ones_read_panels() -> None:
    nodes = [
        node("Conv", ["x", "expand"], ["a"]),
        node("Clip", ["a", "zero", "six"], ["b"]),
        node("Conv", ["b", "depthwise", "bias"], ["c"], group=24, strides=[2, 2], **PAD),
        node("Clip", ["c", "zero", "six"], ["d"]),
        node("Conv", ["d", "project"], ["y"]),
    ]
    constants = {
        "expand": sparse_weight(RNG, 24, 8, 1, 1),
        "depthwise": normal(RNG, 24, 1, 3, 3),
        "bias": normal(RNG, 24),
        "project": sparse_weight(RNG, 8, 24, 1, 1),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    sparse = assert_agrees(network(nodes, {"x": ["n", 8, 14, 15]}, constants, ["y"]), (1, 8, 14, 15), (3, 8, 14, 15))
    assert ops(sparse) == ["ToPanel", "SparseConv", "SparseConv", "SparseConv", "FromPanel"]
    assert ops(sparse, "") == []


def test_sequences() -> None:
    nodes = [
        node("Conv", ["x", "first", "bias"], ["a"], pads=[2, 2], dilations=[2]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "second"], ["c"], pads=[0, 1], strides=[2]),
        node("Conv", ["b", "third"], ["d"], pads=[0, 1], strides=[2], group=2),
        node("Add", ["c", "d"], ["y"]),
    ]
    constants = {
        "first": sparse_weight(RNG, 12, 5, 3),
        "bias": normal(RNG, 12),
        "second": sparse_weight(RNG, 8, 12, 3),
        "third": sparse_weight(RNG, 8, 6, 3),
    }
    model = network(nodes, {"x": ["n", 5, 37]}, constants, ["y"])
    sparse = assert_agrees(model, (1, 5, 37), (2, 5, 37))
    assert ops(sparse) == ["ToPanel", "SparseConv", "SparseConv", "SparseConv", "FromPanel"]


ACTIVATIONS: dict[str, tuple[list[onnx.NodeProto], dict[str, object]]] = {
    "relu": ([node("Relu", ["a"], ["y"])], {}),
    "clip": ([node("Clip", ["a", "low", "high"], ["y"])], {"low": -0.5, "high": 0.75}),
    "clip, one side": ([node("Clip", ["a", "", "high"], ["y"])], {"high": 0.25}),
    "clip, the other side": ([node("Clip", ["a", "low"], ["y"])], {"low": -0.25}),
    "clip, neither": ([node("Clip", ["a"], ["y"])], {}),
    "hardswish": ([node("HardSwish", ["a"], ["y"])], {}),
    "hardswish in two nodes": (
        [node("HardSigmoid", ["a"], ["s"], alpha=1 / 6, beta=0.5), node("Mul", ["s", "a"], ["y"])],
        {},
    ),
    "silu": ([node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["y"])], {}),
    "leaky relu": ([node("LeakyRelu", ["a"], ["y"])], {}),
    "leaky relu, another slope": ([node("LeakyRelu", ["a"], ["y"], alpha=0.2)], {}),
    "leaky relu that folds": ([node("LeakyRelu", ["a"], ["y"], alpha=-0.5)], {}),
    "leaky relu, steeper below 0": ([node("LeakyRelu", ["a"], ["y"], alpha=3.0)], {}),
    "gelu": ([node("Gelu", ["a"], ["y"])], {}),
    "gelu in five nodes": (
        [
            node("Div", ["a", "root"], ["s"]),
            node("Erf", ["s"], ["e"]),
            node("Add", ["e", "one"], ["p"]),
            node("Mul", ["a", "p"], ["m"]),
            node("Mul", ["m", "half"], ["y"]),
        ],
        {"root": 2**0.5, "one": 1.0, "half": 0.5},
    ),
    "gelu, halved first": (
        [
            node("Mul", ["a", "root"], ["s"]),
            node("Erf", ["s"], ["e"]),
            node("Add", ["one", "e"], ["p"]),
            node("Mul", ["half", "a"], ["h"]),
            node("Mul", ["h", "p"], ["y"]),
        ],
        {"root": 2**-0.5, "one": 1.0, "half": 0.5},
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_activations_become_part_of_the_layer(name: str, kind: str) -> None:
    nodes, scalars = ACTIVATIONS[name]
    constants = {key: np.float32(value) for key, value in scalars.items()}  # type: ignore[arg-type]
    if kind == "conv":
        first, constants["w"] = node("Conv", ["x", "w"], ["a"]), sparse_weight(RNG, 8, 6, 1, 1)
        model = network([first, *nodes], {"x": ["n", 6, 7, 9]}, constants, ["y"])
        sparse = assert_agrees(model, (2, 6, 7, 9))
    else:
        first, constants["w"] = node("MatMul", ["x", "w"], ["a"]), sparse_weight(RNG, 6, 8)
        model = network([first, *nodes], {"x": ["n", 5, 6]}, constants, ["y"])
        sparse = assert_agrees(model, (2, 5, 6))
    assert ops(sparse, "") == []


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([node("Gelu", ["a"], ["y"], approximate="tanh")], ["Gelu"]),
        ([node("HardSigmoid", ["a"], ["s"]), node("Mul", ["s", "a"], ["y"])], ["HardSigmoid", "Mul"]),
        ([node("Sigmoid", ["a"], ["s"]), node("Mul", ["x", "s"], ["y"])], ["Sigmoid", "Mul"]),
        ([node("Clip", ["a", "", "q"], ["y"])], ["Clip"]),
    ],
)
def test_what_only_looks_like_an_activation_stays(nodes: list[onnx.NodeProto], left: list[str]) -> None:
    model = network(
        [node("Conv", ["x", "w"], ["a"]), *nodes],
        {"x": [2, 6, 7, 9], "q": []},
        {"w": sparse_weight(RNG, 6, 6, 1, 1)},
        ["y"],
    )
    sparse = to_sparse(model, costs=SPARSE)
    feed = {"x": normal(RNG, 2, 6, 7, 9), "q": np.asarray(0.3, np.float32)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))
    assert ops(sparse, "") == left


def test_an_intermediate_result_that_is_read_elsewhere_is_not_lost() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Sigmoid", ["a"], ["c"]),
        node("Add", ["b", "c"], ["y"]),
    ]
    model = network(nodes, {"x": [1, 6, 5, 5]}, {"w": sparse_weight(RNG, 6, 6, 1, 1)}, ["y", "a"])
    sparse = assert_agrees(model, (1, 6, 5, 5))
    assert "SparseConv" in ops(sparse)


def test_a_transformer_block() -> None:
    """Query, key and value, attention, projection with residual, and the feed-forward part with GELU and residual."""
    width, heads = 16, 2

    def linear(source: str, name: str, output: str) -> list[onnx.NodeProto]:
        return [
            node("MatMul", [source, f"{name}.transposed"], [f"{output}.product"]),
            node("Add", [f"{output}.product", f"{name}.bias"], [output]),
        ]

    nodes: list[onnx.NodeProto] = []
    for part in "qkv":
        perm = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
        nodes += linear("x", part, part)
        nodes += [node("Reshape", [part, "split"], [f"{part}.split"])]
        nodes += [node("Transpose", [f"{part}.split"], [f"{part}.heads"], perm=perm)]
    nodes += [
        node("MatMul", ["q.heads", "k.heads"], ["scores"]),
        node("Softmax", ["scores"], ["shares"], axis=-1),
        node("MatMul", ["shares", "v.heads"], ["mixed"]),
        node("Transpose", ["mixed"], ["together"], perm=[0, 2, 1, 3]),
        node("Reshape", ["together", "join"], ["joined"]),
        *linear("joined", "out", "projected"),
        node("Add", ["x", "projected"], ["sum"]),
        node("LayerNormalization", ["sum", "scale"], ["normal"], axis=-1),
        *linear("normal", "up", "wide"),
        node("Gelu", ["wide"], ["active"]),
        *linear("active", "down", "narrow"),
        node("Add", ["narrow", "normal"], ["y"]),
    ]
    sizes = {"up": (width, 4 * width), "down": (4 * width, width)}
    constants: dict[str, np.ndarray] = {}
    for part in ("q", "k", "v", "out", "up", "down"):
        inputs, outputs = sizes.get(part, (width, width))
        constants[f"{part}.transposed"] = sparse_weight(RNG, inputs, outputs)
        constants[f"{part}.bias"] = normal(RNG, outputs)
    constants["split"] = np.asarray([0, 0, heads, width // heads])
    constants["join"] = np.asarray([0, 0, width])
    constants["scale"] = normal(RNG, width)
    model = network(nodes, {"x": ["n", 7, width]}, constants, ["y"])
    rewritten = rewrite(model, costs=SPARSE)
    assert ops(rewritten.model) == ["SparseMatMul"] * 6
    assert [layer.name for layer in rewritten.layers] == ["q", "k", "v", "out", "up", "down"]
    assert {"Add", "Gelu"}.isdisjoint(ops(rewritten.model, ""))
    for batch in (1, 3):
        feed = {"x": normal(RNG, batch, 7, width)}
        assert_same(run_sparse(rewritten.model, feed), run_dense(model, feed))


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_with_factors(trans_b: int) -> None:
    weight = sparse_weight(RNG, 9, 6)
    first = node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=3.0, transB=trans_b)
    constants = {"w": weight if trans_b else np.ascontiguousarray(weight.T), "b": normal(RNG, 1, 9)}
    sparse = assert_agrees(network([first], {"x": ["n", 6]}, constants, ["y"]), (1, 6), (4, 6))
    assert ops(sparse) == ["SparseMatMul"]


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(pad: str) -> None:
    first = node("Conv", ["x", "w"], ["y"], auto_pad=pad, strides=[2, 3])
    model = network([first], {"x": ["n", 4, 11, 14]}, {"w": sparse_weight(RNG, 6, 4, 3, 4)}, ["y"])
    assert ops(assert_agrees(model, (2, 4, 11, 14))) == ["ToPanel", "SparseConv", "FromPanel"]


def test_batch_norm_is_folded() -> None:
    def norm(source: str, name: str, output: str, channels: int) -> onnx.NodeProto:
        for part in ("scale", "offset", "mean"):
            constants[f"{name}.{part}"] = normal(RNG, channels)
        constants[f"{name}.variance"] = np.abs(normal(RNG, channels)) + 0.1
        given = [source, *(f"{name}.{part}" for part in ("scale", "offset", "mean", "variance"))]
        return node("BatchNormalization", given, [output], epsilon=1e-3)

    constants: dict[str, np.ndarray] = {
        "w": sparse_weight(RNG, 6, 6, 3, 3),
        "b": normal(RNG, 6),
        "head": sparse_weight(RNG, 6, 5),
    }
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], **PAD),
        norm("a", "first", "c", 6),
        node("Relu", ["c"], ["d"]),
        # The same weight again, behind it another BatchNorm.
        node("Conv", ["d", "w"], ["e"], **PAD),
        norm("e", "second", "f", 6),
        node("Add", ["f", "d"], ["g"]),
        node("GlobalMaxPool", ["g"], ["h"]),
        node("Flatten", ["h"], ["i"]),
        node("Gemm", ["i", "head"], ["j"]),
        norm("j", "third", "y", 5),
    ]
    model = network(nodes, {"x": ["n", 6, 8, 8]}, constants, ["y"])
    rewritten = rewrite(model, costs=SPARSE)
    assert ops(rewritten.model, "") == ["GlobalMaxPool", "Flatten"]
    assert [layer.kept for layer in rewritten.layers[:2]] == [np.count_nonzero(constants["w"])] * 2
    feed = {"x": normal(RNG, 3, 6, 8, 8)}
    assert_same(run_sparse(rewritten.model, feed), run_dense(model, feed), tolerance=3e-5)


def test_batch_norm_whose_input_is_read_elsewhere_stays() -> None:
    constants = {"w": sparse_weight(RNG, 4, 4, 1, 1), **{name: np.abs(normal(RNG, 4)) + 1 for name in "somv"}}
    nodes = [node("Conv", ["x", "w"], ["a"]), node("BatchNormalization", ["a", *"somv"], ["y"])]
    sparse = assert_agrees(network(nodes, {"x": [1, 4, 5, 5]}, constants, ["a", "y"]), (1, 4, 5, 5))
    assert ops(sparse, "") == ["BatchNormalization"]


def test_quantised_layers_stay_untouched() -> None:
    quantised = RNG.integers(-3, 4, (6, 6, 1, 1)).astype(np.int8)
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("QuantizeLinear", ["a", "scale", "nought"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "nought"], ["d"]),
        node("DequantizeLinear", ["wq", "scale", "nought"], ["wd"]),
        node("Conv", ["d", "wd"], ["y"]),
    ]
    constants = {
        "w": sparse_weight(RNG, 6, 6, 1, 1),
        "scale": np.float32(0.05),
        "nought": np.int8(0),
        "wq": quantised,
    }
    sparse = assert_agrees(network(nodes, {"x": [1, 6, 5, 5]}, constants, ["y"]), (1, 6, 5, 5))
    assert ops(sparse, "") == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]
    assert ops(sparse) == ["ToPanel", "SparseConv", "FromPanel"]


def test_weights_that_are_inputs_or_computed_stay() -> None:
    nodes = [node("Conv", ["x", "given"], ["a"]), node("Mul", ["w", "given"], ["v"]), node("Conv", ["a", "v"], ["y"])]
    model = network(nodes, {"x": [1, 4, 5, 5], "given": [4, 4, 1, 1]}, {"w": sparse_weight(RNG, 4, 4, 1, 1)}, ["y"])
    assert ops(to_sparse(model, costs=SPARSE)) == []


def test_a_transposed_or_split_weight_is_a_constant() -> None:
    nodes = [
        node("Split", ["w"], ["first", "second"], axis=0, num_outputs=2),
        node("Transpose", ["first"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["a"]),
        node("Constant", [], ["other"], value=numpy_helper.from_array(sparse_weight(RNG, 4, 6), "other")),
        node("MatMul", ["a", "other"], ["b"]),
        node("Gemm", ["b", "second"], ["y"], transB=1),
    ]
    sparse = assert_agrees(network(nodes, {"x": ["n", 6]}, {"w": sparse_weight(RNG, 8, 6)}, ["y"]), (3, 6))
    assert ops(sparse) == ["SparseMatMul"] * 3
    assert ops(sparse, "") == []


def test_values_that_subgraphs_read_are_planes() -> None:
    then = helper.make_graph(
        [node("Relu", ["a"], ["t"])], "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)]
    )
    otherwise = helper.make_graph(
        [node("Neg", ["a"], ["o"])], "else", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    )
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("If", ["condition"], ["y"], then_branch=then, else_branch=otherwise),
    ]
    constants = {"w": sparse_weight(RNG, 4, 4, 1, 1), "condition": np.asarray(True)}
    sparse = assert_agrees(network(nodes, {"x": [1, 4, 5, 5]}, constants, ["y"]), (1, 4, 5, 5))
    assert ops(sparse) == ["ToPanel", "SparseConv", "FromPanel"]


def test_additions_that_broadcast_are_no_residuals() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Conv", ["s", "v"], ["c"]),
        node("Add", ["a", "c"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 6, 6, 1, 1), "v": sparse_weight(RNG, 6, 6, 1, 1)}
    model = network(nodes, {"x": [2, 6, 5, 7], "s": [2, 6, 1, 1]}, constants, ["y"])
    sparse = to_sparse(model, costs=SPARSE)
    feed = {"x": normal(RNG, 2, 6, 5, 7), "s": normal(RNG, 2, 6, 1, 1)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))
    assert ops(sparse, "") == ["Add"]


class FixedCosts:
    """Dense layers take a second, sparse ones as many as they have output channels, conversions a constant."""

    def __init__(self, conversion: float) -> None:
        self.price = conversion

    def dense(self, shape: LayerShape) -> float:
        return 1.0

    def sparse(self, shape: LayerShape, density: float) -> float:
        return shape.outputs / 10

    def in_half(self, shape: LayerShape, density: float) -> bool:
        return True

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return self.price

    def stem(self, shape: LayerShape, *, pooled: bool) -> float:
        return 1.0

    def pool(self, shape: LayerShape, *, panels: bool) -> float:
        return 0.02 if panels else 0.01


def chain(*outputs: int) -> onnx.ModelProto:
    """1x1 convolutions behind one another, with these numbers of output channels."""
    nodes, constants, channels = [], {}, 4
    for place, count in enumerate(outputs):
        nodes.append(node("Conv", [f"v{place}", f"w{place}"], [f"v{place + 1}"]))
        constants[f"w{place}"] = sparse_weight(RNG, count, channels, 1, 1)
        channels = count
    return network(nodes, {"v0": [1, 4, 6, 6]}, constants, [f"v{len(outputs)}"])


@pytest.mark.parametrize(
    ("outputs", "conversion", "sparse"),
    [
        # A lone layer saves 0.5 s and pays two conversions.
        ([5], 0.2, [True]),
        ([5], 0.3, [False]),
        # Two layers share the two conversions.
        ([5, 5], 0.3, [True, True]),
        # A layer that is slower by 0.2 s between two that win saves two conversions.
        ([5, 12, 5], 0.2, [True, True, True]),
        ([5, 12, 5], 0.05, [True, False, True]),
        # Slower by more than that: two islands, if they pay by themselves.
        ([5, 16, 5], 0.2, [True, False, True]),
        ([5, 16, 5], 0.3, [False, False, False]),
    ],
)
def test_what_runs_on_panels_is_the_cheapest_choice(outputs: list[int], conversion: float, sparse: list[bool]) -> None:
    rewritten = rewrite(chain(*outputs), costs=FixedCosts(conversion))
    assert [layer.form == "sparse" for layer in rewritten.layers] == sparse


def test_reasons_for_dense_layers() -> None:
    rewritten = rewrite(chain(5, 16, 5), costs=FixedCosts(0.3))
    assert [layer.reason for layer in rewritten.layers] == [
        "changing the layout around it would cost more than it saves",
        "too dense to be faster",
        "changing the layout around it would cost more than it saves",
    ]


def test_fp16_values() -> None:
    model = residual_block()
    sparse = to_sparse(model, costs=SPARSE, half=True)
    packed = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in sparse.graph.initializer}
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    expected = original["first.weight"].astype(np.float16).astype(np.float32)
    assert np.array_equal(weights.decode(packed["first.packed"]), expected)


def random_network(rng: np.random.Generator) -> onnx.ModelProto:
    """Convolutions, activations, sums and pools in random order over values of a few shapes."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    values = {"x": (6, 12)}  # name -> channels, extent

    def new(kind: str, inputs: list[str], channels: int, extent: int, **attributes: object) -> None:
        output = f"v{len(nodes)}"
        nodes.append(node(kind, inputs, [output], **attributes))  # type: ignore[arg-type]
        values[output] = (channels, extent)

    for _ in range(14):
        source = list(values)[int(rng.integers(len(values)))]
        channels, extent = values[source]
        choice = rng.random()
        if choice < 0.45:
            outputs, kernel = int(rng.choice([4, 6])), int(rng.choice([1, 3]))
            weight = f"w{len(nodes)}"
            constants[weight] = sparse_weight(rng, outputs, channels, kernel, kernel, density=0.4) / 3
            new("Conv", [source, weight], outputs, extent, pads=[kernel // 2] * 4)
        elif choice < 0.6:
            new(str(rng.choice(["Relu", "Sigmoid", "HardSwish", "Tanh"])), [source], channels, extent)
        elif choice < 0.7 and extent > 4:
            kind = str(rng.choice(["AveragePool", "MaxPool"]))
            new(kind, [source], channels, extent // 2, kernel_shape=[2, 2], strides=[2, 2])
        else:
            others = [name for name, shape in values.items() if shape == values[source]]
            other = others[int(rng.integers(len(others)))]
            new(str(rng.choice(["Add", "Mul", "Sub"])), [source, other], channels, extent)
    read = {name for made in nodes for name in made.input}
    outputs_ = [name for name in values if name not in read]
    return network(nodes, {"x": ["n", 6, 12, 12]}, constants, outputs_)


@pytest.mark.parametrize("seed", range(25))
def test_random_networks(seed: int) -> None:
    """Whatever is read, returned, added or left alone: with random costs, so that every mixture of layouts occurs."""
    rng = np.random.default_rng(seed)
    model = random_network(rng)

    class RandomCosts(FixedCosts):
        def sparse(self, shape: LayerShape, density: float) -> float:
            return float(rng.choice([0.5, 1.2]))

    sparse = to_sparse(model, costs=RandomCosts(float(rng.choice([0.01, 0.15]))))
    feed = {"x": rng.standard_normal((2, 6, 12, 12)).astype(np.float32)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


RESNET_LAYERS = [
    LayerShape("conv", 64, 64, 56, 56, (3, 3), pads=(1, 1, 1, 1)),
    LayerShape("conv", 256, 64, 56, 56),
    LayerShape("conv", 128, 128, 56, 56, (3, 3), (2, 2), pads=(1, 1, 1, 1)),
    LayerShape("conv", 512, 2048, 7, 7),
    LayerShape("linear", 2048, 1000),
    LayerShape("linear", 768, 3072, width=128),
]


@pytest.mark.parametrize("shape", RESNET_LAYERS)
def test_measured_costs(shape: LayerShape) -> None:
    """Where sparse layers begin to win was measured between 40% and 70% kept (docs/results.md)."""
    costs = MeasuredCosts()
    assert costs.sparse(shape, 0.3) < costs.dense(shape)
    assert costs.sparse(shape, 0.75) > costs.dense(shape)


def test_a_lone_small_layer_is_not_worth_two_conversions() -> None:
    nodes = [
        node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2]),
        node("Conv", ["a", "w"], ["b"]),
        node("MaxPool", ["b"], ["y"], kernel_shape=[2, 2]),
    ]
    model = network(nodes, {"x": [1, 32, 16, 16]}, {"w": sparse_weight(RNG, 32, 32, 1, 1, density=0.1)}, ["y"])
    (layer,) = rewrite(model).layers
    assert (layer.form, layer.reason) == ("dense", "changing the layout around it would cost more than it saves")


def test_residuals_of_images_of_any_size() -> None:
    """Height and width are halved twice; ONNX's own inference knows neither afterwards."""
    nodes = [
        node("Conv", ["x", "stem"], ["a"], strides=[2, 2], **PAD),
        node("Conv", ["a", "down"], ["b"], strides=[2, 2], **PAD),
        node("Conv", ["a", "shortcut"], ["c"], strides=[2, 2]),
        node("Add", ["b", "c"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["e", "next"], ["f"], **PAD),
        node("Add", ["e", "f"], ["y"]),
    ]
    constants = {
        "stem": sparse_weight(RNG, 8, 3, 3, 3),
        "down": sparse_weight(RNG, 8, 8, 3, 3),
        "shortcut": sparse_weight(RNG, 8, 8, 1, 1),
        "next": sparse_weight(RNG, 8, 8, 3, 3),
    }
    model = network(nodes, {"x": ["n", 3, "height", "width"]}, constants, ["y"])
    sparse = assert_agrees(model, (1, 3, 32, 32), (2, 3, 17, 40), (1, 3, 31, 9))
    assert ops(sparse) == ["ToPanel", "SparseConv", "SparseConv", "SparseConv", "SparseConv", "FromPanel"]
    assert ops(sparse, "") == []


def test_sizes_that_round_differently_are_not_taken_for_the_same() -> None:
    """Halved with and without padding: equal for every other height, stretched where one of them is 1."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], strides=[2, 1]),
        node("Conv", ["x", "v"], ["b"], strides=[2, 1], pads=[1, 0, 0, 0]),
        node("Add", ["a", "b"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 4, 3, 2, 1), "v": sparse_weight(RNG, 4, 3, 2, 1)}
    model = network(nodes, {"x": [1, 3, "height", 5]}, constants, ["y"])
    sparse = assert_agrees(model, (1, 3, 8, 5), (1, 3, 3, 5))
    assert "Add" in ops(sparse, "")


def test_a_weight_that_layers_share_is_stored_once() -> None:
    """Filter banks read one constant again and again, in layers of names of their own."""
    nodes = [
        node("Conv", ["x", "filters", "offsets"], ["a"], name="octave_1", **PAD),
        node("Conv", ["a", "filters"], ["b"], name="octave_2", **PAD),
        node("Conv", ["b", "equal", "offsets"], ["y"], name="octave_3", **PAD),
        node("Conv", ["b", "other"], ["z"], name="octave_4", **PAD),
    ]
    filters = sparse_weight(RNG, 8, 8, 3, 3)
    constants = {"filters": filters, "equal": filters.copy(), "other": -filters, "offsets": normal(RNG, 8)}
    model = network(nodes, {"x": [1, 8, 12, 10]}, constants, ["y", "z"])
    stored = [tensor.data_type for tensor in assert_agrees(model, (1, 8, 12, 10)).graph.initializer]
    assert stored.count(TensorProto.UINT8) == 2
