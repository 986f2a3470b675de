"""A layer that computes with rounded weights and inputs, while its parameters, and their names, stay what they are.

Its class is replaced, for as long as the rounding goes on, by one derived from it, which `torch.compile` notices (hooks
that are added later it does not). `forward` is the class's own, whatever it does with `self.weight`.
"""

import copy
import copyreg
import weakref
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.quantise.scheme import rounded_input, rounded_weight

ENTRY = "fake_quantisation"
"""Where a layer has its `Rounding`, and whether it moves the range: an entry of its `__dict__`, no parameter, buffer or
module."""
INPUTS = ("input", "x")
"""What layers call their input, of torch and of transformers."""
BATCHES = 100
"""The range is the mean of so many batches' at first, and later moves by a hundredth towards each one's."""


class Rounding:
    """How a layer rounds: the channels of its weight, and the range of its inputs. Copies of the layer share it."""

    def __init__(self, axis: int, device: torch.device) -> None:
        self.axis = axis
        """Of the weight: along it are the output channels."""
        self.range = torch.zeros(3, device=device)
        """float32: the mean of the batches' smallest entries, that of their largest, and of how many batches, at most
        `BATCHES`."""
        self.is_known = False
        """Whether there was a batch. Without one inputs are not rounded."""
        self.layers: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        """Those that round so now."""

    def set_range(self, range: Tensor) -> None:
        self.range = range.to(self.range.device, torch.float32, copy=True)
        self.is_known = bool(range[2] > 0)

    def attach(self, layer: nn.Module, observes: bool) -> None:
        """Lets a layer round.

        Args:
            observes: whether its batches, in training mode, move the range.
        """
        kind: Any = type(layer)
        layer.__dict__[ENTRY] = self, observes
        layer.__class__ = _rounding(kind)
        self.layers.add(layer)

    def detach(self) -> dict[nn.Module, bool]:
        """Makes the layers what they were; returns them, with whether each moved the range."""
        layers = {layer: layer.__dict__.pop(ENTRY)[1] for layer in list(self.layers)}
        for layer in layers:
            layer.__class__ = type(layer).__mro__[1]
        self.layers.clear()
        return layers

    def input(self, values: Tensor) -> Tensor:
        """The values, rounded; as they are, as long as no batch was seen."""
        if not self.is_known:
            return values
        low, high, _ = self._range_on(values.device)
        return rounded_input(values, low, high)

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """Moves the range towards that of a batch."""
        if values.numel() == 0 or _is_computed_again():
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


def _is_computed_again() -> bool:
    """Whether this is a forward pass inside a backward pass, as gradient checkpointing makes it: its batch was seen."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@cache
def _rounding(kind: Any) -> type[nn.Module]:
    """The class of layers of a kind that round."""

    def forward(self: Any, *inputs: Any, **named: Any) -> Any:
        rounding: Rounding
        rounding, observes = self.__dict__[ENTRY]

        def rounded(values: Tensor) -> Tensor:
            if observes and self.training:
                rounding.observe(values)
            return rounding.input(values)

        if inputs:
            inputs = (rounded(inputs[0]), *inputs[1:])
        else:
            named = {name: rounded(value) if name in INPUTS else value for name, value in named.items()}
        # Found before the parameter of that name, which is an entry of `_parameters`.
        self.__dict__["weight"] = rounded_weight(self.weight, rounding.axis)
        try:
            return kind.forward(self, *inputs, **named)
        finally:
            del self.__dict__["weight"]

    def own(self: nn.Module) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != ENTRY}

    def deepcopied(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        """A copy (an average, one that is tried out) rounds as the layer does, and leaves the range alone."""
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
