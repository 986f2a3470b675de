"""What a layer's time is made of: physical terms, each in its own unit, whose prices a calibration finds.

A time is the sum of the terms times their prices. Layers that run by the same code form a class with prices of its own.
"""

import math
from dataclasses import dataclass, replace

from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.taps import as_it_lies, dense_taps, reads
from gossamer.graph.tiles import VECTOR, tiling

BLOCK_FLOATS = 13_000
"""Floats of staged input that a kernel works on at once (52 KB, native/kernels/convolution_plan.cc)."""
CACHE_LINE = 16
"""Floats. What is loaded from staged rows at other distances is in two lines half of the time."""
FEW_ROWS = 4
"""Rows of a product up to which it is limited by reading its weights."""
NARROW_VECTORS = 4
"""Registers of a tile up to which four rows of weights share them instead of two."""
IMAGE_CHANNELS = 4
"""Input channels up to which ONNX Runtime takes a convolution for one of an image."""
INT8 = "int8 "
"""What the classes of layers of bytes begin with. "sum" is their own term: a number that becomes a byte."""
QUAD = 4
"""Channels of bytes that are multiplied together."""
STEM_CHANNELS = 32
"""Outputs that a stem computes at once."""
POOLED_TOGETHER = 4
"""Outputs of a stem for each that its pooling, always at a stride of two, stores."""
NEAR_WEIGHTS = 750_000
"""Weights of bytes of a product with one row that stay in the second cache from one run to the next."""
NEAR_FLOATS = 250_000
DISTANT_FLOATS = 2_000_000
"""Activations of a layer that stay in the second cache (1 MB), and those that the last one holds (8 MB and more); the
others come from farther away."""


@dataclass(frozen=True)
class Terms:
    """The class of a layer, and the amounts of the terms of that class, by name."""

    kind: str
    amounts: dict[str, float]


