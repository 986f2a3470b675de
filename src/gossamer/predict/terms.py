"""What a layer's time is made of: physical terms, each in its own unit, whose prices a calibration finds.

A time is the sum of the terms times their prices. Layers that run by the same code form a class with prices of its own.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gossamer.predict.panels import TILE_PIXELS, VECTOR, tiling

if TYPE_CHECKING:
    from gossamer.export.layers import LayerShape

BLOCK_FLOATS = 13_000
"""Of staged input that a kernel works on at once (52 KB, native/kernels/convolution_plan.cc)."""
FEW_ROWS = 4
"""Rows of a product up to which it is limited by reading its weights."""
NARROW_VECTORS = 4
"""Registers of a tile up to which four rows of weights share them instead of two."""
FEW_CHANNELS = 4
STEM_CHANNELS = 32
"""Outputs that a stem computes at once."""
POOLED_TOGETHER = 4
"""Outputs of a stem for each that its pooling, always at a stride of two, stores."""
CURVED = ("gelu", "silu")
NEAR_FLOATS = 250_000
DISTANT_FLOATS = 2_000_000
"""Activations of a layer that stay in the second cache (1 MB), and those that the last one holds (8 MB and more); the
others come from farther away."""


@dataclass(frozen=True)
class Terms:
    """The class of a layer, and the amounts of the terms of that class, by name."""

    kind: str
    amounts: dict[str, float]


def sparse_terms(shape: "LayerShape", density: float) -> Terms:
    """Of the op of gossamer's domain.

    Args:
        density: share of the weights that are not zero.
    """
    kept = shape.weights * density
    if shape.kind == "linear":
        if shape.width < FEW_ROWS:
            return Terms(
                "sparse vector",
                {
                    "op": 1,
                    "kept weight": kept * shape.width,
                    "output": shape.outputs * shape.width,
                },
            )
        cut = tiling(1, shape.width)
        blocks = math.ceil(shape.inputs * min(shape.width, 112) / BLOCK_FLOATS)
        return Terms(
            "sparse product",
            {
                "op": 1,
                "multiply-add vector": kept * cut.vectors,
                "kept weight, tile": kept * cut.tiles,
                "sum vector": shape.outputs * blocks * cut.vectors,
                "input": shape.inputs * shape.width,
                "output": shape.outputs * shape.width,
                "curved": _curved(shape),
            },
        )
    outputs = shape.images * shape.outputs * shape.output_height * shape.output_width
    inputs = shape.images * shape.inputs * shape.height * shape.width
    taps = shape.kernel[0] * shape.kernel[1]
    cut = tiling(shape.output_height, shape.output_width, staged=shape.kernel[0] > 1 and not shape.depthwise)
    if shape.depthwise:
        amounts = {
            "op": 1,
            "multiply-add": taps * outputs,
            "input": inputs,
            "output": outputs,
            "channel, tile": shape.images * shape.outputs * cut.tiles,
            **_beyond_caches(inputs + outputs),
        }
        wide = shape.output_width > TILE_PIXELS
        return Terms("sparse depthwise, wide" if wide else "sparse depthwise", amounts)
    vectors, tiles = cut.vectors * shape.images, cut.tiles * shape.images
    blocks = math.ceil(shape.inputs * inputs_of_a_tile(shape) / BLOCK_FLOATS)
    common = {
        "op": 1,
        "multiply-add vector": kept * vectors,
        "kept weight, tile": kept * tiles,
        "sum vector": shape.outputs * blocks * vectors,
        "output": outputs,
        **_beyond_caches(inputs + outputs),
    }
    if taps == 1 and shape.strides == (1, 1):
        kind = "sparse 1x1, narrow" if cut.widest <= NARROW_VECTORS else "sparse 1x1"
        return Terms(kind, {**common, "input": inputs})
    staged = shape.inputs * inputs_of_a_tile(shape) * tiles
    if taps == 1:
        return Terms("sparse 1x1, strided", {**common, "staged": staged})
    kind = "sparse kxk" if shape.strides == (1, 1) else "sparse kxk, strided"
    return Terms(kind, {**common, "staged": staged})


def stem_terms(shape: "LayerShape", *, pooled: bool) -> Terms:
    """Of StemConv.

    Args:
        pooled: whether it takes the max pooling behind it along.
    """
    pixels = shape.images * shape.output_height * shape.output_width
    outputs = pixels * _whole(shape.outputs, STEM_CHANNELS)
    multiply_adds = outputs * (shape.weights // shape.outputs)
    strided = shape.strides[1] > 1
    return Terms(
        "stem",
        {
            "op": 1,
            # At a stride of two it computes as many, but reads each input once for two columns of the window.
            "multiply-add": 0 if strided else multiply_adds,
            "strided multiply-add": multiply_adds if strided else 0,
            "output": 0 if pooled else outputs,
            "pooled output": outputs if pooled else 0,
            **_beyond_caches(outputs / POOLED_TOGETHER if pooled else outputs),
        },
    )


def panel_pool_terms(shape: "LayerShape") -> Terms:
    """Of PanelMaxPool."""
    rows = shape.images * shape.outputs * shape.output_height
    return Terms(
        "max pooling of panels",
        {
            "op": 1,
            "row": rows * shape.kernel[0],
            "input": shape.images * shape.inputs * shape.height * shape.width,
            "output": rows * shape.output_width,
        },
    )


def inputs_of_a_tile(shape: "LayerShape") -> float:
    """Floats that a tile reads from one channel of its input, halo included."""
    cut = tiling(shape.output_height, shape.output_width)
    pixels = shape.output_height * shape.output_width / cut.tiles
    columns = min(pixels, shape.output_width)
    return (pixels / columns + (shape.kernel[0] - 1) / shape.strides[0]) * columns * _phases(shape)


def _curved(shape: "LayerShape") -> int:
    """Results of a product to which an activation is applied that takes many instructions, such as GELU."""
    return shape.outputs * shape.width * (shape.activation in CURVED)


def _beyond_caches(floats: float) -> dict[str, float]:
    return {
        "far activation": max(0.0, floats - NEAR_FLOATS),
        "distant activation": max(0.0, floats - DISTANT_FLOATS),
    }


def _phases(shape: "LayerShape") -> int:
    """Parts that staging splits an image into, so that strided reads become contiguous."""
    return min(shape.strides[0], shape.kernel[0]) * min(shape.strides[1], shape.kernel[1])


def dense_terms(shape: "LayerShape") -> Terms:
    """Of ONNX Runtime's own op."""
    multiply_adds = float(shape.multiply_adds)
    if shape.kind == "linear":
        if shape.width < FEW_ROWS:
            return Terms("dense vector", {"op": 1, "weight": shape.weights})
        return Terms(
            "dense product",
            {
                "op": 1,
                "multiply-add": multiply_adds,
                "weight": shape.weights,
                "output": shape.outputs * shape.width,
                "curved": _curved(shape),
                "residual": shape.outputs * shape.width * shape.residual,
            },
        )
    outputs = shape.images * shape.outputs * shape.output_height * shape.output_width
    inputs = shape.images * shape.inputs * shape.height * shape.width
    if shape.depthwise:
        rows = shape.images * shape.outputs * shape.output_height
        return Terms("dense depthwise", {"op": 1, "multiply-add": multiply_adds, "output": outputs, "row": rows})
    if shape.inputs <= FEW_CHANNELS:
        return Terms("dense of an image", {"op": 1, "multiply-add": multiply_adds, "output": outputs})
    # ONNX Runtime works on channels in blocks as long as a register, the last one padded.
    padded = _whole(shape.inputs, VECTOR) / shape.inputs * _whole(shape.outputs, VECTOR) / shape.outputs
    common = {
        "op": 1,
        "multiply-add": multiply_adds * padded,
        "weight": shape.weights * padded,
        "input": inputs,
        "output": outputs,
    }
    return Terms("dense 1x1" if shape.kernel == (1, 1) else "dense kxk", common)


def _whole(channels: int, block: int) -> int:
    """Channels when the last block is filled up."""
    return math.ceil(channels / block) * block


def conversion_terms(channels: int, height: int, width: int, images: int) -> Terms:
    """Of ToPanel or FromPanel."""
    return Terms("conversion", {"op": 1, "float": channels * height * width * images})
