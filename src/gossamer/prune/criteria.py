"""What a weight is worth: scores whose magnitudes are compared. A new criterion is five lines and an entry below."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.arguments import require_kind
from gossamer.errors import ConfigurationError
from gossamer.model.sharded import indices_of, is_sharded, piece_of, with_piece

Tensors = Mapping[str, Tensor]

SLICE = 1 << 18
"""Random numbers drawn at a time."""


@dataclass(frozen=True)
class ScoreInputs:
    """What a score is computed from. All by weight name, each tensor of the weight's shape, on its device."""

    weights: Tensors
    masks: Tensors
    """True where the weight is still there; elsewhere a score counts for nothing."""
    gradients: Tensors
    """Gradient of the loss, its mean over the batches, for criteria that need it; else empty."""
    generator: torch.Generator
    """On the CPU; the only source of random numbers. The same for the same seed and round."""


@dataclass(frozen=True)
class Criterion:
    """A way to score weights. Of the surviving ones those with the largest |score| are kept."""

    score: Callable[[ScoreInputs], Tensors]
    """Returns a floating-point tensor of the weight's shape for every weight; it must not change the weights."""
    needs_gradients: bool = False
    of_shards: bool = False
    """Whether it scores weights that are sharded (DTensors), each process its piece, as it would score the whole."""


def magnitude(inputs: ScoreInputs) -> Tensors:
    """|w|, raw: not divided by anything of the layer (Renda et al. 2020). The weights themselves; nothing is copied."""
    return inputs.weights


def random(inputs: ScoreInputs) -> Tensors:
    """Uniform in (0, 1]: a control that knows nothing."""
    return {name: _uniform(name, weight, inputs.generator) for name, weight in inputs.weights.items()}


def _uniform(name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    if not is_sharded(weight):
        return (1 - torch.rand(weight.shape, generator=generator)).to(weight.device)
    # The numbers that one process would draw, row after row: each takes those of its piece.
    first, *others = indices_of(name, weight)
    piece = torch.empty(piece_of(weight).shape)
    rows = max(1, SLICE * weight.shape[0] // weight.numel())
    for row in range(0, weight.shape[0], rows):
        drawn = 1 - torch.rand((min(rows, weight.shape[0] - row), *weight.shape[1:]), generator=generator)
        inside = (first >= row) & (first < row + rows)
        if bool(inside.any()):
            own = drawn[first[inside] - row]
            for axis, indices in enumerate(others, start=1):
                own = own.index_select(axis, indices)
            piece[inside] = own
    return with_piece(weight, piece.to(piece_of(weight).device))


def taylor(inputs: ScoreInputs) -> Tensors:
    """w dL/dw, the first-order change of the loss when the weight is removed (Molchanov et al. 2017, section 2.2)."""
    return {name: weight.detach() * inputs.gradients[name] for name, weight in inputs.weights.items()}


def lamp(inputs: ScoreInputs) -> Tensors:
    """w^2 / sum of the squares of those surviving weights of the layer that are at least as large (Lee et al. 2021,
    equation 3). The largest weight of a layer scores 1, so no layer loses all before every other is down to one."""
    return {name: _lamp(weight.detach(), inputs.masks[name]) for name, weight in inputs.weights.items()}


def _lamp(weight: Tensor, mask: Tensor) -> Tensor:
    squares = (weight.double().square() * mask).reshape(-1)
    # Stable: of equal weights the earlier one scores higher, so that the later one is pruned first, as everywhere.
    ordered, order = squares.sort(descending=True, stable=True)
    scores = torch.zeros_like(squares)
    scores[order] = torch.where(ordered == 0, 0, ordered / ordered.cumsum(0))
    return scores.reshape(weight.shape)


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude, of_shards=True),
    "random": Criterion(random, of_shards=True),
    "taylor": Criterion(taylor, needs_gradients=True),
    "lamp": Criterion(lamp),
}


def find_criterion(name: str) -> Criterion:
    """The criterion of this name.

    Raises:
        ConfigurationError: there is none.
    """
    require_kind("criterion", name, str, f"one of {', '.join(CRITERIA)}")
    if name not in CRITERIA:
        raise ConfigurationError(f"there is no criterion {name!r}; expected one of {', '.join(CRITERIA)}")
    return CRITERIA[name]
