"""Which positions of a network hold the same number for every input, and which number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from gossamer.shrink.operations import (
    Combination,
    Concatenation,
    Convolution,
    Depthwise,
    Elementwise,
    FullLayer,
    Input,
    Mean,
    Normalisation,
    Opaque,
    Operation,
    OperationGraph,
    Output,
    Padding,
    Pooling,
    Rearrangement,
    SizeOf,
    Value,
)
from gossamer.shrink.positions import along, on_distinct, on_distinct_pairs, padded, spread

UNKNOWN = float("nan")
"""The entry of a position that is not constant, or not known to be."""


@dataclass
class Affine:
    """Weight and bias of a layer: what they are, and what they become while constants are folded."""

    weight: Tensor
    """(outputs, inputs, taps); a linear layer has one tap."""
    bias: Tensor
    """(outputs,), float64; zeros where the layer has none."""
    always_inside: Tensor
    """Whether a tap reads the image at every position, never the zeros around it; bool, (taps,)."""

    def reads_padding(self) -> Tensor:
        """Whether an output sees zeros instead of an input at the border; bool, (outputs, inputs)."""
        return self.weight[:, :, ~self.always_inside].ne(0).any(-1)

    def sums(self) -> Tensor:
        """What an output becomes for inputs of one everywhere inside the image; float64, (outputs, inputs)."""
        return self.weight.sum(-1, dtype=torch.float64)

    def reads(self) -> Tensor:
        """Whether an output depends on an input; bool, (outputs, inputs)."""
        return self.weight.ne(0).any(-1)


def affine(layer: FullLayer | Depthwise) -> Affine:
    """A copy of a layer's weight and bias."""
    module = layer.module
    weight = module.weight.detach()
    weight = weight.reshape(*weight.shape[:2], -1)
    bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
    inside = torch.ones(1, dtype=torch.bool) if isinstance(module, nn.Linear) else _taps_always_inside(module)
    return Affine(weight.cpu().clone(), bias.double().cpu().clone(), inside)


def find_constants(network: OperationGraph, layers: Mapping[str, Affine]) -> dict[Value, Tensor]:
    """The constant at every position of every value, or `UNKNOWN`; float64, of the value's shape for one example.

    Args:
        layers: weight and bias of every `FullLayer`, by name, as they are by now.
    """
    constants: dict[Value, Tensor] = {}
    for operation in network.operations:
        found = _constants(operation, constants, layers, network)
        if found is not None and not isinstance(operation, SizeOf | Output) and operation.output is not None:
            constants[operation.output] = on_distinct(_finite, found)
    return constants


def _constants(
    operation: Operation, constants: dict[Value, Tensor], layers: Mapping[str, Affine], network: OperationGraph
) -> Tensor | None:
    """The constants at the positions of the operation's output."""
    match operation:
        case Input(output) | Opaque(_, _, str(output)):
            return torch.tensor(UNKNOWN, dtype=torch.float64).expand(network.shapes[output])
        case FullLayer(name, module, value, output):
            shape = network.shapes[output]
            dimension = len(shape) - 1 if isinstance(module, nn.Linear) else 0
            return spread(_of_layer(layers[name], _unit_constants(constants[value], dimension)), dimension, shape)
        case Depthwise(_, _, value, output):
            own = affine(operation)
            channels = _unit_constants(constants[value], 0)
            entries = torch.where(own.reads().squeeze(1), channels * own.sums().squeeze(1), 0.0) + own.bias
            at_border = own.reads_padding().squeeze(1) & (channels != 0)
            return spread(torch.where(at_border, UNKNOWN, entries), 0, network.shapes[output])
        case Normalisation(_, module, value, _):
            scale, shift = scale_and_shift(module)
            channels = constants[value]
            scales, shifts = (spread(entries, 0, tuple(channels.shape)) for entries in (scale, shift))
            scaled = on_distinct_pairs(lambda c, s: torch.where(s == 0, 0.0, c * s), channels, scales)
            return on_distinct_pairs(torch.add, scaled, shifts)
        case Elementwise(function, value, _):
            # Known entries only: some functions turn an unknown one into a number.
            return on_distinct(lambda c: torch.where(c.isnan(), UNKNOWN, function(c.nan_to_num())), constants[value])
        case Pooling(_, keeps_constants, value, output):
            channels = _unit_constants(constants[value], 0)
            kept = channels if keeps_constants else torch.where(channels == 0, channels, UNKNOWN)
            return spread(kept, 0, network.shapes[output])
        case Padding(amounts, dimensions, fill, value, _):
            return _padded(constants[value], amounts, dimensions, fill)
        case Mean(dimensions, keep, value, _):
            return constants[value].mean(dimensions, keepdim=keep)
        case Rearrangement(function, _, _, value, _):
            return function(constants[value].unsqueeze(0)).squeeze(0)
        case Combination(combine, is_product, (left, right), _):
            both = on_distinct_pairs(combine, constants[left], constants[right])
            if not is_product:
                return both
            zero = on_distinct_pairs(lambda x, y: (x == 0) | (y == 0), constants[left], constants[right])
            return on_distinct_pairs(lambda known, is_zero: torch.where(is_zero, 0.0, known), both, zero)
        case Concatenation(dimension, values, _):
            return torch.cat([constants[value] for value in values], dimension)
    return None


