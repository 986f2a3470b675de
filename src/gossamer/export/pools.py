"""Max poolings that can run on panels: those whose window, strides and padding are plain numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from gossamer.export.graph import Graph, attributes_of, is_standard
from gossamer.export.layers import UNKNOWN_IMAGES, LayerShape, integers_of, known_size, pads_of, pair_of
from gossamer.export.shapes import Size


@dataclass(frozen=True)
class Pool:
    """A max pooling with explicit padding, as `PanelMaxPool` takes it (docs/format.md)."""

    place: int
    source: str
    output: str
    shape: LayerShape
    rank: int
    """Of its input: 3 over sequences."""

    @property
    def attributes(self) -> dict[str, int | list[int]]:
        """Of the op `PanelMaxPool`."""
        # A sequence has no height; what there is of it in the shape is left out.
        first = 4 - self.rank
        shape = self.shape
        return {
            "channels": shape.outputs,
            "kernel_shape": list(shape.kernel[first:]),
            "strides": list(shape.strides[first:]),
            "dilations": list(shape.dilations[first:]),
            "pads": [*shape.pads[:2][first:], *shape.pads[2:][first:]],
        }


def pool_at(graph: Graph, place: int) -> Pool | None:
    """The max pooling at a place of the graph; None if there is none, or one that `PanelMaxPool` does not compute.

    `ceil_mode` and `auto_pad` become explicit padding where the sizes that decide it are known.
    """
    node = graph.nodes[place]
    if not is_standard(node, "MaxPool") or any(node.output[1:]):  # places of the maxima
        return None
    sizes, made = graph.shapes.get(node.input[0], ()), graph.shapes.get(node.output[0], ())
    attributes = attributes_of(node)
    spatial = len(sizes) - 2
    kernel = integers_of(attributes.get("kernel_shape"), 0, 0)
    if spatial not in (1, 2) or len(made) != len(sizes) or len(kernel) != spatial:
        return None
    channels = sizes[1]
    strides = integers_of(attributes.get("strides"), spatial, 1)
    dilations = integers_of(attributes.get("dilations"), spatial, 1)
    pads = _explicit_pads(node, sizes[2:], kernel, strides, dilations)
    if not isinstance(channels, int) or channels < 1 or pads is None or min(pads) < 0:
        return None
    if min((*kernel, *strides, *dilations)) < 1:
        return None
    height, width = (1, *sizes[2:]) if spatial == 1 else sizes[2:]
    if spatial == 1:
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    shape = LayerShape(
        "pool",
        inputs=channels,
        outputs=channels,
        height=known_size(height),
        width=known_size(width),
        kernel=pair_of(kernel),
        strides=pair_of(strides),
        dilations=pair_of(dilations),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        groups=channels,
        images=known_size(sizes[0], UNKNOWN_IMAGES),
    )
    return Pool(place, node.input[0], node.output[0], shape, len(sizes))


def _explicit_pads(
    node: onnx.NodeProto,
    sizes: Sequence[Size],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[int, ...] | None:
    attributes = attributes_of(node)
    automatic = attributes.get("auto_pad", b"NOTSET")
    rounds_up = attributes.get("ceil_mode", 0) != 0
    if automatic not in (b"NOTSET", b"VALID"):
        # It is not clear what these mean for dilated windows, for windows smaller than their stride, and together.
        small = any(size < stride for size, stride in zip(kernel, strides, strict=True))
        if rounds_up or small or max(dilations) > 1:
            return None
    pads = pads_of(attributes, tuple(sizes), kernel, strides, dilations)
    if pads is None or not rounds_up:
        return pads
    ends = [
        _rounded_up(size, pads[axis], pads[len(kernel) + axis], dilations[axis] * (kernel[axis] - 1) + 1, strides[axis])
        for axis, size in enumerate(sizes)
    ]
    return None if None in ends else (*pads[: len(kernel)], *(end for end in ends if end is not None))


def _rounded_up(size: Size, before: int, after: int, reach: int, stride: int) -> int | None:
    """The padding at the end of an axis with which rounding down gives as many outputs as rounding up without."""
    if stride == 1:
        return after
    if not isinstance(size, int):
        return None
    rest = (size + before + after - reach) % stride
    if rest == 0:
        return after
    more = after + stride - rest
    # Whether a window that begins in the padding behind the image counts has changed between versions of ONNX.
    last = size + before + more - reach
    return more if last < size + before else None
