"""Tensors that several processes write, each the blocks that it holds, and of which any process reads what it needs.

A file holds blocks of any number of tensors. Its metadata says of each block which tensor it is of, where it lies in
it, and how large the whole is.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gossamer.errors import CheckpointError
from gossamer.storage.tensors import opened

Box = tuple[tuple[int, int], ...]
"""A block without gaps of a tensor: for each axis the first index, and the one after the last."""

BLOCKS = "gossamer.blocks"


@dataclass(frozen=True)
class Block:
    """What a file holds of a tensor."""

    name: str
    """The tensor's."""
    box: Box
    whole: tuple[int, ...]
    """The shape of the tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(end - first for first, end in self.box)

    @property
    def size(self) -> int:
        return prod(self.shape)


def save(path: Path, blocks: Iterable[tuple[Block, Tensor]]) -> None:
    """Writes blocks to a file. Their tensors are of any shape: a mask is packed."""
    tensors, where = {}, {}
    for block, tensor in blocks:
        key = f"{block.name}@{','.join(str(first) for first, _ in block.box)}"
        tensors[key] = tensor.detach().cpu().contiguous().clone()
        where[key] = [block.name, block.box, block.whole]
    save_file(tensors, path, metadata={BLOCKS: json.dumps(where)})


class Stored:
    """The tensors of some files, which are opened when something of them is read."""

    def __init__(self, verified: Callable[[Path], Path]) -> None:
        """
        Args:
            verified: returns the path of a file, after its content was verified.
        """
        self._verified = verified
        self._intact: set[Path] = set()
        self._blocks: dict[str, list[tuple[Block, Path, str]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._blocks

    def names(self, prefix: str = "") -> list[str]:
        """The names of the tensors that begin with `prefix`."""
        return [name for name in self._blocks if name.startswith(prefix)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self._blocks[name][0][0].whole

    def add(self, path: Path) -> None:
        """Adds the blocks of a file that `save` wrote.

        Raises:
            CheckpointError: it is none, or damaged.
        """
        try:
            with opened(path) as file:
                where: Mapping[str, Any] = json.loads((file.metadata() or {})[BLOCKS])
            for key, (name, box, whole) in where.items():
                block = Block(str(name), tuple((int(first), int(end)) for first, end in box), tuple(map(int, whole)))
                self._blocks.setdefault(block.name, []).append((block, path, key))
        except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged or holds no blocks ({error}); restore it from a copy") from error

    def add_whole(self, path: Path, prefix: str) -> None:
        """Adds the tensors of an ordinary file, each of which is whole, under their names after `prefix`.

        Raises:
            CheckpointError: it is damaged.
        """
        try:
            with opened(path) as file:
                for name in file.keys():  # noqa: SIM118
                    whole = tuple(file.get_slice(name).get_shape())
                    block = Block(f"{prefix}{name}", tuple((0, size) for size in whole), whole)
                    self._blocks.setdefault(block.name, []).append((block, path, name))
        except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); restore it from a copy") from error

    def read(self, name: str, box: Box, unpacked: Callable[[Tensor, Block], Tensor] | None = None) -> Tensor:
        """A part of a tensor, put together from the blocks that it lies in.

        Args:
            unpacked: makes a block of what is stored of it, where that is another form of it; None: it is the block,
                of which only what is needed is read.

        Raises:
            CheckpointError: a file is damaged, or not all of it is there.
        """
        found: Tensor | None = None
        count, shape = 0, tuple(end - first for first, end in box)
        for block, path, key in self._blocks.get(name, ()):
            common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, block.box, strict=True)]
            if any(first >= end for first, end in common):
                continue
            inside = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, block.box, strict=True))
            part = self._part(path, key, inside, block, unpacked)
            if found is None:
                found = torch.empty(shape, dtype=part.dtype)
            found[tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, box, strict=True))] = part
            count += part.numel()
        if found is None or count != prod(shape):
            raise CheckpointError(
                f"{count} of {prod(shape)} numbers of {name} are stored in the files of this round; expected all of "
                f"them, once. Restore the files of all processes."
            )
        return found

    def _part(
        self,
        path: Path,
        key: str,
        inside: tuple[slice, ...],
        block: Block,
        unpacked: Callable[[Tensor, Block], Tensor] | None,
    ) -> Tensor:
        if path not in self._intact:
            self._verified(path)
            self._intact.add(path)
        try:
            with opened(path) as file:
                if unpacked is not None:
                    return unpacked(file.get_tensor(key), block)[inside]
                part: Tensor = file.get_slice(key)[inside] if inside else file.get_tensor(key)
                return part
        except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); restore it from a copy") from error
