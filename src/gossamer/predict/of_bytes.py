"""Terms of what stands between the layers of bytes of a quantised network: changes of layout, additions, poolings."""

from collections.abc import Iterator
from dataclasses import dataclass

from gossamer.export.rewrite import Rewritten
from gossamer.graph.graph import Graph, is_standard
from gossamer.graph.layers import extents
from gossamer.graph.ops import op_of
from gossamer.graph.quantised import Mover, QuantisedGraph
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.shapes import known_size
from gossamer.graph.terms import INT8, QUAD, Terms, conversion_terms, sparse_terms

Unit = QuantisedLayer | Mover


@dataclass(frozen=True)
class BetweenBytes:
    """What a quantised network runs beside its layers, but for ops on floats."""

    sparse: tuple[Terms, ...]
    dense: tuple[Terms, ...]
    nodes: frozenset[int]
    """The dense network's nodes that these, and the layers of bytes, stand for."""
    converted: frozenset[str]
    """Values that a change of layout makes in the sparse form, so that no node of the dense one does."""


def between_bytes(graph: Graph, found: QuantisedGraph, rewritten: Rewritten) -> BetweenBytes:
    """What stands between layers of bytes, in both forms.

    Args:
        graph: the dense network, prepared as the export prepares it.
        found: its layers of bytes, and what stands between them.
        rewritten: what the export made of it.
    """
    value_of = {panel.name: value for value, panel in rewritten.panels.items()}
    units: dict[str, Unit] = {unit.output.value: unit for unit in (*found.channelwise, *found.movers)}
    sparse: list[Terms] = []
    converted: set[str] = set()
    on_panels: set[str] = set()
    for node in rewritten.model.graph.node:
        op = op_of(node)
        if op is None or not op.quantised:
            continue
        made = value_of.get(node.output[0], node.output[0])
        if op.converts:
            converted.add(made)
            planes = made if op.makes_panels else value_of.get(node.input[0], node.input[0])
            sparse.append(_moved(graph, planes))
        elif made in units:
            on_panels.add(made)
            sparse.append(_on_panels(graph, units[made]))
    dense = {value: _on_planes(graph, unit) for value, unit in units.items()}
    parts: tuple[Unit, ...] = (*found.layers, *units.values())
    nodes = {index for part in parts for index in part.nodes}
    return BetweenBytes(
        (*sparse, *(terms for value, terms in dense.items() if value not in on_panels)),
        tuple(dense.values()),
        frozenset(nodes | _taken_in(graph, nodes)),
        frozenset(converted),
    )


def _taken_in(graph: Graph, nodes: set[int]) -> set[int]:
    """What makes floats of bytes for these nodes alone, or of constants: ONNX Runtime never runs it."""
    return {
        index
        for index, node in enumerate(graph.nodes)
        if is_standard(node, "DequantizeLinear")
        and (node.input[0] in graph.tensors or nodes.issuperset(graph.readers.get(node.output[0], [])))
    }


def _moved(graph: Graph, value: str) -> Terms:
    """A panel of bytes that is written or read: four channels take the place of one of floats."""
    channels, height, width, images = extents(graph, value)
    return conversion_terms(-(-channels // QUAD), height, width, images)


def _on_panels(graph: Graph, unit: Unit) -> Terms:
    if isinstance(unit, QuantisedLayer):
        return sparse_terms(unit.shape, unit.share)
    return _moved(graph, unit.output.value)


def _on_planes(graph: Graph, unit: Unit) -> Terms:
    kind = next(_computing(graph, unit), "Add")
    numbers = 1
    for size in graph.shapes.get(unit.output.value, ()):
        numbers *= known_size(size, 1)
    return Terms(f"{INT8}other {kind}", {"op": 1, "float": numbers})


def _computing(graph: Graph, unit: Unit) -> Iterator[str]:
    """The kinds of its nodes that compute, as ONNX calls them for floats."""
    for index in unit.nodes:
        node = graph.nodes[index]
        if not is_standard(node, "QuantizeLinear", "DequantizeLinear"):
            yield node.op_type.removeprefix("QLinear")
