"""Max poolings on panels and dense first convolutions; ONNX Runtime's own ops are the oracle."""

from pathlib import Path

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
from onnx import helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.export.compress import compress_weights
from gossamer.export.costs import EverythingSparse, MeasuredCosts
from gossamer.export.dense import to_dense
from gossamer.export.rewrite import Rewritten, rewrite, to_sparse
from gossamer.export.verify import compare_with_dense
from gossamer.graph.layer_shape import LayerShape

node = helper.make_node
SPARSE = EverythingSparse()
HALVED = {"kernel_shape": [2, 2], "strides": [2, 2]}
RESNET_POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}


class StemsPay(EverythingSparse):
    """A layer on three channels is the fastest as a stem, even if a few of its weights are zero."""

    def sparse(self, shape: LayerShape, density: float) -> float:
        return 1.0 if shape.inputs == 3 else 0.0

    def stem(self, shape: LayerShape, *, pooled: bool) -> float:
        return 0.5


pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def between_convolutions(
    rng: np.random.Generator, shape: tuple[int | str, ...], **attributes: object
) -> onnx.ModelProto:
    """Sparse 1x1 convolution, max pooling of its negative and positive sums, sparse 1x1 convolution."""
    ones = [1] * (len(shape) - 2)
    nodes = [
        node("Conv", ["x", "first", "low"], ["a"]),
        node("MaxPool", ["a"], ["p"], "pooling", **attributes),  # type: ignore[arg-type]
        node("Conv", ["p", "second"], ["y"]),
    ]
    constants = {
        "first": sparse_weight(rng, 5, 3, *ones, density=0.6),
        # Everything is below zero, so that zeros in the padding would win.
        "low": np.full(5, -20, np.float32),
        "second": sparse_weight(rng, 4, 5, *ones, density=0.6),
    }
    return network(nodes, {"x": shape}, constants, ["y"])