def constants_read(layer: FullLayer, constants: Mapping[Value, Tensor]) -> Tensor:
    """The constant that each input unit of a layer holds, or `UNKNOWN`; shape (inputs,)."""
    positions = constants[layer.input]
    return _unit_constants(positions, positions.dim() - 1 if isinstance(layer.module, nn.Linear) else 0)


def scale_and_shift(module: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """BatchNorm in evaluation mode is x * scale + shift; float64, shape (channels,) each."""
    assert module.running_mean is not None
    assert module.running_var is not None
    mean, variance = module.running_mean.double().cpu(), module.running_var.double().cpu()
    weight = torch.ones_like(mean) if module.weight is None else module.weight.detach().double().cpu()
    bias = torch.zeros_like(mean) if module.bias is None else module.bias.detach().double().cpu()
    scale = weight / (variance + module.eps).sqrt()
    return scale, bias - mean * scale


def _of_layer(layer: Affine, inputs: Tensor) -> Tensor:
    """The constants of a layer's outputs, shape (outputs,), from those of its inputs, shape (inputs,)."""
    unknown = layer.reads() & inputs.isnan() | layer.reads_padding() & (inputs != 0)
    return torch.where(unknown.any(1), UNKNOWN, layer.sums() @ inputs.nan_to_num() + layer.bias)


def _padded(
    constants: Tensor, amounts: Sequence[tuple[int, int]], dimensions: Sequence[int], fill: float | None
) -> Tensor:
    """The constants with those around them. Of what is padded by a number, only that number is taken for a constant:
    for inputs of another size there may be more padding. Channels that are added (dimension 0) have their own."""
    if fill is None:
        return padded(constants, amounts, UNKNOWN)
    if dimensions != (0,) or amounts[0] == (0, 0):
        constants = on_distinct(lambda entries: torch.where(entries == fill, entries, UNKNOWN), constants)
    return padded(constants, amounts, fill)


def _finite(entries: Tensor) -> Tensor:
    return torch.where(entries.isfinite(), entries, UNKNOWN)


def _unit_constants(positions: Tensor, dimension: int) -> Tensor:
    """One constant a unit: known if it is the same at all the unit's positions."""
    others = [other for other in range(positions.dim()) if other != dimension]
    first = along(positions, dimension)
    # A comparison with an unknown entry is false.
    same = on_distinct_pairs(torch.eq, positions, spread(first, dimension, tuple(positions.shape)))
    return torch.where(same.all(others) if others else same, first, UNKNOWN)


def _taps_always_inside(module: Convolution) -> Tensor:
    """Whether each tap of the kernel reads inside the image at every position; bool, (taps,) in row-major order.

    With `before` and `after` zeros around the image and a kernel that reaches over `reach` = dilation * (taps - 1)
    pixels, the tap at `offset` = dilation * index first reads pixel offset - before, and last at most the pixel that is
    reach - after - offset before the end, for any size of image and any stride.
    """
    inside = [
        [before <= dilation * tap <= dilation * (taps - 1) - after for tap in range(taps)]
        for taps, dilation, (before, after) in zip(module.kernel_size, module.dilation, _padding(module), strict=True)
    ]
    return torch.tensor([all(tap) for tap in product(*inside)])


def _padding(module: Convolution) -> list[tuple[int, int]]:
    """Zeros before and after the image, in every dimension. Other paddings repeat pixels: a constant stays one."""
    if module.padding_mode != "zeros" or module.padding == "valid":
        return [(0, 0)] * len(module.kernel_size)
    if module.padding == "same":
        reaches = [dilation * (taps - 1) for taps, dilation in zip(module.kernel_size, module.dilation, strict=True)]
        return [(reach // 2, reach - reach // 2) for reach in reaches]
    return [(int(padding), int(padding)) for padding in module.padding]
