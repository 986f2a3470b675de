"""The optimizers among what lives on across rounds."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gossamer.rewind.parts import local


def optimizers(objects: Mapping[str, Any]) -> dict[str, Optimizer]:
    """The torch optimizers among them."""
    return {name: thing for name, thing in objects.items() if isinstance(thing, Optimizer)}


def restore_memory_formats(objects: Mapping[str, Any]) -> None:
    """Lays the slots of the optimizers out as their parameters (channels_last): files keep row-major tensors only."""
    for optimizer in map(local, optimizers(objects).values()):
        for parameter, slots in optimizer.state.items():
            # Some optimizers keep numbers of their own among the parameters' slots (MADGRAD's step, under the key "k").
            for name, slot in slots.items() if isinstance(slots, dict) else ():
                if isinstance(slot, Tensor) and slot.shape == parameter.shape and slot.stride() != parameter.stride():
                    slots[name] = torch.empty_like(parameter, dtype=slot.dtype, requires_grad=False).copy_(slot)
