"""A layer that computes with rounded weights, or inputs too, while its parameters, and their names, stay what they are.

Its class is replaced, for as long as the rounding goes on, by one derived from it, which `torch.compile` notices (hooks
that are added later it does not). `forward` is the class's own, whatever it does with `self.weight`.
"""

import copy
import copyreg
import weakref
from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.quantise.scheme import rounded_input, rounded_weight

ENTRY = "fake_quantisation"
"""Where a layer has its `Rounding`, and whether it moves what is rounded to: an entry of its `__dict__`, no parameter,
buffer or module."""
INPUTS = ("input", "x")
"""What layers call their input, of torch and of transformers."""
BATCHES = 100
"""The range is the mean of so many batches' at first, and later moves by a hundredth towards each one's."""


class Rounding(ABC):
    """How a layer rounds while it is attached. Copies of the layer share it."""

    def __init__(self) -> None:
        self.layers: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        """Those that round so now."""

    @abstractmethod
    def weight(self, weight: Tensor, observes: bool) -> Tensor:
        """The weight that the layer computes with.

        Args:
            observes: whether what is seen moves what is rounded to.
        """

    def input(self, values: Tensor, observes: bool) -> Tensor:
        """Likewise its inputs."""
        return values

    def attach(self, layer: nn.Module, observes: bool) -> None:
        """Lets a layer round.

        Args:
            observes: whether its batches, in training mode, move what is rounded to.
        """
        kind: Any = type(layer)
        layer.__dict__[ENTRY] = self, observes
        layer.__class__ = _rounding(kind)
        self.layers.add(layer)

    def detach(self) -> dict[nn.Module, bool]:
        """Makes the layers what they were; returns them, with whether each moved what is rounded to."""
        layers = {layer: layer.__dict__.pop(ENTRY)[1] for layer in list(self.layers)}
        for layer in layers:
            layer.__class__ = type(layer).__mro__[1]
        self.layers.clear()
        return layers


class Int8Rounding(Rounding):
    """Weights and inputs as int8 has them: the channels of a weight, and the range of its layer's inputs."""

    def __init__(self, axis: int, device: torch.device) -> None:
        super().__init__()
        self.axis = axis
        """Of the weight: along it are the output channels."""
        self.range = torch.zeros(3, device=device)
        """float32: the mean of the batches' smallest entries, that of their largest, and of how many batches, at most
        `BATCHES`."""
        self.is_known = False
        """Whether there was a batch. Without one inputs are not rounded."""

    def set_range(self, range: Tensor) -> None:
        self.range = range.to(self.range.device, torch.float32, copy=True)
        self.is_known = bool(range[2] > 0)

    def weight(self, weight: Tensor, observes: bool) -> Tensor:
        return rounded_weight(weight, self.axis)

    def input(self, values: Tensor, observes: bool) -> Tensor:
        """The values, rounded; as they are, as long as no batch was seen."""
        if observes:
            self.observe(values)
        if not self.is_known:
            return values
        low, high, _ = self._range_on(values.device)
        return rounded_input(values, low, high)

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """Moves the range towards that of a batch."""
        if values.numel() == 0 or is_computed_again():
            return
        low, high = torch.aminmax(values.detach())
        mean, batches = self._range_on(values.device)[:2], (self.range[2:] + 1).clamp(max=BATCHES)
        self.range = torch.cat((mean + (torch.stack((low, high)).float() - mean) / batches, batches))
        self.is_known = True

    def _range_on(self, device: torch.device) -> Tensor:
        """The range, which goes where the network went."""
        if self.range.device != device:
            self.range = self.range.to(device)
        return self.range


def is_computed_again() -> bool:
    """Whether this is a forward pass inside a backward pass, as gradient checkpointing makes it: its batch was seen."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@cache
def _rounding(kind: Any) -> type[nn.Module]:
    """The class of layers of a kind that round."""

    def forward(self: Any, *inputs: Any, **named: Any) -> Any:
        rounding: Rounding
        rounding, observes = self.__dict__[ENTRY]
        observes = observes and self.training
        if inputs:
            inputs = (rounding.input(inputs[0], observes), *inputs[1:])
        else:
            named = {
                name: rounding.input(value, observes) if name in INPUTS else value for name, value in named.items()
            }
        # Found before the parameter of that name, which is an entry of `_parameters`.
        self.__dict__["weight"] = rounding.weight(self.weight, observes)
        try:
            return kind.forward(self, *inputs, **named)
        finally:
            del self.__dict__["weight"]

    def own(self: nn.Module) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != ENTRY}

    def deepcopied(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        """A copy (an average, one that is tried out) rounds as the layer does, and moves nothing."""
        copied: nn.Module = kind.__new__(kind)
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(own(self), memo))
        self.__dict__[ENTRY][0].attach(copied, observes=False)
        return copied

    def reduced(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        """What is pickled is the plain layer."""
        return copyreg._reconstructor, (kind, object, None), own(self)  # type: ignore[attr-defined]

    members: dict[str, Any] = {
        "forward": forward,
        "__deepcopy__": deepcopied,
        "__reduce_ex__": reduced,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    return type(kind.__name__, (kind,), members)
