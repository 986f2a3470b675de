"""How long layers take, dense and sparse: what decides which of them run sparse."""

from dataclasses import dataclass
from typing import Protocol

from gossamer.export.layers import LayerShape


class Costs(Protocol):
    """Estimates in seconds, all for the same machine and number of threads. Only their ratios matter."""

    def dense(self, shape: LayerShape) -> float:
        """Of ONNX Runtime's own op, with bias and activation."""

    def sparse(self, shape: LayerShape, density: float) -> float:
        """Of the op of the domain `gossamer`, between values that lie as it wants them."""

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        """Of ToPanel or FromPanel on an activation."""


@dataclass(frozen=True)
class Rate:
    """Seconds: a constant, and so many for each multiply-add (of a kept weight) and each activation read or written."""

    multiply_add: float
    activation: float = 0.0
    op: float = 3e-6

    def time(self, multiply_adds: float, activations: float = 0.0) -> float:
        return self.op + multiply_adds * self.multiply_add + activations * self.activation


DENSE = Rate(18.8e-12)
DENSE_DEPTHWISE = Rate(43e-12)
DENSE_ROW = Rate(240e-12)
"""A product with one row reads every weight from memory for one multiply-add."""
SPARSE_1X1 = Rate(27.5e-12, 93e-12)
SPARSE_KXK = Rate(25.9e-12, 199e-12)
SPARSE_PRODUCT = Rate(27.5e-12, 270e-12)
SPARSE_DEPTHWISE = Rate(60e-12)
SPARSE_ROW = Rate(477e-12, 16e-9)
"""Its activations are the outputs."""
CONVERSION = Rate(0.0, 0.4e-9, op=4e-6)
"""ONNX Runtime's dense convolutions have a layout of their own, so that it often converts at the same place as well."""
VECTOR = 16
"""Rows that a sparse product computes at once, whether there are as many or not."""
MARGIN = 1.05
"""Sparse layers have to win by this factor, since estimates err."""


class MeasuredCosts:
    """Rates of one thread of AMD Zen 4 with AVX-512.

    Fitted to the times of 287 convolutions, 39 depthwise ones and 31 linear layers of the networks of `gossamer bench
    shapes`, at 5 to 70% density, inside ONNX Runtime 1.32; the median of estimated by measured time is 0.97 to 1.05 in
    each class. Elsewhere they decide well as far as the ratios are alike.
    """

    def dense(self, shape: LayerShape) -> float:
        if shape.kind == "linear":
            return max(DENSE.time(shape.multiply_adds), DENSE_ROW.time(shape.weights))
        return (DENSE_DEPTHWISE if shape.depthwise else DENSE).time(shape.multiply_adds)

    def sparse(self, shape: LayerShape, density: float) -> float:
        return MARGIN * _sparse(shape, density)

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return CONVERSION.time(0, images * channels * height * width)


def _sparse(shape: LayerShape, density: float) -> float:
    if shape.kind == "linear":
        if shape.width == 1:
            return SPARSE_ROW.time(shape.weights * density, shape.outputs)
        rows = max(shape.width, VECTOR)
        return SPARSE_PRODUCT.time(rows * shape.weights * density, rows * (shape.inputs + shape.outputs))
    if shape.depthwise:
        return SPARSE_DEPTHWISE.time(shape.multiply_adds)
    inputs = shape.images * shape.inputs * shape.height * shape.width
    outputs = shape.images * shape.outputs * shape.output_height * shape.output_width
    rate = SPARSE_1X1 if shape.kernel == (1, 1) else SPARSE_KXK
    return rate.time(shape.multiply_adds * density, inputs + outputs)


class EverythingSparse:
    """Makes every layer with a zero sparse, whether it pays or not: for tests of the ops and for measuring them.
    A layer without zeros is where it costs the fewest conversions."""

    def dense(self, shape: LayerShape) -> float:
        return 1.0

    def sparse(self, shape: LayerShape, density: float) -> float:
        return 0.0 if density < 1 else 1.0

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return 1e-9
