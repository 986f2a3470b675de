"""Reshape to rows, as Flatten: which needs no constant."""

import math

import onnx

from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.graph import Graph, attributes_of, input_at, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.shapes import Size


def flattened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, in which a Reshape of all axes but the first to one is a Flatten; constants that nobody reads
    are left out."""
    graph, result = Graph(model), copied(model)
    for node in result.graph.node:
        if is_standard(node, "Reshape") and _makes_rows(graph, node):
            # Flatten's axis is 1 where it is left out.
            node.op_type = "Flatten"
            replace_items(node.input, [node.input[0]])
            replace_items(node.attribute, [])
    drop_unread(result)
    return result


def _makes_rows(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a Reshape keeps the first axis, whatever its size, and joins the others, whose sizes are known."""
    sizes = graph.shapes.get(input_at(node, 0), ())
    asked = graph.constant(input_at(node, 1))
    if len(sizes) < 2 or asked is None or asked.shape != (2,):
        return False
    first, second = (int(number) for number in asked)
    others = _product(sizes[1:])
    if not others:
        return False
    keeps_zero = not attributes_of(node).get("allowzero", 0)
    if (first == 0 and keeps_zero) or (isinstance(sizes[0], int) and first == sizes[0] > 0):
        return second in (-1, others)
    return first == -1 and second == others


def _product(sizes: tuple[Size, ...]) -> int | None:
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None
