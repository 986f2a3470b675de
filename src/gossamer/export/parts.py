"""What of a network can run on panels, and how long it takes there and on planes."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import onnx

from gossamer.export.costs import Costs
from gossamer.export.quantised_parts import (
    BytePart,
    Edge,
    byte_parts,
    byte_time,
    nodes_of,
    read_in_place,
    unit_of,
)
from gossamer.graph.graph import GRAPH, Graph, is_standard
from gossamer.graph.layers import Layer, extents, same_shape
from gossamer.graph.layout import Unit
from gossamer.graph.pools import Pool, pool_at
from gossamer.graph.quantised import NOT_QUANTISED, QuantisedGraph
from gossamer.graph.stems import Stem, stem_of

_RECTIFIERS = ("Clip", "Elu", "LeakyRelu", "Relu", "Selu", "ThresholdedRelu")
_SMOOTH = ("Gelu", "HardSigmoid", "HardSwish", "Mish", "Sigmoid", "Softplus", "Softsign", "Tanh")
ELEMENTWISE = (*_RECTIFIERS, *_SMOOTH, "Abs", "Identity", "Neg", "Sqrt")
ELEMENTWISE_OF_TWO = ("Add", "Mul", "Sub")
"""Ops that treat every number of their inputs alike, so that it does not matter how those lie in memory."""

Part = Layer | Stem | Pool | int | BytePart
"""What runs on panels or on planes as a whole; a number is the index of an elementwise node."""


@dataclass(frozen=True)
class Parts:
    """What of a network can run on panels: the question that `choose_panels` answers."""

    parts: tuple[Part, ...]
    units: tuple[Unit, ...]
    """The units of each part."""
    read_as_planes: tuple[str, ...]
    conversion_times: dict[str, float]


def find_parts(
    graph: Graph,
    layers: Sequence[Layer],
    costs: Costs,
    *,
    quantised: QuantisedGraph = NOT_QUANTISED,
    no_stems: Collection[str] = (),
) -> Parts:
    """The convolutions, stems, max poolings and elementwise nodes, with their times in both layouts.

    Args:
        quantised: what of the graph computes with bytes.
        no_stems: outputs of layers that are to stay convolutions.
    """
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    of_bytes = byte_parts(graph, quantised)
    fused = {index for layer in layers for index in layer.nodes}
    fused |= quantised.inside
    fused |= {index for part in of_bytes for index in nodes_of(part)}
    passive = [p for p in range(len(graph.nodes)) if p not in fused and _is_elementwise(graph, p)]
    pools = [pool for pool in _find_pools(graph, layers) if pool.index not in fused]
    stems = _find_stems(graph, convolutions, passive, pools, costs)
    stems = {output: stem for output, stem in stems.items() if output not in no_stems}
    taken_along = {stem.pool.index for stem in stems.values() if stem.pool is not None}
    pools = [pool for pool in pools if pool.index not in taken_along]
    of_floats = [*(stems.get(layer.output, layer) for layer in convolutions), *pools, *passive]
    units = [_unit(graph, part, costs) for part in of_floats]
    parts: list[Part] = list(of_floats)
    times = {value: costs.conversion(*extents(graph, value)) for unit in units for value in (*unit.inputs, unit.output)}
    for part in of_bytes:
        parts.append(part)
        units.append(unit_of(graph, part, costs))
        values = filter(None, (*units[-1].inputs, units[-1].output))
        times |= {value: byte_time(graph, value, costs) for value in values}
    inside = {index for part in parts for index in indices_of(part)} | read_in_place(graph, of_bytes)
    outside = [
        value
        for value, indices in graph.readers.items()
        if any(index == GRAPH or index not in inside for index in indices)
    ]
    outside += [part.source for part in of_bytes if isinstance(part, Edge) and part.enters]
    return Parts(tuple(parts), tuple(units), tuple(outside), times)


def indices_of(part: Part) -> tuple[int, ...]:
    """The nodes that a part replaces; an elementwise node is its own index."""
    if isinstance(part, int):
        return (part,)
    return (part.index,) if isinstance(part, Pool | Edge) else part.nodes


def _unit(graph: Graph, part: Layer | Stem | Pool | int, costs: Costs) -> Unit:
    if isinstance(part, int):
        node = graph.nodes[part]
        return Unit(tuple(dict.fromkeys(_activations(graph, node))), node.output[0], 0.0, 0.0)
    if isinstance(part, Pool):
        times = [costs.pool(part.shape, panels=panels) for panels in (True, False)]
        return Unit((part.source,), part.output, *times)
    if isinstance(part, Stem):
        dense = costs.dense(part.layer.shape)
        pooling = 0.0 if part.pool is None else costs.pool(part.pool.shape, panels=False)
        # It reads planes wherever it runs.
        return Unit((), part.output, stem_time(part, costs), dense + pooling)
    inputs = (part.source, *([part.residual] if part.residual else []))
    return Unit(inputs, part.output, costs.sparse(part.shape, part.density), costs.dense(part.shape))


def _find_pools(graph: Graph, layers: Iterable[Layer]) -> list[Pool]:
    """Max poolings of fp32 values: those before or behind layers, and what elementwise ops make of these."""
    floats = {value for layer in layers for value in (layer.source, layer.output)}
    found = []
    for index, node in enumerate(graph.nodes):
        pool = pool_at(graph, index)
        if pool is not None and {pool.source, pool.output} & floats:
            found.append(pool)
            floats.add(pool.output)
        elif is_standard(node, *ELEMENTWISE, *ELEMENTWISE_OF_TWO) and floats.intersection(node.input):
            floats.update(node.output)
    return found


def _find_stems(
    graph: Graph, convolutions: Iterable[Layer], passive: Iterable[int], pools: Iterable[Pool], costs: Costs
) -> dict[str, Stem]:
    """Finds the stems of which StemConv makes panels sooner than ToPanel and SparseConv do, by the convolution's
    output."""
    convolutions, pools = list(convolutions), list(pools)
    maybe_panels = {layer.output for layer in convolutions} | {pool.output for pool in pools}
    maybe_panels |= {graph.nodes[index].output[0] for index in passive}
    found = {}
    for layer in convolutions:
        stem = stem_of(graph, layer)
        if stem is None or layer.source in maybe_panels:
            continue
        if stem_pays(graph, stem, layer.density, costs):
            found[layer.output] = stem
    return found


def stem_time(stem: Stem, costs: Costs) -> float:
    """Seconds of StemConv."""
    return costs.stem(stem.layer.shape, pooled=stem.pool is not None)


def stem_pays(graph: Graph, stem: Stem, density: float, costs: Costs) -> bool:
    """Whether StemConv is faster than ToPanel, SparseConv and PanelMaxPool, with a layer of this density."""
    shape = stem.layer.shape
    otherwise = costs.conversion(*extents(graph, stem.layer.source)) + costs.sparse(shape, density)
    if stem.pool is not None:
        otherwise += costs.pool(stem.pool.shape, panels=True)
    return stem_time(stem, costs) < otherwise


def _activations(graph: Graph, node: onnx.NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in graph.tensors]


def _is_elementwise(graph: Graph, index: int) -> bool:
    """Whether a node on images or sequences can as well run on panels."""
    node = graph.nodes[index]
    if not is_standard(node, *ELEMENTWISE, *ELEMENTWISE_OF_TWO):
        return False
    activations = _activations(graph, node)
    if not activations or not all(_can_be_panel(graph, name) for name in (*activations, node.output[0])):
        return False
    if is_standard(node, *ELEMENTWISE_OF_TWO):
        constants = [graph.tensors[name] for name in node.input if name in graph.tensors]
        if any(math.prod(tensor.dims) != 1 for tensor in constants):
            return False
        return all(same_shape(graph, name, node.output[0]) for name in activations)
    # Bounds that are computed are no activations.
    return len(activations) == 1


def _can_be_panel(graph: Graph, value: str) -> bool:
    shape = graph.shapes.get(value, ())
    return len(shape) in (3, 4) and isinstance(shape[1], int)
