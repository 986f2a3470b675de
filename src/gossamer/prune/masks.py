"""Masks: one bool tensor a prunable weight, True where the weight is kept. In files: one bit a weight."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gossamer.errors import CheckpointError
from gossamer.model.sharded import on_pieces, piece_of
from gossamer.prune.shards import Shards

Masks = Mapping[str, Tensor]


def full(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that keep everything: the dense network's."""
    return {
        name: on_pieces(lambda piece: torch.ones_like(piece, dtype=torch.bool), weight)
        for name, weight in weights.items()
    }


def count_kept(masks: Masks) -> int:
    """How many weights the masks keep. Of sharded ones, all processes ask together."""
    shards = Shards.of(masks)
    return shards.total(sum(_count_own(shards, masks)))


def count_kept_of_each(masks: Masks) -> dict[str, int]:
    """How many weights each of the masks keeps, by name."""
    shards = Shards.of(masks)
    return dict(zip(masks, shards.add(np.array(_count_own(shards, masks), np.int64)).tolist(), strict=True))


def _count_own(shards: Shards, masks: Masks) -> list[int]:
    # Not mask.sum(), which makes eight bytes of every bool first.
    return [int(torch.count_nonzero(piece_of(mask))) if name in shards.own else 0 for name, mask in masks.items()]


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
