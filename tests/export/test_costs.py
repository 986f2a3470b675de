"""Which convolutions the export makes sparse: what was measured to be faster so, beside dense ones of ONNX Runtime
(benchmarks/convolutions.py), and how estimates follow dilation, padding and groups."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gossamer.export.costs import EverythingSparse, MeasuredCosts
from gossamer.export.rewrite import rewrite
from gossamer.graph.layer_shape import LayerShape


def convolution(
    channels: int, extent: int, kernel: tuple[int, int], dilation: int = 1, groups: int = 1, density: float = 0.1
) -> LayerShape:
    dilations = tuple(dilation if size > 1 else 1 for size in kernel)
    pads = tuple(d * (size - 1) // 2 for size, d in zip(kernel, dilations, strict=True))
    return LayerShape(
        "conv",
        channels,
        channels,
        extent,
        extent,
        kernel,
        dilations=(dilations[0], dilations[1]),
        pads=(pads[0], pads[1], pads[0], pads[1]),
        groups=groups,
    )


def forms_of(shapes: list[LayerShape], densities: list[float]) -> list[str]:
    """What the export makes of a chain of convolutions, each with ReLU behind it."""
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for place, (shape, density) in enumerate(zip(shapes, densities, strict=True)):
        weight = generator.standard_normal((shape.outputs, shape.inputs // shape.groups, *shape.kernel)).astype("f")
        weight.ravel()[generator.permutation(weight.size)[round(density * weight.size) :]] = 0
        weights.append(numpy_helper.from_array(weight, f"w{place}"))
        settings = {
            "pads": shape.pads,
            "strides": shape.strides,
            "dilations": shape.dilations,
            "group": shape.groups,
        }
        nodes.append(helper.make_node("Conv", [value, f"w{place}"], [f"c{place}"], **settings))
        value = f"r{place}"
        nodes.append(helper.make_node("Relu", [f"c{place}"], [value]))
    first = shapes[0]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, first.inputs, first.height, first.width])
    result = helper.make_tensor_value_info(value, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "chain", [image], [result], weights)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return [layer.form for layer in rewrite(model).layers]


@pytest.mark.parametrize(
    "shape",
    [
        # Four and eight channels a group, which ONNX Runtime computes group by group.
        convolution(128, 56, (3, 3), groups=32),
        convolution(64, 28, (3, 3), groups=16),
        convolution(64, 33, (3, 3), dilation=2, groups=16),
        convolution(64, 56, (5, 5), groups=8),
        replace(convolution(128, 80, (3, 3), groups=32), strides=(2, 2)),
        # Far apart: two thirds of the taps, or all but one, read only padding.
        convolution(64, 33, (3, 3), dilation=18),
        convolution(256, 65, (3, 3), dilation=36),
        convolution(256, 33, (3, 3), dilation=36),
    ],
)
def test_a_convolution_alone_is_sparse_where_that_is_faster(shape: LayerShape) -> None:
    assert forms_of([shape], [0.1]) == ["sparse"]


@pytest.mark.parametrize("shape", [convolution(12, 65, (7, 1), dilation=17), convolution(12, 129, (7, 1), dilation=17)])
def test_a_chain_of_them_is(shape: LayerShape) -> None:
    assert forms_of([shape] * 4, [0.1] * 4) == ["sparse"] * 4


@pytest.mark.parametrize(
    ("shape", "density"),
    [
        # ONNX Runtime passes over what lies outside the image; measured at 0.63 and 0.76 of its speed.
        (convolution(32, 14, (7, 7), dilation=12), 0.3),
        (convolution(128, 20, (3, 3), dilation=18, groups=2), 0.2),
    ],
)
def test_a_chain_stays_dense_where_sparse_is_slower(shape: LayerShape, density: float) -> None:
    assert forms_of([shape] * 4, [density] * 4) == ["dense"] * 4


def test_a_large_depthwise_window_between_sparse_layers_stays_dense() -> None:
    # A third of the dense speed, which two changes of layout cost less than.
    pointwise, depthwise = convolution(64, 56, (1, 1)), convolution(64, 56, (7, 7), groups=64)
    assert forms_of([pointwise, depthwise, pointwise], [0.1, 1.0, 0.1])[1] == "dense"
    small = convolution(64, 56, (3, 3), groups=64)
    assert forms_of([pointwise, small, pointwise], [0.1, 1.0, 0.1]) == ["sparse"] * 3


def test_estimates_follow_what_is_read() -> None:
    costs = MeasuredCosts()
    near, far, beyond = (convolution(64, 33, (3, 3), dilation) for dilation in (1, 18, 36))
    middle = convolution(64, 33, (1, 1))
    # Only the middle tap meets the image: a ninth of the weights.
    assert costs.sparse(beyond, 0.09) == costs.sparse(middle, 0.09)
    assert costs.dense(middle) < costs.dense(beyond) < costs.dense(far) < costs.dense(near)
    # Two kernel rows of three: less than three columns that are copied cost more than one that is shifted.
    assert costs.sparse(far, 0.1) < 1.5 * costs.sparse(near, 0.1)


def test_estimates_of_one_column_are_those_of_a_row() -> None:
    costs = MeasuredCosts()
    row = replace(convolution(64, 1, (1, 5), dilation=2), width=300)
    column = replace(convolution(64, 1, (5, 1), dilation=2), height=300)
    assert costs.sparse(column, 0.1) == costs.sparse(row, 0.1)


def test_estimates_of_kernels_that_do_not_fit() -> None:
    costs = MeasuredCosts()
    small = LayerShape("conv", 16, 16, 2, 2, kernel=(3, 3))
    assert small.output_height == small.output_width == 0
    assert 0 < costs.sparse(small, 0.5) < 1e-4
    assert 0 < costs.dense(small) < 1e-4


def of(
    inputs: int,
    outputs: int,
    extent: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    images: int = 1,
) -> LayerShape:
    """A convolution of squares that keeps its extent at stride 1."""
    return LayerShape(
        "conv",
        inputs,
        outputs,
        extent,
        extent,
        (kernel, kernel),
        strides=(stride, stride),
        dilations=(dilation, dilation),
        pads=(dilation * (kernel - 1) // 2,) * 4,
        groups=groups,
        images=images,
    )


ESTIMATES: dict[str, tuple[LayerShape, float, float, float]] = {
    "one row": (LayerShape("linear", 256, 512), 34.4573, 18.3163, 77.399),
    "few rows": (LayerShape("linear", 256, 512, width=8), 34.4573, 12.6892, 67.1889),
    "rows of a vector": (LayerShape("linear", 256, 512, width=16), 42.4265, 12.6892, 67.1889),
    "many rows": (LayerShape("linear", 256, 512, width=64), 160.706, 41.3067, 259.306),
    "1x1": (of(64, 128, 28, 1), 123.744, 36.3941, 203.3),
    "3x3": (of(64, 64, 28, 3), 533.409, 102.716, 810.091),
    "of an image": (of(3, 64, 112, 7, stride=2), 551.266, 184.997, 1272.85),
    "of 16 channels": (of(16, 32, 56, 3), 271.439, 73.9015, 338.067),
    "by columns": (of(17, 32, 56, 3), 299.898, 77.0129, 452.806),
    "depthwise": (of(96, 96, 28, 3, groups=96), 31.4337, 45.8247, 45.8247),
    "depthwise at stride 2": (of(96, 96, 28, 5, stride=2, groups=96), 22.4986, 55.1814, 55.1814),
    "dilated": (of(64, 64, 33, 3, dilation=4), 696.736, 306.125, 1921.32),
    "grouped": (of(64, 64, 28, 3, groups=8), 212.656, 33.9432, 122.365),
    "1x1 at stride 2": (of(64, 64, 28, 1, stride=2), 18.0929, 11.5927, 32.4559),
    "1x1 of 16 channels": (of(16, 32, 56, 1), 33.1859, 22.4853, 64.2117),
    "along a row": (replace(of(64, 64, 28, 1), kernel=(1, 3), pads=(0, 1, 0, 1)), 184.115, 50.3176, 286.11),
    "far apart": (of(64, 64, 65, 3, dilation=30), 2030.15, 985.833, 6621.5),
    "several images": (of(64, 64, 28, 3, images=3), 1594.23, 301.848, 2423.97),
}
"""Microseconds: dense, sparse with a tenth of the weights and with all."""


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates_stay_what_they_are(name: str) -> None:
    """They decide which layers run sparse: with others, the same command writes another file."""
    costs = MeasuredCosts()
    shape, *expected = ESTIMATES[name]
    found = [seconds * 1e6 for seconds in (costs.dense(shape), costs.sparse(shape, 0.1), costs.sparse(shape, 1.0))]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "microseconds"),
    [
        (of(3, 64, 112, 7, stride=2), 366.991),
        # As many channels as fill its vectors.
        (of(3, 50, 112, 7, stride=2), 366.991),
        # Two million outputs, which a cache still holds, and more.
        (of(3, 64, 125, 3, images=2), 1234.8),
        (of(3, 64, 112, 7, stride=2, images=16), 6498.98),
    ],
)
def test_estimates_of_stems(shape: LayerShape, microseconds: float) -> None:
    assert MeasuredCosts().stem(shape, pooled=True) * 1e6 == pytest.approx(microseconds, rel=1e-5)


def test_estimates_between_layers() -> None:
    costs, shape = MeasuredCosts(), of(64, 64, 56, 3, stride=2)
    # 4 us, and 0.4 ns for each of 100,352 numbers.
    assert costs.conversion(64, 28, 28, 2) * 1e6 == pytest.approx(4 + 0.4e-3 * 100352)
    # Three rows of a window for each of 64 x 28 rows, at 20 ns and 5% more.
    assert costs.pool(shape, panels=True) * 1e6 == pytest.approx(1.05 * (3 + 0.02 * 3 * 64 * 28))
    wide = replace(shape, kernel=(3, 5))
    assert costs.pool(wide, panels=True) == costs.pool(shape, panels=True)
    assert costs.pool(shape, panels=False) * 1e6 == pytest.approx(3 + 0.2e-3 * 64 * (56 * 56 + 28 * 28))


def test_everything_sparse_is_a_layer_with_a_zero() -> None:
    costs, shape = EverythingSparse(), of(3, 64, 8, 3)
    assert costs.sparse(shape, 0.999) < costs.conversion(1, 1, 1, 1) < costs.dense(shape)
    assert costs.sparse(shape, 1.0) == costs.dense(shape) == costs.stem(shape, pooled=False) == 1.0
    assert costs.pool(shape, panels=True) == costs.pool(shape, panels=False) == 0.0
