"""What single changes to the rewriting would alter unnoticed; ONNX Runtime's dense ops are the oracle."""

import numpy as np
import pytest
from export.onnx_graphs import assert_same, network, normal, ops, run_dense, run_sparse, sparse_weight
from onnx import helper

from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import rewrite, to_sparse
from gossamer.graph.layer_shape import LayerShape

node = helper.make_node
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("kind", ["Add", "Mul", "Sub"])
@pytest.mark.parametrize("first", [False, True])
def test_a_constant_between_panels_is_no_panel(kind: str, first: bool, rng: np.random.Generator) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        node(kind, ["half", "a"] if first else ["a", "half"], ["b"]),
        node("Conv", ["b", "v"], ["y"]),
    ]
    constants = {
        "w": sparse_weight(rng, 6, 4, 3, 3),
        "half": np.full((1, 1, 1, 1), 0.5, np.float32),
        "v": sparse_weight(rng, 5, 6, 1, 1),
    }
    model = network(nodes, {"x": ["n", 4, 7, 6]}, constants, ["y"])
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse) == ["ToPanel", "SparseConv", "SparseConv", "FromPanel"]
    feed = {"x": normal(rng, 2, 4, 7, 6)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


@pytest.mark.parametrize("shape", [["n", 4, 7, 6], ["n", 4, "height", "width"], ["n", 4, 9], ["n", 4, "length"]])
def test_elementwise_ops_stay_on_panels_in_batches_of_any_size(
    shape: list[int | str], rng: np.random.Generator
) -> None:
    """Two of them are neither activations of a layer nor residuals: the sum is taken after both."""
    ones = [1] * (len(shape) - 2)
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Tanh", ["a"], ["t"]),
        node("Conv", ["t", "v"], ["c"]),
        node("Mul", ["t", "c"], ["d"]),
        node("Conv", ["d", "v"], ["y"]),
    ]
    constants = {"w": sparse_weight(rng, 6, 4, *ones, density=0.5), "v": sparse_weight(rng, 6, 6, *ones, density=0.5)}
    model = network(nodes, {"x": shape}, constants, ["y"])
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse) == ["ToPanel", "SparseConv", "SparseConv", "SparseConv", "FromPanel"]
    for images in (1, 3):
        feed = {"x": normal(rng, images, 4, *(size if isinstance(size, int) else 5 for size in shape[2:]))}
        assert_same(run_sparse(sparse, feed), run_dense(model, feed))


@pytest.mark.parametrize(
    ("weight", "shape", "attributes"),
    [
        ((48, 4, 3, 3), [1, 8, 9, 9], {"group": 0}),
        ((48, 4, 3, 3), [1, 8, 9, 9], {"group": -2}),
        ((50, 4, 3, 3), [1, 16, 9, 9], {"group": 4}),
        ((48, 8, 3, 3), [1, 8, 9], {}),
        ((48, 8, 12), [1, 8, 9, 9], {}),
    ],
)
def test_convolutions_that_do_not_fit_together_are_no_layers(
    weight: tuple[int, ...], shape: list[int], attributes: dict[str, int], rng: np.random.Generator
) -> None:
    """Groups that are none, or that the outputs cannot be dealt to, and an input of other axes: who runs such a network
    refuses it, and gossamer makes nothing of it that runs."""
    model = network(
        [node("Conv", ["x", "w"], ["y"], name="layer", **attributes)],
        {"x": shape},
        {"w": sparse_weight(rng, *weight, density=0.3)},
        ["y"],
    )
    rewritten = rewrite(model, costs=SPARSE)
    assert rewritten.layers == ()
    assert ops(rewritten.model) == []
    assert [(left.name, left.reason) for left in rewritten.left] == [
        ("layer", "its input, weight and groups do not fit together")
    ]


class Noted(EverythingSparse):
    """Notes the sizes of what is converted and of the layers."""

    def __init__(self) -> None:
        self.conversions: set[tuple[int, int, int, int]] = set()
        self.shapes: set[tuple[int, int]] = set()

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        self.conversions.add((channels, height, width, images))
        return super().conversion(channels, height, width, images)

    def dense(self, shape: LayerShape) -> float:
        self.shapes.add((shape.height, shape.width))
        return super().dense(shape)


@pytest.mark.parametrize(
    ("shape", "of_input", "of_output"),
    [
        ([3, 4, 9], (4, 1, 9, 3), (6, 1, 7, 3)),
        ([1, 4, 1], (4, 1, 1, 1), (6, 1, 1, 1)),
        ([2, 4, 0], (4, 1, 28, 2), (6, 1, 28, 2)),
        (["n", 4, 9], (4, 1, 9, 1), (6, 1, 7, 1)),
        ([3, 4, "length"], (4, 1, 28, 3), (6, 1, 28, 3)),
        ([3, 4, 11, 9], (4, 11, 9, 3), (6, 9, 7, 3)),
        (["n", 4, "height", 9], (4, 28, 9, 1), (6, 28, 7, 1)),
    ],
)
def test_what_is_converted_is_as_large_as_it_is(
    shape: list[int | str], of_input: tuple[int, ...], of_output: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Channels, height, width and images; a sequence is an image of one row, and what is open counts as usual."""
    kernel = [1 if size in (0, 1) else 3 for size in shape[2:]]
    model = network([node("Conv", ["x", "w"], ["y"])], {"x": shape}, {"w": sparse_weight(rng, 6, 4, *kernel)}, ["y"])
    costs = Noted()
    rewrite(model, costs=costs)
    assert costs.conversions == {of_input, of_output}
    assert costs.shapes == {of_input[1:3]}
