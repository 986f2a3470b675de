"""Channel pruning: an action for every group of channels that can only go together.

The channels that a residual sum adds up are the same units in all of its terms, whatever layers make them; so all
these layers share one action. What is not understood, the inputs and the outputs keep all of theirs. Of a group those
channels stay that are read with the largest weights; without the others the network computes what it would without
their rows and columns.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gossamer.search.compressible import Action
from gossamer.search.errors import SearchError
from gossamer.search.layers import LayerFacts, layers_of
from gossamer.shrink.coupling import NEEDED, Coupling, couple
from gossamer.shrink.operations import FullLayer, OperationGraph
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand


class Channels:
    """See `compressible.Compressible`."""

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter], example: tuple[Tensor, ...]) -> None:
        self.model = model
        self.weights = dict(weights)
        self.layers: tuple[LayerFacts, ...] = layers_of(model, weights, example)
        network = understand(trace(copy.deepcopy(model).eval(), example))
        coupling = couple(network)
        self._made: dict[str, Tensor] = {}
        """Weight's name -> the unit of each of its rows (outputs)."""
        self._read: dict[str, Tensor] = {}
        """Weight's name -> the unit of each of its columns (inputs)."""
        for layer in network.layers:
            name = f"{layer.name}.weight"
            if name in weights:
                self._made[name], self._read[name] = coupling.made_by(layer), coupling.read_by(layer)
        groups = _groups(network, coupling, set(self._made))
        if not groups:
            raise SearchError(
                f"no channels of {type(model).__name__} can be removed: they are inputs, outputs, or pass through what "
                f"is not understood ({', '.join(network.not_understood) or 'nothing else'}); search fine-grained"
            )
        facts = {layer.name: layer for layer in self.layers}
        order = {layer.name: position for position, layer in enumerate(self.layers)}
        groups.sort(key=lambda group: min(order[name] for name in group.weights))
        self.actions = tuple(
            Action(
                ", ".join(name.removesuffix(".weight") for name in group.weights),
                len(group.units),
                facts[min(group.weights, key=order.__getitem__)],
            )
            for group in groups
        )
        importance = self._importance(coupling.count)
        self._ranked = [group.units[importance[group.units].argsort(descending=True, stable=True)] for group in groups]
        self._units = coupling.count

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(action.size for action in self.actions)

    def kept(self, chosen: Sequence[int]) -> dict[str, int]:
        stay = self._stay(chosen)
        kept = {}
        for name, weight in self.weights.items():
            kept[name] = weight.numel()
            if name in self._made:
                rows, columns = int(stay[self._made[name]].sum()), int(stay[self._read[name]].sum())
                kept[name] = weight[0, 0].numel() * rows * columns
        return kept

    def masks(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        stay = self._stay(chosen)
        masks = {}
        for name, weight in self.weights.items():
            masks[name] = torch.ones_like(weight, dtype=torch.bool, requires_grad=False)
            if name in self._made:
                there = stay[self._made[name]][:, None] & stay[self._read[name]][None, :]
                masks[name] &= there.reshape(*there.shape, *(1 for _ in weight.shape[2:])).to(weight.device)
        return masks

    def densities(self, chosen: Sequence[int]) -> dict[str, float]:
        stay = self._stay(chosen)
        return {
            name: float(stay[self._made[name]].double().mean()) if name in self._made else 1.0 for name in self.weights
        }

    def _stay(self, chosen: Sequence[int]) -> Tensor:
        stay = torch.ones(self._units, dtype=torch.bool)
        for ranked, number in zip(self._ranked, chosen, strict=True):
            stay[ranked[number:]] = False
        return stay

    def _importance(self, units: int) -> Tensor:
        """The sum of the magnitudes of all weights that read a unit; float64, shape (units,)."""
        total = torch.zeros(units, dtype=torch.float64)
        for name, read in self._read.items():
            columns = self.weights[name].detach().abs().double().transpose(0, 1).flatten(1).sum(1).cpu()
            total.index_add_(0, read, columns)
        return total


class _Group:
    """Units that layers make together, and the weights whose rows they are."""

    def __init__(self, weights: list[str], units: Tensor) -> None:
        self.weights = weights
        self.units = units


def _groups(network: OperationGraph, coupling: Coupling, prunable: set[str]) -> list[_Group]:
    """Layers that make common units, joined; without those that make one that has to stay."""
    joined: list[tuple[list[FullLayer], set[int]]] = []
    for layer in network.layers:
        layers, units = [layer], set(coupling.made_by(layer).tolist())
        apart = []
        for other_layers, other_units in joined:
            if units & other_units:
                layers, units = other_layers + layers, units | other_units
            else:
                apart.append((other_layers, other_units))
        joined = [*apart, (layers, units)]
    removable = []
    for layers, units in joined:
        names = [f"{layer.name}.weight" for layer in layers]
        fixed = NEEDED in units or any(bool(coupling.given[unit]) for unit in units)
        # A layer outside the scope keeps its rows, so nothing that is coupled to them can go.
        if not fixed and len(units) > 1 and all(name in prunable for name in names):
            removable.append(_Group(names, torch.tensor(sorted(units))))
    return removable
