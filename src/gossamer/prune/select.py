"""Exact global selection: keep the `kept` largest magnitudes over all tensors at once.

A radix selection on the bits of the magnitude (`gossamer.prune.radix`). Nothing is concatenated, copied or sorted: the
weights are read in slices, twice (bfloat16 and float16: once), and the extra memory is one slice and one histogram.
"""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from gossamer.arguments import require_kind, whole_number
from gossamer.errors import TrainingDivergedError
from gossamer.model.whole import require_whole
from gossamer.prune import radix
from gossamer.prune.radix import BUCKETS, DIGIT_BITS, Counts, Threshold

SLICE = 1 << 18
"""Weights read at a time. 1 MiB of float32: a slice and what is computed from it stay in the second-level cache
(25.5 M weights, 2 cores: 0.029 s a histogram with 2^18, 0.041 s with 2^16)."""

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def keep_largest(
    weights: Mapping[str, Tensor], kept: int, masks: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Masks that keep exactly `kept` of the weights: those with the largest magnitude over all tensors (global, raw).

    Among equal magnitudes the later ones are pruned first: the order is the mapping's, then row-major within a
    tensor, whatever its memory format, so that the same numbers give the same masks on every device and layout.

    Args:
        weights: floating-point tensors by name, any shape, strides and mixture of types; none is changed or copied.
        kept: how many to keep, 0 <= kept <= number of weights still kept by `masks`.
        masks: True where a weight is still there; what was pruned stays pruned. Default: everything is there.

    Returns:
        For each name a new bool tensor of the weight's shape, device and memory format, True where the weight is kept.

    Raises:
        TrainingDivergedError: a weight is infinite or not a number.
        ValueError: `kept` is out of range, a mask does not fit, or a tensor holds no real floating-point numbers.

    Source: Renda et al. 2020, algorithm 1 (global magnitude pruning).
    """
    require_kind("weights", weights, Mapping, "tensors by name")
    require_kind("masks", masks, (Mapping, NoneType), "bool tensors by name")
    kept = whole_number("kept", kept, "how many weights to keep")
    masks = masks or {}
    available = _count_available(weights, masks)
    if not 0 <= kept <= available:
        raise ValueError(f"got kept={kept}; expected 0 to {available}, the number of weights that are still there")
    if kept == 0:
        return {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    threshold = find_threshold(weights, kept, masks)
    return _masks_above(weights, threshold, masks)


def find_threshold(weights: Mapping[str, Tensor], kept: int, masks: Mapping[str, Tensor] | None = None) -> Threshold:
    """The magnitude of the `kept`-th largest weight, and how many of the weights equal to it are among the `kept`."""
    masks = masks or {}
    kind = _widest_type(weights)
    digits = _digits_of(kind)

    def count(prefix: int, digits_left: int) -> Counts:
        counts = _histogram(weights, masks, kind, prefix, digits_left)
        if digits_left == digits - 1:
            _refuse_non_finite(counts, kind, weights, masks)
        return counts.numpy()

    return radix.find_threshold(count, digits, kept)


def _count_available(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> int:
    available = 0
    for name, weight in weights.items():
        require_kind(name, weight, Tensor, "a tensor")
        require_whole(name, weight)
        if not weight.is_floating_point():
            raise ValueError(f"{name} holds {weight.dtype}; expected a real floating-point type")
        mask = masks.get(name)
        if mask is not None and (mask.shape != weight.shape or mask.dtype != torch.bool):
            raise ValueError(
                f"mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; expected bool, {tuple(weight.shape)}"
            )
        # Not mask.sum(), which makes eight bytes of every bool first.
        available += weight.numel() if mask is None else int(torch.count_nonzero(mask))
    return available


def _widest_type(weights: Mapping[str, Tensor]) -> torch.dtype:
    """The type in which all magnitudes can be compared exactly. bfloat16 beside float16 needs float32."""
    kinds = {weight.dtype for weight in weights.values()}
    widest = kinds.pop()
    for kind in kinds:
        widest = torch.promote_types(torch.promote_types(widest, kind), torch.float32)
    return widest if widest.itemsize in _INTEGERS else torch.float32


def _digits_of(kind: torch.dtype) -> int:
    return kind.itemsize * 8 // DIGIT_BITS


def _histogram(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], kind: torch.dtype, prefix: int, digits_left: int
) -> Tensor:
    """Counts of one digit of the magnitudes, over the weights that are there and whose higher digits are `prefix`.

    Returns: int64, shape (2^16,), on the CPU.
    """
    by_device: dict[torch.device, Tensor] = {}
    for name, weight in weights.items():
        counts = by_device.setdefault(weight.device, torch.zeros(BUCKETS + 1, dtype=torch.int64, device=weight.device))
        for part, there in _slices(weight, masks.get(name)):
            bits = _magnitude_bits(part, kind)
            if digits_left == _digits_of(kind) - 1:
                # What was pruned goes into bucket 0, everything else one bucket up.
                digits = bits >> (DIGIT_BITS * digits_left)
                digits = digits.int().add_(1) if digits.dtype == torch.int16 else digits.add_(1)
                if there is not None:
                    digits *= there
            else:
                matching = (bits >> (DIGIT_BITS * (digits_left + 1))) == prefix
                if there is not None:
                    matching &= there
                digits = ((bits[matching] >> (DIGIT_BITS * digits_left)) & (BUCKETS - 1)) + 1
            counts += torch.bincount(digits.reshape(-1), minlength=BUCKETS + 1)
    return torch.stack([counts[1:].cpu() for counts in by_device.values()]).sum(0)


def _refuse_non_finite(
    counts: Tensor, kind: torch.dtype, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> None:
    """Infinities and NaNs have the largest exponent: their buckets are the last ones of the first histogram."""
    infinity = int(torch.tensor(float("inf"), dtype=kind).view(_INTEGERS[kind.itemsize]))
    if not counts[infinity >> (DIGIT_BITS * (_digits_of(kind) - 1)) :].any():
        return
    for name, weight in weights.items():
        for part, there in _slices(weight, masks.get(name)):
            bad = ~torch.isfinite(part) if there is None else ~torch.isfinite(part) & there
            if bad.any():
                raise TrainingDivergedError(
                    f"{name} holds {part[bad][0].item()}; expected finite weights. Training diverged: lower the "
                    f"learning rate, or go on from the last good round."
                )


def _masks_above(weights: Mapping[str, Tensor], threshold: Threshold, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kind = _widest_type(weights)
    ties_left = threshold.ties_kept
    chosen: dict[str, Tensor] = {}
    for name, weight in weights.items():
        chosen[name] = torch.empty_like(weight, dtype=torch.bool, requires_grad=False)
        ties = 0
        for part, there, keep in _slices(weight, masks.get(name), chosen[name]):
            bits = _magnitude_bits(part, kind)
            if ties_left:
                torch.ge(bits, threshold.magnitude_bits, out=keep)
                equal = bits == threshold.magnitude_bits
                ties += int((equal if there is None else equal & there).sum())
            else:
                torch.gt(bits, threshold.magnitude_bits, out=keep)
            if there is not None:
                keep &= there
        if ties > ties_left:
            _drop_last_ties(chosen[name], weight, threshold.magnitude_bits, kind, ties_left)
        ties_left = max(0, ties_left - ties)
    return chosen


def _drop_last_ties(mask: Tensor, weight: Tensor, magnitude_bits: int, kind: torch.dtype, ties_kept: int) -> None:
    """Keeps, of the weights with exactly this magnitude, the first `ties_kept` in row-major order. In place."""
    for part, keep in zip(_row_major_parts(weight.detach()), _row_major_parts(mask), strict=True):
        tied = ((_magnitude_bits(part, kind) == magnitude_bits) & keep).reshape(-1)
        here = int(tied.sum())
        if here > ties_kept:
            dropped = torch.zeros_like(tied)
            dropped[tied.nonzero().reshape(-1)[ties_kept:]] = True
            keep &= ~dropped.reshape(keep.shape)
        ties_kept = max(0, ties_kept - here)


def _magnitude_bits(part: Tensor, kind: torch.dtype) -> Tensor:
    """The bits of |part| as integers, in a new tensor."""
    part = part if part.dtype == kind else part.to(kind)
    integers = part.view(_INTEGERS[kind.itemsize])
    return integers.bitwise_and(torch.iinfo(integers.dtype).max)


def _slices(weight: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Views of the same elements of several tensors of one shape, at most about `SLICE` elements each.

    In the order of memory where all tensors lie in it alike (contiguous, channels_last), else row-major. A tensor that
    is None stays None.
    """
    tensors = [weight.detach(), *others]
    present = [tensor for tensor in tensors if tensor is not None]
    if all(tensor.stride() == weight.stride() and _is_dense(tensor) for tensor in present):
        views = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in present]
        parts: Iterator[tuple[Tensor, ...]] = zip(*(view.split(SLICE) for view in views), strict=True)
    else:
        parts = zip(*(_row_major_parts(tensor) for tensor in present), strict=True)
    for part in parts:
        remaining = iter(part)
        yield tuple(None if tensor is None else next(remaining) for tensor in tensors)


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one block of memory without gaps or overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _row_major_parts(tensor: Tensor) -> Iterator[Tensor]:
    """Views of at most `SLICE` elements that follow one another in row-major order."""
    if tensor.numel() <= SLICE:
        yield tensor
        return
    split = next(dimension for dimension, size in enumerate(tensor.shape) if size > 1)
    rows = max(1, SLICE * tensor.shape[split] // tensor.numel())
    for part in tensor.split(rows, dim=split):
        yield from _row_major_parts(part)
