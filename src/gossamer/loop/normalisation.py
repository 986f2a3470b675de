"""The running statistics of normalisation layers, computed anew for weights that no training passed through."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from gossamer.errors import ConfigurationError
from gossamer.model.call import Call
from gossamer.model.modes import in_evaluation, in_training

Batches = Callable[[], Iterable[Any]]
"""Called when they are needed: the inputs of one batch after another, each as the model takes it."""


def layers_with_statistics(model: nn.Module) -> list[_NormBase]:
    """The BatchNorm and InstanceNorm layers whose running statistics training changes: not those without any, nor those
    that the model keeps in evaluation mode while it is trained."""
    with in_training(model):
        return [
            module
            for module in model.modules()
            if isinstance(module, _NormBase) and isinstance(module.running_mean, Tensor) and module.training
        ]


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Any]) -> None:
    """Replaces the running mean and variance of every normalisation layer by the plain mean over these batches of what
    the layer saw, whatever its momentum is; a layer that is used several times sees several.

    Only these layers are in training mode meanwhile: dropout is off, as it is when the statistics are used, and no
    random numbers are drawn. Weights, momenta and modes are as before afterwards. A model without such layers is left
    alone, and the batches are not asked for.

    Args:
        batches: the inputs of each batch, as the model takes them, on its device.

    Raises:
        ConfigurationError: there is no batch.
    """
    layers = layers_with_statistics(model)
    if not layers:
        return
    momenta = {layer: layer.momentum for layer in layers}
    seen = dict.fromkeys(layers, 0)

    def weigh(layer: nn.Module, inputs: Any) -> None:
        assert isinstance(layer, _NormBase)
        # The k-th batch moves a mean over k - 1 by a k-th of the way. Torch's own way, momentum None, does the same in
        # BatchNorm, but keeps the statistics of InstanceNorm as they are.
        seen[layer] += 1
        layer.momentum = 1 / seen[layer]

    hooks = [layer.register_forward_pre_hook(weigh) for layer in layers]
    count = 0
    try:
        with in_evaluation(model):
            for layer in layers:
                layer.reset_running_stats()
                layer.train()
            for inputs in batches:
                inputs.of(model) if isinstance(inputs, Call) else model(inputs)
                count += 1
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in momenta.items():
            layer.momentum = momentum
    if not count:
        raise ConfigurationError(
            "there is no batch to compute the statistics of normalisation layers from; expected at least one"
        )
