"""Floating-point operations of a network, counted by torch (a multiplication and an addition are two)."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer import randomness
from gossamer.model.nested import in_float32
from gossamer.prune.masks import count_kept, count_prunable
from gossamer.tasks.batch import called
from gossamer.tasks.loaded import Loaded
from gossamer.tasks.task import Recipe, Split
from gossamer.tasks.training import batch_size_of, sample

EXAMPLES = 2
"""How many examples operations are counted on."""


@dataclass(frozen=True)
class Operations:
    """Multiply-adds of one example, with every weight there."""

    forward: float
    training: float
    """Forward and backward pass."""
    forward_of: Mapping[str, float]
    """Name of each layer that contains no other -> its share of `forward`."""
    batch_size: int
    """Examples of the first batch of training."""

    def left(self, masks: Mapping[str, Tensor]) -> float:
        """Operations of a forward pass, without those of pruned weights: each layer in proportion to its density."""
        layers: dict[str, dict[str, Tensor]] = {}
        for name, mask in masks.items():
            layers.setdefault(name.rpartition(".")[0], {})[name] = mask
        return self.forward - sum(
            self.forward_of.get(layer, 0.0) * (1 - count_kept(weights) / count_prunable(weights))
            for layer, weights in layers.items()
        )


def count_operations(model: nn.Module, recipe: Recipe, examples: Split) -> Operations:
    """Counts on a copy of the model; neither the model nor the global random numbers change.

    Matrix products and convolutions are counted, as torch does; what works element by element is not.
    """
    subject = copy.deepcopy(model)
    device = next(model.parameters()).device
    batch = sample(recipe, examples, EXAMPLES).to(device)
    count = batch.examples
    with randomness.seeded(0):
        subject.eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            called(subject, batch, recipe.loss)
        training = FlopCounterMode(display=False)
        subject.train()
        with training:
            recipe.loss(in_float32(called(subject, batch, recipe.loss)), batch.targets).backward()
    # The counter puts the class of the whole before each layer's name.
    layers = {name.partition(".")[2]: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    leaves = {name for name, module in model.named_modules() if next(module.children(), None) is None}
    return Operations(
        counter.get_total_flops() / count,
        training.get_total_flops() / count,
        {name: flops / count for name, flops in layers.items() if name in leaves},
        sample(recipe, examples).examples if isinstance(examples, Loaded) else batch_size_of(recipe, examples),
    )
