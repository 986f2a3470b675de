"""Terms of the nodes that are no layers: pooling, normalisation, attention, what exporters put between layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from gossamer.export.rewrite import Rewritten
from gossamer.graph.graph import Graph, is_standard
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import Layer, extents
from gossamer.graph.ops import op_of
from gossamer.graph.pools import Pool, pool_at
from gossamer.graph.quantised import find_quantised
from gossamer.graph.shapes import numbers_of
from gossamer.graph.terms import Terms, conversion_terms, edge_terms
from gossamer.predict.of_bytes import between_bytes

VIEWS = ("Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze")
"""Ops that move no numbers."""
IMAGE_AXES = 4


@dataclass(frozen=True)
class Between:
    """The nodes of a network that are no layers."""

    conversions: tuple[onnx.NodeProto, ...]
    """Changes of layout, in the sparse form."""
    other: tuple[onnx.NodeProto, ...]
    """ONNX's own, in the sparse form."""
    other_dense: tuple[onnx.NodeProto, ...]
    of_bytes: tuple[Terms, ...]
    """What stands between layers of bytes, in the sparse form."""
    of_bytes_dense: tuple[Terms, ...]
    pools: Mapping[str, Pool]
    """Max poolings that run on panels by themselves, in the sparse form, by the names of their panels."""


def between(graph: Graph, layers: Sequence[Layer], rewritten: Rewritten) -> Between:
    """What a network runs beside its layers.

    Args:
        graph: the dense network, prepared as the export prepares it.
        layers: those of the graph.
        rewritten: what the export made of it.
    """
    bytes_between = between_bytes(graph, find_quantised(graph), rewritten)
    inside = {index for layer in layers for index in layer.nodes} | bytes_between.nodes
    nodes = list(rewritten.model.graph.node)
    value_of = {panel.name: value for value, panel in rewritten.panels.items()}
    made = {value_of.get(name, name) for node in nodes if node.domain and not _converts(node) for name in node.output}
    others = tuple(node for index, node in enumerate(graph.nodes) if index not in inside)
    pools = {pool.output: pool for index in range(len(graph.nodes)) if (pool := pool_at(graph, index))}
    on_panels = [node.output[0] for node in nodes if node.op_type == "PanelMaxPool"]
    return Between(
        tuple(node for node in nodes if _converts(node) and not _of_bytes(node)),
        # Those of the dense network: on panels an elementwise op goes through as many numbers as on planes.
        tuple(node for node in others if not (made | bytes_between.converted) & {*node.output}),
        others,
        bytes_between.sparse,
        bytes_between.dense,
        {panel: pools[value_of[panel]] for panel in on_panels},
    )


def node_terms(graph: Graph, node: onnx.NodeProto) -> Terms:
    """Terms of any node that is no layer, a change between layouts or one of ONNX's own.

    Args:
        graph: the dense network, which knows the shapes of planes.
    """
    op = op_of(node)
    if op is None or not op.converts:
        return other_terms(graph, node)
    planes = node.input[0] if op.makes_panels else node.output[0]
    return conversion_terms(*extents(graph, planes))


def _converts(node: onnx.NodeProto) -> bool:
    op = op_of(node)
    return op is not None and op.converts


def _of_bytes(node: onnx.NodeProto) -> bool:
    op = op_of(node)
    return op is not None and op.quantised


def other_terms(graph: Graph, node: onnx.NodeProto) -> Terms:
    """Terms of a node of ONNX's own, by its kind: so much a node and so much for each number of its largest value.

    Args:
        graph: the dense network, which knows the shapes.
    """
    kind = f"other {node.op_type}"
    if node.op_type in VIEWS:
        return Terms(kind, {"op": 1})
    values = [name for name in (*node.input, *node.output) if name and name not in graph.tensors]
    floats = max((numbers_of(graph.shapes.get(name, ())) for name in values), default=0)
    changes = is_standard(node, "QuantizeLinear", "DequantizeLinear")
    if changes and node.input[0] not in graph.tensors and len(graph.shapes.get(node.output[0], ())) == IMAGE_AXES:
        return edge_terms(floats, enters=node.op_type == "QuantizeLinear", panels=False)
    if node.op_type == "MatMul" and len(values) == 3:
        depth = graph.shapes.get(node.input[0], (1,))[-1]
        outputs = numbers_of(graph.shapes.get(node.output[0], ()))
        return Terms(kind, {"op": 1, "multiply-add": outputs * (depth if isinstance(depth, int) else 1)})
    return Terms(kind, {"op": 1, "float": floats})


def max_pool_terms(shape: LayerShape) -> Terms:
    """Terms of ONNX's own MaxPool: the same as of its node."""
    return Terms("other MaxPool", {"op": 1, "float": max(shape.values_read, shape.values_made)})
