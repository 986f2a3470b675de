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
    """A mask, gaps and, with fp16, a weight without zeros and one that is too small to be stored otherwise."""
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
        expected = weight.astype(np.float16).astype(np.float32) if half else weight
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], expected)


def test_a_model_without_stored_weights_comes_back_as_it_is() -> None:
    model = matmul(weight_of(0.3))
    assert not is_compressed(model)
    assert unpack_weights(model) == model
    # A node of that domain makes no weight of what is no constant.
    compressed = compress_weights(model)
    positions = next(node for node in compressed.graph.node if node.op_type != "MatMul")
    positions.input[0] = "x"
    assert not is_compressed(compressed)
    assert unpack_weights(compressed) == compressed


def test_a_damaged_weight_is_refused() -> None:
    compressed = compress_weights(matmul(weight_of(0.3)))
    shape = next(tensor for tensor in compressed.graph.initializer if tensor.name == "w.shape")
    shape.CopyFrom(numpy_helper.from_array(np.asarray([ROWS, COLUMNS + 1]), "w.shape"))
    with pytest.raises(ExportError, match=r"stored without their zeros \(w\) are damaged"):
        unpack_weights(compressed)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def pruned(rng: np.random.Generator, *shape: int, density: float = 0.1) -> np.ndarray:
    return sparse_weight(rng, *shape, density=density)


