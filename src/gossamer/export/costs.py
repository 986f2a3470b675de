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
class MeasuredCosts:
    """Rates of one thread of AMD Zen 4 (docs/kernels.md). They decide well elsewhere as far as ratios agree."""

    dense_rate: float = 51e9
    """Multiply-adds a second."""
    dense_depthwise_rate: float = 15e9
    dense_row_rate: float = 5e9
    """Of a product with few rows, which reads its weights from memory."""
    sparse_rate: float = 39e9
    """Multiply-adds with a kept weight a second."""
    sparse_row_rate: float = 2e9
    float_time: float = 0.2e-9
    """Of an activation read or written by a sparse op."""
    conversion_time: float = 0.25e-9
    """Of a float that is moved to another layout."""
    op_time: float = 2e-6

    def dense(self, shape: LayerShape) -> float:
        if shape.kind == "linear" and shape.width < 4:
            return self.op_time + shape.multiply_adds / self.dense_row_rate
        rate = self.dense_depthwise_rate if shape.depthwise else self.dense_rate
        return self.op_time + shape.multiply_adds / rate

    def sparse(self, shape: LayerShape, density: float) -> float:
        if shape.kind == "linear" and shape.width < 4:
            return self.op_time + shape.multiply_adds * density / self.sparse_row_rate
        floats = shape.inputs * shape.height * shape.width
        floats += shape.outputs * shape.output_height * shape.output_width
        time = self.op_time + shape.multiply_adds * density / self.sparse_rate
        return time + shape.images * floats * self.float_time

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return self.op_time + images * channels * height * width * self.conversion_time


class EverythingSparse:
    """Makes every layer with a zero sparse, whether it pays or not: for tests of the ops and for measuring them.
    A layer without zeros is where it costs the fewest conversions."""

    def dense(self, shape: LayerShape) -> float:
        return 1.0

    def sparse(self, shape: LayerShape, density: float) -> float:
        return 0.0 if density < 1 else 1.0

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return 1e-9
