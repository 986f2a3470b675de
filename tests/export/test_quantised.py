"""Networks that were quantised elsewhere, with ops on bytes: against ONNX Runtime's own results, and by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network, normal, ops, run_dense, run_sparse, sparse_weight
from export.quantised_networks import (
    SPARSE,
    checked,
    node,
    of_bytes,
    quantised,
    residual_network,
    scale_of_output,
)
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

from gossamer.export.quantised_checks import compare_bytes
from gossamer.export.rewrite import rewrite
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph
from gossamer.graph.messages import copied
from gossamer.graph.quantised import find_quantised

pytestmark = pytest.mark.usefixtures("native_library")

UINT8, INT8 = TensorProto.UINT8, TensorProto.INT8
IMAGES = [1, 3, 20, 20]
NEAREST = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_residual_network_stays_in_panels(
    form: QuantFormat, activations: QuantType, per_channel: bool, tmp_path: Path
) -> None:
    model = residual_network(np.random.default_rng(0))
    model = quantised(model, IMAGES, tmp_path, form, activations=activations, per_channel=per_channel)
    feed = {"x": normal(np.random.default_rng(1), *IMAGES)}
    rewritten, found = checked(model, feed)
    assert ops(rewritten.model).count("QuantisedConv") == 5
    assert [layer.form for layer in rewritten.layers] == ["sparse"] * 6
    assert ops(rewritten.model).count("QuantisedToPanel") == 1
    assert "Add" not in ops(rewritten.model, "") or activations == QuantType.QInt8
    assert found.share is not None
    assert found.share > 0.999
    (expected,), (got,) = run_dense(model, feed), run_sparse(rewritten.model, feed)
    assert np.abs(expected - got).max() < 1.01 * scale_of_output(model)
    stored = {tensor.data_type for tensor in rewritten.model.graph.initializer}
    assert TensorProto.INT8 not in stored or activations == QuantType.QInt8


def convolution_by_hand(weight: np.ndarray, zero: np.ndarray) -> onnx.ModelProto:
    """A QLinearConv of two pixels, four channels each."""
    constants = {
        "xs": np.float32(0.5),
        "xz": np.uint8(3),
        "w": weight,
        "ws": np.float32([0.25, 0.5]),
        "wz": zero,
        "ys": np.float32(0.25),
        "yz": np.uint8(10),
        "b": np.int32([2, -4]),
    }
    made = node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], name="layer")
    return of_bytes([made], {"x": (UINT8, [1, 4, 1, 2])}, constants, {"y": UINT8})


@pytest.mark.parametrize(
    "zero", [np.int8([0, 0]), np.int8(1), np.uint8([128, 128]), np.uint8(100), np.uint8([7, 90])], ids=str
)
def test_a_convolution_by_hand(zero: np.ndarray) -> None:
    """Sums 2 + 2 (x0 - 3) and -4 - 3 (x1 - 3) + (x3 - 3), times 0.5 and 1, plus 10."""
    meant = np.int32([[2, 0, 0, 0], [0, -3, 0, 1]]).reshape(2, 4, 1, 1)
    weight = (meant + zero.astype(np.int32).reshape(-1, 1, 1, 1)).astype(zero.dtype)
    model = convolution_by_hand(weight, zero)
    x = np.uint8([[7, 3], [3, 5], [200, 9], [3, 40]]).reshape(1, 4, 1, 2)
    rewritten = rewrite(model, costs=SPARSE)
    assert ops(rewritten.model) == ["QuantisedToPanel", "QuantisedConv", "QuantisedFromPanel"]
    (got,) = run_sparse(rewritten.model, {"x": x})
    # pixel 0: (2 + 8) / 2 + 10; -4 - 0 + 0 + 10. pixel 1: (2 + 0) / 2 + 10; -4 - 6 + 37 + 10.
    np.testing.assert_array_equal(got.reshape(2, 2), [[15, 11], [6, 37]])
    np.testing.assert_array_equal(got, run_dense(model, {"x": x})[0])


def test_weights_that_do_not_fit_into_int8_stay() -> None:
    weight = np.full((2, 4, 1, 1), 100, np.uint8)
    weight[0, 0], weight[1, 1] = 255, 10  # 155 and -90 above and below the zero point
    rewritten = rewrite(convolution_by_hand(weight, np.uint8(100)), costs=SPARSE)
    assert ops(rewritten.model) == []
    assert ops(rewritten.model, "") == ["QLinearConv"]


def qdq(value: str, name: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    """A value that becomes bytes and floats again, under another name."""
    return [
        node("QuantizeLinear", [value, scale, zero], [f"{name}.bytes"]),
        node("DequantizeLinear", [f"{name}.bytes", scale, zero], [name]),
    ]


def layer(source: str, output: str, **attributes: object) -> list[onnx.NodeProto]:
    """A convolution whose weight is `w`, of whole numbers."""
    made = node("Conv", [source, "weight"], [output], name="layer", **attributes)
    return [node("DequantizeLinear", ["w", "ws"], ["weight"], axis=0), made]


def numbers(**others: np.ndarray) -> dict[str, np.ndarray]:
    """A weight of six outputs, a scale and zero point of signed values, of positive ones, and of bytes of int8."""
    rng = np.random.default_rng(3)
    weight = np.where(rng.random((6, 6, 1, 1)) < 0.3, rng.integers(-90, 90, (6, 6, 1, 1)), 0).astype(np.int8)
    return {
        "w": weight,
        "ws": rng.uniform(0.01, 0.03, 6).astype(np.float32),
        "s": np.float32(0.02),
        "z": np.uint8(120),
        "t": np.float32(0.017),
        "o": np.uint8(0),
        "i": np.int8(-7),
        **others,
    }


FEED = {"x": normal(np.random.default_rng(4), 2, 6, 5, 7)}


def same(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], opset: int = 20) -> onnx.ModelProto:
    """Compares a network from x to y with ONNX Runtime's result of it; what it became."""
    model = of_bytes(nodes, {"x": (1, [2, 6, 5, 7])}, constants, {"y": 1}, opset)
    rewritten, found = checked(model, FEED)
    assert found.share is None or found.share > 0.995
    np.testing.assert_allclose(run_sparse(rewritten.model, FEED)[0], run_dense(model, FEED)[0], atol=0.0201, rtol=0)
    return rewritten.model


