"""Weights with many zeros that stay as they are, and why: nothing is left out without a word."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from gossamer.export.constants import COMPUTATIONS, REARRANGEMENTS
from gossamer.export.graph import Graph, array_of, is_standard, values_read
from gossamer.export.layers import Layer, layer_name, why_no_layer

MANY = 0.5
"""Of a weight's numbers: with fewer zeros nobody expects it to be faster."""
SMALL = 1024
"""Weights with fewer numbers are not worth a word."""
FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
)


@dataclass(frozen=True)
class LeftWeight:
    """A weight that no layer with a choice between sparse and dense reads."""

    name: str
    """Of the node that reads it, as people call it."""
    zeros: float | None
    """Share of its numbers; None if they are computed only when the network runs."""
    reason: str


def left_weights(graph: Graph, layers: Iterable[Layer]) -> tuple[LeftWeight, ...]:
    """The weights of two and more axes that are at least half zeros, or not known, and belong to none of the layers.

    Args:
        graph: the network as it is rewritten, constants computed.
    """
    stored, replaceable = _stored(graph)
    computed = _computed(graph)
    inside = {place for layer in layers for place in layer.nodes}
    found: dict[str, LeftWeight] = {}
    for place, node in enumerate(graph.nodes):
        # What computes with a constant number by number holds a mask or an offset, no weight.
        if place in inside or is_standard(node, *REARRANGEMENTS, *COMPUTATIONS):
            continue
        for value in dict.fromkeys(values_read(node)):
            if value in stored:
                zeros = _zeros(stored[value])
                if zeros >= MANY and value not in found:
                    reason = replaceable.get(value) or why_no_layer(graph, place) or f"{node.op_type} has no sparse op"
                    found[value] = LeftWeight(layer_name(node, value), zeros, reason)
            elif value in computed and _may_be_weight(graph, node, value):
                reason = f"its weight is computed from constants by {computed[value]}, as the network runs"
                found[value] = LeftWeight(layer_name(node, value), None, reason)
    return tuple(found.values())


def _stored(graph: Graph) -> tuple[dict[str, onnx.TensorProto], Mapping[str, str]]:
    """The tensors that may be weights; and of those that a caller may replace, why they stay."""
    inputs = {value.name for value in graph.model.graph.input}
    given = {tensor.name: tensor for tensor in graph.model.graph.initializer if tensor.name in inputs}
    tensors = {
        name: tensor
        for name, tensor in (graph.tensors | given).items()
        if tensor.data_type in FLOATS and len(tensor.dims) > 1 and math.prod(tensor.dims) >= SMALL
    }
    return tensors, dict.fromkeys(given, "it is an input of the network too, so whoever runs it may replace it")


def _zeros(tensor: onnx.TensorProto) -> float:
    values = array_of(tensor)
    return 1 - np.count_nonzero(values != 0) / values.size


def _may_be_weight(graph: Graph, node: onnx.NodeProto, value: str) -> bool:
    sizes = graph.shapes.get(value, (None,))
    known = [size for size in sizes if isinstance(size, int)]
    large = len(known) < len(sizes) or math.prod(known) >= SMALL
    return is_standard(node, "Conv", "Gemm", "MatMul") and value in node.input[:2] and large


def _computed(graph: Graph) -> dict[str, str]:
    """Values that are computed from nothing but constants -> the op that makes them."""
    constant, made = set(graph.tensors), {}
    for node in graph.nodes:
        if node.op_type != "Constant" and constant.issuperset(values_read(node)):
            constant.update(node.output)
            made.update(dict.fromkeys(node.output, node.op_type))
    return made
