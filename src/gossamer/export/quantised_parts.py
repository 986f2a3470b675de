"""What of a quantised network can run on panels of bytes, and how long it takes there and on planes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gossamer.export.costs import Costs
from gossamer.graph.byte_terms import on_panels, on_planes
from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.graph import GRAPH, Graph
from gossamer.graph.layers import extents
from gossamer.graph.layout import Unit
from gossamer.graph.quantisation import (
    Bytes,
    Quantisation,
    Unsuited,
    is_constant,
    is_dequantise,
    is_quantise,
    quantisation_at,
)
from gossamer.graph.quantised import Mover, QuantisedGraph
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.shapes import numbers_of
from gossamer.graph.terms import byte_conversion_terms, edge_terms


@dataclass(frozen=True)
class Edge:
    """QuantizeLinear or DequantizeLinear between floats on planes and bytes on panels."""

    index: int
    source: str
    output: str
    quantisation: Quantisation
    enters: bool
    """Whether floats become bytes."""

    @property
    def bytes(self) -> str:
        return self.output if self.enters else self.source


BytePart = QuantisedLayer | Mover | Edge


def byte_parts(graph: Graph, quantised: QuantisedGraph) -> list[BytePart]:
    """All that can run on panels of bytes: everything of images and sequences but linear layers."""
    convolutions = [layer for layer in quantised.layers if layer.kind == "conv"]
    parts: list[BytePart] = [*convolutions, *quantised.channelwise, *quantised.movers]
    if not parts:
        return []
    return [*parts, *_edges(graph, {index for part in parts for index in nodes_of(part)} | quantised.inside)]


def nodes_of(part: BytePart) -> tuple[int, ...]:
    """The nodes that it replaces."""
    return (part.index,) if isinstance(part, Edge) else part.nodes


def read_in_place(graph: Graph, parts: Iterable[BytePart]) -> set[int]:
    """The DequantizeLinear nodes that nothing but these parts reads, which read their bytes themselves."""
    inside = {index for part in parts for index in nodes_of(part)}
    return {
        index
        for index, node in enumerate(graph.nodes)
        if is_dequantise(node) and inside.issuperset(graph.readers.get(node.output[0], [GRAPH]))
    }


def byte_time(graph: Graph, value: str, costs: Costs) -> float:
    """Seconds to change the layout of a value of bytes."""
    return costs.of_bytes(byte_conversion_terms(*extents(graph, value)), panels=False)


def dense_time(graph: Graph, layer: QuantisedLayer | DequantisedLayer, costs: Costs) -> float:
    """Seconds of ONNX Runtime's own ops for a layer, with the additions and functions that it takes in."""
    beside = on_planes(graph, layer).beside
    return costs.dense(layer.shape) + sum(costs.of_bytes(terms, panels=False) for terms in beside)


def unit_of(graph: Graph, part: BytePart, costs: Costs) -> Unit:
    """The part's inputs and output, and its times."""
    if isinstance(part, Edge):
        numbers = numbers_of(graph.shapes.get(part.bytes, ()))
        times = [
            costs.of_bytes(edge_terms(numbers, enters=part.enters, panels=panels), panels=panels)
            for panels in (True, False)
        ]
        # What leaves is planes of floats wherever it was bytes.
        return Unit((), part.output, *times) if part.enters else Unit((part.source,), "", *times)
    output = part.output.value
    if not isinstance(part, QuantisedLayer):
        inputs = tuple(dict.fromkeys(given.value for given in part.inputs))
    else:
        inputs = tuple(dict.fromkeys(given.value for given in read_by(part)))
        if part.has_weight:
            return Unit(inputs, output, costs.sparse(part.shape, part.share), dense_time(graph, part, costs))
    plane_time = sum(costs.of_bytes(terms, panels=False) for terms in on_planes(graph, part).terms)
    return Unit(inputs, output, costs.of_bytes(on_panels(graph, part), panels=True), plane_time)


def read_by(layer: QuantisedLayer) -> Iterator[Bytes]:
    """The values that a layer reads."""
    yield layer.source
    if layer.residual is not None and layer.added is None:
        yield layer.residual


def _edges(graph: Graph, inside: set[int]) -> Iterator[Edge]:
    """The nodes between floats and the bytes that parts read or make.

    Args:
        inside: the nodes of all parts and linear layers.
    """
    for index, node in enumerate(graph.nodes):
        if index in inside or not (is_quantise(node) or is_dequantise(node)) or is_constant(graph, node.input[0]):
            continue
        enters = is_quantise(node)
        value = node.output[0] if enters else node.input[0]
        sizes = graph.shapes.get(value, ())
        if len(sizes) not in (3, 4) or not isinstance(sizes[1], int) or sizes[1] < 1:
            continue
        if not enters and not _leads_to_floats(graph, node.output[0], inside):
            continue
        try:
            quantisation = quantisation_at(graph, node, 1, 2)
        except Unsuited:
            continue
        if len(node.input) > 2 and node.input[2]:
            yield Edge(index, node.input[0], node.output[0], quantisation, enters)


def _leads_to_floats(graph: Graph, value: str, inside: set[int]) -> bool:
    """Whether something reads a value of floats that neither reads its bytes itself nor makes only bytes of it again:
    ONNX Runtime computes such nodes on bytes."""
    outside = [index for index in graph.readers.get(value, []) if index not in inside]
    for index in outside:
        made = [] if index == GRAPH else graph.nodes[index].output
        readers = [reader for name in made for reader in graph.readers.get(name, [])]
        if not readers or any(reader == GRAPH or not is_quantise(graph.nodes[reader]) for reader in readers):
            return True
    return False
