"""Shapes that a network computes from values behind gossamer's ops, with axes of the input that are named, open without
a name, of size -1, or not declared at all; ONNX Runtime's dense ops are the oracle."""

from collections.abc import Sequence

import gossamer_runtime
import numpy as np
import onnx
import pytest
from export.onnx_graphs import Array, assert_same, network, normal, ops, sparse_weight
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import to_sparse
from gossamer.graph.sessions import dense_session

node = helper.make_node
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")

Part = tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]], tuple[int, ...]]
"""Nodes from x to a, their constants, and the size of x."""


def convolution(rng: np.random.Generator) -> Part:
    return [node("Conv", ["x", "w"], ["a"], pads=[1] * 4)], {"w": sparse_weight(rng, 6, 4, 3, 3)}, (3, 4, 8, 6)


def strided(rng: np.random.Generator) -> Part:
    nodes = [node("Conv", ["x", "w"], ["b"], pads=[1] * 4, strides=[2, 2]), node("Tanh", ["b"], ["a"])]
    return nodes, {"w": sparse_weight(rng, 6, 4, 3, 3)}, (2, 4, 9, 7)


def pooled(rng: np.random.Generator) -> Part:
    nodes = [
        node("Conv", ["x", "w"], ["b"], pads=[1] * 4),
        node("MaxPool", ["b"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    return nodes, {"w": sparse_weight(rng, 6, 4, 3, 3)}, (3, 4, 8, 6)


def stem(rng: np.random.Generator) -> Part:
    nodes = [
        node("Conv", ["x", "dense"], ["b"], pads=[1] * 4),
        node("Relu", ["b"], ["c"]),
        node("Conv", ["c", "w"], ["a"]),
    ]
    return nodes, {"dense": normal(rng, 8, 3, 3, 3), "w": sparse_weight(rng, 5, 8, 1, 1)}, (2, 3, 8, 6)


def residual(rng: np.random.Generator) -> Part:
    nodes = [
        node("Conv", ["x", "w"], ["b"], pads=[1] * 4),
        node("Conv", ["b", "v"], ["c"]),
        node("Add", ["b", "c"], ["a"]),
    ]
    return nodes, {"w": sparse_weight(rng, 6, 4, 3, 3), "v": sparse_weight(rng, 6, 6, 1, 1)}, (3, 4, 8, 6)


def sequence(rng: np.random.Generator) -> Part:
    return [node("Conv", ["x", "w"], ["a"], pads=[1, 1])], {"w": sparse_weight(rng, 6, 4, 3)}, (3, 4, 9)


def product(rng: np.random.Generator) -> Part:
    return [node("MatMul", ["x", "w"], ["a"])], {"w": sparse_weight(rng, 4, 6)}, (3, 5, 4)


PARTS = {part.__name__: part for part in (convolution, strided, pooled, stem, residual, sequence, product)}

Tail = tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]], int]
"""Nodes from a to y, their constants, and the type of y."""

I = TensorProto.INT64  # noqa: E741
F = TensorProto.FLOAT


def whole(*numbers: int) -> NDArray[np.int64]:
    return np.asarray(numbers, np.int64)


def size_of(axis: int, name: str = "size") -> list[onnx.NodeProto]:
    """The size of an axis of a, as a list of one number."""
    return [node("Shape", ["a"], [f"{name}.all"]), node("Gather", [f"{name}.all", f"axis{axis}"], [name])]


def shape(axis: int, rank: int) -> Tail:
    return [node("Shape", ["a"], ["y"], start=axis)], {}, I


def shape_of_one(axis: int, rank: int) -> Tail:
    return size_of(axis, "y"), {f"axis{axis}": whole(axis)}, I


def cut(axis: int, rank: int) -> Tail:
    constants = {"from": whole(1), "to": whole(2**31), "axes": whole(axis)}
    return [node("Slice", ["a", "from", "to", "axes"], ["y"])], constants, F


def cut_from_the_end(axis: int, rank: int) -> Tail:
    constants = {"from": whole(-2), "to": whole(-1), "axes": whole(axis)}
    return [node("Slice", ["a", "from", "to", "axes"], ["y"])], constants, F


def turned_round(axis: int, rank: int) -> Tail:
    constants = {"from": whole(-1), "to": whole(-(2**31)), "axes": whole(axis), "steps": whole(-1)}
    return [node("Slice", ["a", "from", "to", "axes", "steps"], ["y"])], constants, F


def last_one(axis: int, rank: int) -> Tail:
    return [node("Gather", ["a", "last"], ["y"], axis=axis)], {"last": whole(-1)}, F


def twice(axis: int, rank: int) -> Tail:
    return [node("Concat", ["a", "a"], ["y"], axis=axis)], {}, F


def split(axis: int, rank: int) -> Tail:
    nodes = [
        node("Concat", ["a", "a"], ["both"], axis=axis),
        node("Split", ["both"], ["y", "z"], axis=axis, num_outputs=2),
    ]
    return nodes, {}, F


def flat_but_one(axis: int, rank: int) -> Tail:
    """[size of the axis, all others]."""
    nodes = [
        *size_of(axis),
        node("Concat", ["size", "rest"], ["to"], axis=0),
        node("Reshape", ["a", "to"], ["y"]),
    ]
    return nodes, {f"axis{axis}": whole(axis), "rest": whole(-1)}, F


def flattened(axis: int, rank: int) -> Tail:
    return [node("Flatten", ["a"], ["y"], axis=axis)], {}, F


def stretched(axis: int, rank: int) -> Tail:
    """One number for each place on the axis, to the shape of a."""
    nodes = [
        node("ReduceMax", ["a", "others"], ["most"], keepdims=1),
        node("Shape", ["a"], ["to"]),
        node("Expand", ["most", "to"], ["y"]),
    ]
    return nodes, {"others": whole(*(other for other in range(rank) if other != axis))}, F


