"""Masks: one bool tensor a prunable weight, True where the weight is kept. In files: one bit a weight."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gossamer.errors import CheckpointError

Masks = Mapping[str, Tensor]


def full(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that keep everything: the dense network's."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def count_kept(masks: Masks) -> int:
    """How many weights the masks keep."""
    # Not mask.sum(), which makes eight bytes of every bool first.
    return sum(int(torch.count_nonzero(mask)) for mask in masks.values())


def count_prunable(masks: Masks) -> int:
    """How many weights the masks cover, kept and pruned."""
    return sum(mask.numel() for mask in masks.values())


def density(masks: Masks) -> float:
    """Kept weights / prunable weights."""
    return count_kept(masks) / count_prunable(masks)


def pack(mask: Tensor) -> Tensor:
    """One bit a weight in row-major order, the first weight in the lowest bit; uint8, shape (ceil(weights / 8),)."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1), bitorder="little"))


def unpack(packed: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """The inverse of `pack`.

    Raises:
        CheckpointError: the bytes cannot be a mask of that shape.
    """
    weights = int(np.prod(shape, dtype=np.int64))
    expected = (weights + 7) // 8
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (expected,):
        raise CheckpointError(
            f"mask of {name}: got {packed.dtype} of shape {tuple(packed.shape)}; expected uint8 of shape ({expected},) "
            f"for a weight of shape {shape}"
        )
    bits = np.unpackbits(packed.cpu().numpy(), bitorder="little")
    if bits[weights:].any():
        raise CheckpointError(f"mask of {name}: bits are set past the last weight; the file is damaged")
    return torch.from_numpy(bits[:weights].astype(np.bool_).reshape(shape))
