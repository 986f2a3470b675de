"""Units that do nothing: cut off in the graph, or never active on the data; and the density once they are gone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gossamer.explain.activity import activations, never_active
from gossamer.explain.intervals import never_seen
from gossamer.prune.masks import Masks, count_kept, count_prunable
from gossamer.shrink.constants import find_constants
from gossamer.shrink.coupling import NEEDED, unit_dimension
from gossamer.shrink.liveness import find_live
from gossamer.shrink.operations import OperationGraph
from gossamer.shrink.positions import along
from gossamer.shrink.removal import Removal, find_removal
from gossamer.shrink.trace import Traced
from gossamer.tasks import Examples
from gossamer.tasks.sample import Sample

HOW = (
    "A unit is unread if no path of non-zero weights leads from it to the output, and constant if none leads to "
    "it from the input (through residual sums, BatchNorm and activations; repeated until nothing changes, as in "
    "gossamer.shrink). It is silent if its activation, after BatchNorm and activation function, is the same for "
    "all validation examples at all positions. A dead unit's weights are those that it reads with and those that "
    "read it; those that read a silent unit are counted only if it is coupled to no other unit by a residual sum."
    " silent_limit: 1 - 0.05^(1/examples), for one unit and examples of the same distribution."
)


@dataclass(frozen=True)
class DeadUnitsOfLayer:
    """The dead units of a layer, by their index in it."""

    layer: str
    units: int
    unread: tuple[int, ...]
    """No path of weights leads from them to the output."""
    constant: tuple[int, ...]
    """Read, but the same for every input that there could be: no path leads to them from the input."""
    silent: tuple[int, ...]
    """Neither, but never active on the data."""

    @property
    def alive(self) -> int:
        return self.units - len(self.unread) - len(self.constant) - len(self.silent)


@dataclass(frozen=True)
class DeadUnits:
    """The dead units of a network."""

    layers: tuple[DeadUnitsOfLayer, ...]
    examples: int
    """How many examples "never active" speaks of."""
    silent_limit: float
    """Upper 95% limit of the share of such examples on which a silent unit is active after all."""
    density: float
    """Kept weights / prunable weights."""
    effective_density: float
    """The same once the weights of units that are unread or constant are gone."""
    effective_density_on_data: float
    """The same once those of silent units are gone as well."""
    how: str = HOW


def find_dead_units(traced: Traced, network: OperationGraph, masks: Masks, examples: Sample | Examples) -> DeadUnits:
    """Finds dead units.

    Args:
        masks: of the prunable weights; True is kept.
        examples: on which units have to be active.
    """
    removal = find_removal(network)
    silent = never_active(traced, network, examples)
    constants = find_constants(network, removal.layers)
    ends = activations(network)
    layers = []
    for layer in network.layers:
        units = removal.coupling.made_by(layer)
        held = along(constants[ends[layer.name]], unit_dimension(layer))
        constant = removal.constant[units] | ~held.isnan() & removal.live[units]
        unread = ~constant & ~removal.live[units]
        layers.append(
            DeadUnitsOfLayer(
                layer.name,
                len(units),
                _indices(unread),
                _indices(constant),
                _indices(silent[layer.name] & ~unread & ~constant),
            )
        )
    prunable, kept = count_prunable(masks), count_kept(masks)
    nobody = {name: torch.zeros_like(units) for name, units in silent.items()}
    return DeadUnits(
        tuple(layers),
        len(examples),
        never_seen(len(examples)),
        kept / prunable,
        _count_alive(network, removal, masks, nobody) / prunable,
        _count_alive(network, removal, masks, silent) / prunable,
    )


def _count_alive(network: OperationGraph, removal: Removal, masks: Masks, silent: Mapping[str, Tensor]) -> int:
    """How many kept weights lie between units that are not dead."""
    coupling = removal.coupling
    made = torch.cat([coupling.made_by(layer).unique() for layer in network.layers])
    alone = torch.bincount(made, minlength=coupling.count) == 1
    alone &= ~coupling.given
    alone[NEEDED] = False
    gone = torch.zeros(coupling.count, dtype=torch.bool)
    for layer in network.layers:
        units = coupling.made_by(layer)[silent[layer.name]]
        gone[units[alone[units]]] = True
    weights = {name: replace(values, weight=values.weight.clone()) for name, values in removal.layers.items()}
    for layer in network.layers:
        weights[layer.name].weight[silent[layer.name]] = 0
        weights[layer.name].weight[:, gone[coupling.read_by(layer)]] = 0
    # What only silent units read is unread once they are gone.
    dead = ~find_live(network, coupling, weights) | removal.removed | gone
    alive = 0
    counted = set()
    for layer in network.layers:
        mask = masks.get(f"{layer.name}.weight")
        if mask is not None:
            counted.add(f"{layer.name}.weight")
            rows = ~dead[coupling.made_by(layer)] & ~silent[layer.name]
            alive += int(mask.cpu()[rows][:, ~dead[coupling.read_by(layer)]].sum())
    return alive + sum(int(mask.sum()) for name, mask in masks.items() if name not in counted)


def _indices(which: Tensor) -> tuple[int, ...]:
    return tuple(which.nonzero().flatten().tolist())