def as_halves(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    cast = helper.make_node("Cast", ["w"], ["v"], to=onnx.TensorProto.FLOAT)
    return [cast], {"w": pruned(rng, 40, 30).astype(np.float16)}


def as_doubles(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    cast = helper.make_node("Cast", ["w"], ["v"], to=onnx.TensorProto.FLOAT)
    return [cast], {"w": pruned(rng, 40, 30).astype(np.float64)}


def as_bytes(rng: np.random.Generator, kind: type, zero: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    kept = rng.random((40, 30)) < 0.1
    weight = np.where(kept, rng.integers(zero - 90, zero + 90, kept.shape), zero).astype(kind)
    made = helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["v"], axis=1)
    scales = rng.uniform(0.5, 1.5, 30).astype(np.float32)
    return [made], {"w": weight, "scale": scales, "zero": np.full(30, zero, kind)}


def as_a_mask(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    where = helper.make_node("Where", ["mask", "w", "nothing"], ["v"])
    weight = rng.standard_normal((40, 30)).astype(np.float32)
    return [where], {"w": weight, "mask": np.tri(40, 30, dtype=bool), "nothing": np.float32(-1)}


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize(
    ("weight", "most"),
    [
        # Bytes of a kept number and of its position, of one dense number.
        (as_halves, 0.3),
        (as_doubles, 0.2),
        (lambda rng: as_bytes(rng, np.int8, 0), 0.4),
        (lambda rng: as_bytes(rng, np.uint8, 128), 0.4),
        (as_a_mask, 0.2),
    ],
)
def test_weights_of_every_type(weight, most: float, opset: int, rng: np.random.Generator) -> None:
    nodes, constants = weight(rng)
    model = network([*nodes, helper.make_node("MatMul", ["x", "v"], ["y"])], {"x": ["n", 40]}, constants, ["y"], opset)
    compressed = compress_weights(model)
    x = {"x": rng.standard_normal((3, 40)).astype(np.float32)}
    assert np.array_equal(run_dense(compressed, x)[0], run_dense(model, x)[0])
    name = "mask" if "mask" in constants else "w"
    stored = sum(one.ByteSize() for one in compressed.graph.initializer if one.name.startswith(f"{name}."))
    assert stored <= most * constants[name].nbytes + 150
    back = {one.name: numpy_helper.to_array(one) for one in unpack_weights(compressed).graph.initializer}
    assert back[name].dtype == constants[name].dtype
    assert np.array_equal(back[name], constants[name])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_networks(kind: str, rng: np.random.Generator) -> None:
    """A tenth of the weights takes at most a fifth of the bytes, positions and all."""
    gates, hidden, inputs = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 96, 48
    constants = {
        "w": pruned(rng, 2, gates * hidden, inputs),
        "r": pruned(rng, 2, gates * hidden, hidden),
        "b": rng.standard_normal((2, 2 * gates * hidden)).astype(np.float32),
    }
    node = helper.make_node(kind, ["x", "w", "r", "b"], ["y"], hidden_size=hidden, direction="bidirectional")
    model = network([node], {"x": [7, 2, inputs]}, constants, ["y"])
    compressed = compress_weights(model)
    x = {"x": rng.standard_normal((7, 2, inputs)).astype(np.float32)}
    assert np.array_equal(run_dense(compressed, x)[0], run_dense(model, x)[0])
    biases, functions = constants["b"].nbytes, 2000
    assert compressed.ByteSize() <= 0.2 * model.ByteSize() + biases + functions


def test_weights_in_bodies(rng: np.random.Generator) -> None:
    """Both branches of an If call theirs alike; one holds it as a Constant node, and a Loop stands in it."""
    first, second, third = (pruned(rng, 64, 64) for _ in range(3))
    turn = [
        helper.make_node("Identity", ["c_in"], ["c_out"]),
        helper.make_node("MatMul", ["v_in", "turned"], ["v_out"]),
    ]
    values = helper.make_tensor_value_info
    body = helper.make_graph(
        turn,
        "body",
        [values("i", 7, []), values("c_in", 9, []), values("v_in", 1, [None, 64])],
        [values("c_out", 9, []), values("v_out", 1, [None, 64])],
        [numpy_helper.from_array(third, "turned")],
    )
    then = helper.make_graph(
        [
            helper.make_node("Constant", [], ["held"], value=numpy_helper.from_array(first)),
            helper.make_node("MatMul", ["x", "held"], ["then"]),
            helper.make_node("Loop", ["three", "", "then"], ["turns"], body=body),
        ],
        "then",
        [],
        [values("turns", 1, [None, 64])],
    )
    otherwise = helper.make_graph(
        [helper.make_node("MatMul", ["x", "held"], ["else"])],
        "else",
        [],
        [values("else", 1, [None, 64])],
        [numpy_helper.from_array(second, "held")],
    )
    choice = helper.make_node("If", ["which"], ["y"], then_branch=then, else_branch=otherwise)
    model = network([choice], {"x": ["n", 64], "which": []}, {"three": np.asarray(3)}, ["y"])
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    compressed = compress_weights(model)
    assert compressed.ByteSize() < 0.25 * model.ByteSize()
    back = unpack_weights(compressed)
    x = rng.standard_normal((3, 64)).astype(np.float32)
    for which in (True, False):
        fed = {"x": x, "which": np.asarray(which)}
        expected = run_dense(model, fed)[0]
        assert np.array_equal(run_dense(compressed, fed)[0], expected)
        assert np.array_equal(run_dense(back, fed)[0], expected)


def test_the_last_layer_of_a_small_network(rng: np.random.Generator) -> None:
    """10 x 100 at 45%: 4,000 bytes become 1,800 of values and 125 of positions."""
    weight = pruned(rng, 100, 10, density=0.45)
    model = network([MATMUL], {"x": [3, 100]}, {"w": weight}, ["y"])
    saved = model.ByteSize() - compress_weights(model).ByteSize()
    function, names = 800, 150
    assert saved >= weight.nbytes - 4 * np.count_nonzero(weight) - weight.size / 8 - function - names


def test_a_file_is_never_larger(rng: np.random.Generator) -> None:
    """What is saved has to be more than the function that puts it together."""
    for size in range(2, 40):
        model = network([MATMUL], {"x": [3, size]}, {"w": pruned(rng, size, 10)}, ["y"])
        assert compress_weights(model).ByteSize() <= model.ByteSize()
