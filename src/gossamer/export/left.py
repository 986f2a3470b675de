"""Weights with many zeros that stay as they are, and why: nothing is left out without a word."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.bodies import bodies_of
from gossamer.graph.constants import COMPUTATIONS, REARRANGEMENTS
from gossamer.graph.graph import GRAPH, Graph, array_of, attributes_of, input_at, is_standard, values_read
from gossamer.graph.layers import Layer, layer_name, why_no_layer
from gossamer.graph.quantisation import is_dequantise
from gossamer.graph.quantised import NOT_QUANTISED, QuantisedGraph
from gossamer.wording import listed

MANY = 0.5
"""The share of a weight's numbers: with fewer zeros nobody expects it to be faster."""
SMALL = 1024
"""Weights with fewer numbers are not worth a word."""
TYPES = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)
FLOATS = TYPES[:4]
ZERO_POINTS = {
    "ConvInteger": {1: 3},
    "DequantizeLinear": {0: 2},
    "DynamicQuantizeLSTM": {1: 9, 2: 11},
    "DynamicQuantizeMatMul": {1: 3},
    "MatMulInteger": {0: 2, 1: 3},
    "MatMulIntegerToFloat": {0: 4, 1: 5},
    "QAttention": {1: 7},
    "QGemm": {0: 2, 3: 5},
    "QLinearConv": {3: 5},
    "QLinearMatMul": {0: 2, 3: 5},
}
"""Ops that read quantised weights: index of a weight among their inputs -> index of the number that stands for zero."""


@dataclass(frozen=True)
class LeftWeight:
    """A weight that no layer with a choice between sparse and dense reads."""

    name: str
    """The name of the node that reads it, as people call it."""
    zeros: float | None
    """Share of its numbers; None if they are computed only when the network runs."""
    reason: str


def left_weights(
    graph: Graph, layers: Iterable[Layer], quantised: QuantisedGraph = NOT_QUANTISED, *, least: float = MANY
) -> tuple[LeftWeight, ...]:
    """The weights of two and more axes that have many zeros, or are not known, and belong to none of the layers.

    Args:
        graph: the network as it is rewritten, constants computed.
        quantised: what of it computes with bytes.
        least: the share of zeros from which on a weight is named; 0: all are.
    """
    stored, replaceable = _stored(graph)
    computed = _computed(graph)
    inside = {index for layer in layers for index in layer.nodes}
    inside |= quantised.inside
    # What makes nothing but the weights of layers.
    inside |= {i for i, node in enumerate(graph.nodes) if is_dequantise(node) and _is_read_in(graph, node, inside)}
    found: dict[str, LeftWeight] = {}
    for index, node in enumerate(graph.nodes):
        # What computes with a constant number by number holds a mask or an offset, no weight.
        if index in inside or is_standard(node, *REARRANGEMENTS, *COMPUTATIONS):
            continue
        for value in dict.fromkeys(filter(None, node.input)):
            if value in stored:
                zeros = _zeros(node, value, stored[value], graph.tensors)
                if zeros is not None and zeros >= least and value not in found:
                    reason = (
                        replaceable.get(value)
                        or _why_not_quantised(graph, index, quantised)
                        or why_no_layer(graph, index)
                        or _no_sparse_op(node, stored[value])
                    )
                    found[value] = LeftWeight(layer_name(node, value), zeros, reason)
            elif value in computed and _may_be_weight(graph, node, value):
                reason = f"its weight is computed from constants by {computed[value]}, as the network runs"
                found[value] = LeftWeight(layer_name(node, value), None, reason)
    return (*found.values(), *_in_bodies(graph, least))


def why_left(weights: Iterable[LeftWeight]) -> list[str]:
    """For people, by reason: which weights stay as they are, and why."""
    by_reason: dict[str, list[str]] = {}
    for weight in weights:
        few = weight.zeros is None or weight.zeros < MANY
        by_reason.setdefault(weight.reason, []).append(
            weight.name if few else f"{weight.name} ({weight.zeros:.0%} zeros)"
        )
    return [
        f"left as {'it is' if len(names) == 1 else 'they are'}: {listed(names)}: {reason}"
        for reason, names in by_reason.items()
    ]


def _is_read_in(graph: Graph, node: onnx.NodeProto, inside: set[int]) -> bool:
    readers = graph.readers.get(node.output[0], [])
    while len(readers) == 1 and readers[0] >= 0 and is_standard(graph.nodes[readers[0]], "Transpose"):
        readers = graph.readers.get(graph.nodes[readers[0]].output[0], [])
    return bool(readers) and inside.issuperset(readers)