def of_quads(shape: LayerShape) -> LayerShape:
    """The layer of floats that a quantised one computes like: four input channels are one (docs/kernels.md)."""
    if shape.depthwise:
        channels = math.ceil(shape.inputs / QUAD)
        return replace(shape, inputs=channels, outputs=channels, groups=channels, quantised=False)
    inputs = shape.inputs // shape.groups
    joined = min(shape.groups, math.ceil(QUAD / max(1, inputs)))
    groups = max(1, shape.groups // joined)
    return replace(shape, inputs=groups * math.ceil(inputs * joined / QUAD), groups=groups, quantised=False)


def sparse_terms(shape: LayerShape, density: float) -> Terms:
    """Terms of the op of gossamer's domain.

    Args:
        density: share of the weights that are not zero; of a quantised layer, of its quads.
    """
    if shape.quantised:
        terms = sparse_terms(of_quads(shape), density)
        sums = shape.outputs * shape.width if shape.kind == "linear" else shape.values_made
        ends: dict[str, float] = {"sum": sums, "added": sums * shape.residual, "looked up": sums * shape.curved}
        amounts = {name: amount for name, amount in terms.amounts.items() if name != "curved"}
        if "kept weight" in amounts:
            ends["far kept weight"] = max(0.0, amounts["kept weight"] - NEAR_WEIGHTS / QUAD)
        return Terms(INT8 + terms.kind, {**amounts, **ends})
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
    return _convolution_terms(as_it_lies(shape), kept)


def _convolution_terms(shape: LayerShape, kept: float) -> Terms:
    inputs, outputs = shape.values_read, shape.values_made
    taps = shape.kernel[0] * shape.kernel[1]
    read = reads(shape)
    copied = shape.images * shape.inputs
    staged = {"staged": copied * read.floats, "staged row": copied * read.rows}
    cut = tiling(shape.output_height, shape.output_width, staged=read.pitch > 0)
    vectors, tiles = cut.vectors * shape.images, cut.tiles * shape.images
    if shape.depthwise:
        amounts = {
            "op": 1,
            "multiply-add": read.taps * outputs,
            "output": outputs,
            "channel, tile": shape.outputs * tiles,
            **_bent(shape),
            **_beyond_caches(inputs + outputs),
        }
        if read.floats == 0:
            return Terms("sparse depthwise", {**amounts, "input": inputs})
        return Terms("sparse depthwise, staged", {**amounts, **staged})
    needed = kept * read.taps / taps
    of_a_tile = (read.floats or shape.height * shape.width) / max(1, cut.tiles)
    blocks = max(1, math.ceil(shape.inputs // shape.groups * of_a_tile / BLOCK_FLOATS))
    common = {
        "op": 1,
        "multiply-add vector": needed * vectors,
        "kept weight, tile": needed * tiles,
        "sum vector": shape.outputs * blocks * vectors,
        "output": outputs,
        **_bent(shape),
        **_beyond_caches(inputs + outputs),
    }
    if read.floats == 0:
        kind = "sparse 1x1, narrow" if cut.widest <= NARROW_VECTORS else "sparse 1x1"
        return Terms(kind, {**common, "input": inputs})
    if taps == 1:
        return Terms("sparse 1x1, strided", {**common, **staged})
    common["crossing vector"] = needed * vectors * (read.pitch % CACHE_LINE > 0)
    if not read.shifted:
        return Terms("sparse kxk, copied", {**common, **staged})
    kind = "sparse kxk" if shape.strides == (1, 1) else "sparse kxk, strided"
    return Terms(kind, {**common, **staged})


def stem_terms(shape: LayerShape, *, pooled: bool) -> Terms:
    """Terms of StemConv.

    Args:
        pooled: whether it takes the max pooling behind it along.
    """
    pixels = shape.images * shape.output_height * shape.output_width
    outputs = pixels * rounded_up(shape.outputs, STEM_CHANNELS)
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
            **_bent(shape),
            "pooled output": outputs if pooled else 0,
            **_beyond_caches(outputs / POOLED_TOGETHER if pooled else outputs),
        },
    )


def panel_pool_terms(shape: LayerShape) -> Terms:
    """Terms of PanelMaxPool."""
    rows = shape.images * shape.outputs * shape.output_height
    return Terms(
        "max pooling of panels",
        {
            "op": 1,
            "row": rows * shape.kernel[0],
            "input": shape.values_read,
            "output": rows * shape.output_width,
        },
    )


def _curved(shape: LayerShape) -> int:
    """Results of a product to which an activation function is applied that takes many instructions."""
    return shape.outputs * shape.width * shape.curved


def _bent(shape: LayerShape) -> dict[str, float]:
    """The same of a convolution, if there is one."""
    return {"curved": shape.values_made} if shape.curved else {}


def _beyond_caches(floats: float) -> dict[str, float]:
    return {
        "far activation": max(0.0, floats - NEAR_FLOATS),
        "distant activation": max(0.0, floats - DISTANT_FLOATS),
    }


def dense_terms(shape: LayerShape) -> Terms:
    """Terms of ONNX Runtime's own op."""
    if shape.quantised:
        return _dense_terms_of_bytes(shape)
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
    inputs, outputs = shape.values_read, shape.values_made
    taps = shape.kernel[0] * shape.kernel[1]
    once = {"op": 1, **_bent(shape)}
    if not _is_blocked(shape):
        return Terms(
            "dense by columns" if shape.groups == 1 else "dense grouped",
            {
                **once,
                "multiply-add": multiply_adds,
                "group": shape.images * shape.groups,
                "column": shape.inputs * dense_taps(shape) * outputs / shape.outputs,
                "output": outputs,
            },
        )
    multiply_adds *= dense_taps(shape) / taps
    if shape.depthwise:
        rows = shape.images * shape.outputs * shape.output_height
        return Terms("dense depthwise", {**once, "multiply-add": multiply_adds, "output": outputs, "row": rows})
    # The last block of channels is padded.
    padded = rounded_up(shape.outputs, VECTOR) / shape.outputs
    if shape.inputs <= IMAGE_CHANNELS:
        return Terms("dense of an image", {**once, "multiply-add": multiply_adds * padded, "output": outputs})
    padded *= rounded_up(shape.inputs, VECTOR) / shape.inputs
    common = {
        **once,
        "multiply-add": multiply_adds * padded,
        "weight": shape.weights * padded,
        "input": inputs,
        "output": outputs,
    }
    return Terms("dense 1x1" if shape.kernel == (1, 1) else "dense kxk", common)


def _dense_terms_of_bytes(shape: LayerShape) -> Terms:
    """Of QLinearConv and QGemm: products of bytes that lie pixel by pixel, all channels of one together."""
    if shape.kind == "linear":
        results = shape.outputs * shape.width
        if shape.width < FEW_ROWS:
            weights = shape.weights * shape.width
            amounts: dict[str, float] = {
                "op": 1,
                "weight": weights,
                "far weight": max(0, weights - NEAR_WEIGHTS),
                "output": results,
            }
            return Terms(f"{INT8}dense vector", amounts)
        padded = rounded_up(shape.outputs, VECTOR) * rounded_up(shape.inputs, QUAD) * shape.width
        read = shape.inputs * shape.width
        return Terms(
            f"{INT8}dense product",
            {"op": 1, "multiply-add": padded, "weight": shape.weights, "input": read, "output": results},
        )
    pixels = shape.images * shape.output_height * shape.output_width
    taps = shape.kernel[0] * shape.kernel[1]
    inputs, outputs = shape.inputs // shape.groups, shape.outputs // shape.groups
    common = {"op": 1, "output": shape.values_made}
    if shape.depthwise and outputs == 1:
        # Pixels are found by a list of addresses, an entry for every tap.
        multiply_adds = pixels * taps * rounded_up(shape.outputs, VECTOR)
        return Terms(f"{INT8}dense depthwise", {**common, "multiply-add": multiply_adds, "tap": pixels * taps})
    multiply_adds = pixels * shape.groups * rounded_up(outputs, VECTOR) * rounded_up(inputs * taps, QUAD)
    common |= {"multiply-add": multiply_adds, "weight": shape.weights}
    columns = {"tap": pixels * taps * shape.groups, "column": pixels * taps * shape.inputs}
    if shape.groups > 1:
        return Terms(f"{INT8}dense grouped", {**common, **columns, "group": shape.images * shape.groups})
    if shape.inputs <= IMAGE_CHANNELS:
        return Terms(f"{INT8}dense of an image", {**common, **columns})
    if taps == 1 and shape.strides == (1, 1) and not any(shape.pads):
        return Terms(f"{INT8}dense 1x1", {**common, "input": shape.values_read})
    return Terms(f"{INT8}dense kxk", {**common, **columns})


def _is_blocked(shape: LayerShape) -> bool:
    """Whether ONNX Runtime computes a convolution on blocks of channels; else it is a product for every group, with the
    windows of all pixels as columns."""
    if shape.groups == 1:
        return shape.outputs >= VECTOR and (shape.inputs < VECTOR or shape.inputs % 4 == 0)
    if shape.depthwise:
        return shape.outputs == shape.inputs
    return (shape.inputs // shape.groups) % VECTOR == 0 and (shape.outputs // shape.groups) % VECTOR == 0


def rounded_up(channels: int, block: int) -> int:
    """Channels when the last block of so many is filled up."""
    return math.ceil(channels / block) * block


def conversion_terms(channels: int, height: int, width: int, images: int) -> Terms:
    """Terms of ToPanel or FromPanel."""
    return Terms("conversion", {"op": 1, "float": channels * height * width * images})


def byte_conversion_terms(channels: int, height: int, width: int, images: int) -> Terms:
    """Terms of QuantisedToPanel and QuantisedFromPanel, with what ONNX Runtime adds to have planes there: its own ops
    on bytes read and make pixels."""
    lanes = _lanes(channels) * height * width * images
    return Terms(f"{INT8}conversion", {"op": 1, "lane": lanes, "transposed": 1, "transposed lane": lanes})


def byte_move_terms(channels: int, height: int, width: int, images: int) -> Terms:
    """Terms of QuantisedConcat and QuantisedResize, of their result."""
    return Terms(f"{INT8}moved", {"op": 1, "lane": _lanes(channels) * height * width * images})


def byte_pool_terms(shape: LayerShape) -> Terms:
    """Terms of QuantisedMaxPool."""
    lanes = _lanes(shape.inputs)
    terms = panel_pool_terms(replace(shape, inputs=lanes, outputs=lanes, groups=lanes, quantised=False))
    return Terms(INT8 + terms.kind, terms.amounts)


def byte_average_terms(shape: LayerShape) -> Terms:
    """Terms of QuantisedAveragePool: the lanes of every window, and the numbers that are made of them."""
    made = shape.images * _lanes(shape.inputs) * shape.output_height * shape.output_width
    read = made * shape.kernel[0] * shape.kernel[1]
    return Terms(f"{INT8}average pooling of panels", {"op": 1, "lane": read, "made": QUAD * made})


def edge_terms(numbers: int, *, enters: bool, panels: bool) -> Terms:
    """Terms of the change of an image between floats on planes and bytes.

    Args:
        numbers: all of the image's.
        enters: whether floats become bytes.
        panels: whether the bytes lie in panels; else ONNX Runtime changes how they lie besides.
    """
    if panels:
        return Terms(f"{INT8}{'entering' if enters else 'leaving'}", {"op": 1, "float": numbers})
    kind = "other QuantizeLinear" if enters else "other DequantizeLinear"
    return Terms(kind, {"op": 1, "float": numbers, "transposed": 1, "transposed float": numbers})


def without_transposing(terms: Terms) -> Terms:
    """Terms of a node alone, without the Transpose beside it that ONNX Runtime adds."""
    amounts = {name: amount for name, amount in terms.amounts.items() if not name.startswith("transposed")}
    return Terms(terms.kind, amounts)


def _lanes(channels: int) -> int:
    """Lanes of four channels."""
    return math.ceil(channels / QUAD)
