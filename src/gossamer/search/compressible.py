"""A network as a search sees it: a sequence of actions, each of which keeps so many of something."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gossamer.search.layers import LayerFacts


@dataclass(frozen=True)
class Action:
    """One decision."""

    name: str
    """The name that people read: the weight's name, or the layers whose channels these are."""
    size: int
    """How many weights or channels there are; 1 to `size` may be kept."""
    layer: LayerFacts
    """The (first) layer that it is about."""


class Compressible(Protocol):
    """A trained network whose layers can be thinned, on trial and reversibly."""

    model: nn.Module
    layers: tuple[LayerFacts, ...]
    """The facts of all prunable weights, in the order of computation."""
    actions: tuple[Action, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of every action."""

    def kept(self, chosen: Sequence[int]) -> dict[str, int]:
        """How many weights of each layer are left when every action keeps so many."""

    def masks(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        """Masks by weight name, True where the weight is left."""

    def densities(self, chosen: Sequence[int]) -> dict[str, float]:
        """What `gossamer compress --allocation` takes: kept / all weights of each layer, or, for channels, kept / all
        output channels of each layer."""


@contextmanager
def pruned(model: nn.Module, weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """The model with zeros where the masks are False, and as it was afterwards."""
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.mul_(masks[name])
    try:
        yield model
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
