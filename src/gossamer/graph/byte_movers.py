"""Ops that only move or compare numbers, where a network quantises what goes into them and not what comes out.

What comes out is then numbers of the same scale: making bytes of them and numbers of these again changes nothing. With
that pair of nodes behind it such an op stands between bytes, as in the networks of ONNX Runtime's own tool, and so does
what reads it.
"""

import onnx
from onnx import helper

from gossamer.graph.graph import Graph, attributes_of, is_complete, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused
from gossamer.graph.quantisation import Unsuited, bytes_read, is_dequantise, is_quantise, maker_of

MOVERS = ("Concat", "Flatten", "MaxPool", "Reshape", "Resize", "Squeeze", "Transpose", "Unsqueeze")
MULTIPLIERS = ("Conv", "Gemm", "MatMul")


def with_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with QuantizeLinear and DequantizeLinear behind such ops, on the way to a layer that reads bytes."""
    graph = Graph(model)
    if not any(is_dequantise(node) for node in graph.nodes):
        return model
    pairs: dict[int, onnx.NodeProto] = {}
    for index, node in enumerate(graph.nodes):
        source = _quantised_as(graph, node, pairs)
        if source is not None and _leads_to_layer(graph, node.output[0]):
            pairs[index] = source
    if not pairs:
        return model
    result = copied(model)
    taken, nodes = names_of_values(model), []
    for index, node in enumerate(result.graph.node):
        nodes.append(node)
        if index in pairs:
            value = node.output[0]
            node.output[0] = unused(f"{value}.moved", taken)
            numbers, made = pairs[index].input[1:3], unused(f"{value}.bytes", taken)
            nodes.append(helper.make_node("QuantizeLinear", [node.output[0], *numbers], [made], name=f"{value}.bytes"))
            nodes.append(helper.make_node("DequantizeLinear", [made, *numbers], [value], name=f"{value}.floats"))
    replace_items(result.graph.node, [copied(node) for node in nodes])
    return result


def _quantised_as(graph: Graph, node: onnx.NodeProto, pairs: dict[int, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The DequantizeLinear whose scale and zero point are those of all that the op moves, and so of its result."""
    if not is_standard(node, *MOVERS) or not is_complete(node) or len(node.output) > 1 or not node.input:
        return None
    if node.op_type == "Resize" and attributes_of(node).get("mode", b"nearest") != b"nearest":
        return None
    found = []
    for value in node.input if node.op_type == "Concat" else node.input[:1]:
        before = graph.producers.get(value)
        maker = pairs.get(before) if before in pairs else maker_of(graph, value)
        if maker is None or not is_dequantise(maker) or len(maker.input) < 3 or not maker.input[2]:
            return None
        try:
            if before not in pairs and bytes_read(graph, value) is None:
                return None
        except Unsuited:
            return None
        found.append(maker)
    first = found[0]
    return first if all(list(maker.input[1:3]) == list(first.input[1:3]) for maker in found) else None


def _leads_to_layer(graph: Graph, value: str) -> bool:
    """Whether a layer reads a value, behind further such ops perhaps; what is quantised already needs nothing."""
    pending, seen = [value], set()
    while pending:
        for index in graph.readers.get(pending.pop(), []):
            if index < 0 or index in seen:
                continue
            seen.add(index)
            node = graph.nodes[index]
            if is_quantise(node):
                continue
            if is_standard(node, *MULTIPLIERS, "Add"):
                return True
            if is_standard(node, *MOVERS):
                pending += node.output
    return False
