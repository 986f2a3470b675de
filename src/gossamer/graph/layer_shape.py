"""All that decides how long a layer takes, apart from its zeros."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class LayerShape:
    """A layer, or a pooling, whose groups are its channels."""

    kind: Literal["conv", "linear", "pool"]
    inputs: int
    """Channels or features."""
    outputs: int
    height: int = 1
    width: int = 1
    """The width of the input. A linear layer's rows (tokens, or examples of a batch) are its width."""
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom, right, as in ONNX."""
    groups: int = 1
    images: int = 1
    residual: bool = False
    """Whether another value is added to its result."""
    curved: bool = False
    """Whether an activation function that takes many instructions, such as GELU, is applied to its result."""
    quantised: bool = False
    """Whether its inputs and outputs are bytes, and its weights int8."""

    @property
    def text(self) -> str:
        """In few words: `64 x 56 x 56 -> 256, 3 x 3 / 2`, or `128 x 768 -> 3072`."""
        if self.kind == "linear":
            return f"{self.width} x {self.inputs} -> {self.outputs}"
        text = f"{self.inputs} x {self.height} x {self.width} -> {self.outputs}, {self.kernel[0]} x {self.kernel[1]}"
        if self.strides != (1, 1):
            text += f" / {self.strides[0]}"
        return text + (f", {self.groups} groups" if self.groups > 1 else "")

    @property
    def values_read(self) -> int:
        """Numbers of the input of a convolution or pooling, all images."""
        return self.images * self.inputs * self.height * self.width

    @property
    def values_made(self) -> int:
        """Numbers of its output."""
        return self.images * self.outputs * self.output_height * self.output_width

    @property
    def output_height(self) -> int:
        return self._extent(0, self.height)

    @property
    def output_width(self) -> int:
        return self._extent(1, self.width)

    @property
    def weights(self) -> int:
        return self.outputs * (self.inputs // self.groups) * self.kernel[0] * self.kernel[1]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the layer with no zero at all."""
        return self.images * self.output_height * self.output_width * self.weights

    @property
    def depthwise(self) -> bool:
        return self.kind == "conv" and self.groups == self.inputs and self.groups > 1

    def _extent(self, axis: int, size: int) -> int:
        padded = size + self.pads[axis] + self.pads[axis + 2]
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        return max(0, (padded - reach) // self.strides[axis] + 1)

    def window(self, rank: int) -> dict[str, Any]:
        """ONNX's attributes of its window.

        Args:
            rank: of its input: 3 over sequences, which have no height.
        """
        first = 4 - rank
        return {
            "kernel_shape": list(self.kernel[first:]),
            "strides": list(self.strides[first:]),
            "dilations": list(self.dilations[first:]),
            "pads": [*self.pads[:2][first:], *self.pads[2:][first:]],
        }
