"""Weights that a graph computes from constants; ONNX Runtime, which computes them itself, is the oracle."""

import tracemalloc
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from export.onnx_graphs import (
    Array,
    assert_same,
    network,
    normal,
    ops,
    run_dense,
    run_sparse,
    sparse_weight,
)
from onnx import TensorProto, helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import rewrite, to_sparse
from gossamer.graph.constants import prepared

node = helper.make_node
RNG = np.random.default_rng(0)
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


def mask(*shape: int) -> np.ndarray:
    return RNG.random(shape) < 0.2


MADE: dict[str, tuple[Sequence[onnx.NodeProto], Mapping[str, np.ndarray]]] = {
    "multiplied": ([node("Mul", ["v", "m"], ["w"])], {"v": normal(RNG, 16, 24), "m": mask(16, 24).astype(np.float32)}),
    "chosen": (
        [node("Where", ["m", "v", "zero"], ["w"])],
        {"v": normal(RNG, 16, 24), "m": mask(16, 24), "zero": np.float32(0)},
    ),
    "cast": (
        [node("Cast", ["m"], ["f"], to=TensorProto.FLOAT), node("Mul", ["v", "f"], ["w"])],
        {"v": normal(RNG, 16, 24), "m": mask(16, 24)},
    ),
    "fp16": ([node("Cast", ["v"], ["w"], to=TensorProto.FLOAT)], {"v": sparse_weight(RNG, 16, 24).astype(np.float16)}),
    "thresholded": (
        [
            node("Abs", ["v"], ["a"]),
            node("Greater", ["a", "t"], ["m"]),
            node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
            node("Mul", ["v", "f"], ["w"]),
        ],
        {"v": normal(RNG, 16, 24), "t": np.float32(1)},
    ),
    "normalised": (
        [
            node("Transpose", ["v"], ["t"], perm=[1, 0]),
            node("ReduceL2", ["t", "axes"], ["norm"], keepdims=1),
            node("Div", ["t", "norm"], ["d"]),
            node("Mul", ["d", "g"], ["w"]),
        ],
        {"v": sparse_weight(RNG, 24, 16), "g": normal(RNG, 16, 1), "axes": np.asarray([1])},
    ),
    "as a power": (
        # numpy warns of the logarithm of zero.
        [node("Abs", ["v"], ["a"]), node("Log", ["a"], ["l"]), node("Exp", ["l"], ["w"])],
        {"v": sparse_weight(RNG, 16, 24)},
    ),
    "spread": (
        [
            node("Shape", ["v"], ["s"]),
            node("Expand", ["rows", "s"], ["m"]),
            node("Mul", ["v", "m"], ["w"]),
        ],
        {"v": normal(RNG, 16, 24), "rows": mask(16, 1).astype(np.float32)},
    ),
}


