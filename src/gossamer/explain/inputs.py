"""What every feature or pixel of the input still reaches."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.explain.paths import Paths, reached_units
from gossamer.explain.unit_graph import UnitGraph
from gossamer.shrink.operations import (
    Elementwise,
    FullLayer,
    Normalisation,
    OperationGraph,
    Padding,
    Rearrangement,
    SizeOf,
    Value,
    read_by,
)

HOW = (
    "connections: weights other than zero, of the layers that read the input, that read a position; the weights of a"
    " convolution count once for every position at which they read it. units: the units of all layers to which a "
    "path leads. paths: see the total number of paths. Only units from which a path leads to the output count as "
    "readers."
)


@dataclass(frozen=True)
class InputReach:
    """What the positions of the network's input reach; lists run over the input in row-major order."""

    shape: tuple[int, ...]
    """The shape of the input, for one example."""
    connections: tuple[int, ...]
    """A number for every position: how often a weight of the layers that read the input reads it."""
    unused: int
    """Places that no weight reads, or only weights from which no path leads to the output."""
    units: tuple[int, ...]
    """A number for every unit of the input (position, or channel if a convolution reads it): the hidden units that
    it reaches."""
    paths: tuple[int, ...]
    """A number for every unit of the input: the paths to the output."""
    how: str = HOW


def find_input_reach(network: OperationGraph, graph: UnitGraph, paths: Paths) -> InputReach | None:
    """What the input reaches; None if there are several inputs, or something else than layers reads it (pooling, a
    sum), so that the picture would not be whole."""
    if len(graph.inputs) != 1:
        return None
    ((name, vertices),) = graph.inputs.items()
    positions = torch.ones(1, *network.shapes[name], dtype=torch.float64, requires_grad=True)
    counts = _connections(network, graph, paths, name, positions)
    if counts is None:
        return None
    # Integers below 2^53 are exact in float64.
    connections = torch.autograd.grad(counts, positions)[0].flatten().long()
    reached = reached_units(graph)
    return InputReach(
        tuple(vertices.shape),
        tuple(connections.tolist()),
        int((connections == 0).sum()),
        tuple(reached[vertex].bit_count() for vertex in range(graph.given)),
        paths.out_of[: graph.given],
    )


def _connections(
    network: OperationGraph, graph: UnitGraph, paths: Paths, name: Value, positions: Tensor
) -> Tensor | None:
    """The sum of all outputs of the layers that read the input, if every weight were one: its derivative by a position
    of the input is the number of connections that read it."""
    found = {name: positions}
    counts = positions.sum() * 0
    for operation in network.operations:
        values = read_by(operation)
        if not any(value in found for value in values):
            continue
        match operation:
            case FullLayer(layer, _, value, _):
                alive = torch.tensor([paths.out_of[unit] > 0 for unit in graph.layers[layer]])
                counts = counts + _with_ones(operation, alive)(found[value]).sum()
            case Rearrangement(function, _, _, value, output):
                found[output] = function(found[value])
            case Padding(amounts, _, float(), value, output):
                ends = [end for pair in reversed(amounts) for end in pair]
                found[output] = F.pad(found[value], ends)
            case Elementwise(_, value, output) | Normalisation(_, _, value, output):
                found[output] = found[value]
            case SizeOf():
                pass
            case _:
                return None
    return counts


def _with_ones(layer: FullLayer, alive: Tensor) -> torch.nn.Module:
    """The layer with weight 1 where its weight is not zero, in the rows of units that are alive, and no bias."""
    module = copy.deepcopy(layer.module).double()
    ones = module.weight.detach().ne(0).double()
    ones[~alive] = 0
    module.weight = torch.nn.Parameter(ones, requires_grad=False)
    module.bias = None
    return module
