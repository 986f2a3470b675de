"""Which units reach the output: along weights that are not zero, through units that do themselves."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gossamer.shrink.constants import Affine
from gossamer.shrink.coupling import NEEDED, Coupling
from gossamer.shrink.operations import OperationGraph


def find_live(network: OperationGraph, coupling: Coupling, layers: Mapping[str, Affine]) -> Tensor:
    """Whether a unit has a way to the output, or to an operation that is not understood; bool, shape (units,).

    It starts from the output and not from the weights, so two units that only feed each other (a channel of a residual
    sum, and the block that reads it and adds to it) are not live.
    """
    live = torch.zeros(coupling.count, dtype=torch.bool)
    live[NEEDED] = True
    found = 0
    # One pass from the end to the beginning finds all ways but those that go round through a coupled unit.
    while (count := int(live.sum())) > found:
        found = count
        for layer in reversed(network.layers):
            read = layers[layer.name].reads()[live[coupling.made_by(layer)]].any(0)
            live[coupling.read_by(layer)[read]] = True
    return live
