"""Fake quantisation of a network: it is trained in float, with weights and inputs rounded as int8 has them.

torchao 0.18 has it for linear and embedding layers only, and replaces these by layers with other keys in the
`state_dict`; torch.ao's, which knows convolutions, adds observers to the `state_dict` and is to be removed.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.model.ties import memory_of
from gossamer.model.wrappers import unwrap
from gossamer.prune.layers import CONVOLUTIONS, has_outputs_second, is_transformers_linear
from gossamer.quantise.layers import Rounding
from gossamer.quantise.ranges import Range, Ranges

MOST_NAMED = 3
"""Names in a message."""


class FakeQuantisation:
    """The layers of a network, with the ranges of their inputs, that round while it is attached.

    The range of a layer's inputs is the mean of those of the first hundred batches in training mode, and then moves by
    a hundredth towards that of each; in evaluation mode it stays. With several processes each has its own, as BatchNorm
    has its statistics.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
        self.model = unwrap(model)
        self._roundings = {
            name: Rounding(int(_is_transposed(layer)), weight.device)
            for name, (layer, weight) in _layers(self.model, weights).items()
        }

    @contextmanager
    def attached(self, averages: Iterable[nn.Module] = ()) -> Iterator[None]:
        """Inside, the network's layers round, and those of its averages, with the same ranges; so do copies that are
        made meanwhile, until its end."""
        fast = torch.backends.mha.get_fastpath_enabled()
        # It computes a whole nn.TransformerEncoderLayer without calling the layers inside.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            for network in (self.model, *averages):
                for name, rounding in self._roundings.items():
                    rounding.attach(network.get_submodule(name.rpartition(".")[0]), observes=network is self.model)
            yield
        finally:
            for rounding in self._roundings.values():
                rounding.detach()
            torch.backends.mha.set_fastpath_enabled(fast)

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Inside, everything that is attached computes in float."""
        attached = [(rounding, rounding.detach()) for rounding in self._roundings.values()]
        try:
            yield
        finally:
            for rounding, layers in attached:
                for layer, observes in layers.items():
                    rounding.attach(layer, observes)

    @property
    def ranges(self) -> Ranges:
        """The ranges of the layers that saw a batch."""
        return {
            name: Range(float(rounding.range[0]), float(rounding.range[1]))
            for name, rounding in self._roundings.items()
            if rounding.is_known
        }

    @ranges.setter
    def ranges(self, ranges: Ranges) -> None:
        for name, found in ranges.items():
            rounding = self._roundings[name]
            batches = float(rounding.range[2]) or 1.0
            rounding.set_range(torch.tensor([found.low, found.high, batches]))

    def require_ranges(self, round_number: int) -> None:
        """Verifies that the ranges of the layers' inputs are known, and warns of layers of which they are not.

        Raises:
            ConfigurationError: of none they are.
        """
        never_called = [name for name, rounding in self._roundings.items() if not rounding.is_known]
        if len(never_called) == len(self._roundings):
            raise ConfigurationError(
                f"round {round_number} is one of quantised_rounds, but none of its layers was called in training mode, "
                f"so the ranges of their inputs are not known; train the model that was given to rounds(), by calling "
                f"it in training mode"
            )
        if never_called:
            warnings.warn(
                f"{len(never_called)} layers were not called in round {round_number}, and not trained for int8: "
                f"{_named(never_called)}",
                GossamerWarning,
                stacklevel=5,
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Name of each weight -> the smallest and largest input, and the number of batches that their mean is over."""
        return {name: rounding.range.cpu().clone() for name, rounding in self._roundings.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from such a state.

        Raises:
            KeyError, ValueError: it is one of other layers.
        """
        for name, rounding in self._roundings.items():
            if state[name].shape != rounding.range.shape:
                raise ValueError(f"the range of {name} has shape {tuple(state[name].shape)}")
            rounding.set_range(state[name])


def require_roundable(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Verifies that layers can round, and warns of weights of which they cannot.

    Raises:
        ConfigurationError: none can.
    """
    covered = {memory_of(weight) for _, weight in _layers(unwrap(model), weights).values()}
    others = [name for name, weight in weights.items() if memory_of(weight) not in covered]
    named = _named(others)
    known = "convolutions and linear layers, called as such"
    if len(others) == len(weights):
        raise ConfigurationError(
            f"quantised_rounds needs layers that can round their weights and inputs: {known}; the prunable weights are "
            f"of others ({named}). Leave it out."
        )
    if others:
        warnings.warn(
            f"{len(others)} of {len(weights)} prunable weights stay in float in quantised rounds: {named}. Only "
            f"{known} round theirs (not nn.MultiheadAttention's own projections, recurrent layers, embeddings).",
            GossamerWarning,
            stacklevel=3,
        )


def _layers(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Name of a weight -> its layer and itself, for all layers that round one of these weights; tied ones each."""
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


def _named(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def _is_transposed(layer: nn.Module) -> bool:
    """Whether the second axis of the layer's weight has the output channels; of transposed convolutions with groups,
    those of each group."""
    return has_outputs_second(layer, "weight") is not False
