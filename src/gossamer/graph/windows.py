"""What a convolution or pooling reads for each of its outputs: kernel, strides, dilations and padding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.shapes import UNKNOWN_IMAGES, Size, known_size


@dataclass(frozen=True)
class Window:
    """A number for each spatial axis; one for sequences, two for images."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    """At the beginning of all axes, then at their ends."""


def window_of(attributes: Mapping[str, object], kernel: tuple[int, ...], sizes: tuple[Size, ...]) -> Window | None:
    """A node's window, with explicit padding; None if that depends on sizes that are not known.

    Args:
        attributes: of a Conv or MaxPool.
        sizes: of its input, spatial axes only.
    """
    strides = integers_of(attributes.get("strides"), len(kernel), 1)
    dilations = integers_of(attributes.get("dilations"), len(kernel), 1)
    before = Window(kernel, strides, dilations, ())
    pads = _pads(attributes, before, sizes)
    if pads is not None and attributes.get("ceil_mode", 0) != 0:
        pads = _rounded_up(Window(kernel, strides, dilations, pads), sizes)
    return None if pads is None else Window(kernel, strides, dilations, pads)


def fits(window: Window, sizes: tuple[Size, ...]) -> bool:
    """Whether a window is no larger than its image with its padding, as far as the sizes are known: ONNX Runtime pools
    over what there is, sparse ops do not."""
    spatial = len(window.kernel)
    return all(
        not isinstance(size, int) or _reach(window, axis) <= size + window.pads[axis] + window.pads[spatial + axis]
        for axis, size in enumerate(sizes)
    )


def shape_over(
    kind: Any, sizes: tuple[Size, ...], window: Window, *, inputs: int, outputs: int, groups: int
) -> LayerShape:
    """A convolution or pooling of images; a sequence is an image of one row.

    Args:
        kind: as in `LayerShape`.
        sizes: of its input, all axes.
    """
    kernel, strides, dilations, pads = window.kernel, window.strides, window.dilations, window.pads
    height, width = (1, *sizes[2:]) if len(kernel) == 1 else sizes[2:]
    if len(kernel) == 1:
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    return LayerShape(
        kind,
        inputs=inputs,
        outputs=outputs,
        height=known_size(height),
        width=known_size(width),
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        groups=groups,
        images=known_size(sizes[0], UNKNOWN_IMAGES),
    )


def integers_of(value: object, count: int, otherwise: int) -> tuple[int, ...]:
    """The integers of an attribute; so many of another number where it is left out."""
    return tuple(int(number) for number in value) if isinstance(value, list) else (otherwise,) * count


def _pads(attributes: Mapping[str, object], window: Window, sizes: tuple[Size, ...]) -> tuple[int, ...] | None:
    automatic = attributes.get("auto_pad", b"NOTSET")
    spatial = len(window.kernel)
    if automatic == b"NOTSET":
        return integers_of(attributes.get("pads"), 2 * spatial, 0)
    if automatic == b"VALID":
        return (0,) * (2 * spatial)
    before, after = [], []
    for axis, size in enumerate(sizes):
        if not isinstance(size, int):
            return None
        outputs = -(-size // window.strides[axis])
        total = max(0, (outputs - 1) * window.strides[axis] + _reach(window, axis) - size)
        before.append(total // 2 if automatic == b"SAME_UPPER" else total - total // 2)
        after.append(total - before[-1])
    return (*before, *after)


def _rounded_up(window: Window, sizes: tuple[Size, ...]) -> tuple[int, ...] | None:
    """The padding with which rounding down gives as many outputs as rounding up without."""
    spatial = len(window.kernel)
    ends = [
        _end_rounded_up(
            size, window.pads[axis], window.pads[spatial + axis], _reach(window, axis), window.strides[axis]
        )
        for axis, size in enumerate(sizes)
    ]
    return None if None in ends else (*window.pads[:spatial], *(end for end in ends if end is not None))


def _end_rounded_up(size: Size, before: int, after: int, reach: int, stride: int) -> int | None:
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


def _reach(window: Window, axis: int) -> int:
    """Pixels from a window's first to its last, both included."""
    return window.dilations[axis] * (window.kernel[axis] - 1) + 1
