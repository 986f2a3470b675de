"""Attributes that say what is meant without them."""

import onnx

from gossamer.graph.graph import STANDARD_DOMAINS, Graph, attributes_of
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.open_axes import graphs_in
from gossamer.graph.ops import ARITHMETIC, DOMAIN

ALONG_AXES = {"dilations": 1, "strides": 1, "pads": 0}
"""What each number of an attribute is where it is left out, by convolutions and poolings of gossamer and of ONNX."""
WINDOWED = frozenset({"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "QLinearConv"})
"""The ops of ONNX that say so; those of its first opsets do not all."""
FIRST_OPSET = 11
OWN = {"activation": b"none", "group": 1, "kernel_shape": [1, 1], ARITHMETIC: b"float32"}
"""Likewise of gossamer's ops (docs/format.md)."""


def without_defaults(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, whose nodes have only attributes that differ from what is meant where they are left out."""
    result = copied(model)
    opset = Graph(model).opset
    for graph in graphs_in(result.graph):
        for node in graph.node:
            values = attributes_of(node)
            meant = {name for name, value in values.items() if _is_meant(node, opset, name, value)}
            replace_items(node.attribute, [entry for entry in node.attribute if entry.name not in meant])
    return result


def _is_meant(node: onnx.NodeProto, opset: int, name: str, value: object) -> bool:
    """Whether this is what an attribute is taken for where it is left out."""
    own = node.domain == DOMAIN
    if own and name in OWN:
        return value == OWN[name]
    if name in ALONG_AXES and isinstance(value, list):
        standard = node.domain in STANDARD_DOMAINS and node.op_type in WINDOWED and opset >= FIRST_OPSET
        return (own or standard) and all(number == ALONG_AXES[name] for number in value)
    if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, opset):
        return False
    attribute = onnx.defs.get_schema(node.op_type, opset).attributes.get(name)
    if attribute is None or not attribute.default_value.name:
        return False
    return bool(value == onnx.helper.get_attribute_value(attribute.default_value))
