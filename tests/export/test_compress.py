"""Weights that stay dense, stored without their zeros: the same numbers to the bit, in few bytes, made when loading."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export.onnx_graphs import network, run_dense, sparse_weight
from onnx import helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.export.compress import compress_weights, is_compressed, unpack_weights

ROWS, COLUMNS = 257, 131
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])


def matmul(weight: np.ndarray) -> onnx.ModelProto:
    return network([MATMUL], {"x": [3, ROWS]}, {"w": weight}, ["y"])


def weight_of(density: float) -> np.ndarray:
    weight = sparse_weight(np.random.default_rng(1), ROWS, COLUMNS, density=density)
    return weight if density < 1 else np.where(weight == 0, np.float32(1), weight)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.3, 0.9, 1.0])
def test_the_same_weight_in_fewer_bytes(density: float, half: bool, tmp_path: Path) -> None:
    weight = weight_of(density)
    compressed = compress_weights(matmul(weight), half=half)
    expected = weight.astype(np.float16).astype(np.float32) if half else weight
    x = {"x": np.random.default_rng(2).standard_normal((3, ROWS)).astype(np.float32)}
    # Equal to the bit: the product is computed by the same kernel from the same numbers.
    assert np.array_equal(run_dense(compressed, x)[0], run_dense(matmul(expected), x)[0])
    kept, width = int(np.count_nonzero(weight)), 2 if half else 4
    values = width * (weight.size if density == 1 else kept)
    positions = 0 if density == 1 else min(weight.size / 8, kept + weight.size / 255)
    names_and_nodes = 2000
    assert len(compressed.SerializeToString()) <= values + positions + names_and_nodes
    # ONNX Runtime computes the weight when the session is created, not in every run.
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(compressed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node] == ["MatMul"]


def test_what_would_not_become_smaller_stays() -> None:
    dense, small = matmul(weight_of(1.0)), network([MATMUL], {"x": [3, 4]}, {"w": np.eye(4, dtype=np.float32)}, ["y"])
    assert compress_weights(dense) == dense
    assert compress_weights(small) == small


def test_two_layers() -> None:
    nodes = [MATMUL, helper.make_node("MatMul", ["y", "v"], ["z"])]
    second = sparse_weight(np.random.default_rng(3), COLUMNS, 50, density=0.4)
    model = network(nodes, {"x": ["n", ROWS]}, {"w": weight_of(0.05), "v": second}, ["z"])
    x = {"x": np.random.default_rng(2).standard_normal((3, ROWS)).astype(np.float32)}
    assert np.array_equal(run_dense(compress_weights(model), x)[0], run_dense(model, x)[0])


@pytest.mark.parametrize("half", [False, True])
def test_the_way_back_ends_where_it_began(half: bool) -> None:
    """A mask, gaps and, with fp16, a weight without zeros; one weight is too small to be stored otherwise."""
    weights = {
        "mask": weight_of(0.3),
        "gaps": sparse_weight(np.random.default_rng(3), COLUMNS, 64, density=0.02),
        "full": np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32),
        "small": sparse_weight(np.random.default_rng(5), 64, 3),
    }
    values = ["x", "a", "b", "c", "d"]
    nodes = [
        helper.make_node("MatMul", [source, name], [made], name=f"layer {name}")
        for source, name, made in zip(values, weights, values[1:], strict=False)
    ]
    model = network(nodes, {"x": ["n", ROWS]}, weights, ["d"])
    compressed = compress_weights(model, half=half)
    assert is_compressed(compressed)
    assert not is_compressed(model)
    back = unpack_weights(compressed)
    assert list(back.graph.node) == list(model.graph.node)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in back.graph.initializer}
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        expected = weight.astype(np.float16).astype(np.float32) if half and name != "small" else weight
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], expected)


def test_a_model_without_stored_weights_comes_back_as_it_is() -> None:
    # A name alone makes no weight: this node works on an input.
    chance = helper.make_node("Add", ["y", "y"], ["z"], name="z.unpacked")
    model = network([MATMUL, chance], {"x": [3, ROWS]}, {"w": weight_of(0.3)}, ["z"])
    assert not is_compressed(model)
    assert unpack_weights(model) == model


def test_a_damaged_weight_is_refused() -> None:
    compressed = compress_weights(matmul(weight_of(0.3)))
    shape = next(tensor for tensor in compressed.graph.initializer if tensor.name == "w.shape")
    shape.CopyFrom(numpy_helper.from_array(np.asarray([ROWS, COLUMNS + 1]), "w.shape"))
    with pytest.raises(ExportError, match=r"stored without their zeros \(w\) are damaged"):
        unpack_weights(compressed)
