"""Terms of what stands between the layers of bytes of a quantised network: changes of layout, additions, poolings."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from gossamer.export.rewrite import Rewritten
from gossamer.graph.byte_terms import Unit, moved_on_bytes, on_panels, on_planes
from gossamer.graph.graph import Graph, attributes_of, is_standard
from gossamer.graph.layers import extents
from gossamer.graph.ops import op_of
from gossamer.graph.quantised import QuantisedGraph
from gossamer.graph.shapes import numbers_of
from gossamer.graph.terms import Terms, byte_conversion_terms, edge_terms


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
    in_panels: set[str] = set()
    for node in rewritten.model.graph.node:
        op = op_of(node)
        if op is None or not op.quantised:
            continue
        made = value_of.get(node.output[0], node.output[0])
        if op.converts:
            converted.add(made)
            sparse.append(converted_terms(graph, node, value_of))
        elif made in units:
            in_panels.add(made)
            sparse.append(on_panels(graph, units[made]))
    dense = {value: on_planes(graph, unit) for value, unit in units.items()}
    parts = [*(on_planes(graph, layer) for layer in found.with_weights), *dense.values()]
    nodes = {index for part in parts for index in part.nodes}
    moved = list(moved_on_bytes(graph, nodes))
    nodes |= {index for part in moved for index in part.nodes}
    others = [terms for part in moved for terms in part.terms]
    return BetweenBytes(
        (*sparse, *others, *(terms for value, part in dense.items() if value not in in_panels for terms in part.terms)),
        (*others, *(terms for part in dense.values() for terms in part.terms)),
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


def converted_terms(graph: Graph, node: onnx.NodeProto, value_of: Mapping[str, str]) -> Terms:
    """A change of layout, from or to floats perhaps.

    Args:
        value_of: panel -> the value of the dense network that it holds.
    """
    enters = node.op_type == "QuantisedToPanel"
    names = (node.output[0], node.input[0])
    planes = next((value for name in names if (value := value_of.get(name, name)) in graph.shapes), "")
    of_floats = node.op_type == "DequantisedFromPanel" or "scale" in attributes_of(node)
    if of_floats:
        return edge_terms(numbers_of(graph.shapes.get(planes, ())), enters=enters, panels=True)
    return byte_conversion_terms(*extents(graph, planes))
