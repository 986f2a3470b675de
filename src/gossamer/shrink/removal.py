"""Which units can go without a change of the output, and what their going does to weights and biases."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.shrink.constants import Affine, affine, constants_read, find_constants
from gossamer.shrink.coupling import NEEDED, Coupling, couple
from gossamer.shrink.liveness import find_live
from gossamer.shrink.operations import OperationGraph


@dataclass(frozen=True)
class Removal:
    """What can be removed from a network, to the last unit."""

    coupling: Coupling
    layers: dict[str, Affine]
    """Weight and bias of every `FullLayer`, by name, once the constants that its inputs carried are in its bias and the
    weights of removed units are zero. Nothing is cut out yet."""
    unused: Tensor
    """Units that go because nothing that reaches the output depends on them; bool, shape (units,)."""
    constant: Tensor
    """Units that go because they are the same for every input; bool, shape (units,)."""
    live: Tensor
    """Units with a way to the output, or to what is not understood; bool, shape (units,)."""

    @property
    def removed(self) -> Tensor:
        return self.unused | self.constant


def find_removal(network: OperationGraph) -> Removal:
    """Removes what cannot matter until nothing is left to remove.

    A unit goes if it is not live, or if it is constant and every layer that reads it can take the constant into its
    bias. A convolution that pads with zeros can do so only for zero, and for a kernel whose taps all stay inside the
    image: elsewhere a constant channel is not a constant output at the border. A layer keeps at least one unit, since
    there are no layers without any.
    """
    coupling = couple(network)
    layers = {layer.name: affine(layer) for layer in network.layers}
    unused = torch.zeros(coupling.count, dtype=torch.bool)
    constant = torch.zeros(coupling.count, dtype=torch.bool)
    while True:
        live = find_live(network, coupling, layers)
        positions = find_constants(network, layers)
        read = {layer.name: constants_read(layer, positions) for layer in network.layers}
        gone = unused | constant
        stays = coupling.given | gone
        stays[NEEDED] = True
        leaving = ~stays & (~live | _foldable(network, coupling, layers, live, read))
        _leave_one(network, coupling, leaving, gone)
        if not leaving.any():
            return Removal(coupling, layers, unused, constant, live)
        unused |= leaving & ~live
        constant |= leaving & live
        for layer in network.layers:
            _remove(layers[layer.name], coupling.read_by(layer), coupling.made_by(layer), leaving, read[layer.name])


def _foldable(
    network: OperationGraph, coupling: Coupling, layers: Mapping[str, Affine], live: Tensor, read: Mapping[str, Tensor]
) -> Tensor:
    """Whether every layer that reads a unit can take it into its bias; bool, shape (units,)."""
    foldable = torch.ones(coupling.count, dtype=torch.bool)
    for layer in network.layers:
        weights, constants = layers[layer.name], read[layer.name]
        matters = live[coupling.made_by(layer)].unsqueeze(1)
        cannot = weights.reads() & constants.isnan() | weights.reads_padding() & (constants != 0)
        foldable[coupling.read_by(layer)[(matters & cannot).any(0)]] = False
    return foldable


def _leave_one(network: OperationGraph, coupling: Coupling, leaving: Tensor, gone: Tensor) -> None:
    """Takes the first unit of a layer that would lose all of them off the list of those that leave."""
    for layer in network.layers:
        left = coupling.made_by(layer)
        left = left[~gone[left]]
        if leaving[left].all():
            leaving[left[0]] = False


def _remove(layer: Affine, read: Tensor, made: Tensor, leaving: Tensor, constants: Tensor) -> None:
    """Folds the constants that leaving inputs carry into the bias; sets the weights of all leaving units to zero."""
    columns, rows = leaving[read], leaving[made]
    layer.bias += layer.sums()[:, columns] @ constants[columns].nan_to_num()
    layer.weight[:, columns] = 0
    layer.weight[rows] = 0
