"""Plain ONNX out of a sparse file computes what the network did before it was made sparse, with the same weights."""

import numpy as np
import onnx
import pytest
from bench.test_network import PICTURES, TOKENS, draw
from export.onnx_graphs import Array, assert_same, network, ops, run_dense, sparse_weight
from onnx import helper, numpy_helper

from gossamer.bench.network import build, read
from gossamer.errors import ConfigurationError
from gossamer.export.costs import EverythingSparse
from gossamer.export.dense import to_dense
from gossamer.export.rewrite import rewrite
from gossamer.graph.ops import is_sparse

node = helper.make_node


def sparse_form(model: onnx.ModelProto) -> onnx.ModelProto:
    rewritten = rewrite(model, costs=EverythingSparse()).model
    assert is_sparse(rewritten)
    return rewritten


def weights_of(model: onnx.ModelProto) -> list[Array]:
    """By their smallest value, which drawing them made different."""
    arrays = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    return sorted((array for array in arrays if array.ndim > 1), key=lambda array: float(array.min()))


@pytest.mark.parametrize(("text", "name", "shape"), [(PICTURES, "image", (1, 3, 10, 9)), (TOKENS, "tokens", (1, 5, 8))])
def test_the_way_back_ends_where_it_began(text: str, name: str, shape: tuple[int, ...]) -> None:
    model = build(read("network", text), 0.3)
    back = to_dense(sparse_form(model))
    assert not is_sparse(back)
    onnx.checker.check_model(back)
    assert_same(run_dense(back, {name: draw(*shape)}), run_dense(model, {name: draw(*shape)}))
    for restored, original in zip(weights_of(back), weights_of(model), strict=True):
        # Fully connected layers come back as MatMul, whose weights lie the other way round than Gemm's.
        turned = restored if restored.shape == original.shape else restored.T
        np.testing.assert_array_equal(turned, original)


SILU = [node("Sigmoid", ["sums"], ["share"]), node("Mul", ["sums", "share"], ["out"])]


@pytest.mark.parametrize(
    "activation",
    [
        [node("Relu", ["sums"], ["out"])],
        [node("Clip", ["sums", "low", "high"], ["out"])],
        [node("HardSwish", ["sums"], ["out"])],
        [node("Gelu", ["sums"], ["out"])],
        SILU,
        [node("LeakyRelu", ["sums"], ["out"], alpha=0.2)],
    ],
    ids=["relu", "clip", "hardswish", "gelu", "silu", "leakyrelu"],
)
def test_activations_come_back(activation: list[onnx.NodeProto]) -> None:
    rng = np.random.default_rng(0)
    constants = {
        "weight": sparse_weight(rng, 16, 12, 3, 3),
        "low": np.array(-0.5, np.float32),
        "high": np.array(0.75, np.float32),
    }
    nodes = [node("Conv", ["image", "weight"], ["sums"], pads=[1, 1, 1, 1]), *activation]
    model = network(nodes, {"image": [1, 12, 6, 6]}, constants, ["out"])
    sparse = sparse_form(model)
    assert [kind for kind in ops(sparse) if kind == "SparseConv"] == ["SparseConv"]
    image = draw(1, 12, 6, 6)
    assert_same(run_dense(to_dense(sparse), {"image": image}), run_dense(model, {"image": image}))


def test_a_damaged_weight_is_named() -> None:
    sparse = sparse_form(build(read("network", PICTURES), 0.3))
    packed = next(n.input[1] for n in sparse.graph.node if n.op_type == "SparseConv")
    tensor = next(t for t in sparse.graph.initializer if t.name == packed)
    content = bytearray(numpy_helper.to_array(tensor).tobytes())
    content[-1] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(np.frombuffer(bytes(content), np.uint8), packed))
    with pytest.raises(ConfigurationError, match=f"the weight '{packed}' of node .* is damaged"):
        to_dense(sparse)


def test_an_op_of_a_later_version_is_named() -> None:
    sparse = sparse_form(build(read("network", PICTURES), 0.3))
    next(n for n in sparse.graph.node if n.op_type == "SparseConv").op_type = "SparserConv"
    with pytest.raises(ConfigurationError, match=r"gossamer\.SparserConv, which this version does not know"):
        to_dense(sparse)


def test_a_layer_that_is_named_as_its_output_comes_back() -> None:
    weight = sparse_weight(np.random.default_rng(0), 8, 6)
    nodes = [node("MatMul", ["rows", "weight"], ["sums"], name="out"), node("Relu", ["sums"], ["out"])]
    model = network(nodes, {"rows": [5, 8]}, {"weight": weight}, ["out"])
    rows = draw(5, 8)
    assert_same(run_dense(to_dense(sparse_form(model)), {"rows": rows}), run_dense(model, {"rows": rows}))


def test_constants_that_only_a_branch_reads_or_the_network_returns_come_back() -> None:
    rng = np.random.default_rng(0)
    weight = sparse_weight(rng, 8, 6)
    constants = {
        "weight": weight,
        "limit": np.array(0, np.float32),
        "shift": draw(6),
        "returned": draw(3),
    }
    branch = {
        name: helper.make_graph(
            [node(kind, ["sums", "shift"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)],
        )
        for name, kind in (("more", "Add"), ("less", "Sub"))
    }
    nodes = [
        node("MatMul", ["rows", "weight"], ["sums"]),
        node("ReduceSum", ["sums"], ["total"], keepdims=0),
        node("Greater", ["total", "limit"], ["positive"]),
        node("If", ["positive"], ["out"], then_branch=branch["more"], else_branch=branch["less"]),
    ]
    model = network(nodes, {"rows": [5, 8]}, constants, ["out", "returned"])
    rows = {"rows": draw(5, 8)}
    assert_same(run_dense(to_dense(sparse_form(model)), rows), run_dense(model, rows))
