"""Tensors of which each process holds a piece: DTensors, as FSDP2's `fully_shard`, `parallelize_module` and
`distribute_tensor` make them.

A piece is the product of one set of indices for each axis. Which these are follows from the placements alone, so that
every process knows where in the whole its own numbers stand.
"""

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.storage.blocks import Box


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, a replicated one included."""
    # By name: importing torch.distributed.tensor takes a second.
    return type(tensor).__name__ == "DTensor"


def piece_of(tensor: Tensor) -> Tensor:
    """What this process holds of it, in memory: a plain tensor, detached, that shares its numbers. Of a plain tensor
    all of it."""
    if not is_sharded(tensor):
        return tensor.detach()
    # Not `to_local`, which goes through DTensor's dispatch and takes longer than what is done with it in every step.
    piece: Any = tensor._local_tensor  # type: ignore[attr-defined]
    return piece.wait() if hasattr(piece, "trigger_wait") else piece.detach()  # type: ignore[no-any-return]


def with_piece(tensor: Tensor, piece: Tensor) -> Tensor:
    """A tensor of the same shape, sharded likewise, of which this process holds `piece`."""
    if not is_sharded(tensor):
        return piece
    kind: Any = type(tensor)
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    made: Tensor = kind.from_local(piece, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())
    return made


def sharded_like(name: str, whole: Tensor, tensor: Tensor) -> Tensor:
    """What was not sharded, sharded as `tensor` is, whose shape it has: each process takes its piece of it. What is
    sharded stays as it is.

    Raises:
        ConfigurationError: see `indices_of`.
    """
    if is_sharded(whole) or not is_sharded(tensor):
        return whole
    piece = whole.detach()
    for axis, indices in enumerate(indices_of(name, tensor)):
        piece = piece.index_select(axis, indices.to(piece.device))
    return with_piece(tensor, piece.to(piece_of(tensor).device).reshape(piece_of(tensor).shape))


def piece_for(mask: Tensor, tensor: Tensor) -> Tensor:
    """What the mask of a parameter has where this process's piece of `tensor` is: the parameter, its gradient or a slot
    of an optimizer, which may be sharded otherwise."""
    if not is_sharded(mask):
        return mask
    if is_sharded(tensor) and _lie_alike(mask, tensor):
        return piece_of(mask)
    if not is_sharded(tensor):
        return mask.full_tensor()  # type: ignore[attr-defined, no-any-return]
    # Not at the top: it takes a second, and there are DTensors here, so it is imported already.
    from torch.distributed.tensor import Replicate

    # Summands are of the whole that they are added up to.
    placements = [Replicate() if one.is_partial() else one for one in tensor.placements]  # type: ignore[attr-defined]
    return piece_of(mask.redistribute(tensor.device_mesh, placements))  # type: ignore[attr-defined]


def on_pieces(function: Callable[..., Tensor], tensor: Tensor, *others: Tensor) -> Tensor:
    """`function` of the pieces of tensors that are sharded alike, and what it returns sharded likewise."""
    return with_piece(tensor, function(piece_of(tensor), *map(piece_of, others)))


def transposed(tensor: Tensor) -> Tensor:
    """The first two axes exchanged: a view, or a DTensor of views."""
    if not is_sharded(tensor):
        return tensor.transpose(0, 1)
    kind: Any = type(tensor)
    first, second, *rest = range(tensor.dim())
    order = [second, first, *rest]
    made: Tensor = kind.from_local(
        piece_of(tensor).transpose(0, 1),
        tensor.device_mesh,  # type: ignore[attr-defined]
        [_transposed_placement(placement) for placement in tensor.placements],  # type: ignore[attr-defined]
        run_check=False,
        shape=torch.Size(tensor.shape[axis] for axis in order),
        stride=tuple(tensor.stride()[axis] for axis in order),
    )
    return made


def indices_of(name: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """For each axis the indices, in the whole tensor, of what this process holds: int64, increasing.

    Raises:
        ConfigurationError: it cannot be known, or the numbers are not there: summands that have still to be added, a
            mesh without this process.
    """
    axes = [torch.arange(size) for size in tensor.shape]
    if not is_sharded(tensor):
        return tuple(axes)
    mesh: Any = tensor.device_mesh  # type: ignore[attr-defined]
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise ConfigurationError(
            f"{name} is sharded over processes of which this one is none ({mesh}); expected every process to have a "
            f"piece. Call gossamer in those processes only that train the model."
        )
    for mesh_axis in _order_of_sharding(name, tensor):
        placement: Any = tensor.placements[mesh_axis]  # type: ignore[attr-defined]
        axis = placement.dim
        parts = _parts(axes[axis], placement, mesh.size(mesh_axis), _later(tensor, mesh_axis))
        axes[axis] = parts[coordinate[mesh_axis]]
    found = tuple(len(indices) for indices in axes)
    # Pieces without numbers are of any shape.
    piece = piece_of(tensor)
    if found != tuple(piece.shape) and (0 not in found or piece.numel()):
        raise ConfigurationError(
            f"this process holds a piece of {name} of shape {tuple(piece.shape)}, and {found} would follow "
            f"from its placements {tensor.placements}; expected torch's own way to divide. "  # type: ignore[attr-defined]
            f"Exclude it from the scope, or shard it otherwise."
        )
    return tuple(axes)


def cuts_groups(name: str, tensor: Tensor, axis: int, group: int) -> bool:
    """Whether some of every `group` consecutive indices of an axis are in one process and some in another; the same in
    all processes.

    Raises:
        ConfigurationError: see `indices_of`.
    """
    mesh: Any = tensor.device_mesh  # type: ignore[attr-defined]
    pieces = [torch.arange(tensor.shape[axis])]
    whole = torch.bincount(pieces[0] // group)
    for mesh_axis in _order_of_sharding(name, tensor):
        placement: Any = tensor.placements[mesh_axis]  # type: ignore[attr-defined]
        if placement.dim == axis:
            number, later = mesh.size(mesh_axis), _later(tensor, mesh_axis)
            pieces = [part for piece in pieces for part in _parts(piece, placement, number, later)]
    counts = [torch.bincount(piece // group, minlength=len(whole)) for piece in pieces]
    return any(bool(((count > 0) & (count < whole)).any()) for count in counts)


def boxes(indices: tuple[Tensor, ...]) -> Iterator[tuple[Box, Box]]:
    """The blocks without gaps that a piece consists of: where each lies in the whole tensor, and where in the piece."""
    for runs in product(*map(_runs, indices)):
        yield tuple(whole for whole, _ in runs), tuple(here for _, here in runs)


def is_first_replica(tensor: Tensor) -> bool:
    """Whether no process with a smaller coordinate in the tensor's mesh holds the same piece."""
    coordinate = tensor.device_mesh.get_coordinate()  # type: ignore[attr-defined]
    return not any(
        place and not hasattr(placement, "dim")
        for place, placement in zip(coordinate, tensor.placements, strict=True)  # type: ignore[attr-defined]
    )


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that the module had before FSDP2 made one of its own of it."""
    kinds = type(module).__mro__
    # By name, as above.
    of_fsdp = [kind.__name__ for kind in kinds].index("FSDPModule") if _is_of_fsdp(module) else -1
    return kinds[of_fsdp + 1]


def reshard(model: nn.Module) -> None:
    """Puts FSDP2's parameters back into their modules where the last forward pass left gathered ones there: without a
    backward pass after it, as when a network is evaluated, those of the outermost stay."""
    for module in model.modules():
        if _is_of_fsdp(module):
            module.reshard()  # type: ignore[operator]


def _is_of_fsdp(module: nn.Module) -> bool:
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)


def _lie_alike(mask: Tensor, tensor: Tensor) -> bool:
    """Whether the piece of a gradient or slot is of the same place as that of the mask. Summands are of the whole that
    they are added up to."""
    pairs = zip(mask.placements, tensor.placements, strict=True)  # type: ignore[attr-defined]
    return all(own == other or (own.is_replicate() and other.is_partial()) for own, other in pairs)


def _order_of_sharding(name: str, tensor: Tensor) -> list[int]:
    """The axes of the mesh that divide the tensor, in the order in which they do: from the first to the last, but those
    of FSDP over tensor parallelism (`_StridedShard`) after the others of the same axis."""
    placements: Any = tensor.placements  # type: ignore[attr-defined]
    for placement in placements:
        if placement.is_partial():
            raise ConfigurationError(
                f"{name} is a DTensor of summands ({placement}); expected Shard or Replicate on every axis of its "
                f"mesh. Redistribute it first."
            )
    sharding = [axis for axis, placement in enumerate(placements) if hasattr(placement, "dim")]
    return sorted(sharding, key=lambda axis: _is_deferred(tensor, axis))


def _is_deferred(tensor: Tensor, mesh_axis: int) -> bool:
    """Whether it divides what the later axes of the mesh have divided already."""
    factor = getattr(tensor.placements[mesh_axis], "split_factor", None)  # type: ignore[attr-defined]
    return factor is not None and factor == _later(tensor, mesh_axis)


def _later(tensor: Tensor, mesh_axis: int) -> int:
    """In how many parts the later axes of the mesh divide the same axis of the tensor."""
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    axis = placements[mesh_axis].dim
    return prod(
        mesh.size(later) for later in range(mesh_axis + 1, mesh.ndim) if getattr(placements[later], "dim", None) == axis
    )


def _parts(indices: Tensor, placement: Any, number: int, later: int) -> list[Tensor]:
    """The indices of an axis, divided as torch does: all parts but the last ones of one size."""
    factor = getattr(placement, "split_factor", None)
    if factor is None or factor == later:
        return _chunks(indices, number)
    blocks = [_chunks(block, number) for block in _chunks(indices, factor)]
    return [torch.cat([block[part] for block in blocks]) for part in range(number)]


def _chunks(indices: Tensor, number: int) -> list[Tensor]:
    size = -(-len(indices) // number)
    return [indices[part * size : (part + 1) * size] for part in range(number)]


def _runs(indices: Tensor) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of increasing indices those without gaps: (first, one after the last), of the indices and of their positions."""
    if not len(indices):
        return []
    ends = [*(torch.nonzero(indices.diff() != 1).reshape(-1) + 1).tolist(), len(indices)]
    return [
        ((int(indices[first]), int(indices[end - 1]) + 1), (first, end))
        for first, end in zip([0, *ends], ends, strict=False)
    ]


def _transposed_placement(placement: Any) -> Any:
    axis = getattr(placement, "dim", None)
    if axis not in (0, 1):
        return placement
    factor = getattr(placement, "split_factor", None)
    return type(placement)(1 - axis) if factor is None else type(placement)(1 - axis, split_factor=factor)
