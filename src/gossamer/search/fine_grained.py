"""Fine-grained pruning: an action for every prunable weight tensor, which keeps the largest of its weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gossamer.search.compressible import Action
from gossamer.search.layers import LayerFacts, layers_of


class FineGrained:
    """See `compressible.Compressible`. Weights are ranked by their magnitude within the layer, once."""

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter], example: tuple[Tensor, ...]) -> None:
        self.model = model
        self.weights = dict(weights)
        self.layers: tuple[LayerFacts, ...] = layers_of(model, weights, example)
        self.actions = tuple(Action(layer.name, layer.weights, layer) for layer in self.layers)
        self._ranks = {name: _ranks(weight.detach()) for name, weight in weights.items()}

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(action.size for action in self.actions)

    def kept(self, chosen: Sequence[int]) -> dict[str, int]:
        return {action.name: number for action, number in zip(self.actions, chosen, strict=True)}

    def masks(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        return {name: self._ranks[name] < number for name, number in self.kept(chosen).items()}

    def densities(self, chosen: Sequence[int]) -> dict[str, float]:
        kept = self.kept(chosen)
        return {name: kept[name] / weight.numel() for name, weight in self.weights.items()}


def _ranks(weight: Tensor) -> Tensor:
    """0 for the largest magnitude; of equal ones the first has the lower rank. int32, the weight's shape."""
    order = weight.abs().reshape(-1).argsort(descending=True, stable=True)
    ranks = torch.empty(weight.numel(), dtype=torch.int32, device=weight.device)
    ranks[order] = torch.arange(weight.numel(), dtype=torch.int32, device=weight.device)
    return ranks.reshape(weight.shape)