def resized(axis: int, rank: int) -> Tail:
    """Twice as large, as computed from the shape."""
    nodes = [
        node("Shape", ["a"], ["all"]),
        node("Mul", ["all", "factors"], ["sizes"]),
        node("Resize", ["a", "", "", "sizes"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric"),
    ]
    return nodes, {"factors": whole(*(2 if other == axis else 1 for other in range(rank)))}, F


def zeros(axis: int, rank: int) -> Tail:
    one = numpy_helper.from_array(np.ones(1, np.float32))
    return [*size_of(axis), node("ConstantOfShape", ["size"], ["y"], value=one)], {f"axis{axis}": whole(axis)}, F


def counted(axis: int, rank: int) -> Tail:
    nodes = [
        node("Shape", ["a"], ["all"]),
        node("Gather", ["all", "axis"], ["size"]),
        node("Range", ["zero", "size", "one"], ["y"]),
    ]
    return nodes, {"axis": np.asarray(axis), "zero": np.asarray(0), "one": np.asarray(1)}, I


def padded(axis: int, rank: int) -> Tail:
    """By as much as the axis is long."""
    nodes = [
        *size_of(axis),
        node("Mul", ["size", "where"], ["pads"]),
        node("Pad", ["a", "pads"], ["y"]),
    ]
    where = whole(*(int(other == axis) for other in range(rank)), *[0] * rank)
    return nodes, {f"axis{axis}": whole(axis), "where": where}, F


def repeated(axis: int, rank: int) -> Tail:
    nodes = [*size_of(axis), node("Tile", ["sum", "size"], ["y"])]
    flat = [node("ReduceMax", ["a"], ["number"], keepdims=0), node("Unsqueeze", ["number", "zero"], ["sum"])]
    return [*flat, *nodes], {f"axis{axis}": whole(axis), "zero": whole(0)}, F


def counted_in_all(axis: int, rank: int) -> Tail:
    return [node("Size", ["a"], ["y"])], {}, I


def chosen_by_size(axis: int, rank: int) -> Tail:
    """The maximum where the axis is longer than two, else the minimum."""
    nodes = [
        *size_of(axis),
        node("Greater", ["size", "two"], ["long"]),
        node("ReduceMax", ["a"], ["most"], keepdims=0),
        node("ReduceMin", ["a"], ["least"], keepdims=0),
        node("Where", ["long", "most", "least"], ["y"]),
    ]
    return nodes, {f"axis{axis}": whole(axis), "two": whole(2)}, F


TAILS = {
    tail.__name__: tail
    for tail in (
        shape,
        shape_of_one,
        cut,
        cut_from_the_end,
        turned_round,
        last_one,
        twice,
        split,
        flat_but_one,
        flattened,
        stretched,
        resized,
        zeros,
        counted,
        padded,
        repeated,
        counted_in_all,
        chosen_by_size,
    )
}

Axes = Sequence[int | str | None] | None


def declared(sizes: Sequence[int]) -> dict[str, Axes]:
    """Ways to declare an input: the sizes of the features are fixed, for layers' weights have them."""
    features = len(sizes) - 1 if len(sizes) == 3 and sizes[2] == 4 else 1
    names = ("n", "c", "height", "width")

    def of(make: object, axes: Sequence[int]) -> list[int | str | None]:
        return [
            (make[axis] if isinstance(make, tuple) else make) if axis in axes and axis != features else size  # type: ignore[misc]
            for axis, size in enumerate(sizes)
        ]

    every = range(len(sizes))
    return {
        "batch unnamed": of(None, [0]),
        "batch -1": of(-1, [0]),
        "batch named": of(names, [0]),
        "all unnamed": of(None, every),
        "all -1": of(-1, every),
        "all named": of(names, every),
        "height unnamed": of(None, [len(sizes) - 2]),
        "width unnamed": of(None, [len(sizes) - 1]),
        "no shape": None,
    }


def built(part: Part, tail: Tail, axes: Axes) -> onnx.ModelProto:
    nodes, constants, _ = part
    more, others, kind = tail
    model = network([*nodes, *more], {"x": []}, {**constants, **others}, ["y"])
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, axes))
    model.graph.output[0].type.tensor_type.elem_type = kind
    return model


def inputs(sizes: Sequence[int], axes: Axes, rng: np.random.Generator) -> list[dict[str, Array]]:
    """Of the usual size, and with the open batch larger."""
    larger = (5, *sizes[1:]) if axes is None or not isinstance(axes[0], int) or axes[0] < 0 else tuple(sizes)
    return [{"x": normal(rng, *sizes)}, {"x": normal(rng, *larger)}]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("tail", TAILS)
def test_what_is_computed_from_a_shape(part: str, tail: str) -> None:
    """On each axis, declared in two of the ways: all of them are met with every part and with every tail."""
    rng = np.random.default_rng(0)
    made = PARTS[part](rng)
    sizes = made[2]
    ways = declared(sizes)
    for axis in range(len(sizes)):
        first = list(PARTS).index(part) + list(TAILS).index(tail) + 2 * axis
        for way in (list(ways)[first % len(ways)], list(ways)[(first + 4) % len(ways)]):
            model = built(made, TAILS[tail](axis, len(sizes)), ways[way])
            sparse = to_sparse(model, costs=SPARSE)
            assert ops(sparse) or way == "no shape"
            dense, ours = dense_session(model), gossamer_runtime.Session(sparse.SerializeToString(), threads=1)
            for feed in inputs(sizes, ways[way], rng):
                assert_same(ours.run(None, feed), dense.run(None, feed))
