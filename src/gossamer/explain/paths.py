"""How many ways lead from the inputs to the outputs, and what each unit of the inputs still reaches."""

from dataclasses import dataclass

from gossamer.explain.unit_graph import UnitGraph

HOW = (
    "A path begins at a unit of the input (a feature, or a channel where a convolution reads it), follows one weight "
    "other than zero from unit to unit, and ends at an output. A convolution's unit has one weight for every tap of "
    "its kernel that is left, whatever the number of positions; a residual sum is reached through each of its terms. "
    "Counted exactly, from layer to layer. dense: the same if no weight were zero."
)


@dataclass(frozen=True)
class PathFacts:
    """The paths of a network, as facts."""

    total: int
    """The number of paths from any input to any output."""
    dense: int
    """The paths of the same network without zeros."""
    through: dict[str, tuple[int, ...]]
    """For every layer's units: the paths through each. Units without any are cut off."""
    how: str = HOW


@dataclass(frozen=True)
class Paths:
    """Numbers of paths, exact."""

    total: int
    """The number of paths from any input to any output."""
    into: tuple[int, ...]
    """The paths from any input to each vertex; 1 for the inputs' own."""
    out_of: tuple[int, ...]
    """The paths from each vertex to any output."""

    def through(self, vertex: int) -> int:
        """The number of paths from any input to any output through a vertex."""
        return self.into[vertex] * self.out_of[vertex]


def count_paths(graph: UnitGraph) -> Paths:
    """Counts all paths; a path chooses one connection at every step.

    Python's integers have no largest one: the counts of deep networks go beyond 2^64.
    """
    into = [1] * graph.given + [0] * (graph.vertices - graph.given)
    for edges in graph.edges:
        for source, target, connections in edges.listed():
            into[target] += connections * into[source]
    out_of = [0] * graph.vertices
    for vertex, times in graph.outputs:
        out_of[vertex] += times
    for edges in reversed(graph.edges):
        for source, target, connections in edges.listed():
            out_of[source] += connections * out_of[target]
    total = sum(times * into[vertex] for vertex, times in graph.outputs)
    return Paths(total, tuple(into), tuple(out_of))


def path_facts(graph: UnitGraph, paths: Paths, dense: UnitGraph) -> PathFacts:
    """Puts the counts together.

    Args:
        dense: the graph of the same network without zeros.
    """
    through = {name: tuple(paths.through(unit) for unit in units) for name, units in graph.layers.items()}
    return PathFacts(paths.total, count_paths(dense).total, through)


def reached_units(graph: UnitGraph) -> list[int]:
    """For each vertex the layers' units that it reaches, as a set of bits: bit v for vertex v."""
    reached = [0] * graph.vertices
    for edges in reversed(graph.edges):
        for source, target, _ in edges.listed():
            reached[source] |= reached[target] | 1 << target
    return reached
