"""Max poolings that can run on panels: those whose window, strides and padding are plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

from gossamer.graph.graph import Graph, attributes_of, is_complete, is_standard
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.windows import Window, fits, integers_of, shape_over, window_of


@dataclass(frozen=True)
class Pool:
    """A max pooling with explicit padding, as `PanelMaxPool` takes it (docs/format.md)."""

    index: int
    source: str
    output: str
    shape: LayerShape
    rank: int
    """The rank of its input: 3 over sequences."""


def pool_at(graph: Graph, index: int) -> Pool | None:
    """The max pooling at a index of the graph; None if there is none, or one that `PanelMaxPool` does not compute.

    `ceil_mode` and `auto_pad` become explicit padding where the sizes that decide it are known.
    """
    node = graph.nodes[index]
    if not (is_standard(node, "MaxPool") and is_complete(node)) or any(node.output[1:]):  # indices of the maxima
        return None
    sizes, made = graph.shapes.get(node.input[0], ()), graph.shapes.get(node.output[0], ())
    attributes = attributes_of(node)
    spatial = len(sizes) - 2
    kernel = integers_of(attributes.get("kernel_shape"), 0, 0)
    if spatial not in (1, 2) or len(made) != len(sizes) or len(kernel) != spatial:
        return None
    channels = sizes[1]
    window = window_of(attributes, kernel, sizes[2:])
    if window is None or not isinstance(channels, int) or channels < 1 or min(window.pads) < 0:
        return None
    if min((*kernel, *window.strides, *window.dilations)) < 1 or is_unclear(attributes, window):
        return None
    if not fits(window, sizes[2:]):
        return None
    shape = shape_over("pool", sizes, window, inputs=channels, outputs=channels, groups=channels)
    return Pool(index, node.input[0], node.output[0], shape, len(sizes))


def is_unclear(attributes: Mapping[str, object], window: Window) -> bool:
    """What SAME_UPPER and SAME_LOWER mean for dilated windows, for those smaller than their stride, and together with
    `ceil_mode`."""
    if attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"):
        return False
    small = any(size < stride for size, stride in zip(window.kernel, window.strides, strict=True))
    return attributes.get("ceil_mode", 0) != 0 or small or max(window.dilations) > 1
