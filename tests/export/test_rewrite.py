"""Graphs written by hand, of which it is known which ops they become; ONNX Runtime's dense ops are the oracle."""

import numpy as np
import onnx
import pytest
from export.onnx_graphs import Array, assert_same, native_library, network, ops, run_dense, run_sparse, sparse_weight
from onnx import helper

from gossamer.export import rewrite, to_sparse
from gossamer.export.costs import EverythingSparse

node = helper.make_node
RNG = np.random.default_rng(0)
SPARSE = EverythingSparse()


@pytest.fixture(autouse=True)
def _native_library() -> None:
    native_library()


def images(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def residual_block() -> onnx.ModelProto:
    """Two 3x3 convolutions and a projection, as in ResNet."""
    nodes = [
        node("Conv", ["x", "first.weight", "first.bias"], ["a"], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "second.weight"], ["c"], pads=[1] * 4),
        node("Conv", ["x", "shortcut.weight"], ["d"], strides=[2, 2]),
        node("Add", ["c", "d"], ["e"]),
        node("Relu", ["e"], ["f"]),
        node("GlobalAveragePool", ["f"], ["g"]),
        node("Flatten", ["g"], ["h"]),
        node("Gemm", ["h", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    constants = {
        "first.weight": sparse_weight(RNG, 16, 8, 3, 3),
        "first.bias": images(16),
        "second.weight": sparse_weight(RNG, 16, 16, 3, 3),
        "shortcut.weight": sparse_weight(RNG, 16, 8, 1, 1),
        "head.weight": sparse_weight(RNG, 10, 16),
        "head.bias": images(10),
    }
    return network(nodes, {"x": ["batch", 8, 13, 10]}, constants, ["y"])


def test_a_residual_block_stays_in_panels() -> None:
    model = residual_block()
    rewritten = rewrite(model, costs=SPARSE)
    assert ops(rewritten.model) == ["ToPanel", "SparseConv", "SparseConv", "SparseConv", "FromPanel", "SparseMatMul"]
    assert ops(rewritten.model, "") == ["GlobalAveragePool", "Flatten"]
    assert [layer.name for layer in rewritten.layers] == ["first", "second", "shortcut", "head"]
    for batch in (1, 3):
        feed = {"x": images(batch, 8, 13, 10)}
        assert_same(run_sparse(rewritten.model, feed), run_dense(model, feed))


def test_the_source_stays_as_it_is() -> None:
    model = residual_block()
    before = model.SerializeToString()
    to_sparse(model, costs=SPARSE)
    assert model.SerializeToString() == before
