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
from onnx import TensorProto, helper

from gossamer.export import rewrite
from gossamer.export.costs import EverythingSparse

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
