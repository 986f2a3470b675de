"""What a network is called with: example inputs, by position or by name."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gossamer.model.call import Call
from gossamer.shrink.errors import ShrinkError

Examples = Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Call
"""Example inputs: the only argument of the forward pass, all of them, or some by their names. The first dimension
counts examples."""


def as_call(examples: Examples) -> Call:
    """The call of a forward pass with the example inputs; all other arguments take their defaults.

    Raises:
        ShrinkError: they are no tensors.
    """
    if isinstance(examples, Call):
        call = examples
    elif isinstance(examples, Mapping):
        call = Call(named=dict(examples))
    else:
        call = Call((examples,) if isinstance(examples, Tensor) else tuple(examples))
    given = [*call.positional, *call.named.values()]
    if not given or not all(isinstance(value, Tensor) and value.dim() for value in given):
        raise ShrinkError(
            f"the example inputs are {[type(value).__name__ for value in given]}; expected a tensor, a sequence of "
            f"the forward pass's positional arguments, or a dictionary of those by name, whose first dimension counts "
            f"examples"
        )
    if any(tensor.numel() == 0 for tensor in call.tensors()):
        raise ShrinkError(
            f"the example inputs have the shapes {[tuple(tensor.shape) for tensor in call.tensors()]}; expected at "
            f"least one example, on which the two networks are compared"
        )
    return call


def twice(call: Call) -> Call:
    """The same call with every example given twice."""
    return call.with_tensors([torch.cat([tensor, tensor]) for tensor in call.tensors()])
