"""Terms of the quantised part of a network: what its time is made of on planes, in ONNX's ops, and on panels."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import onnx

from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.graph import Graph, is_standard
from gossamer.graph.layers import extents
from gossamer.graph.quantisation import CONTRIBUTED, is_constant, is_dequantise, is_quantise
from gossamer.graph.quantised import Mover
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.quantised_steps import BytePool
from gossamer.graph.shapes import numbers_of
from gossamer.graph.terms import (
    INT8,
    Terms,
    byte_average_terms,
    byte_move_terms,
    byte_pool_terms,
    dense_terms,
    sparse_terms,
)

COMPUTED_ON_BYTES = (
    *("Add", "AveragePool", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "MaxPool"),
    *("Mul", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)
"""Ops of which ONNX Runtime makes one op on bytes, where DequantizeLinear stands before and QuantizeLinear behind them;
others it computes on floats between those."""
TAKEN_IN = ("Clip", "Relu")
"""Ops that it drops between such an op and QuantizeLinear, whose range says the same."""
MULTIPLIERS = ("Conv", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "QGemm")

Unit = QuantisedLayer | DequantisedLayer | Mover


@dataclass(frozen=True)
class OnPlanes:
    """What ONNX Runtime runs for a part."""

    terms: tuple[Terms, ...]
    nodes: frozenset[int]
    """The nodes of the network that stand for it: its own, and those of DequantizeLinear before its functions."""
    layer: Terms | None = None
    """Those of the multiplication, of a layer with weights; they are the first."""

    @property
    def beside(self) -> tuple[Terms, ...]:
        """All others."""
        return self.terms if self.layer is None else self.terms[1:]


def on_planes(graph: Graph, unit: Unit) -> OnPlanes:
    """Terms of the nodes that a layer, an addition, a function or a pooling replaces.

    A layer's own come first (`dense_terms`); then those of what it takes in.
    """
    if isinstance(unit, DequantisedLayer):
        product = dense_terms(unit.shape)
        return OnPlanes((product,), frozenset(unit.nodes), product)
    layer = dense_terms(unit.shape) if isinstance(unit, QuantisedLayer) and unit.has_weight else None
    terms: list[Terms] = [] if layer is None else [layer]
    nodes = set(unit.nodes)
    for index in unit.nodes:
        node = graph.nodes[index]
        if node.domain == CONTRIBUTED and node.op_type not in MULTIPLIERS:
            terms.append(_of_node(graph, node, f"{INT8}other {node.op_type.removeprefix('QLinear')}"))
        elif is_quantise(node):
            computing = [i for i in _behind(graph, node.input[0]) if i in nodes or is_dequantise(graph.nodes[i])]
            nodes.update(computing)
            terms += _between(graph, [graph.nodes[i] for i in sorted(computing)], node)
    return OnPlanes(tuple(terms), frozenset(nodes), layer)


def on_panels(graph: Graph, unit: Unit) -> Terms:
    """Terms of the op of gossamer's domain."""
    if isinstance(unit, QuantisedLayer | DequantisedLayer):
        return sparse_terms(unit.shape, unit.share)
    if isinstance(unit, BytePool):
        return byte_pool_terms(unit.shape) if unit.kind == "max" else byte_average_terms(unit.shape)
    return byte_move_terms(*extents(graph, unit.output.value))


def moved_on_bytes(graph: Graph, taken: Set[int]) -> Iterator[OnPlanes]:
    """What ONNX Runtime computes on bytes of all other nodes: one op between DequantizeLinear and QuantizeLinear.

    Args:
        taken: nodes that belong to other parts.
    """
    for index, node in enumerate(graph.nodes):
        if index in taken or not is_quantise(node) or is_constant(graph, node.input[0]):
            continue
        maker = graph.producers.get(node.input[0])
        if maker is None or maker in taken or not is_standard(graph.nodes[maker], *COMPUTED_ON_BYTES):
            continue
        read = [graph.producers.get(name) for name in graph.nodes[maker].input if name and name not in graph.tensors]
        sources = [source for source in read if source is not None and is_dequantise(graph.nodes[source])]
        if read and len(sources) == len(read) and graph.only_reader(node.input[0]) == index:
            kind = f"{INT8}other {graph.nodes[maker].op_type}"
            yield OnPlanes((_of_node(graph, graph.nodes[maker], kind),), frozenset({index, maker}))


def _between(graph: Graph, nodes: Sequence[onnx.NodeProto], quantise: onnx.NodeProto) -> Iterator[Terms]:
    """Terms of what is between DequantizeLinear and QuantizeLinear, these included."""
    computing = [node for node in nodes if not is_dequantise(node)]
    main = [node for node in computing if not is_standard(node, *TAKEN_IN)] or computing
    if len(main) == 1 and is_standard(main[0], *COMPUTED_ON_BYTES, *TAKEN_IN):
        if not is_standard(main[0], *MULTIPLIERS):
            yield _of_node(graph, main[0], f"{INT8}other {main[0].op_type}")
        return
    for node in (*nodes, quantise):
        if not is_standard(node, *MULTIPLIERS):
            yield _of_node(graph, node, f"{INT8}between {node.op_type}")


def _behind(graph: Graph, value: str) -> Iterator[int]:
    """The nodes that make a value of floats of bytes, DequantizeLinear of what varies included."""
    pending, seen = [value], set[int]()
    while pending:
        index = graph.producers.get(pending.pop())
        if index is None or index in seen:
            continue
        seen.add(index)
        node = graph.nodes[index]
        if is_dequantise(node):
            if not is_constant(graph, node.input[0]):
                yield index
            continue
        yield index
        pending += node.input


def _of_node(graph: Graph, node: onnx.NodeProto, kind: str) -> Terms:
    values = [name for name in (*node.input, *node.output) if name and name not in graph.tensors]
    return Terms(kind, {"op": 1, "float": max(numbers_of(graph.shapes.get(name, ())) for name in values)})
