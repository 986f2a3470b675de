"""Sums over weights of which every process holds a piece, each weight counted once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gossamer.model.sharded import indices_of, is_first_replica, is_sharded
from gossamer.prune.radix import Counts
from gossamer.ranks.group import Ranks, current

T = TypeVar("T")


@dataclass(frozen=True)
class Shards:
    """Tensors, some of which are sharded, and who counts which of them. Where none is, this process counts all, and
    nothing is sent."""

    tensors: Mapping[str, Tensor]
    own: frozenset[str]
    """Names of the tensors whose pieces this process counts; those of the others are copies of another one's."""
    ranks: Ranks = field(default_factory=Ranks)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Shards":
        """To be called by all processes, if a tensor is sharded.

        Raises:
            ConfigurationError: where a piece lies cannot be known.
        """
        if not any(map(is_sharded, tensors.values())):
            return cls(tensors, frozenset(tensors))
        ranks = current()
        # A tensor may be sharded over some processes only, with copies in others: those count that are first.
        meshes: dict[Any, int] = {}
        for tensor in tensors.values():
            meshes.setdefault(_mesh_of(tensor), int(_mesh_of(tensor).mesh.min()) if is_sharded(tensor) else ranks.rank)
        smallest = map(min, zip(*ranks.gather(list(meshes.values())), strict=True))
        first = {mesh for (mesh, rank), least in zip(meshes.items(), smallest, strict=True) if rank == least}
        own = (
            name
            for name, tensor in tensors.items()
            if _mesh_of(tensor) in first and (not is_sharded(tensor) or is_first_replica(tensor))
        )
        return cls(tensors, frozenset(own), ranks)

    @property
    def are_shards(self) -> bool:
        return any(map(is_sharded, self.tensors.values()))

    def counted(self, pieces: Mapping[str, T]) -> dict[str, T]:
        """Those that this process counts."""
        return {name: piece for name, piece in pieces.items() if name in self.own}

    def total(self, count: int) -> int:
        """The sum of all processes' counts."""
        return int(self.ranks.sum(torch.tensor(count)))

    def add(self, counts: Counts) -> Counts:
        """The same of arrays."""
        found: Counts = self.ranks.sum(torch.from_numpy(np.ascontiguousarray(counts))).numpy()
        return found

    def first_of(self, name: str | None) -> str | None:
        """Of the names that the processes give, the first in the tensors' order; None if none gives one."""
        places = {name: place for place, name in enumerate(self.tensors)}
        found = [place for place in self.ranks.gather(None if name is None else places[name]) if place is not None]
        return list(self.tensors)[min(found)] if found else None

    @property
    def numbers(self) -> int:
        """How many numbers the whole tensors have together."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    def positions(self, name: str, flat: Tensor) -> Tensor:
        """Where numbers of a piece, given by their row-major indices in it, stand among the numbers of all tensors: in
        the tensors' order, and row-major within the whole of each. They increase with the indices."""
        return self.positions_within(name, flat) + self._first[name]

    def positions_within(self, name: str, flat: Tensor) -> Tensor:
        """The same among the numbers of their own tensor."""
        tensor, indices = self.tensors[name], self._indices[name]
        position = torch.zeros_like(flat)
        for axis in reversed(range(tensor.dim())):
            length = len(indices[axis])
            position += indices[axis].to(flat.device)[flat % length] * prod(tensor.shape[axis + 1 :])
            flat = flat // length
        return position

    @cached_property
    def _indices(self) -> dict[str, tuple[Tensor, ...]]:
        return {name: indices_of(name, tensor) for name, tensor in self.tensors.items()}

    @cached_property
    def _first(self) -> dict[str, int]:
        sizes = [prod(tensor.shape) for tensor in self.tensors.values()]
        return dict(zip(self.tensors, accumulate(sizes, initial=0), strict=False))


def _mesh_of(tensor: Tensor) -> Any:
    """What has the same value for tensors that are sharded over the same processes; None of one that is not."""
    return tensor.device_mesh if is_sharded(tensor) else None  # type: ignore[attr-defined]
