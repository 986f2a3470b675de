"""How long layers take, dense and sparse: what decides which of them run sparse."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gossamer.export.prices import seconds, shipped
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.stems import FEW_CHANNELS
from gossamer.graph.taps import as_it_lies, reads
from gossamer.graph.terms import STEM_CHANNELS, Terms, dense_terms, rounded_up, sparse_terms
from gossamer.graph.tiles import VECTOR


class Costs(Protocol):
    """Estimates in seconds, all for the same machine and number of threads. Only their ratios matter."""

    def dense(self, shape: LayerShape) -> float:
        """Seconds of ONNX Runtime's own op, with bias and activation."""

    def sparse(self, shape: LayerShape, density: float) -> float:
        """Seconds of the op of the domain `gossamer`, between values that lie as it wants them.

        Args:
            density: the share of the weights that are kept; of a quantised layer, of the quads.
        """

    def in_half(self, shape: LayerShape, density: float) -> bool:
        """Whether a sparse layer is to multiply in fp16, if the file asks for it."""

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        """Seconds of ToPanel or FromPanel on an activation."""

    def stem(self, shape: LayerShape, *, pooled: bool) -> float:
        """Seconds of StemConv, with or without the max pooling behind it."""

    def pool(self, shape: LayerShape, *, panels: bool) -> float:
        """Seconds of a max pooling, PanelMaxPool or ONNX Runtime's."""

    def of_bytes(self, terms: Terms, *, panels: bool) -> float:
        """Seconds of what stands between quantised layers.

        Args:
            panels: whether that is an op of the domain `gossamer`; a change of layout is none.
        """


@dataclass(frozen=True)
class Rate:
    """Seconds: a constant, and so many for each multiply-add (of a kept weight) and each activation read or written."""

    multiply_add: float
    activation: float = 0.0
    op: float = 3e-6

    def time(self, multiply_adds: float, activations: float = 0.0) -> float:
        return self.op + multiply_adds * self.multiply_add + activations * self.activation


DENSE = Rate(18.8e-12)
DENSE_CONVOLUTIONS = {
    "dense 1x1": {"multiply-add": 18.8e-12},
    "dense kxk": {"multiply-add": 18.8e-12},
    "dense of an image": {"multiply-add": 18.8e-12},
    "dense depthwise": {"multiply-add": 43e-12},
    "dense by columns": {"multiply-add": 11e-12, "column": 0.27e-9},
    "dense grouped": {"multiply-add": 11e-12, "column": 0.38e-9, "group": 0.3e-6},
}
"""Rates by the terms of `gossamer.graph.terms`."""
DENSE_ROW = Rate(240e-12)
"""A product with one row reads every weight from memory for one multiply-add."""
SPARSE_1X1 = Rate(27.5e-12, 93e-12)
SPARSE_KXK = Rate(25.9e-12, 199e-12)
SPARSE_COPIED = {
    "sparse kxk, copied": {
        "op": 3e-6,
        "multiply-add vector": 0.31e-9,
        "kept weight, tile": 2.2e-9,
        "sum vector": 1.44e-9,
        "staged": 0.135e-9,
        "far activation": 0.2e-9,
    },
    "sparse depthwise, staged": {"op": 4e-6, "channel, tile": 28e-9, "multiply-add": 72e-12, "staged": 92e-12},
}
"""The rate of windows whose columns are further apart than a pixel, as in dilated and large ones, which registers
cannot shift; by the terms of `gossamer.graph.terms`."""
SPARSE_IMAGE = Rate(20e-12, 199e-12)
"""The rate of convolutions of up to `FEW_CHANNELS` channels that keep all their weights."""
SPARSE_PRODUCT = Rate(27.5e-12, 270e-12)
SPARSE_DEPTHWISE = Rate(60e-12)
SPARSE_ROW = Rate(477e-12, 16e-9)
"""Its activations are the outputs."""
CONVERSION = Rate(0.0, 0.4e-9, op=4e-6)
"""ONNX Runtime's dense convolutions have a layout of their own, so that it often converts at the same place as well."""
STEM = Rate(9.5e-12, 0.33e-9)
"""Its activations are the convolution's outputs, whole vectors of channels. 7 x 7 at stride 2 takes half the
multiply-adds that are counted here."""
STEM_UNCACHED = Rate(9.5e-12, 0.53e-9)
CACHED = 2_000_000
"""Outputs that some cache still holds."""
POOL = Rate(0.0, 0.2e-9)
"""Its activations are inputs and outputs."""
PANEL_POOL = Rate(20e-9)
"""The rate for each row of the window and each row of a channel's output, however long. Below 28 pixels that is more
than ONNX Runtime's takes, with the changes of the layout around it."""
MARGIN = 1.05
"""Sparse layers have to win by this factor, since estimates err."""


