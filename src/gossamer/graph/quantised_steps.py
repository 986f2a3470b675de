"""What stands between quantised layers and can run on panels of bytes: additions, activation functions, poolings,
concatenation and resizing, in both of ONNX's forms."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.graph import Graph, attributes_of, is_standard
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import extents, same_shape
from gossamer.graph.pools import is_unclear, pool_at
from gossamer.graph.quantisation import (
    CONTRIBUTED,
    Bytes,
    Quantisation,
    Unsuited,
    as_unsigned,
    bytes_read,
    constant_bytes,
    quantisation_at,
)
from gossamer.graph.quantised_result import Result, plain_result, result_of
from gossamer.graph.windows import Window, fits, integers_of, shape_over, window_of

ANY = Quantisation(np.float32(1), 0, False)
"""Of bytes that only move, or are compared."""


@dataclass(frozen=True)
class Addition:
    """Two quantised values, added."""

    inputs: tuple[Bytes, Bytes]
    result: Result
    nodes: tuple[int, ...]
    constant: NDArray[np.uint8] | None = None
    """The second of them, along the last axis, where it is one; of int8 more by 128."""


@dataclass(frozen=True)
class BytePool:
    """A pooling of quantised values."""

    kind: Literal["max", "average"]
    inputs: tuple[Bytes, ...]
    output: Bytes
    nodes: tuple[int, ...]
    shape: LayerShape
    rank: int
    counts_padding: bool = False


@dataclass(frozen=True)
class ByteConcat:
    """A concatenation of quantised values along their channels."""

    inputs: tuple[Bytes, ...]
    output: Bytes
    nodes: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class ByteResize:
    """Each pixel repeated so many times along rows and columns."""

    inputs: tuple[Bytes, ...]
    output: Bytes
    nodes: tuple[int, ...]
    channels: int
    rows: int
    columns: int


Step = Addition | BytePool | ByteConcat | ByteResize


def step_at(graph: Graph, index: int, signed: dict[str, bool]) -> Step | None:
    """The step that a node is; None if it is none, or one that no op of bytes computes.

    Args:
        signed: the values of bytes so far -> whether they are int8.
    """
    node = graph.nodes[index]
    try:
        if is_standard(node, "Add") or _is_contributed(node, "QLinearAdd"):
            return _addition(graph, index, node)
        if is_standard(node, "MaxPool"):
            return _max_pool(graph, index, node, signed)
        if is_standard(node, "AveragePool", "GlobalAveragePool", "ReduceMean") or _is_contributed(
            node, "QLinearAveragePool", "QLinearGlobalAveragePool"
        ):
            return _average_pool(graph, index, node)
        if is_standard(node, "Concat") or _is_contributed(node, "QLinearConcat"):
            return _concat(graph, index, node)
        if is_standard(node, "Resize"):
            return _resize(graph, index, node, signed)
    except Unsuited:
        pass
    return None


def _is_contributed(node: onnx.NodeProto, *kinds: str) -> bool:
    return node.domain == CONTRIBUTED and node.op_type in kinds


def _read(graph: Graph, value: str) -> Bytes:
    found = bytes_read(graph, value)
    if found is None:
        raise Unsuited("it is not quantised")
    return found


def _addition(graph: Graph, index: int, node: onnx.NodeProto) -> Addition:
    if node.domain == CONTRIBUTED:
        first = Bytes(node.input[0], quantisation_at(graph, node, 1, 2))
        second = Bytes(node.input[3], quantisation_at(graph, node, 4, 5))
        result = plain_result(node.output[0], quantisation_at(graph, node, 6, 7))
        values = (first.value, second.value)
    else:
        values = (node.input[0], node.input[1])
        first, second = (constant_bytes(graph, value) or _read(graph, value) for value in values)
        result = result_of(graph, node.output[0])
    if first.value in graph.tensors:
        first, second = second, first
    constant = graph.constant(second.value)
    if first.value in graph.tensors or (constant is None and not same_shape(graph, *values)):
        raise Unsuited("its inputs are constants or of different shapes")
    if constant is not None and (constant.size < 2 or constant.size != constant.shape[-1]):
        raise Unsuited("what it adds is not one number for each index of the last axis")
    return Addition(
        (first, second),
        result,
        (index, *result.nodes),
        None if constant is None else as_unsigned(constant.reshape(-1)),
    )


def _moved(
    graph: Graph, index: int, node: onnx.NodeProto, signed: dict[str, bool]
) -> tuple[Bytes, Bytes, tuple[int, ...]]:
    """Input, output and nodes of an op that only moves or compares numbers: of bytes as of floats."""
    if node.input[0] in signed:
        kind = replace(ANY, signed=signed[node.input[0]])
        return Bytes(node.input[0], kind), Bytes(node.output[0], kind), (index,)
    source, result = _read(graph, node.input[0]), result_of(graph, node.output[0])
    if source.quantisation != result.output.quantisation or (result.lower, result.upper) != (0, 255):
        raise Unsuited("it changes scales")
    return source, result.output, (index, *result.nodes)


def _max_pool(graph: Graph, index: int, node: onnx.NodeProto, signed: dict[str, bool]) -> BytePool:
    if any(node.output[1:]):
        raise Unsuited("it returns positions")
    source, output, nodes = _moved(graph, index, node, signed)
    pool = pool_at(graph, index)
    if pool is None:
        raise Unsuited("its window is none that panels are pooled by")
    return BytePool("max", (source,), output, nodes, replace(pool.shape, quantised=True), pool.rank)


def _average_pool(graph: Graph, index: int, node: onnx.NodeProto) -> BytePool:
    attributes = attributes_of(node)
    if node.domain == CONTRIBUTED:
        if attributes.get("channels_last", 0):
            raise Unsuited("its channels come last")
        source = Bytes(node.input[0], quantisation_at(graph, node, 1, 2))
        result = plain_result(node.output[0], quantisation_at(graph, node, 3, 4))
    else:
        source, result = _read(graph, node.input[0]), result_of(graph, node.output[0])
    if (result.lower, result.upper) != (0, 255):
        raise Unsuited("a clip stands behind it")
    counts = bool(attributes.get("count_include_pad", 0))
    if counts and attributes.get("ceil_mode", 0):
        raise Unsuited("which padding counts is not clear")
    shape, rank = _pool_shape(graph, node, source.value)
    return BytePool("average", (source,), result.output, (index, *result.nodes), shape, rank, counts)


def _pool_shape(graph: Graph, node: onnx.NodeProto, source: str) -> tuple[LayerShape, int]:
    sizes = graph.shapes.get(source, ())
    attributes = attributes_of(node)
    if len(sizes) not in (3, 4) or not isinstance(sizes[1], int) or sizes[1] < 1:
        raise Unsuited("the number of its channels is not known")
    if node.op_type in ("GlobalAveragePool", "QLinearGlobalAveragePool", "ReduceMean"):
        if node.op_type == "ReduceMean":
            _require_spatial(graph, node, len(sizes))
        if any(_is_of_unclear_size(graph, other) for other in graph.nodes):
            raise Unsuited("of how many pixels it is differs between versions of ONNX")
        kernel = tuple(size for size in sizes[2:] if isinstance(size, int))
        window = Window(kernel, (1,) * len(kernel), (1,) * len(kernel), (0,) * (2 * len(kernel)))
    else:
        kernel = integers_of(attributes.get("kernel_shape"), 0, 0)
        found = window_of(attributes, kernel, sizes[2:]) if len(kernel) == len(sizes) - 2 else None
        if found is None or is_unclear(attributes, found) or not fits(found, sizes[2:]):
            raise Unsuited("its padding is not known before it runs, or its window is larger than the image")
        window = found
    pads, ends = window.pads, (*kernel, *kernel)
    if len(kernel) != len(sizes) - 2 or min((*kernel, *window.strides, *window.dilations)) < 1:
        raise Unsuited("its window is not known, or empty")
    if min(pads) < 0 or any(pad >= size for pad, size in zip(pads, ends, strict=True)):
        raise Unsuited("its padding is larger than its kernel")
    shape = shape_over("pool", sizes, window, inputs=sizes[1], outputs=sizes[1], groups=sizes[1])
    return replace(shape, quantised=True), len(sizes)


def _is_of_unclear_size(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether it is a pooling, rounded up, with a last window that begins in the padding: ONNX counts it, ONNX Runtime
    does not."""
    attributes = attributes_of(node) if is_standard(node, "AveragePool", "MaxPool") else {}
    if not attributes.get("ceil_mode", 0):
        return False
    return (
        window_of(
            attributes, integers_of(attributes.get("kernel_shape"), 0, 0), graph.shapes.get(node.input[0], ())[2:]
        )
        is None
    )


