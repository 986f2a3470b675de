"""The surviving network as a graph of units: which unit reads which, through how many weights.

Vertices are the units of the network's inputs (features, or channels where a convolution reads them) and those of its
layers. An edge stands for the weights, other than zero, with which a layer's unit reads another unit: one in a linear
layer, as many as taps of the kernel are left in a convolution. Activations, BatchNorm, pooling and sums lie on the
edges: they are no vertices, and what a sum adds up can be reached through each of its terms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.shrink.constants import affine, scale_and_shift
from gossamer.shrink.coupling import Coupling, couple, unit_dimension
from gossamer.shrink.operations import (
    Combination,
    Concatenation,
    Depthwise,
    Elementwise,
    FullLayer,
    Input,
    Mean,
    Normalisation,
    Opaque,
    Operation,
    OperationGraph,
    Output,
    Padding,
    Pooling,
    Rearrangement,
    SizeOf,
    Value,
    read_by,
)
from gossamer.shrink.positions import along, on_distinct, on_distinct_pairs, padded, same_along, spread

NOTHING = -1
"""The vertex of a position to which no unit leads."""


@dataclass(frozen=True)
class Term:
    """What reaches the positions of a value: one vertex each, through so many connections."""

    vertices: Tensor
    """int64, of the value's shape for one example; `NOTHING` where no unit leads."""
    times: Tensor
    """int64, of the same shape."""


@dataclass(frozen=True)
class Edges:
    """The connections of a layer with the units of one term of what it reads."""

    layer: str
    first: int
    """The vertex of the layer's unit 0."""
    sources: Tensor
    """The vertex at each input of the layer, or `NOTHING`; shape (inputs,)."""
    connections: Tensor
    """How many connections each unit has with each input; int64, shape (outputs, inputs)."""

    def listed(self) -> list[tuple[int, int, int]]:
        """All edges as (from vertex, to vertex, connections)."""
        entries = self.connections.nonzero()
        columns = self.sources[entries[:, 1]]
        present = columns != NOTHING
        counts = self.connections[entries[:, 0], entries[:, 1]]
        rows = entries[:, 0] + self.first
        return list(zip(columns[present].tolist(), rows[present].tolist(), counts[present].tolist(), strict=True))


@dataclass(frozen=True)
class UnitGraph:
    """Units and connections of a network."""

    inputs: dict[Value, Tensor]
    """The vertex at every position of every input of the network, of the input's shape for one example."""
    layers: dict[str, range]
    """The vertices of every layer's units, in the order of their computation."""
    edges: tuple[Edges, ...]
    """The edges in the order of their computation: whatever leads to a vertex comes before what leads from it."""
    outputs: tuple[tuple[int, int], ...]
    """What the network returns: (vertex, times)."""
    vertices: int

    @property
    def given(self) -> int:
        """How many vertices are units of the inputs; they come first."""
        return self.vertices - sum(len(units) for units in self.layers.values())


def unit_graph(network: OperationGraph, *, dense: bool = False) -> UnitGraph | None:
    """The graph of a network's units; None if it holds operations that are not understood, other than at its end.

    Args:
        dense: as if no weight were zero.
    """
    operations = _without_end(network.operations)
    if any(isinstance(operation, Opaque) for operation in operations):
        return None
    builder = _Builder(network, couple(network), dense)
    return builder.graph() if all(builder.add(operation) for operation in operations) else None


def _without_end(operations: tuple[Operation, ...]) -> list[Operation]:
    """The operations without those that are not understood and behind which there is no layer (a softmax, the decoding
    of boxes), and without all that they lead to: what these read is the output instead."""
    leading: set[Value] = set()
    """Values that a layer reads, or what is made of them."""
    for operation in reversed(operations):
        made = () if isinstance(operation, SizeOf | Output) else (operation.output,)
        if isinstance(operation, FullLayer | Depthwise | Normalisation) or leading.intersection(filter(None, made)):
            leading.update(read_by(operation))
    body: list[Operation] = []
    end: set[Value | None] = set()
    returned: dict[Value, None] = {}
    for operation in operations:
        inside = [value for value in read_by(operation) if value not in end]
        if (isinstance(operation, Opaque) and operation.output not in leading) or len(inside) < len(read_by(operation)):
            returned |= dict.fromkeys(inside)
            end.add(None if isinstance(operation, SizeOf | Output) else operation.output)
        elif isinstance(operation, Output):
            returned |= dict.fromkeys(inside)
        else:
            body.append(operation)
    return [*body, Output(tuple(returned))]


