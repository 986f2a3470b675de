"""The scheme of numbers: weights int8 per output channel and symmetric, inputs of layers uint8 per tensor.

Zero is a level of both, so pruned weights, padding and what ReLU cuts off stay exactly zero. A weight's scale is
proportional to its channel, so that BatchNorm, which multiplies channels, may be folded into it before or after
rounding. Rounding passes gradients straight through (Bengio, Leonard, Courville 2013), except to inputs beyond the
range.
"""

from typing import Any

import torch
from torch import Tensor

WEIGHT_LEVELS = 127
"""Weights are -127 to 127 times their channel's scale: -128 would have no counterpart."""
INPUT_LEVELS = 255
"""Inputs are 0 to 255, less the zero point, times their scale."""
SMALLEST = torch.finfo(torch.float32).tiny
"""Below it a scale has no reciprocal in float32."""


def weight_scales(weight: Tensor, axis: int) -> Tensor:
    """The scale of each output channel: its largest magnitude / 127, or 1 where all of it is zero.

    Args:
        weight: its entries along `axis` are the output channels.

    Returns:
        float32, shape (channels,).
    """
    others = [other for other in range(weight.dim()) if other != axis]
    return _scales(weight.detach().abs().amax(others).float() / WEIGHT_LEVELS)


def input_scale(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point (a whole number), float32, of the range from `low` to `high`, widened to include zero."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = _scales((high - low) / INPUT_LEVELS)
    return scale, (-low / scale).round().clamp(0, INPUT_LEVELS)


def rounded_weight(weight: Tensor, axis: int) -> Tensor:
    """The weight as the multiples of the channels' scales that int8 holds."""
    shape = [-1 if other == axis else 1 for other in range(weight.dim())]
    return rounded(weight, weight_scales(weight, axis).view(shape), -WEIGHT_LEVELS, WEIGHT_LEVELS)


def rounded_input(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The values as the multiples of the scale that uint8 holds; what is beyond the range becomes its end."""
    scale, zero_point = input_scale(low, high)
    return rounded(values, scale, -zero_point, INPUT_LEVELS - zero_point)


def rounded(values: Tensor, scale: Tensor, lowest: Any, highest: Any) -> Tensor:
    """The values as multiples of a scale, from `lowest` to `highest` times it."""
    result: Tensor = _Rounded.apply(values, scale, lowest, highest)  # type: ignore[no-untyped-call]
    return result


class _Rounded(torch.autograd.Function):
    """Multiples of a scale. torch.fake_quantize_per_tensor_affine takes nearly twice as long on the CPU, multiplies by
    the reciprocal where ONNX divides, makes numbers of NaN, and interrupts the graphs of torch.compile."""

    @staticmethod
    def forward(context: Any, values: Tensor, scale: Tensor, lowest: Any, highest: Any) -> Tensor:
        # In bfloat16 the levels themselves would be rounded.
        levels = (values.to(torch.promote_types(values.dtype, torch.float32)) / scale).round()
        context.save_for_backward((levels >= lowest) & (levels <= highest))
        return (levels.clamp(lowest, highest) * scale).to(values.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = context.saved_tensors
        return gradient * inside, None, None, None


def _scales(scales: Tensor) -> Tensor:
    """What is not finite stays so: a network that diverged has to look like one."""
    return torch.where(scales < SMALLEST, 1.0, scales)