def _require_spatial(graph: Graph, node: onnx.NodeProto, rank: int) -> None:
    """Requires that a mean is one over all pixels, whose axes stay."""
    attributes = attributes_of(node)
    given = graph.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else attributes.get("axes")
    axes = sorted(int(axis) % rank for axis in np.asarray(given if given is not None else []).reshape(-1))
    if axes != list(range(2, rank)) or not attributes.get("keepdims", 1):
        raise Unsuited("it is no mean over all pixels")


def _concat(graph: Graph, index: int, node: onnx.NodeProto) -> ByteConcat:
    if node.domain == CONTRIBUTED:
        triples = range(2, len(node.input) - 2, 3)
        inputs = [Bytes(node.input[first], quantisation_at(graph, node, first + 1, first + 2)) for first in triples]
        result = plain_result(node.output[0], quantisation_at(graph, node, 0, 1))
    else:
        inputs = [_read(graph, value) for value in node.input]
        result = result_of(graph, node.output[0])
    shapes = [graph.shapes.get(given.value, ()) for given in inputs]
    ranks = {len(shape) for shape in shapes}
    axis = int(str(attributes_of(node).get("axis", 1)))
    if not inputs or len(ranks) != 1 or not ranks <= {3, 4} or axis not in (1, 1 - max(ranks)):
        raise Unsuited("it is not one along channels")
    channels = tuple(shape[1] for shape in shapes)
    if (result.lower, result.upper) != (0, 255) or any(given.value in graph.tensors for given in inputs):
        raise Unsuited("a clip stands behind it, or a constant is among its inputs")
    known = tuple(count for count in channels if isinstance(count, int) and count > 0)
    if len(known) != len(channels):
        raise Unsuited("the number of its channels is not known")
    return ByteConcat(tuple(inputs), result.output, (index, *result.nodes), known)


