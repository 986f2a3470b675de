"""The gradients that some criteria ask for: of the losses of a few batches, at the weights as they are."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError, TrainingDivergedError
from gossamer.model.modes import in_evaluation

Losses = Callable[[], Iterable[Tensor]]
"""Yields the loss of one batch after another, each a scalar that was computed with the model and can be derived."""


def mean_gradients(model: nn.Module, weights: Mapping[str, nn.Parameter], losses: Losses) -> dict[str, Tensor]:
    """The mean over the batches of dL/dw, by weight name, in the weight's type; zero where the loss does not depend on
    a weight.

    Computed in evaluation mode, so that dropout is off and BatchNorm's statistics stay as they are; the model's mode is
    put back after. `weight.grad` is neither read nor changed.

    Raises:
        ConfigurationError: there is no loss, it is no scalar, or it cannot be derived by the weights.
        TrainingDivergedError: a loss is not finite.
    """
    sums = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    batches = 0
    with in_evaluation(model), torch.enable_grad():
        for loss in losses():
            _add_gradients(loss, weights, sums)
            batches += 1
    if batches == 0:
        raise ConfigurationError("losses() yielded nothing; expected the loss of at least one batch")
    return {name: total.div_(batches) for name, total in sums.items()}


def _add_gradients(loss: Tensor, weights: Mapping[str, nn.Parameter], sums: Mapping[str, Tensor]) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ConfigurationError(f"losses() yielded {type(loss).__name__}; expected a scalar tensor, one loss a batch")
    if not bool(torch.isfinite(loss)):
        raise TrainingDivergedError(
            f"a loss is {loss.item()}; expected finite ones. Training diverged: lower the learning rate."
        )
    try:
        gradients = torch.autograd.grad(loss.reshape(()), list(weights.values()), allow_unused=True)
    except RuntimeError as error:
        raise ConfigurationError(
            f"losses() yielded a loss that cannot be derived by the prunable weights ({error}); expected one computed "
            f"with the model, outside torch.no_grad, and no frozen weight in the scope"
        ) from error
    for total, gradient in zip(sums.values(), gradients, strict=True):
        if gradient is not None:
            total += gradient