def activation(kind: str) -> list[onnx.NodeProto]:
    """An activation function of `a`, which stands for bytes, to `f`."""
    if kind == "silu":
        return [node("Sigmoid", ["a"], ["g"]), *qdq("g", "h", "t", "o"), node("Mul", ["a", "h"], ["f"])]
    if kind == "gelu":
        return [node("Gelu", ["a"], ["f"])]
    if kind == "hard swish in two":
        return [node("HardSigmoid", ["a"], ["g"], alpha=1 / 6), node("Mul", ["a", "g"], ["f"])]
    if kind == "hard swish in four":
        constants = [
            node("DequantizeLinear", ["cq", "one"], ["three"]),
            node("DequantizeLinear", ["dq", "one"], ["six"]),
        ]
        moved = [*constants, node("Add", ["a", "three"], ["g"]), *qdq("g", "h", "s", "o")]
        clipped = [node("Clip", ["h", "least", "six"], ["k"]), *qdq("k", "l", "s", "o")]
        product = [node("Mul", ["a", "l"], ["m"]), *qdq("m", "n", "s", "z")]
        return [*moved, *clipped, *product, node("Div", ["n", "six"], ["f"])]
    if kind == "scaled":
        return [node("Mul", ["a", "half"], ["f"])]
    if kind == "relu6":
        return [node("Clip", ["a", "least", "most"], ["f"])]
    return [node(kind, ["a"], ["f"])]


@pytest.mark.parametrize(
    "kind",
    [
        "silu",
        "hard swish in four",
        "gelu",
        "hard swish in two",
        "scaled",
        "relu6",
        "LeakyRelu",
        "HardSwish",
        "Tanh",
        "Relu",
        "Sigmoid",
    ],
)
@pytest.mark.parametrize("zero", ["z", "i"])
def test_functions_of_bytes_are_tables(kind: str, zero: str) -> None:
    nodes = [*qdq("x", "d", "s", zero), *layer("d", "c"), *qdq("c", "a", "s", zero)]
    nodes += [*activation(kind), *qdq("f", "y", "s", "z")]
    more = {
        "one": np.float32(1),
        "cq": np.uint8(3),
        "dq": np.uint8(6),
        "half": np.float32([0.5]),
        "least": np.float32(0),
        "most": np.float32(1),
    }
    made = same(nodes, numbers(**more))
    assert ops(made) == ["QuantisedToPanel", "QuantisedConv", "DequantisedFromPanel"]


