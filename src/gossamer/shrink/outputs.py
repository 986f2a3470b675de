"""What two networks return, compared tensor by tensor, wherever in tuples, dictionaries and objects they are."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gossamer.model.nested import tensors_in
from gossamer.shrink.errors import ShrinkError

TOLERANCE = 1e-4
"""Largest difference of an output, relative to the largest output (or to 1), that rounding is held responsible for.
Beyond it no model is returned. (Differences measured in the tests are below 1e-5.)"""


@dataclass(frozen=True)
class Distance:
    """How far one of two networks' outputs are apart."""

    largest: float
    """The largest absolute difference of a number; NaN if one of the two is none."""
    largest_output: float
    """The largest absolute number that is expected, of those that are finite."""
    dtype: torch.dtype

    @property
    def allowed(self) -> float:
        """How large it may be."""
        return tolerance(self.largest_output, self.dtype)


def tensors_of(outputs: Any, name: str) -> list[Tensor]:
    """The tensors that a network returned.

    Raises:
        ShrinkError: there are none.
    """
    found = [tensor for tensor in tensors_in(outputs) if tensor.numel()]
    if not found:
        raise ShrinkError(
            f"{name} returns a {type(outputs).__name__} without tensors; expected a tensor, or several in tuples, "
            f"lists, dictionaries or dataclasses"
        )
    return found


def compare(expected: Sequence[Tensor], got: Sequence[Tensor]) -> list[Distance]:
    """Compares what two networks returned, tensor by tensor.

    Raises:
        ShrinkError: they are not tensors of the same shapes.
    """
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (expected, got)]
    if shapes[0] != shapes[1]:
        raise ShrinkError(f"the outputs have the shapes {shapes[1]}; expected {shapes[0]}, as before")
    return [_difference(*pair) for pair in zip(expected, got, strict=True)]


def over_batches(compared: Iterable[Sequence[Distance]]) -> list[Distance]:
    """The differences of each output over several batches."""
    return [
        Distance(_largest(one.largest for one in ones), max(one.largest_output for one in ones), ones[0].dtype)
        for ones in zip(*compared, strict=True)
    ]


def worst(differences: Iterable[Distance]) -> Distance:
    """The one that is largest beside what is allowed; the first that is not a number, if there is one."""
    return max(differences, key=lambda one: math.inf if math.isnan(one.largest) else one.largest / one.allowed)


def same(expected: Sequence[Tensor], got: Sequence[Tensor]) -> bool:
    """Whether two networks returned the same tensors within rounding of their numbers."""
    return len(expected) == len(got) and all(
        one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-5)
        for one, other in zip(expected, got, strict=True)
    )


def tolerance(largest_output: float, dtype: torch.dtype) -> float:
    """How much of a difference rounding may make to such outputs: see `TOLERANCE`; more for types of few digits."""
    digits = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return max(TOLERANCE, 10 * digits) * max(1.0, largest_output)


def _difference(expected: Tensor, got: Tensor) -> Distance:
    one, other = expected.double(), got.double()
    # Infinite scores, of what is masked, are the same in both.
    largest = torch.where(one == other, 0.0, (one - other).abs()).max()
    finite = one[one.isfinite()].abs()
    return Distance(float(largest), float(finite.max()) if len(finite) else 0.0, expected.dtype)


def _largest(numbers: Iterable[float]) -> float:
    """The largest of them; NaN if one is, which Python's own maximum overlooks."""
    return float(torch.tensor(list(numbers), dtype=torch.float64).max())