class _Builder:
    """Goes through the operations and keeps, for every value, the terms that reach it."""

    def __init__(self, network: OperationGraph, coupling: Coupling, dense: bool) -> None:
        self.network = network
        self.coupling = coupling
        self.dense = dense
        self.terms: dict[Value, list[Term]] = {}
        self.inputs: dict[Value, Tensor] = {}
        self.layers: dict[str, range] = {}
        self.edges: list[Edges] = []
        self.outputs: list[tuple[int, int]] = []
        given = coupling.given.nonzero().flatten()
        self.vertices = len(given)
        self.vertex_of = torch.full((coupling.count,), NOTHING)
        self.vertex_of[given] = torch.arange(len(given))

    def graph(self) -> UnitGraph:
        return UnitGraph(self.inputs, self.layers, tuple(self.edges), tuple(self.outputs), self.vertices)

    def add(self, operation: Operation) -> bool:
        """Adds an operation; False if a unit's positions are reached in different ways, which a graph of units cannot
        say."""
        shapes = self.network.shapes
        match operation:
            case Input(output):
                vertices = on_distinct(self.vertex_of.__getitem__, self.coupling.unit_at[output])
                self.inputs[output] = vertices
                self.terms[output] = [Term(vertices, torch.ones_like(vertices))]
            case FullLayer():
                return self._add_layer(operation)
            case Depthwise(_, _, value, output):
                taps = self._taps(operation).sum(1)
                self.terms[output] = [
                    Term(
                        spread(along(term.vertices, 0), 0, shapes[output]),
                        spread(along(term.times, 0) * taps, 0, shapes[output]),
                    )
                    for term in self.terms[value]
                ]
            case Normalisation(_, module, value, output):
                passes = spread((scale_and_shift(module)[0].ne(0) | self.dense).long(), 0, shapes[output])
                self.terms[output] = [
                    Term(term.vertices, on_distinct_pairs(torch.mul, term.times, passes)) for term in self.terms[value]
                ]
            case Pooling(_, _, value, output):
                self.terms[output] = [
                    Term(*(spread(along(part, 0), 0, shapes[output]) for part in (term.vertices, term.times)))
                    for term in self.terms[value]
                ]
                return self._uniform(value, 0)
            case Padding(amounts, _, _, value, output):
                self.terms[output] = [
                    Term(padded(term.vertices, amounts, NOTHING), padded(term.times, amounts, 0))
                    for term in self.terms[value]
                ]
            case Elementwise(_, value, output):
                self.terms[output] = self.terms[value]
            case Mean(dimensions, keep, value, output):
                parts = [part for term in self.terms[value] for part in (term.vertices, term.times)]
                if not all(same_along(part, dimension) for part in parts for dimension in dimensions):
                    return False
                self.terms[output] = [
                    Term(*(_first(part, dimensions, keep) for part in (term.vertices, term.times)))
                    for term in self.terms[value]
                ]
            case Rearrangement(function, _, _, value, output):
                self.terms[output] = [
                    Term(*(function(part.unsqueeze(0)).squeeze(0) for part in (term.vertices, term.times)))
                    for term in self.terms[value]
                ]
            case Combination(_, _, (left, right), output):
                self.terms[output] = self.terms[left] + self.terms[right]
            case Concatenation(dimension, values, output):
                self.terms[output] = self._side_by_side(values, dimension)
            case Output(values):
                for value in values:
                    self._add_output(value)
            case SizeOf() | Opaque():
                pass
        return True

    def _add_layer(self, layer: FullLayer) -> bool:
        dimension = unit_dimension(layer)
        taps = self._taps(layer)
        units = range(self.vertices, self.vertices + len(taps))
        self.vertices += len(taps)
        self.layers[layer.name] = units
        for term in self.terms[layer.input]:
            sources, times = along(term.vertices, dimension), along(term.times, dimension)
            self.edges.append(Edges(layer.name, units.start, sources, taps * times))
        shape = self.network.shapes[layer.output]
        vertices = spread(torch.arange(units.start, units.stop), dimension % len(shape), shape)
        self.terms[layer.output] = [Term(vertices, torch.ones(()).long().expand(shape))]
        return self._uniform(layer.input, dimension)

    def _taps(self, layer: FullLayer | Depthwise) -> Tensor:
        """How many weights connect each unit with each input; int64, shape (outputs, inputs)."""
        return (affine(layer).weight.ne(0) | self.dense).sum(-1)

    def _add_output(self, value: Value) -> None:
        for term in self.terms[value]:
            pairs = torch.stack([term.vertices.flatten(), term.times.flatten()]).unique(dim=1)
            self.outputs += [(vertex, times) for vertex, times in pairs.T.tolist() if vertex != NOTHING and times]

    def _uniform(self, value: Value, dimension: int) -> bool:
        """Whether all positions with the same index along a dimension are reached in the same way."""
        return all(
            same_along(part, other)
            for term in self.terms[value]
            for part in (term.vertices, term.times)
            for other in range(part.dim())
            if other != dimension % part.dim()
        )

    def _side_by_side(self, values: tuple[Value, ...], dimension: int) -> list[Term]:
        most = max(len(self.terms[value]) for value in values)
        parts = []
        for value in values:
            nothing = torch.full((), NOTHING).expand(self.network.shapes[value])
            missing = Term(nothing, torch.zeros_like(nothing))
            parts.append([*self.terms[value], *[missing] * (most - len(self.terms[value]))])
        return [
            Term(
                torch.cat([term.vertices for term in row], dimension),
                torch.cat([term.times for term in row], dimension),
            )
            for row in zip(*parts, strict=True)
        ]


def _first(positions: Tensor, dimensions: tuple[int, ...], keep: bool) -> Tensor:
    for dimension in dimensions:
        positions = positions.narrow(dimension, 0, 1)
    return positions if keep else positions.squeeze(dimensions)