def test_functions_behind_additions_and_by_themselves() -> None:
    """A residual is added to bytes; their function is read twice, so that one of the two layers stays without it."""
    nodes = [*qdq("x", "d", "s", "z"), *layer("d", "c"), *qdq("c", "a", "s", "z"), node("Add", ["a", "d"], ["b"])]
    nodes += [*qdq("b", "e", "t", "z"), node("LeakyRelu", ["e"], ["f"]), *qdq("f", "g", "s", "z")]
    nodes += [node("HardSwish", ["g"], ["h"]), *qdq("h", "k", "s", "o"), node("Add", ["g", "k"], ["l"])]
    nodes += [*qdq("l", "m", "s", "z"), node("Conv", ["m", "weight"], ["n"]), *qdq("n", "y", "s", "z")]
    made = same(nodes, numbers())
    assert ops(made) == ["QuantisedToPanel", *["QuantisedConv"] * 4, "DequantisedFromPanel"]
    assert ops(made, "") == []


@pytest.mark.parametrize(("before", "bounds"), [("Relu", [120, 255]), ("Clip", [133, 170]), (None, [0, 255])])
def test_clips_become_bounds(before: str | None, bounds: list[int]) -> None:
    behind = [] if before is None else [node(before, ["c", *(["low", "high"] if before == "Clip" else [])], ["r"])]
    nodes = [*qdq("x", "d", "s", "z"), *layer("d", "c"), *behind, *qdq("r" if before else "c", "y", "s", "z")]
    made = same(nodes, numbers(low=np.float32(0.26), high=np.float32(1)))
    (found,) = [n for n in made.graph.node if n.op_type == "QuantisedConv"]
    assert {a.name: a.i for a in found.attribute if a.name in ("lower", "upper")} == dict(
        zip(("lower", "upper"), bounds, strict=True)
    )


