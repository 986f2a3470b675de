"""What a search knows of a network's layers: their sizes, and how often each weight is multiplied."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.model.modes import in_evaluation
from gossamer.model.wrappers import unwrap
from gossamer.search.errors import SearchError

KINDS = ("convolution", "linear", "other")
"""The layer's type in the agent's observation is its index here."""


@dataclass(frozen=True)
class LayerFacts:
    """A prunable weight and its layer."""

    name: str
    """Of the weight."""
    kind: str
    """One of `KINDS`."""
    inputs: int
    outputs: int
    stride: int
    kernel: int
    """Side of the kernel; 1 for a linear layer."""
    weights: int
    positions: int
    """How often each weight is used for one example: the pixels of the output for a convolution, 1 for most linear
    layers."""

    @property
    def flops(self) -> int:
        """Floating-point operations for one example with all weights: one multiplication and one addition each."""
        return 2 * self.positions * self.weights


def layers_of(
    model: nn.Module, weights: Mapping[str, nn.Parameter], example: tuple[Tensor, ...]
) -> tuple[LayerFacts, ...]:
    """The layers of prunable weights, in the order in which they are first computed.

    Args:
        weights: see `gossamer.prunable_weights`.
        example: the arguments of the forward pass for one example.

    Raises:
        SearchError: a layer is not computed for this example.
    """
    model = unwrap(model)
    owners = _owners(model, weights)
    order: dict[str, int] = {}
    positions: dict[str, int] = dict.fromkeys(weights, 0)

    def watch(path: str, names: list[str]) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            order.setdefault(path, len(order))
            for name in names:
                positions[name] += _positions(module, arguments, output)

        return hook

    watched = {path: [name for name, owner in owners.items() if owner == path] for path in set(owners.values())}
    hooks = [model.get_submodule(path).register_forward_hook(watch(path, names)) for path, names in watched.items()]
    try:
        with in_evaluation(model), torch.no_grad():
            model(*example)
    finally:
        for handle in hooks:
            handle.remove()
    unused = [name for name, owner in owners.items() if owner not in order]
    if unused:
        raise SearchError(
            f"{unused[0]} takes no part in the forward pass of the example; expected every prunable layer to. Exclude "
            f"it from the scope."
        )
    ordered = sorted(weights, key=lambda name: order[owners[name]])
    return tuple(_facts(name, weights[name], model.get_submodule(owners[name]), positions[name]) for name in ordered)


def _owners(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Weight's name -> path of the module whose call uses it."""
    owners = {name: name.rpartition(".")[0] for name in weights}
    for name, owner in owners.items():
        parent = owner.rpartition(".")[0]
        # Its output projection is a linear layer that is read but never called.
        if isinstance(model.get_submodule(parent), nn.MultiheadAttention):
            owners[name] = parent
    return owners


def _positions(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> int:
    """Elements of the output for each of its features (of the input, for a transposed convolution)."""
    tensor = output[0] if isinstance(output, tuple) else output
    convolution = isinstance(module, nn.modules.conv._ConvNd)
    if convolution and module.transposed:
        tensor = arguments[0]
    if not isinstance(tensor, Tensor) or tensor.dim() == 0:
        return 1
    return tensor.numel() // tensor.shape[1 if convolution and tensor.dim() > 1 else -1]


def _facts(name: str, weight: nn.Parameter, module: nn.Module, positions: int) -> LayerFacts:
    convolution = isinstance(module, nn.modules.conv._ConvNd)
    kind = "convolution" if convolution else "linear" if isinstance(module, nn.Linear) else "other"
    outputs, inputs = weight.shape[0], weight.shape[1]
    if convolution and module.transposed:
        outputs, inputs = inputs, outputs
    stride = int(module.stride[0]) if isinstance(module, nn.modules.conv._ConvNd) else 1
    kernel = weight.shape[-1] if weight.dim() > 2 else 1
    return LayerFacts(name, kind, inputs, outputs, stride, kernel, weight.numel(), positions)
