"""Whole channels, cut out although they matter a little: smaller dense tensors at some cost in accuracy.

Which channels have to go together (those that are added, concatenated or normalised with one another) is found by
torch-pruning's dependency graph (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023), and so is what
they are worth: the L2 norm of all weights of a group of channels, relative to the mean over the layer, compared over
all layers. Nothing is retrained here.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gossamer.errors import ConfigurationError
from gossamer.model.call import Call
from gossamer.model.nested import tensors_in
from gossamer.prune.prunable import count_parameters
from gossamer.shrink.arguments import Examples, as_call
from gossamer.shrink.coupling import NEEDED, couple
from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.shrinking import Shrunk, read_network

MOST = 0.9
"""Share of a layer's channels that may go at most, so that none is cut through."""


@dataclass(frozen=True)
class SlimmedLayer:
    """A layer's channels (output units)."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Slimmed:
    """A network without its least channels. It computes something else than the original."""

    model: nn.Module
    """A copy of the model, in evaluation mode."""
    layers: tuple[SlimmedLayer, ...]
    """Linear layers and convolutions, in the order of their definition."""
    untouched: tuple[str, ...]
    """Layers whose channels stay, since they are outputs or reach operations that are not understood."""
    parameters_before: int
    parameters: int
    call: Call
    open_sizes: tuple[str, ...]

    @property
    def removed(self) -> int:
        return sum(layer.before - layer.after for layer in self.layers)


def remove_channels(shrunk: Shrunk, examples: Examples, share: float) -> Slimmed:
    """Cuts the channels of the smallest norm out of a network that was shrunk before.

    Args:
        shrunk: what `shrink` made, without a selection of inputs; is not changed.
        examples: as for `shrink`.
        share: of the channels that may be cut, over all layers, in (0, 1).

    Raises:
        ConfigurationError: the share is out of range, or torch-pruning is not installed.
        ShrinkError: the network cannot be cut this way.
    """
    if not 0 < share < 1:
        raise ConfigurationError(f"the share of channels to remove is {share}; expected a number between 0 and 1")
    pruning = _torch_pruning()
    call = as_call(examples)
    model = copy.deepcopy(shrunk.model).eval()
    before = _channels(model)
    untouched = _untouched(model, call)
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        # The dependency graph is read off the backward pass.
        parameter.requires_grad_(True)
    try:
        pruner = pruning.pruner.MetaPruner(
            model,
            dict(call.named) if call.named else call.positional,
            importance=pruning.importance.GroupMagnitudeImportance(p=2, normalizer="mean"),
            global_pruning=True,
            pruning_ratio=share,
            max_pruning_ratio=MOST,
            ignored_layers=[model.get_submodule(name) for name in untouched],
        )
        pruner.step()
        with torch.no_grad():
            outputs = list(tensors_in(call.of_copies(model)))
    except Exception as error:
        raise ShrinkError(
            f"channels cannot be cut out of this {type(model).__name__} ({type(error).__name__}: {error}); "
            f"torch-pruning does not understand one of its operations. Exact shrinking still works."
        ) from error
    if not outputs or not all(bool(output.isfinite().all()) for output in outputs):
        raise ShrinkError("the network without these channels gives outputs that are not finite; remove fewer")
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(wanted[name])
    after = _channels(model)
    return Slimmed(
        model,
        tuple(SlimmedLayer(name, count, after[name]) for name, count in before.items()),
        untouched,
        shrunk.parameters,
        count_parameters(model),
        shrunk.call,
        shrunk.open_sizes,
    )


def _untouched(model: nn.Module, call: Call) -> tuple[str, ...]:
    """Layers with a unit that has to stay whatever it is worth: an output, or one that an operation reads of which it
    is not known what it does with its channels."""
    network = read_network(model, call)
    coupling = couple(network)
    return tuple(layer.name for layer in network.layers if bool((coupling.made_by(layer) == NEEDED).any()))


def _channels(model: nn.Module) -> dict[str, int]:
    return {
        name: len(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise ConfigurationError(
            f"--structure channel needs the package torch-pruning, which cannot be imported ({error}). Install it "
            f"with: pip install 'gossamer[structured]'"
        ) from error
    return torch_pruning
