"""Reshape to rows, as Flatten: which needs no constant."""

import math

import onnx

from gossamer.graph.graph import Graph, attributes_of, input_at, is_standard, values_read
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.shapes import Size


def flattened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, in which a Reshape of all axes but the first to one is a Flatten; shapes that nobody reads any
    more are left out."""
    graph, result = Graph(model), copied(model)
    changed: set[str] = set()
    for node in result.graph.node:
        if is_standard(node, "Reshape") and _makes_rows(graph, node):
            changed.add(node.input[1])
            # Flatten's axis is 1 where it is left out.
            node.op_type = "Flatten"
            replace_items(node.input, [node.input[0]])
            replace_items(node.attribute, [])
    read = {name for node in result.graph.node for name in values_read(node)}
    unread = changed - read - {value.name for value in result.graph.output}
    replace_items(result.graph.initializer, [one for one in result.graph.initializer if one.name not in unread])
    replace_items(
        result.graph.node,
        [one for one in result.graph.node if not (one.op_type == "Constant" and one.output[0] in unread)],
    )
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
