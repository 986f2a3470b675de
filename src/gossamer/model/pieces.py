"""Sharded tensors as files hold them: each process writes the blocks of its pieces, and reads those of the pieces that
it has now, however they were sharded then."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gossamer.errors import CheckpointError
from gossamer.model.sharded import boxes, indices_of, is_first_replica, is_sharded, piece_of, sharded_like, with_piece
from gossamer.storage.blocks import Block, Stored
from gossamer.storage.state import Elsewhere

Find = Callable[[tuple[Any, ...]], Tensor | None]
"""The keys that lead to a tensor in a state -> a tensor of today that is sharded as it is to be; None where there is
none."""


def blocks_of(name: str, tensor: Tensor) -> Iterator[tuple[Block, Tensor]]:
    """The blocks of this process's piece, if no other process has the same."""
    if is_first_replica(tensor):
        piece = piece_of(tensor)
        for whole, here in boxes(indices_of(name, tensor)):
            part = piece[tuple(slice(first, end) for first, end in here)]
            yield Block(name, whole, tuple(tensor.shape)), part


def read_like(
    stored: Stored, name: str, like: Tensor, unpacked: Callable[[Tensor, Block], Tensor] | None = None
) -> Tensor:
    """A stored tensor, sharded as `like` is, on its device; of one that is not sharded the whole, on the CPU.

    Raises:
        CheckpointError: it has another shape, or is damaged.
    """
    if tuple(like.shape) != stored.shape(name):
        raise CheckpointError(f"{name} has shape {stored.shape(name)}, the model's {tuple(like.shape)}")
    if not is_sharded(like):
        return stored.read(name, tuple((0, size) for size in like.shape), unpacked)
    own = piece_of(like)
    parts = [(here, stored.read(name, whole, unpacked)) for whole, here in boxes(indices_of(name, like))]
    dtype = parts[0][1].dtype if parts else torch.bool if unpacked is not None else own.dtype
    piece = torch.empty(own.shape, dtype=dtype)
    for here, part in parts:
        piece[tuple(slice(first, end) for first, end in here)] = part
    return with_piece(like, piece.to(own.device))


def divide(state: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    """A nested state with a note in the place of each sharded tensor, and these by the names in the notes."""
    found: dict[str, Tensor] = {}

    def divided(value: Any, where: str) -> Any:
        if isinstance(value, Tensor) and is_sharded(value):
            found[where] = value
            return Elsewhere(where)
        if isinstance(value, dict):
            return {key: divided(entry, f"{where}[{key!r}]") for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)([divided(entry, f"{where}[{index}]") for index, entry in enumerate(value)])
        return value

    return divided(state, name), found


def join(state: Any, stored: Stored, find: Find) -> Any:
    """The opposite: with what is stored in the places of the notes, sharded as what `find` finds.

    Raises:
        CheckpointError: nothing is found, or it does not fit.
    """

    def joined(value: Any, keys: tuple[Any, ...]) -> Any:
        if isinstance(value, Elsewhere):
            like = find(keys)
            if like is None or value.name not in stored:
                raise CheckpointError(f"{value.name} was sharded, and how it is to be sharded now is not known")
            return read_like(stored, value.name, like)
        if isinstance(value, dict):
            return {key: joined(entry, (*keys, key)) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)([joined(entry, (*keys, index)) for index, entry in enumerate(value)])
        like = find(keys) if isinstance(value, Tensor) else None
        # What was whole may be sharded now.
        return value if like is None or like.shape != value.shape else sharded_like(str(keys), value, like)

    return joined(state, ())


def entry_of(state: Any, keys: tuple[Any, ...]) -> Tensor | None:
    """The tensor to which keys lead in a state, if they lead to one."""
    for key in keys:
        if (isinstance(state, Mapping) and key in state) or (
            isinstance(state, (list, tuple)) and isinstance(key, int) and key < len(state)
        ):
            state = state[key]
        else:
            return None
    return state if isinstance(state, Tensor) else None
