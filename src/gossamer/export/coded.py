"""Layers whose numbers are levels of few steps, and the bytes that they are coded in."""

import math
from dataclasses import dataclass

import numpy as np
from gossamer_runtime import coding
from numpy.typing import NDArray

from gossamer.graph.layers import Layer

STEP_DIGITS = 2**8
"""A step has 8 digits: it takes two bytes then, and its multiples are exact."""


@dataclass(frozen=True)
class Steps:
    """What the numbers of a layer are multiples of."""

    weight: float
    bias: float | None = None
    """None: there is no bias, or it is stored apart."""


def short_step(step: float) -> float:
    """The next larger step of few digits; 1 if there is none."""
    if not 0 < step < math.inf:
        return 1.0
    mantissa, exponent = math.frexp(step)
    # Below it are no normal numbers of fp32.
    return max(math.ldexp(math.ceil(mantissa * STEP_DIGITS) / STEP_DIGITS, exponent), 2.0**-126)


def coded(layer: Layer, steps: Steps) -> bytes:
    """The bytes of a layer's weight, and of its bias if that has a step."""
    weight = layer.weight
    columns = math.isqrt(weight.shape[1]) if weight.ndim == 2 else 0
    # Rows of a first layer are often images, and squares.
    grid = columns if columns**2 == weight.shape[-1] else 0
    bias = None
    if steps.bias is not None and layer.bias is not None and layer.bias.any():
        bias = coding.Bias(levels_of(layer.bias, steps.bias), steps.bias)
    return coding.encode(levels_of(weight, steps.weight), steps.weight, grid=grid, bias=bias)


def levels_of(numbers: NDArray[np.float32], step: float) -> NDArray[np.int32]:
    """Numbers that are multiples of the step, or near one, as whole numbers."""
    return np.asarray(np.rint(numbers / np.float32(step)), np.int32)