POOLS: dict[str, tuple[tuple[int | str, ...], dict[str, object]]] = {
    "2x2": ((2, 3, 12, 10), HALVED),
    "3x3 with padding": ((1, 3, 13, 12), RESNET_POOL),
    "the default stride is 1": ((1, 3, 9, 8), {"kernel_shape": [3, 2]}),
    "dilated": ((1, 3, 13, 12), {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 2, 0, 1]}),
    "uneven padding": ((1, 3, 9, 9), {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [0, 1, 2, 0]}),
    "wide rows": ((1, 3, 6, 230), HALVED),
    "open sizes": (("n", 3, "height", "width"), RESNET_POOL),
    "a sequence": ((2, 3, 17), {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    "rounded up": ((1, 3, 13, 12), {**HALVED, "ceil_mode": 1}),
    "rounded up, with padding": ((1, 3, 14, 13), {**RESNET_POOL, "ceil_mode": 1}),
    "rounded up without effect": (("n", 3, "height", "width"), {"kernel_shape": [3, 3], "ceil_mode": 1}),
    "automatic, no padding": ((1, 3, 13, 12), {**HALVED, "auto_pad": "VALID"}),
    "automatic, more behind": ((1, 3, 13, 12), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "automatic, more before": ((1, 3, 13, 12), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
}


FUNCTIONS: dict[str, list[str]] = {"Relu": [], "Clip": ["low", "high"]}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("attributes", [HALVED, RESNET_POOL])
def test_a_function_behind_a_pooling_becomes_part_of_the_layer(
    function: str, attributes: dict[str, object], rng: np.random.Generator
) -> None:
    """As PyTorch's own example of MNIST has it: relu(max_pool2d(convolution(x)))."""
    nodes = [
        node("Conv", ["x", "first"], ["c"], pads=[1, 1, 1, 1]),
        node("MaxPool", ["c"], ["m"], **attributes),
        node(function, ["m", *FUNCTIONS[function]], ["r"]),
        node("Conv", ["r", "second"], ["y"]),
    ]
    constants = {"first": sparse_weight(rng, 6, 3, 3, 3), "second": sparse_weight(rng, 5, 6, 1, 1)}
    bounds = {"low": np.float32(-0.5), "high": np.float32(1)} if function == "Clip" else {}
    model = network(nodes, {"x": [1, 3, 13, 12]}, {**constants, **bounds}, ["y"])
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse) == ["ToPanel", "SparseConv", "PanelMaxPool", "SparseConv", "FromPanel"]
    assert ops(sparse, "") == []
    feed = {"x": normal(rng, 1, 3, 13, 12)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


@pytest.mark.parametrize("change", ["bounds that vary", "a window of padding", "read before the pooling"])
def test_a_function_stays_behind_a_pooling(change: str, rng: np.random.Generator) -> None:
    """Where it is not the same before it, or no layer's then."""
    varies, empty, read = (
        change == one for one in ("bounds that vary", "a window of padding", "read before the pooling")
    )
    attributes = {"kernel_shape": [2, 2], "dilations": [9, 9], "pads": [1] * 4} if empty else HALVED
    nodes = [
        node("Conv", ["x", "first"], ["c"]),
        node("MaxPool", ["c"], ["m"], **attributes),
        node("Clip", ["m", "low"], ["r"]) if varies else node("Relu", ["m"], ["r"]),
        node("Conv", ["r", "second"], ["y"]),
        *([node("Sigmoid", ["c"], ["other"])] if read else []),
    ]
    constants = {"first": sparse_weight(rng, 6, 3, 1, 1), "second": sparse_weight(rng, 5, 6, 1, 1)}
    inputs: dict[str, list[int | str]] = {"x": [1, 3, 12, 12], **({"low": []} if varies else {})}
    model = network(nodes, inputs, constants, ["y", *(["other"] if read else [])])
    sparse = to_sparse(model, costs=SPARSE)
    assert ("Clip" if varies else "Relu") in ops(sparse, "")
    feed = {"x": normal(rng, 1, 3, 12, 12), **({"low": np.asarray(0.25, np.float32)} if varies else {})}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


@pytest.mark.parametrize("name", POOLS)
def test_pooling_stays_on_panels(name: str, rng: np.random.Generator) -> None:
    shape, attributes = POOLS[name]
    model = between_convolutions(rng, shape, **attributes)
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse) == ["ToPanel", "SparseConv", "PanelMaxPool", "SparseConv", "FromPanel"]
    assert ops(sparse, "") == []
    open_sizes = {"n": 2, "height": 17, "width": 11}
    feed = {"x": normal(rng, *(open_sizes[size] if isinstance(size, str) else size for size in shape))}
    expected = run_dense(model, feed)
    assert_same(run_sparse(sparse, feed, threads=2), expected)
    # And back, for engines that do not know these ops.
    dense = to_dense(sparse)
    assert ops(dense) == []
    assert_same(run_dense(dense, feed), expected)


UNSUPPORTED: dict[str, tuple[tuple[int | str, ...], dict[str, object]]] = {
    "rounded up, sizes open": (("n", 3, "height", "width"), {**HALVED, "ceil_mode": 1}),
    "automatic, sizes open": (("n", 3, "height", "width"), {**HALVED, "auto_pad": "SAME_UPPER"}),
    "automatic and dilated": ((1, 3, 17, 11), {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"}),
    "a window that begins in the padding": (
        (1, 3, 17, 11),
        {"kernel_shape": [2, 2], "strides": [3, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1},
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_the_op_does_not_compute_stays_standard(name: str, rng: np.random.Generator) -> None:
    shape, attributes = UNSUPPORTED[name]
    model = between_convolutions(rng, shape, **attributes)
    sparse = to_sparse(model, costs=SPARSE)
    assert "MaxPool" in ops(sparse, "")
    feed = {"x": normal(rng, 1, 3, 17, 11)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


def test_places_of_the_maxima_and_other_types_stay_standard(rng: np.random.Generator) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("MaxPool", ["a"], ["p", "places"], **HALVED),
        node("Conv", ["p", "v"], ["y"]),
        node("Cast", ["y"], ["d"], to=onnx.TensorProto.DOUBLE),
        node("MaxPool", ["d"], ["e"], **HALVED),
        node("Cast", ["e"], ["z"], to=onnx.TensorProto.FLOAT),
    ]
    constants = {"w": sparse_weight(rng, 4, 3, 1, 1), "v": sparse_weight(rng, 4, 4, 1, 1)}
    model = network(nodes, {"x": [1, 3, 8, 8]}, constants, ["z"])
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse, "").count("MaxPool") == 2
    feed = {"x": normal(rng, 1, 3, 8, 8)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


def stem_network(
    rng: np.random.Generator,
    size: tuple[int | str, ...] = (1, 3, 33, 30),
    *,
    outputs: int = 20,
    kernel: int = 7,
    activation: str = "Relu",
    pool: dict[str, object] | None = RESNET_POOL,
    **attributes: object,
) -> onnx.ModelProto:
    """Dense stem, activation, pooling, sparse 1x1 convolution."""
    attributes = {"strides": [2, 2], "pads": [kernel // 2] * 4, **attributes}
    nodes = [node("Conv", ["x", "stem.weight", "stem.bias"], ["a"], "stem", **attributes)]  # type: ignore[arg-type]
    nodes.append(node(activation, ["a"], ["b"]))
    if pool is not None:
        nodes.append(node("MaxPool", ["b"], ["p"], **pool))  # type: ignore[arg-type]
    nodes.append(node("Conv", [nodes[-1].output[0], "next.weight"], ["y"]))
    group = int(str(attributes.get("group", 1)))
    constants = {
        "stem.weight": normal(rng, outputs, int(size[1]) // group, kernel, kernel) / kernel,
        "stem.bias": normal(rng, outputs) - 3,
        "next.weight": sparse_weight(rng, 8, outputs, 1, 1),
    }
    return network(nodes, {"x": size}, constants, ["y"])


STEMS: dict[str, dict[str, object]] = {
    "of ResNet": {},
    "of any size": {"size": ("n", 3, "height", "width")},
    "of several images": {"size": (3, 3, 33, 30)},
    "without pooling": {"pool": None},
    "3x3, one channel": {"size": (1, 1, 33, 30), "kernel": 3, "outputs": 33},
    "stride 1": {"strides": [1, 1], "kernel": 3},
    "rows at stride 4": {"strides": [4, 2], "kernel": 5},
    "uneven padding": {"pads": [0, 1, 2, 3]},
    "even window": {"kernel": 4, "pads": [1, 0, 0, 2]},
    "HardSwish": {"activation": "HardSwish"},
    "negative numbers are pooled": {"activation": "Identity"},
}


@pytest.mark.parametrize("name", STEMS)
def test_a_dense_stem_writes_panels(name: str, rng: np.random.Generator) -> None:
    model = stem_network(rng, **STEMS[name])  # type: ignore[arg-type]
    rewritten = rewrite(model, costs=SPARSE)
    expected_ops = ["StemConv", "SparseConv", "FromPanel"]
    if name == "negative numbers are pooled":  # Identity runs on panels as it is, and stands before the pooling
        expected_ops = ["StemConv", "PanelMaxPool", "SparseConv", "FromPanel"]
    assert ops(rewritten.model) == expected_ops
    assert [layer.form for layer in rewritten.layers] == ["stem", "sparse"]
    images = {"size": 3, "of any size": 2}.get(name, 3 if name == "of several images" else 1)
    shape = (images, 1 if "one channel" in name else 3, 33, 30)
    feed = {"x": normal(rng, *shape)}
    expected = run_dense(model, feed)
    assert_same(run_sparse(rewritten.model, feed, threads=2), expected)
    dense = to_dense(rewritten.model)
    assert ops(dense) == []
    assert_same(run_dense(dense, feed), expected)


NO_STEMS: dict[str, dict[str, object]] = {
    "columns at stride 3": {"strides": [2, 3]},
    "dilated": {"dilations": [2, 2], "kernel": 3},
    "grouped": {"size": (1, 4, 33, 30), "group": 2},
    "many channels": {"size": (1, 17, 33, 30)},
}


@pytest.mark.parametrize("name", NO_STEMS)
def test_other_first_layers_are_no_stems(name: str, rng: np.random.Generator) -> None:
    model = stem_network(rng, **NO_STEMS[name])  # type: ignore[arg-type]
    sparse = to_sparse(model, costs=SPARSE)
    assert "StemConv" not in ops(sparse)
    feed = {"x": normal(rng, 1, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, 33, 30)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


def test_a_sparse_first_layer_stays_sparse(rng: np.random.Generator) -> None:
    model = stem_network(rng)
    weight = sparse_weight(rng, 20, 3, 7, 7)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "stem.weight"))
    assert ops(to_sparse(model, costs=SPARSE))[:3] == ["ToPanel", "SparseConv", "PanelMaxPool"]


def test_another_pooling_behind_a_stem_is_an_op_of_its_own(rng: np.random.Generator) -> None:
    model = stem_network(rng, pool={**HALVED, "ceil_mode": 1})
    sparse = to_sparse(model, costs=SPARSE)
    assert ops(sparse) == ["StemConv", "PanelMaxPool", "SparseConv", "FromPanel"]
    feed = {"x": normal(rng, 1, 3, 33, 30)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


def test_a_stem_that_is_read_before_its_pooling_is_not_lost(rng: np.random.Generator) -> None:
    model = stem_network(rng)
    model.graph.output.append(helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None))
    sparse = to_sparse(model, costs=StemsPay())
    assert ops(sparse)[:2] == ["StemConv", "FromPanel"]
    feed = {"x": normal(rng, 1, 3, 33, 30)}
    assert_same(run_sparse(sparse, feed), run_dense(model, feed))


@pytest.mark.parametrize("half", [False, True])
def test_the_file_keeps_the_stems_weight_plain(half: bool, rng: np.random.Generator) -> None:
    """The op takes constants only; what is compressed becomes one only in sessions that fold constants."""
    model = stem_network(rng, outputs=32)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[:, :, 0, 0] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "stem.weight"))
    stored = compress_weights(to_sparse(model, costs=StemsPay(), half=half), half=half)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored.graph.initializer}
    assert np.array_equal(held["stem.weight"], weight)


def test_layers_are_verified_where_they_end(rng: np.random.Generator, tmp_path: Path) -> None:
    """A stem's result is compared behind its pooling; one wrong number of its bias is found and named."""
    model = stem_network(rng)
    rewritten = rewrite(model, costs=SPARSE)
    assert [layer.output for layer in rewritten.layers] == ["p", "y"]
    feeds = [{"x": normal(rng, 1, 3, 33, 30)}]
    path = tmp_path / "network.onnx"
    path.write_bytes(rewritten.model.SerializeToString())
    assert compare_with_dense(model, path, rewritten, feeds).within
    for tensor in rewritten.model.graph.initializer:
        if tensor.name == "stem.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 5, "stem.bias"))
    path.write_bytes(rewritten.model.SerializeToString())
    with pytest.raises(ExportError, match="first layer that differs is stem"):
        compare_with_dense(model, path, rewritten, feeds)


def resnet_stem(size: int) -> LayerShape:
    return LayerShape("conv", 3, 64, size, size, (7, 7), (2, 2), pads=(3, 3, 3, 3))


def test_measured_costs_of_stems() -> None:
    """Which of the three was the fastest was measured (docs/kernels.md): of ResNet-50 StemConv, by a wide margin; of
    VGG-16, whose rows are 224 pixels, SparseConv."""
    costs = MeasuredCosts()
    image = costs.conversion(3, 224, 224, 1)
    resnet = resnet_stem(224)
    assert costs.stem(resnet, pooled=True) < 0.8 * costs.dense(resnet)
    assert costs.stem(resnet, pooled=True) < costs.sparse(resnet, 1.0)
    vgg = LayerShape("conv", 3, 64, 224, 224, (3, 3), pads=(1, 1, 1, 1))
    assert costs.sparse(vgg, 1.0) + image < costs.stem(vgg, pooled=False)
    assert costs.sparse(vgg, 1.0) + image < costs.dense(vgg) + costs.conversion(64, 224, 224, 1)


def pooled_network(rng: np.random.Generator, channels: int, extent: int) -> Rewritten:
    nodes = [
        node("Conv", ["x", "first"], ["a"], pads=[1] * 4),
        node("MaxPool", ["a"], ["p"], **HALVED),
        node("Conv", ["p", "second"], ["y"], pads=[1] * 4),
    ]
    weights = {name: sparse_weight(rng, channels, channels, 3, 3, density=0.1) for name in ("first", "second")}
    return rewrite(network(nodes, {"x": [1, channels, extent, extent]}, weights, ["y"]))


@pytest.mark.parametrize(("channels", "extent", "on_panels"), [(64, 224, True), (512, 28, True), (512, 14, False)])
def test_pooling_runs_where_it_is_faster(channels: int, extent: int, on_panels: bool, rng: np.random.Generator) -> None:
    """The op's time grows with the number of rows, ONNX Runtime's and the conversions' with that of pixels."""
    rewritten = pooled_network(rng, channels, extent)
    assert [layer.form for layer in rewritten.layers] == ["sparse", "sparse"]
    assert ("PanelMaxPool" in ops(rewritten.model)) == on_panels
