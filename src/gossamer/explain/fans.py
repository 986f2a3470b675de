"""How many weights each unit reads with, and how many read it."""

from dataclasses import dataclass
from statistics import median

from gossamer.explain.unit_graph import UnitGraph

HOW = (
    "Fan-in: the weights other than zero with which a unit reads; fan-out: those with which others read it, on "
    "whatever way (a convolution's unit has a weight for every tap of the kernel that is left, at whatever number"
    " of positions it is used; a channel that is flattened is read through each of its pixels). Of a unit of the "
    "last layer the network's output is no fan-out."
)


@dataclass(frozen=True)
class FansOfLayer:
    """Fan-in and fan-out of every unit of a layer, in order."""

    layer: str
    fan_in: tuple[int, ...]
    fan_out: tuple[int, ...]
    median_fan_in: float
    median_fan_out: float


@dataclass(frozen=True)
class Fans:
    """Fan-in and fan-out of all units."""

    layers: tuple[FansOfLayer, ...]
    how: str = HOW


def find_fans(graph: UnitGraph) -> Fans:
    """Counts the connections of every unit."""
    fan_in, fan_out = [0] * graph.vertices, [0] * graph.vertices
    for edges in graph.edges:
        for source, target, connections in edges.listed():
            fan_in[target] += connections
            fan_out[source] += connections
    return Fans(
        tuple(
            FansOfLayer(name, into, out_of, median(into), median(out_of))
            for name, units in graph.layers.items()
            for into in [tuple(fan_in[unit] for unit in units)]
            for out_of in [tuple(fan_out[unit] for unit in units)]
        )
    )
