"""A network whose layers compute with rounded numbers for as long as a round goes on."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.model.ties import memory_of
from gossamer.model.wrappers import unwrap
from gossamer.prune.layers import CONVOLUTIONS, is_transformers_linear
from gossamer.quantise.layers import Rounding
from gossamer.quantise.ranges import Ranges

MOST_NAMED = 3
"""Names in a message."""


class Quantisation(ABC):
    """The layers of a network that round while it is attached, and what they round to."""

    levels: int | None = None
    """Of weights in levels, how many there are on either side of zero; None: of another kind."""

    def __init__(self, model: nn.Module, roundings: Mapping[str, Rounding]) -> None:
        self.model = unwrap(model)
        self._attachable = roundings

    @contextmanager
    def attached(self, averages: Iterable[nn.Module] = ()) -> Iterator[None]:
        """Inside, the network's layers round, and those of its averages, to the same numbers; so do copies that are
        made meanwhile, until its end."""
        fast = torch.backends.mha.get_fastpath_enabled()
        # It computes a whole nn.TransformerEncoderLayer without calling the layers inside.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            for network in (self.model, *averages):
                for name, rounding in self._attachable.items():
                    rounding.attach(network.get_submodule(name.rpartition(".")[0]), observes=network is self.model)
            yield
        finally:
            for rounding in self._attachable.values():
                rounding.detach()
            torch.backends.mha.set_fastpath_enabled(fast)

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Inside, everything that is attached computes in float."""
        attached = [(rounding, rounding.detach()) for rounding in self._attachable.values()]
        try:
            yield
        finally:
            for rounding, layers in attached:
                for layer, observes in layers.items():
                    rounding.attach(layer, observes)

    @property
    @abstractmethod
    def ranges(self) -> Ranges:
        """What layers round to, by the names of their weights. It belongs to the weights of its moment."""

    @ranges.setter
    @abstractmethod
    def ranges(self, ranges: Ranges) -> None:
        """Rounds to these from now on."""

    @abstractmethod
    def require_trained(self, round_number: int) -> None:
        """Verifies that what layers round to was found while they were trained.

        Raises:
            ConfigurationError: it was not.
        """

    def settled(
        self, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The tensors and masks of a finished round as its folder keeps them."""
        return dict(tensors), dict(masks)

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Name of each weight -> what its layer rounds to."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from such a state.

        Raises:
            KeyError, ValueError: it is one of other layers, or of another kind.
        """


def require_roundable(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Verifies that layers can round, and warns of weights of which they cannot.

    Raises:
        ConfigurationError: none can.
    """
    covered = {memory_of(weight) for _, weight in layers_that_round(unwrap(model), weights).values()}
    others = [name for name, weight in weights.items() if memory_of(weight) not in covered]
    listed = named(others)
    known = "convolutions and linear layers, called as such"
    if len(others) == len(weights):
        raise ConfigurationError(
            f"quantised_rounds needs layers that can round their weights and inputs: {known}; the prunable weights are "
            f"of others ({listed}). Leave it out."
        )
    if others:
        warnings.warn(
            f"{len(others)} of {len(weights)} prunable weights stay in float in quantised rounds: {listed}. Only "
            f"{known} round theirs (not nn.MultiheadAttention's own projections, recurrent layers, embeddings).",
            GossamerWarning,
            stacklevel=3,
        )


def layers_that_round(
    model: nn.Module, weights: Mapping[str, nn.Parameter]
) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Name of a weight -> its layer and itself, for all layers that can round one of these weights; tied ones each."""
    wanted = {memory_of(weight) for weight in weights.values()}
    found = {}
    for path, module in model.named_modules():
        weight = module._parameters.get("weight")
        # nn.MultiheadAttention reads the weight of such a layer, and does not call it.
        called = not isinstance(module, NonDynamicallyQuantizableLinear)
        known = isinstance(module, (*CONVOLUTIONS, nn.Linear)) or is_transformers_linear(module)
        if weight is not None and called and known and memory_of(weight) in wanted:
            found[f"{path}.weight" if path else "weight"] = module, weight
    return found


def named(names: list[str]) -> str:
    """The first of them, for a message."""
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
