"""Reads padding, interpolation and splitting off a traced graph."""

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gossamer.shrink.operations import Padding, Rearrangement, Shape

FILLED = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
REPEATED = (
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    *(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
)
PADDING_MODULES = (*FILLED, *REPEATED)
UPSAMPLINGS = (nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d)
INTERPOLATIONS = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")
"""Modes in which every channel is by itself, and what is the same everywhere stays so."""
SPLITS: dict[Any, Callable[..., Sequence[Tensor]]] = {
    **dict.fromkeys((torch.chunk, "chunk"), torch.chunk),
    **dict.fromkeys((torch.split, "split"), torch.split),
    **dict.fromkeys((torch.tensor_split, "tensor_split"), torch.tensor_split),
}


def padding_of_module(module: Any, shape: Shape, value: str, output: str) -> Padding | None:
    """What a padding module does."""
    fill = float(getattr(module, "value", 0.0)) if isinstance(module, FILLED) else None
    return padding(tuple(module.padding), fill, shape, value, output)


def padding_of_call(node: fx.Node, numbers: Mapping[str, int], shape: Shape, value: str) -> Padding | None:
    """What a call of `torch.nn.functional.pad` does; None if it cannot be told."""
    given = _given(node, ("pad", "mode", "value"))
    ends, mode, fill = given.get("pad"), given.get("mode", "constant"), given.get("value")
    if not isinstance(ends, list | tuple):
        return None
    known = [numbers.get(end.name) if isinstance(end, fx.Node) else end for end in ends]
    if not all(isinstance(end, int) for end in known) or not isinstance(fill, int | float | None):
        return None
    return padding(known, float(fill or 0) if mode == "constant" else None, shape, value, node.name)


def padding(ends: Sequence[Any], fill: float | None, shape: Shape, value: str, output: str) -> Padding | None:
    """Padding as torch counts it, (before, after) from the last dimension on; None if it cuts, or adds examples."""
    pairs = list(zip(ends[::2], ends[1::2], strict=True))
    if len(pairs) > len(shape) or any(end < 0 for end in ends):
        return None
    amounts = [(0, 0)] * (len(shape) - len(pairs)) + pairs[::-1]
    dimensions = tuple(range(len(shape) - len(pairs), len(shape)))
    if amounts and amounts[0] == (0, 0) and len(pairs) == len(shape) > 1:
        # Of channels to which nothing is added.
        dimensions = dimensions[1:]
    return Padding(tuple(amounts), dimensions, fill, value, output)


def interpolation(node: fx.Node, sizes: Shape) -> Callable[[Tensor], Tensor] | None:
    """What a call of `torch.nn.functional.interpolate` does; None if it cannot be told.

    Args:
        sizes: of what it returns, without examples and channels.
    """
    mode = _given(node, ("size", "scale_factor", "mode")).get("mode", "nearest")
    return (lambda images: F.interpolate(images, sizes, mode=mode)) if mode in INTERPOLATIONS else None


def parts(split: fx.Node, numbers: Mapping[str, int], shape: Shape, value: str) -> dict[fx.Node, Rearrangement] | None:
    """The parts that are taken out of what a call of `torch.chunk` and the like returns; None if it is used in another
    way.

    Args:
        shape: of what is split, for one example.
    """
    arguments, options = fx.node.map_arg((split.args[1:], split.kwargs), lambda node: numbers.get(node.name))
    dimension = _given(split, ("", "dim")).get("dim", 0)
    indices = {user: user.args[1] for user in split.users if user.target is operator.getitem}
    taken_apart = len(indices) == len(split.users) and all(isinstance(index, int) for index in indices.values())
    if not isinstance(dimension, int) or dimension % (len(shape) + 1) == 0 or not taken_apart:
        return None
    dimension = dimension % (len(shape) + 1) - 1
    results = SPLITS[split.target](torch.empty(1, *shape, device="meta"), *arguments, **options)
    ends = list(pairwise(accumulate((result.shape[dimension + 1] for result in results), initial=0)))
    return {user: _part(user, ends[int(str(index))], dimension, value) for user, index in indices.items()}


def _part(node: fx.Node, ends: tuple[int, int], dimension: int, value: str) -> Rearrangement:
    first, last = ends
    return Rearrangement(
        lambda positions: positions.narrow(dimension + 1, first, last - first), (dimension,), False, value, node.name
    )


def _given(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """What a call is given after the tensor, by name."""
    return dict(zip(names, node.args[1:], strict=False)) | node.kwargs
