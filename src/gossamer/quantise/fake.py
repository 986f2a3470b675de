"""Fake quantisation of a network: it is trained in float, with weights and inputs rounded as int8 has them.

torchao 0.18 has it for linear and embedding layers only, and replaces these by layers with other keys in the
`state_dict`; torch.ao's, which knows convolutions, adds observers to the `state_dict` and is to be removed.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.model.wrappers import unwrap
from gossamer.prune.layers import has_outputs_second
from gossamer.quantise.layers import Int8Rounding
from gossamer.quantise.network import Quantisation, layers_that_round, named
from gossamer.quantise.ranges import Range, Ranges


class FakeQuantisation(Quantisation):
    """The layers of a network, with the ranges of their inputs, that round while it is attached.

    The range of a layer's inputs is the mean of those of the first hundred batches in training mode, and then moves by
    a hundredth towards that of each; in evaluation mode it stays. With several processes each has its own, as BatchNorm
    has its statistics.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
        self._roundings = {
            name: Int8Rounding(int(_is_transposed(layer)), weight.device)
            for name, (layer, weight) in layers_that_round(unwrap(model), weights).items()
        }
        super().__init__(model, self._roundings)

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

    def require_trained(self, round_number: int) -> None:
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
                f"{named(never_called)}",
                GossamerWarning,
                stacklevel=5,
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Name of each weight -> the smallest and largest input, and the number of batches that their mean is over."""
        return {name: rounding.range.cpu().clone() for name, rounding in self._roundings.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, rounding in self._roundings.items():
            if state[name].shape != rounding.range.shape:
                raise ValueError(f"the range of {name} has shape {tuple(state[name].shape)}")
            rounding.set_range(state[name])


def _is_transposed(layer: nn.Module) -> bool:
    """Whether the second axis of the layer's weight has the output channels; of transposed convolutions with groups,
    those of each group."""
    return has_outputs_second(layer, "weight") is not False