def _resize(graph: Graph, index: int, node: onnx.NodeProto, signed: dict[str, bool]) -> ByteResize:
    source, output, nodes = _moved(graph, index, node, signed)
    attributes = attributes_of(node)
    how = (
        attributes.get("mode", b"nearest"),
        attributes.get("coordinate_transformation_mode", b"half_pixel"),
        attributes.get("nearest_mode", b"round_prefer_floor"),
    )
    repeats = (
        (b"nearest", b"asymmetric", b"floor"),
        (b"nearest", b"half_pixel", b"round_prefer_floor"),
        (b"nearest", b"pytorch_half_pixel", b"round_prefer_floor"),
    )
    if how not in repeats or attributes.get("axes") is not None:
        raise Unsuited("it is none that repeats pixels")
    factors = _factors(graph, node)
    channels = extents(graph, source.value)[0]
    known = graph.shapes.get(source.value, ())
    if factors[:2] != [1, 1] or len(known) != len(factors) or known[1] != channels:
        raise Unsuited("it is no repetition of pixels")
    rows, columns = (1, factors[2]) if len(factors) == 3 else (factors[2], factors[3])
    return ByteResize((source,), output, nodes, channels, rows, columns)


def _factors(graph: Graph, node: onnx.NodeProto) -> Sequence[int]:
    """Whole factors of all axes, of images or sequences."""
    scales = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if scales is not None and scales.size:
        factors = np.asarray(scales, np.float64).reshape(-1)
    else:
        before, after = (graph.shapes.get(value, ()) for value in (node.input[0], node.output[0]))
        sizes = [
            (old, new) for old, new in zip(before, after, strict=False) if (old and old == new) or _counts(old, new)
        ]
        if len(before) != len(after) or len(sizes) != len(before):
            raise Unsuited("its factors are not known before it runs")
        factors = np.asarray([1.0 if old == new else int(str(new)) / int(str(old)) for old, new in sizes])
    if not np.isfinite(factors).all():
        raise Unsuited("its factors are no numbers")
    whole = [int(factor) for factor in factors]
    if len(whole) not in (3, 4) or min(whole) < 1 or whole != factors.tolist():
        raise Unsuited("its factors are no whole numbers")
    return whole


def _counts(old: object, new: object) -> bool:
    return isinstance(old, int) and isinstance(new, int) and old > 0
