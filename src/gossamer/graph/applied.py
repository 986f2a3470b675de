"""Activation functions in a graph: one node, or the several that exporters write for one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from gossamer.graph.activations import Activation, activation_node, scalar
from gossamer.graph.graph import Graph, attributes_of, is_standard


@dataclass(frozen=True)
class Applied:
    """An activation function applied to a value, by nodes that do nothing else and that nobody else reads."""

    activation: Activation
    nodes: tuple[int, ...]
    output: str


def activation_of(graph: Graph, value: str) -> Applied | None:
    """The activation function that is all that happens to a value."""
    indices = graph.readers.get(value, [])
    if any(index < 0 for index in indices):
        return None
    if len(indices) == 1:
        node = graph.nodes[indices[0]]
        activation = activation_node(graph, node)
        return None if activation is None else Applied(activation, (indices[0],), node.output[0])
    if len(indices) == 2:
        return _sigmoid_product(graph, value) or _gelu(graph, value)
    return None


def _sigmoid_product(graph: Graph, value: str) -> Applied | None:
    """x * Sigmoid(x) is SiLU, x * HardSigmoid(x) hard swish."""
    for index, node in _readers(graph, value):
        if is_standard(node, "Sigmoid"):
            name = "silu"
        elif is_standard(node, "HardSigmoid") and _is_hard_swish(node):
            name = "hardswish"
        else:
            continue
        product = graph.only_reader(node.output[0])
        if product is None or not is_standard(graph.nodes[product], "Mul"):
            return None
        if sorted(graph.nodes[product].input) != sorted([value, node.output[0]]):
            return None
        return Applied(Activation(name), (index, product), graph.nodes[product].output[0])
    return None


def _is_hard_swish(node: onnx.NodeProto) -> bool:
    attributes = attributes_of(node)
    slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return math.isclose(float(str(slope)), 1 / 6, rel_tol=1e-6) and float(str(offset)) == 0.5


def _gelu(graph: Graph, value: str) -> Applied | None:
    """x / sqrt(2), Erf, + 1, times x and times 0.5 in any order."""
    for index, node in _readers(graph, value):
        if not _is_scaling(graph, node, value, 1 / math.sqrt(2)):
            continue
        nodes = [index]
        current = node.output[0]
        for kind, constant in (("Erf", None), ("Add", 1.0)):
            following = graph.only_reader(current)
            if following is None or not is_standard(graph.nodes[following], kind):
                return None
            if constant is not None and not _has_constant(graph, graph.nodes[following], current, constant):
                return None
            nodes.append(following)
            current = graph.nodes[following].output[0]
        return _half_product(graph, value, current, nodes)
    return None


def _half_product(graph: Graph, value: str, current: str, nodes: list[int]) -> Applied | None:
    """The rest of a GELU: `current` times `value` times a half, in either order."""
    halved = [
        (index, node) for index, node in _readers(graph, value) if _is_scaling(graph, node, value, 0.5)
    ]  # 0.5 x, already multiplied
    factor = value
    for index, node in halved:
        nodes.append(index)
        factor = node.output[0]
    needs = {"value"} if halved else {"value", "half"}
    while needs:
        following = graph.only_reader(current)
        if following is None:
            return None
        node = graph.nodes[following]
        if "value" in needs and is_standard(node, "Mul") and sorted(node.input) == sorted([current, factor]):
            if halved and graph.only_reader(factor) != following:
                return None
            needs.remove("value")
        elif "half" in needs and _is_scaling(graph, node, current, 0.5):
            needs.remove("half")
        else:
            return None
        nodes.append(following)
        current = node.output[0]
    return Applied(Activation("gelu"), tuple(sorted(nodes)), current)


def _readers(graph: Graph, value: str) -> Iterator[tuple[int, onnx.NodeProto]]:
    yield from ((index, graph.nodes[index]) for index in graph.readers.get(value, []) if index >= 0)


def _is_scaling(graph: Graph, node: onnx.NodeProto, value: str, factor: float) -> bool:
    """Whether a node multiplies the value by a constant."""
    if is_standard(node, "Mul"):
        return _has_constant(graph, node, value, factor)
    if is_standard(node, "Div") and node.input[0] == value:
        divisor = scalar(graph, node.input[1])
        return divisor is not None and divisor != 0 and math.isclose(1 / divisor, factor, rel_tol=1e-5)
    return False


def _has_constant(graph: Graph, node: onnx.NodeProto, value: str, constant: float) -> bool:
    """Whether a node's two inputs are the value and this number."""
    others = [name for name in node.input if name != value]
    if len(node.input) != 2 or len(others) != 1:
        return False
    found = scalar(graph, others[0])
    return found is not None and math.isclose(found, constant, rel_tol=1e-5)