@pytest.mark.parametrize("made", MADE)
def test_computed_weights_are_those_of_a_sparse_layer(made: str) -> None:
    nodes, constants = MADE[made]
    model = network([*nodes, node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, constants, ["y"])
    (weight,) = run_dense(model, {"x": np.eye(16, dtype=np.float32)})
    rewritten = rewrite(model, costs=SPARSE)
    (layer,) = rewritten.layers
    assert (layer.form, layer.kept) == ("sparse", np.count_nonzero(weight))
    assert ops(rewritten.model) == ["SparseMatMul"]
    assert ops(rewritten.model, "") == []
    feed = {"x": normal(RNG, 5, 16)}
    assert_same(run_sparse(rewritten.model, feed), run_dense(model, feed))


def stored_sparse(weight: Array, name: str, flat: bool) -> onnx.SparseTensorProto:
    places = np.flatnonzero(weight) if flat else np.argwhere(weight)
    values = numpy_helper.from_array(weight[weight != 0], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64)), list(weight.shape))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_sparse_tensors_of_onnx(flat: bool, constant: bool) -> None:
    weight = sparse_weight(RNG, 24, 16)
    stored = stored_sparse(weight, "v", flat)
    nodes = [node("Transpose", ["v"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    if constant:
        nodes.insert(0, node("Constant", [], ["v"], sparse_value=stored))
    model = network(nodes, {"x": ["n", 16]}, {}, ["y"])
    if not constant:
        model.graph.sparse_initializer.append(stored)
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse) == ["SparseMatMul"]
    assert not sparse.graph.sparse_initializer
    x = normal(RNG, 3, 16)
    assert_same(run_sparse(sparse, {"x": x}), [x @ weight.T])


@pytest.mark.parametrize(
    "damage",
    [lambda places: places + 1000, lambda places: places - 2 * places[0] - 1, lambda places: places[1:]],
    ids=["past the end", "before the beginning", "fewer"],
)
def test_a_damaged_sparse_tensor_is_refused(damage: Callable[[Array], Array]) -> None:
    stored = stored_sparse(sparse_weight(RNG, 16, 24), "w", flat=True)
    stored.indices.CopyFrom(numpy_helper.from_array(damage(numpy_helper.to_array(stored.indices))))
    model = network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {}, ["y"])
    model.graph.sparse_initializer.append(stored)
    with pytest.raises(ExportError, match="sparse constant w is damaged"):
        to_sparse(model, costs=SPARSE)


def test_only_weights_are_computed() -> None:
    """A mask of attention is smaller as the op that makes it; a value that the graph returns has to stay one."""
    nodes = [
        node("Expand", ["one", "shape"], ["mask"]),
        node("Add", ["x", "mask"], ["masked"]),
        node("Mul", ["v", "m"], ["w"]),
        node("MatMul", ["masked", "w"], ["y"]),
    ]
    constants = {
        "one": np.ones(1, np.float32),
        "shape": np.asarray([64, 16]),
        "v": normal(RNG, 16, 24),
        "m": mask(16, 24).astype(np.float32),
    }
    kinds = [n.op_type for n in prepared(network(nodes, {"x": [64, 16]}, constants, ["y"])).graph.node]
    assert kinds == ["Expand", "Add", "MatMul"]
    kinds = [n.op_type for n in prepared(network(nodes, {"x": [64, 16]}, constants, ["y", "w"])).graph.node]
    assert kinds == ["Expand", "Add", "Mul", "MatMul"]


def test_an_embedding_of_bytes_stays_one() -> None:
    """Bytes times scales: computed where they are a layer's weight, an embedding would only be larger."""
    nodes = [
        node("Cast", ["table"], ["numbers"], to=TensorProto.FLOAT),
        node("Mul", ["numbers", "scales"], ["embedding"]),
        node("Gather", ["embedding", "tokens"], ["x"]),
        node("Cast", ["v"], ["whole"], to=TensorProto.FLOAT),
        node("Mul", ["whole", "scale"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {
        "table": RNG.integers(-127, 128, (100, 16)).astype(np.int8),
        "scales": normal(RNG, 100, 1),
        "v": np.rint(20 * sparse_weight(RNG, 16, 24)).astype(np.int8),
        "scale": np.float32(0.1),
    }
    model = network(nodes, {"tokens": ["n"]}, constants, ["y"])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    kinds = [n.op_type for n in prepared(model).graph.node]
    assert kinds == ["Cast", "Mul", "Gather", "MatMul"]
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse) == ["SparseMatMul"]
    feed = {"tokens": np.asarray([3, 99, 0])}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))  # type: ignore[arg-type]


def doubled_often() -> list[onnx.NodeProto]:
    """A kilobyte, 40 times doubled."""
    return [node("Concat", [f"w{n}", f"w{n}"], [f"w{n + 1}"], axis=1) for n in range(40)]


HUGE: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], str]] = {
    "expanded": ([node("Expand", ["v", "s"], ["w"])], {"v": normal(RNG, 1, 1), "s": np.asarray([16, 2**40])}, "w"),
    "filled": ([node("ConstantOfShape", ["s"], ["w"])], {"s": np.asarray([16, 2**40])}, "w"),
    "tiled": ([node("Tile", ["v", "s"], ["w"])], {"v": normal(RNG, 16, 4), "s": np.asarray([1, 2**62])}, "w"),
    "outer": ([node("Mul", ["a", "b"], ["w"])], {"a": normal(RNG, 2**17, 1), "b": normal(RNG, 1, 2**17)}, "w"),
    "doubled": (doubled_often(), {"w0": normal(RNG, 16, 16)}, "w40"),
}


@pytest.mark.parametrize("kind", HUGE)
def test_what_asks_for_much_memory_stays_as_it_is(kind: str) -> None:
    nodes, constants, weight = HUGE[kind]
    model = network([*nodes, node("MatMul", ["x", weight], ["y"])], {"x": ["n", 16]}, constants, ["y"])
    tracemalloc.start()
    rewritten = rewrite(model, costs=SPARSE)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**30
    assert rewritten.layers == ()
    assert nodes[-1] in list(rewritten.model.graph.node)
    (left,) = rewritten.left
    assert left.zeros is None
    assert f"computed from constants by {nodes[-1].op_type}" in left.reason


def test_a_network_that_stores_much_may_compute_as_much() -> None:
    nodes, constants = MADE["multiplied"]
    stored = {**constants, "table": np.zeros(5 << 20, np.float32)}
    model = network([*nodes, node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, stored, ["y"])
    assert [layer.form for layer in rewrite(model, costs=SPARSE).layers] == ["sparse"]


def test_a_sparse_tensor_of_a_huge_shape_stays_as_it_is() -> None:
    stored = stored_sparse(sparse_weight(RNG, 16, 24), "w", flat=True)
    stored.dims[1] = 2**40
    model = network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {}, ["y"])
    model.graph.sparse_initializer.append(stored)
    assert prepared(model) == model
    constant = node("Constant", [], ["w"], sparse_value=stored)
    model = network([constant, node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {}, ["y"])
    assert prepared(model) == model