def _why_not_quantised(graph: Graph, index: int, quantised: QuantisedGraph) -> str | None:
    """Why the layer that a node begins, or whose weight it makes, has no sparse op."""
    readers = [index, *(graph.readers.get(name, [GRAPH])[0] for name in graph.nodes[index].output)]
    return next((quantised.reasons[reader] for reader in readers if reader in quantised.reasons), None)


def _in_bodies(graph: Graph, least: float) -> Iterator[LeftWeight]:
    """The weights that nodes inside of an If, Loop or Scan read, which are taken over as they are."""
    seen: set[tuple[str, str]] = set()
    for body in bodies_of(graph):
        for node in body.nodes:
            # Here constants were not computed: a weight may be transposed first.
            if is_standard(node, *COMPUTATIONS):
                continue
            for value in dict.fromkeys(filter(None, node.input)):
                tensor = body.tensors.get(value)
                if tensor is None or not _is_large(tensor) or (body.owner(value), value) in seen:
                    continue
                seen.add((body.owner(value), value))
                zeros = _zeros(node, value, tensor, body.tensors)
                if zeros is not None and zeros >= least:
                    reason = f"it is read in the body of {_article(body.kind)}, whose layers stay dense"
                    yield LeftWeight(layer_name(node, value), zeros, reason)


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def _no_sparse_op(node: onnx.NodeProto, tensor: onnx.TensorProto) -> str:
    if node.op_type == "ConvInteger":
        return "what it multiplies is quantised anew for each input; sparse convolutions take constant scales"
    if node.op_type in ZERO_POINTS:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        return f"its weight is of type {kind} and read by {node.op_type}, which has no sparse op"
    return f"{node.op_type} has no sparse op"


def _stored(graph: Graph) -> tuple[dict[str, onnx.TensorProto], Mapping[str, str]]:
    """The tensors that may be weights; and of those that a caller may replace, why they stay."""
    inputs = {value.name for value in graph.model.graph.input}
    given = {tensor.name: tensor for tensor in graph.model.graph.initializer if tensor.name in inputs}
    tensors = {name: tensor for name, tensor in (graph.tensors | given).items() if _is_large(tensor)}
    return tensors, dict.fromkeys(given, "it is an input of the network too, so whoever runs it may replace it")


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in TYPES and len(tensor.dims) > 1 and math.prod(tensor.dims) >= SMALL


def _zeros(
    node: onnx.NodeProto, value: str, tensor: onnx.TensorProto, tensors: Mapping[str, onnx.TensorProto]
) -> float | None:
    """Share of the numbers that stand for zero to a node that reads them; None if they are no weights."""
    values = array_of(tensor)
    zero_points = ZERO_POINTS.get(node.op_type)
    if zero_points is None:
        # Whole numbers that are not quantised are no weights.
        return 1 - np.count_nonzero(values) / values.size if tensor.data_type in FLOATS else None
    index = next((index for index in zero_points if node.input[index] == value), None)
    if index is None:
        return None
    name = input_at(node, zero_points[index])
    if name and name not in tensors:
        return 0.0
    zeros = _spread(node, array_of(tensors[name]), values.shape) if name else values.dtype.type(0)
    return 0.0 if zeros is None else 1 - np.count_nonzero(values != zeros) / values.size


def _spread(
    node: onnx.NodeProto, zero_points: NDArray[np.generic], shape: tuple[int, ...]
) -> NDArray[np.generic] | None:
    """What stands for zero along a weight's axes; None if it is not known which number belongs to which weight."""
    found = np.unique(zero_points)
    if len(found) == 1:
        return found
    attributes = attributes_of(node)
    if node.op_type == "DynamicQuantizeLSTM":
        # One for each direction, or for each of its rows too: [directions, inputs, rows].
        along = zero_points.reshape(len(zero_points), 1, -1)
        return along if len(shape) == 3 and along.shape[2] in (1, shape[2]) and len(along) == shape[0] else None
    if zero_points.size != zero_points.shape[-1]:
        return None
    first = node.op_type in ("ConvInteger", "QLinearConv") or attributes.get("transB", 0)
    axis = int(str(attributes.get("axis", 1))) if node.op_type == "DequantizeLinear" else 0 if first else -1
    if not -len(shape) <= axis < len(shape) or shape[axis] != zero_points.size:
        return None
    return zero_points.reshape([-1 if other == axis % len(shape) else 1 for other in range(len(shape))])


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
            # What is quantised is looked at itself.
            if node.op_type not in ZERO_POINTS:
                made.update(dict.fromkeys(node.output, node.op_type))
    return made