class MeasuredCosts:
    """Rates of one thread of AMD Zen 4 with AVX-512.

    Fitted to the times of 287 convolutions, 39 depthwise ones and 31 linear layers of the networks of `gossamer bench
    shapes`, at 5 to 70% density, inside ONNX Runtime 1.32; the median of estimated by measured time is 0.97 to 1.05 in
    each class. Elsewhere they decide well as far as the ratios are alike. Rates of stems and poolings were chosen by
    hand, after 12 stems in sessions of their own and the poolings of 10 networks. Those of windows whose columns are
    copied, of groups and of what ONNX Runtime computes by columns were fitted on Zen 5
    (`benchmarks/convolutions.py`, 500 convolutions) and brought to this scale by the 0.45 that dense 3 x 3 ones take
    there; those of the dense ones are rather too low, so that what is chosen is faster.

    What computes on bytes has the prices of a calibration of Zen 5 (`gossamer.export.prices`): it is compared with
    nothing but itself.
    """

    def dense(self, shape: LayerShape) -> float:
        if shape.quantised:
            return seconds(shipped(), dense_terms(shape))
        if shape.kind == "linear":
            return max(DENSE.time(shape.multiply_adds), DENSE_ROW.time(shape.weights))
        terms = dense_terms(shape)
        return DENSE.op + _by_terms(DENSE_CONVOLUTIONS[terms.kind], terms.amounts)

    def sparse(self, shape: LayerShape, density: float) -> float:
        if shape.quantised:
            return MARGIN * seconds(shipped(), sparse_terms(shape, density))
        return MARGIN * _sparse(shape, density)

    def in_half(self, shape: LayerShape, density: float) -> bool:
        return True  # as far as the runtime has kernels

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return CONVERSION.time(0, images * channels * height * width)

    def stem(self, shape: LayerShape, *, pooled: bool) -> float:
        pixels = shape.images * shape.output_height * shape.output_width
        channels = rounded_up(shape.outputs, STEM_CHANNELS)
        rate = STEM if pixels * channels <= CACHED else STEM_UNCACHED
        return MARGIN * rate.time(pixels * channels * (shape.weights // shape.outputs), pixels * channels)

    def pool(self, shape: LayerShape, *, panels: bool) -> float:
        if panels:
            rows = shape.images * shape.outputs * shape.output_height
            return MARGIN * PANEL_POOL.time(rows * shape.kernel[0])
        return POOL.time(0, shape.values_read + shape.values_made)

    def of_bytes(self, terms: Terms, *, panels: bool) -> float:
        return (MARGIN if panels else 1.0) * seconds(shipped(), terms)


def _sparse(shape: LayerShape, density: float) -> float:
    if shape.kind == "linear":
        if shape.width == 1:
            return SPARSE_ROW.time(shape.weights * density, shape.outputs)
        # So many at once, whether there are as many or not.
        rows = max(shape.width, VECTOR)
        return SPARSE_PRODUCT.time(rows * shape.weights * density, rows * (shape.inputs + shape.outputs))
    shape = as_it_lies(shape)
    read = reads(shape)
    terms = sparse_terms(shape, density)
    if terms.kind in SPARSE_COPIED:
        return _by_terms(SPARSE_COPIED[terms.kind], terms.amounts)
    if shape.depthwise:
        return SPARSE_DEPTHWISE.time(shape.multiply_adds)
    rate = SPARSE_1X1 if shape.kernel == (1, 1) or read.floats == 0 else SPARSE_KXK
    if rate is SPARSE_KXK and density == 1 and shape.inputs <= FEW_CHANNELS:
        rate = SPARSE_IMAGE
    share = read.taps / (shape.kernel[0] * shape.kernel[1])
    return rate.time(shape.multiply_adds * share * density, shape.values_read + shape.values_made)


def _by_terms(prices: Mapping[str, float], amounts: Mapping[str, float]) -> float:
    return sum(price * amounts[name] for name, price in prices.items())


class EverythingSparse:
    """Makes every layer with a zero sparse, whether it pays or not: for tests of the ops and for measuring them.
    A layer without zeros is where it costs the fewest conversions."""

    def dense(self, shape: LayerShape) -> float:
        return 1.0

    def sparse(self, shape: LayerShape, density: float) -> float:
        return 0.0 if density < 1 else 1.0

    def in_half(self, shape: LayerShape, density: float) -> bool:
        return True  # as far as the runtime has kernels

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return 1e-9

    def stem(self, shape: LayerShape, *, pooled: bool) -> float:
        return 1.0

    def pool(self, shape: LayerShape, *, panels: bool) -> float:
        return 0.0

    def of_bytes(self, terms: Terms, *, panels: bool) -> float:
        if terms.kind.endswith("conversion"):
            return 0.3e-9
        # On panels rather than on planes, where nothing else decides.
        return 0.0 if panels else 0.1e-9
