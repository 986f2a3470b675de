"""The recipes' optimizers, as values that can be compared and written down."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum, and weight decay on all parameters. The schedule sets the learning rate."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __call__(self, model: nn.Module) -> torch.optim.SGD:
        # Fused: one call a step instead of several for each tensor.
        return torch.optim.SGD(
            model.parameters(),
            lr=0.0,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True)
class SelectiveSGD(SGD):
    """As `SGD`, with weight decay kept off vectors (biases and normalisation)."""

    def __call__(self, model: nn.Module) -> torch.optim.SGD:
        parameters = list(model.parameters())
        groups: list[dict[str, object]] = [
            {"params": [parameter for parameter in parameters if parameter.dim() >= 2]},
            {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(
            groups,
            lr=0.0,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, which is kept off vectors (biases, normalisation) and embeddings."""

    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1

    def __call__(self, model: nn.Module) -> torch.optim.AdamW:
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        parameters = list(model.parameters())
        decayed = [p for p in parameters if p.dim() >= 2 and id(p) not in embedded]
        others = [p for p in parameters if p.dim() < 2 or id(p) in embedded]
        groups: list[dict[str, object]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.0, betas=self.betas, weight_decay=self.weight_decay, fused=True)
