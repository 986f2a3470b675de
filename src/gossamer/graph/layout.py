"""Which part of a network lies in panels: the cheapest of all choices, found as a minimum cut.

Sparse convolutions read and write panels (docs/kernels.md); ONNX's ops read and write planes, except for those that
treat every number alike and do not care. Every such unit either runs on panels or on planes, and a value that is made
in one layout and read in the other is converted, once. The sum of the times of units and conversions is the capacity
of a cut between "panels" and "planes", so the best choice for the whole network is a minimum cut. A lone sparse layer
whose conversions cost more than it saves stays dense; a dense layer between sparse ones runs on panels if that is less
than converting twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx

PANELS, PLANES = "panels", "planes"
TICK = 1e-12
"""Seconds. Capacities are whole numbers of them, so that the cut is exact."""


@dataclass(frozen=True)
class Unit:
    """Nodes that run together, on panels or on planes."""

    inputs: tuple[str, ...]
    """The activations that it reads in the layout that it runs on."""
    output: str
    panel_time: float
    plane_time: float


def choose_panels(
    units: Sequence[Unit], read_as_planes: Iterable[str], conversion_times: Mapping[str, float]
) -> set[int]:
    """The indices of the units that run on panels.

    Args:
        read_as_planes: values that something outside of the units reads, or that the graph returns.
        conversion_times: of every value that a unit reads or makes, in seconds; values that no unit makes are planes.

    Of several cheapest choices, the one with the fewest units on panels.
    """
    flow = networkx.DiGraph()
    flow.add_nodes_from([PANELS, PLANES])
    maker = {unit.output: index for index, unit in enumerate(units)}
    readers: dict[str, list[int | str]] = {}
    for index, unit in enumerate(units):
        flow.add_edge(PANELS, index, capacity=_ticks(unit.plane_time))
        flow.add_edge(index, PLANES, capacity=_ticks(unit.panel_time))
        for value in unit.inputs:
            readers.setdefault(value, []).append(index)
    for value in read_as_planes:
        readers.setdefault(value, []).append(PLANES)
    for value, indices in readers.items():
        if value not in conversion_times:
            continue
        source = maker.get(value, PLANES)
        time = _ticks(conversion_times[value])
        # Edges without a capacity cannot be cut: whoever reads panels puts "value as panels" on their side.
        flow.add_edge(("as panels", value), source, capacity=time)
        flow.add_edges_from((reader, ("as panels", value)) for reader in indices if reader != PLANES)
        if source != PLANES:
            flow.add_edge(source, ("as planes", value), capacity=time)
            flow.add_edges_from((("as planes", value), reader) for reader in indices)
    # Turned around, because of several minimum cuts the library returns the one whose sink's side is the smallest.
    _, (_, panels) = networkx.minimum_cut(flow.reverse(copy=False), PLANES, PANELS)
    return {index for index in panels if isinstance(index, int)}


def _ticks(seconds: float) -> int:
    return round(seconds / TICK)
