"""Weights in a few integer levels of one step: trained so, and kept so.

    w = level * step, level = -K, ..., -1, 0, 1, ..., K;  step = max |w| / K

Gradients pass straight through the rounding (Bengio, Leonard, Courville 2013). A step that follows the largest weight
makes more weights zero than the one of least squared error, or a learned one (Esser et al. 2020), which take more bytes
at the same accuracy (docs/results.md, "Trained in levels").
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gossamer.model.ties import memory_of
from gossamer.model.wrappers import unwrap
from gossamer.quantise.layers import Rounding, is_computed_again
from gossamer.quantise.network import Quantisation, layers_that_round
from gossamer.quantise.ranges import Range, Ranges
from gossamer.quantise.scheme import rounded

STEP_DIGITS = 8
"""Binary digits of a step, so that its multiples are exact, and a coded weight has it in two bytes."""


class LevelRounding(Rounding):
    """Weights as levels of a step, which follows the largest of them at every batch in training mode."""

    def __init__(self, weight: Tensor, count: int) -> None:
        super().__init__()
        self.count = count
        self.step = step_of(weight, count)
        """A tensor without axes, float32."""

    def weight(self, weight: Tensor, observes: bool) -> Tensor:
        if self.step.device != weight.device:
            self.step = self.step.to(weight.device)
        if observes and not is_computed_again():
            self.step = step_of(weight, self.count)
        return rounded(weight, self.step, -self.count, self.count)


class LevelQuantisation(Quantisation):
    """The layers of a network whose weights are levels while it is attached. Tied weights have one step; those that an
    embedding reads too stay in float."""

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter], count: int) -> None:
        found = _not_shared(unwrap(model), layers_that_round(unwrap(model), weights))
        by_memory = {memory_of(weight): LevelRounding(weight.detach(), count) for _, weight in found.values()}
        self._roundings = {name: by_memory[memory_of(weight)] for name, (_, weight) in found.items()}
        self.levels = count
        super().__init__(model, self._roundings)

    @property
    def ranges(self) -> Ranges:
        """From the lowest to the highest level of each weight."""
        found = {}
        for name, rounding in self._roundings.items():
            highest = float(rounding.step) * rounding.count
            found[name] = Range(-highest, highest)
        return found

    @ranges.setter
    def ranges(self, ranges: Ranges) -> None:
        for name, found in ranges.items():
            rounding = self._roundings[name]
            # A step is short enough for its multiples to be numbers, so that this is exact.
            rounding.step = torch.tensor(found.high / rounding.count, dtype=torch.float32, device=rounding.step.device)

    def require_trained(self, round_number: int) -> None:
        """Steps follow from the weights, whatever was trained."""

    @torch.no_grad()
    def settled(
        self, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights become multiples of their step, and what rounds to zero leaves its mask."""
        tensors, masks = dict(tensors), dict(masks)
        for name, rounding in self._roundings.items():
            if name in masks:
                weight = tensors[name]
                step = rounding.step.to(weight.device)
                tensors[name] = rounded(weight, step, -rounding.count, rounding.count)
                masks[name] = masks[name] & (tensors[name] != 0).to(masks[name].device)
        return tensors, masks

    def state_dict(self) -> dict[str, Tensor]:
        """Name of each weight -> its step."""
        return {name: rounding.step.cpu().clone() for name, rounding in self._roundings.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, rounding in self._roundings.items():
            if state[name].shape != rounding.step.shape:
                raise ValueError(f"the step of {name} has shape {tuple(state[name].shape)}")
            rounding.step = state[name].to(rounding.step.device, torch.float32, copy=True)


def _not_shared(
    model: nn.Module, layers: Mapping[str, tuple[nn.Module, nn.Parameter]]
) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Those whose weight no other kind of module reads too, such as an embedding, which would go on in float."""
    rounding = {id(layer) for layer, _ in layers.values()}
    others = {
        memory_of(parameter)
        for module in model.modules()
        if id(module) not in rounding
        for parameter in module._parameters.values()
        if parameter is not None
    }
    return {name: (layer, weight) for name, (layer, weight) in layers.items() if memory_of(weight) not in others}


@torch.no_grad()
def step_of(weight: Tensor, count: int) -> Tensor:
    """The step at which the largest weight is the outermost of so many levels; 1 of a weight that is all zero.

    It has so few digits that its multiples are exactly numbers of the weight's type.
    """
    largest = weight.detach().abs().amax().float()
    mantissa, exponent = torch.frexp(torch.where(largest == 0, float(count), largest) / count)
    digits = min(STEP_DIGITS, _digits(weight.dtype) - count.bit_length())
    return torch.ldexp((mantissa * 2**digits).round(), exponent - digits)


def _digits(kind: torch.dtype) -> int:
    """Binary digits of the numbers of a type: 24 of float32, 11 of float16, 8 of bfloat16."""
    return min(24, 1 - round(math.log2(torch.finfo(kind).eps)))