def test_a_network_of_bytes_between_its_layers(tmp_path: Path) -> None:
    """Depthwise and pointwise layers with ReLU6, pooling, concatenation and resizing, as a detector has them."""
    rng = np.random.default_rng(5)
    nodes = [
        node("Conv", ["x", "p.weight"], ["a"], strides=[2, 2], pads=[1] * 4, name="p"),
        node("Clip", ["a", "zero", "six"], ["b"]),
        node("Conv", ["b", "dw.weight", "dw.bias"], ["c"], pads=[1] * 4, group=8, name="dw"),
        node("Clip", ["c", "zero", "six"], ["d"]),
        node("AveragePool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["e", "q.weight"], ["f"], name="q"),
        node("Resize", ["f", "", "twice"], ["g"], mode="nearest", **NEAREST),
        node("Concat", ["g", "d"], ["h"], axis=1),
        node("MaxPool", ["h"], ["i"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Conv", ["i", "r.weight"], ["j"], name="r"),
        node("GlobalAveragePool", ["j"], ["y"]),
    ]
    constants = {
        "zero": np.float32(0),
        "six": np.float32(6),
        "twice": np.float32([1, 1, 2, 2]),
        "p.weight": sparse_weight(rng, 8, 3, 3, 3, density=0.5),
        "dw.weight": normal(rng, 8, 1, 3, 3),
        "dw.bias": normal(rng, 8),
        "q.weight": sparse_weight(rng, 6, 8, 1, 1, density=0.5),
        "r.weight": sparse_weight(rng, 10, 14, 1, 1),
    }
    model = network(nodes, {"x": [2, 3, 16, 24]}, constants, ["y"], opset=17)
    feed = {"x": normal(rng, 2, 3, 16, 24)}
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        made = quantised(model, [2, 3, 16, 24], tmp_path, form)
        rewritten, found = checked(made, feed)
        expected = {"QuantisedAveragePool", "QuantisedConcat", "QuantisedConv", "QuantisedMaxPool", "QuantisedResize"}
        assert expected <= set(ops(rewritten.model)), form
        assert ops(rewritten.model).count("QuantisedToPanel") == 1
        assert found.share is not None
        assert found.share > 0.99
        (before,), (after,) = run_dense(made, feed), run_sparse(rewritten.model, feed)
        assert np.abs(before - after).max() < 1.01 * scale_of_output(made)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
def test_products(form: QuantFormat, activations: QuantType, tmp_path: Path) -> None:
    """MatMul and Gemm, with biases and an addition behind them."""
    rng = np.random.default_rng(6)
    nodes = [
        node("MatMul", ["x", "a.weight"], ["a"], name="a"),
        node("Add", ["a", "a.bias"], ["ab"]),
        node("Relu", ["ab"], ["b"]),
        node("MatMul", ["b", "c.weight"], ["c"], name="c"),
        node("Add", ["c", "x"], ["y"]),
    ]
    constants = {
        "a.weight": sparse_weight(rng, 16, 24),
        "a.bias": normal(rng, 24),
        "c.weight": sparse_weight(rng, 24, 16),
    }
    model = network(nodes, {"x": [2, 9, 16]}, constants, ["y"], opset=17)
    made = quantised(model, [2, 9, 16], tmp_path, form, activations=activations)
    feed = {"x": normal(rng, 2, 9, 16)}
    rewritten, found = checked(made, feed)
    assert ops(rewritten.model) == ["QuantisedMatMul"] * 2
    assert found.share is not None
    assert found.share > 0.99
    (before,), (after,) = run_dense(made, feed), run_sparse(rewritten.model, feed)
    assert np.abs(before - after).max() < 1.01 * scale_of_output(made)


LEFT = {
    "scale 0": ({"s": np.float32(0)}, "a scale is 0"),
    "a scale that is none": ({"s": np.float32(np.nan)}, "a scale is nan"),
    "a negative scale": ({"ws": np.float32([-0.1] * 6)}, "not within"),
    "one channel too few": ({"ws": np.float32([0.1] * 5)}, "do not fit together"),
    "values by channel": ({"s": np.float32([0.1] * 6), "z": np.uint8([0] * 6)}, "by channel"),
    "16 bits": ({"z": np.uint16(0)}, "uint16"),
    "a weight of 32 bits": ({"w": np.full((6, 6, 1, 1), 300, np.int32)}, "300"),
    "sums beyond 32 bits": ({"bias": np.int32([2**31 - 1] * 6), "bs": np.float32([1] * 6)}, "32 bits"),
    "a bias of several axes": ({"bias": np.ones((1, 6, 1, 7), np.int32), "bs": np.float32([1])}, "one constant number"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_and_why(case: str) -> None:
    changed, reason = LEFT[case]
    nodes = [*qdq("x", "d", "s", "z"), *layer("d", "c"), *qdq("c", "y", "t", "o")]
    if "bias" in changed:
        nodes[3].input.append("b")
        nodes.insert(3, node("DequantizeLinear", ["bias", "bs"], ["b"], axis=0))
    constants = numbers()
    large = np.zeros((200, 6, 1, 1), np.int8)
    if "w" not in changed and "ws" not in changed and "bias" not in changed:
        # Weights of fewer numbers are not worth a word.
        constants |= {"w": large, "ws": np.float32([0.1] * 200)}
    model = of_bytes(nodes, {"x": (1, [2, 6, 5, 7])}, {**constants, **changed}, {"y": 1}, 21)
    rewritten = rewrite(model, costs=SPARSE)
    assert "QuantisedConv" not in ops(rewritten.model)
    found = find_quantised(Graph(prepared(model))).reasons
    assert any(reason in text for text in found.values()), found
    assert len(rewritten.left) == (1 if constants["w"] is large else 0)


def test_results_that_are_no_bytes_or_read_before_stay() -> None:
    for behind in ([node("Neg", ["c"], ["y"])], [*qdq("c", "n", "t", "o"), node("Add", ["n", "c"], ["y"])]):
        nodes = [*qdq("x", "d", "s", "z"), *layer("d", "c"), *behind]
        model = of_bytes(nodes, {"x": (1, [2, 6, 5, 7])}, numbers(), {"y": 1})
        assert "QuantisedConv" not in ops(rewrite(model, costs=SPARSE).model)
        assert find_quantised(Graph(prepared(model))).reasons == {3: "its result is not quantised"}


def test_what_is_quantised_once() -> None:
    """As NNCF writes it: what only moves numbers has no pair of its own behind it, and of an addition one input has."""
    nodes = [*qdq("x", "d", "s", "z"), node("MaxPool", ["d"], ["p"], kernel_shape=[2, 2]), *layer("p", "c")]
    nodes += [node("Resize", ["p", "", "one"], ["r"], **NEAREST), node("Add", ["c", "r"], ["a"])]
    nodes += [node("Relu", ["a"], ["b"]), *qdq("b", "e", "t", "o"), node("Flatten", ["e"], ["f"])]
    nodes += [node("DequantizeLinear", ["m", "ms"], ["matrix"], axis=1), node("MatMul", ["f", "matrix"], ["g"])]
    rng = np.random.default_rng(9)
    matrix = rng.integers(-5, 5, (144, 12)).astype(np.int8)
    more = {"one": np.float32([1, 1, 1, 1]), "m": matrix, "ms": rng.uniform(0.001, 0.002, 12).astype(np.float32)}
    made = same([*nodes, *qdq("g", "y", "s", "z")], numbers(**more))
    kinds = ["QuantisedToPanel", "QuantisedMaxPool", "QuantisedConv", "QuantisedFromPanel", "QuantisedMatMul"]
    assert [kind for kind in ops(made) if kind != "QuantisedResize"] == kinds
    assert not {"Add", "Conv", "MaxPool", "MatMul"} & set(ops(made, ""))


def mutated(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """One constant, input, attribute or op changed at random."""
    result = copied(model)
    graph = result.graph
    changed = graph.node[rng.integers(len(graph.node))]
    kind = rng.integers(5)
    if kind < 2:
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        values = numpy_helper.to_array(tensor)
        ways = [
            np.full_like(values, rng.choice([0, -1, np.nan, np.inf]) if values.dtype.kind == "f" else 77),
            values.astype(rng.choice([np.int8, np.uint8, np.int32, np.float32, np.float16, np.uint16])),
            values.reshape(-1)[:1],
            values.reshape(-1)[:0],
            values[..., None],
            values.T,
        ]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(ways[rng.integers(len(ways))]), tensor.name))
    elif kind == 2 and changed.input:
        values = ["", "x", *(name for other in graph.node for name in other.output)]
        changed.input[rng.integers(len(changed.input))] = str(rng.choice(values))
    elif kind == 3 and changed.input:
        del changed.input[-1]
    else:
        changed.op_type = str(rng.choice(["Conv", "MatMul", "QuantizeLinear", "DequantizeLinear", "Add", "MaxPool"]))
    return result


def small_networks() -> list[tuple[onnx.ModelProto, dict[str, np.ndarray]]]:
    """A layer, an addition, and a pooling, in both forms."""
    nodes = [*qdq("x", "d", "s", "z"), *layer("d", "c"), *qdq("c", "a", "s", "z"), node("Add", ["a", "d"], ["b"])]
    nodes += [
        *qdq("b", "e", "t", "o"),
        node("AveragePool", ["e"], ["p"], kernel_shape=[2, 2]),
        *qdq("p", "y", "t", "o"),
    ]
    pairs = of_bytes(nodes, {"x": (1, [2, 6, 5, 7])}, numbers(), {"y": 1})
    whole = convolution_by_hand(np.int8([[2, 0, 0, 0], [0, -3, 0, 1]]).reshape(2, 4, 1, 1), np.int8(0))
    whole.graph.node[0].output[0] = "c"
    numbers_of = ["ys", "yz"]
    added = node("QLinearAdd", ["c", *numbers_of, "c", *numbers_of, "xs", "xz"], ["a"], domain="com.microsoft")
    pooled = node("QLinearGlobalAveragePool", ["a", "xs", "xz", *numbers_of], ["y"], domain="com.microsoft")
    whole.graph.node.extend([added, pooled])
    return [(pairs, FEED), (whole, {"x": np.uint8([[7, 3], [3, 5], [200, 9], [3, 40]]).reshape(1, 4, 1, 2)})]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # casts of NaN
@pytest.mark.parametrize("form", [0, 1])
def test_damaged_networks(form: int) -> None:
    """Nothing crashes; what ONNX Runtime still runs is the same."""
    model, feed = small_networks()[form]
    compared = 0
    for seed in range(24):
        changed = mutated(model, np.random.default_rng(seed))
        rewritten = rewrite(changed, costs=SPARSE)
        try:
            run_dense(changed, feed)
        except Exception:  # onnxruntime's errors have no common class
            continue
        found = compare_bytes(prepared(changed), rewritten.model, rewritten, feed)
        assert found.wrong is None
        compared += found.values > 0
    assert compared > 1
