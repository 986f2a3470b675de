"""Exact global selection: keep the `kept` largest magnitudes over all tensors at once.

A radix selection on the bits of the magnitude (`gossamer.prune.radix`). Nothing is concatenated, copied or sorted: the
weights are read in slices, twice (bfloat16 and float16: once), and the extra memory is one slice and one histogram.

Of sharded weights (DTensors) every process counts its own, and the counts are added up: 16 numbers at a time, whatever
the network's size. Which of equal magnitudes stay is found in the same way, by counting their positions in the whole
network, so that no sharding changes it.
"""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from gossamer.arguments import require_kind, whole_number
from gossamer.errors import TrainingDivergedError
from gossamer.model.sharded import piece_of, sharded_like, with_piece
from gossamer.model.whole import require_here
from gossamer.prune import radix
from gossamer.prune.radix import BUCKETS, DIGIT_BITS, Counts, Threshold
from gossamer.prune.shards import Shards

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
    require_real(weights)
    shards = Shards.of(weights)
    pieces = {name: piece_of(weight) for name, weight in weights.items()}
    there = {
        name: piece_of(fitting(name, mask, weights[name])) for name, mask in (masks or {}).items() if name in weights
    }
    available = shards.total(_count_available(shards.counted(pieces), there))
    if not 0 <= kept <= available:
        raise ValueError(f"got kept={kept}; expected 0 to {available}, the number of weights that are still there")
    if kept == 0:
        chosen = {name: torch.zeros_like(piece, dtype=torch.bool) for name, piece in pieces.items()}
    else:
        chosen = masks_above(pieces, _find_threshold(shards, pieces, kept, there), there)
    return {name: with_piece(weight, chosen[name]) for name, weight in weights.items()}


def _find_threshold(shards: Shards, pieces: Mapping[str, Tensor], kept: int, masks: Mapping[str, Tensor]) -> Threshold:
    """The magnitude of the `kept`-th largest weight, and how many of the pieces' weights equal to it are kept."""
    kind = widest_type(pieces)
    digits = _digits_of(kind)
    counted = shards.counted(pieces)

    def count(prefix: int, digits_left: int) -> Counts:
        counts = histogram(counted, masks, kind, prefix, digits_left)
        if digits_left == digits - 1:
            refuse_non_finite(shards, counts, kind, counted, masks)
        return counts.numpy()

    if not shards.are_shards:
        return radix.find_threshold(count, digits, kept)
    threshold = radix.find_threshold(count, digits, kept, shards.add)
    return Threshold(threshold.magnitude_bits, _ties_kept_here(shards, pieces, kind, threshold, masks))


def _ties_kept_here(
    shards: Shards, pieces: Mapping[str, Tensor], kind: torch.dtype, threshold: Threshold, masks: Mapping[str, Tensor]
) -> int:
    """How many of the weights equal to the threshold are kept in this process's pieces: those that are among the
    `ties_kept` first ones of the whole network. In the pieces, too, they are the first ones."""

    def positions(counted: Mapping[str, Tensor]) -> Iterator[Tensor]:
        for name, piece in counted.items():
            for tied in indices_of_ties(piece, masks.get(name), kind, threshold.magnitude_bits):
                yield shards.positions(name, tied).cpu()

    # Largest first is what `find_threshold` looks for, and the first positions are the ones to be kept.
    last = shards.numbers - 1
    digits = -(-last.bit_length() // DIGIT_BITS)

    def count(prefix: int, digits_left: int) -> Counts:
        counts = torch.zeros(BUCKETS, dtype=torch.int64)
        for found in positions(shards.counted(pieces)):
            keys = last - found
            inside = keys[keys >> (DIGIT_BITS * (digits_left + 1)) == prefix]
            counts += torch.bincount((inside >> (DIGIT_BITS * digits_left)) & (BUCKETS - 1), minlength=BUCKETS)
        return counts.numpy()

    end = last - radix.find_threshold(count, digits, threshold.ties_kept, shards.add).magnitude_bits
    return sum(int((found <= end).sum()) for found in positions(pieces))


def indices_of_ties(piece: Tensor, mask: Tensor | None, kind: torch.dtype, bits: int) -> Iterator[Tensor]:
    """Row-major indices, increasing, of the weights of exactly this magnitude that are there; many at a time."""
    before = 0
    there = torch.ones(1, dtype=torch.bool, device=piece.device).expand(piece.shape) if mask is None else mask
    for part, there_too in zip(row_major_parts(piece), row_major_parts(there), strict=True):
        tied = (magnitude_bits(part, kind) == bits) & there_too
        yield before + tied.reshape(-1).nonzero().reshape(-1)
        before += part.numel()


def require_real(weights: Mapping[str, Tensor]) -> None:
    """Verifies that tensors are here, whole or sharded, and hold real floating-point numbers.

    Raises:
        ValueError, ConfigurationError: one is not.
    """
    for name, weight in weights.items():
        require_kind(name, weight, Tensor, "a tensor")
        require_here(name, weight)
        if not weight.is_floating_point():
            raise ValueError(f"{name} holds {weight.dtype}; expected a real floating-point type")


def fitting(name: str, mask: Tensor, weight: Tensor) -> Tensor:
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; expected bool, {tuple(weight.shape)}"
        )
    return sharded_like(name, mask, weight)


def _count_available(pieces: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> int:
    # Not mask.sum(), which makes eight bytes of every bool first.
    return sum(
        int(torch.count_nonzero(masks[name])) if name in masks else piece.numel() for name, piece in pieces.items()
    )


def widest_type(weights: Mapping[str, Tensor]) -> torch.dtype:
    """The type in which all magnitudes can be compared exactly. bfloat16 beside float16 needs float32."""
    kinds = {weight.dtype for weight in weights.values()}
    widest = kinds.pop()
    for kind in kinds:
        widest = torch.promote_types(torch.promote_types(widest, kind), torch.float32)
    return widest if widest.itemsize in _INTEGERS else torch.float32


def _digits_of(kind: torch.dtype) -> int:
    return kind.itemsize * 8 // DIGIT_BITS


def histogram(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], kind: torch.dtype, prefix: int, digits_left: int
) -> Tensor:
    """Counts of one digit of the magnitudes, over the weights that are there and whose higher digits are `prefix`.

    Returns: int64, shape (2^16,), on the CPU.
    """
    by_device = {torch.device("cpu"): torch.zeros(BUCKETS + 1, dtype=torch.int64)}
    for name, weight in weights.items():
        counts = by_device.setdefault(weight.device, torch.zeros(BUCKETS + 1, dtype=torch.int64, device=weight.device))
        for part, there in _slices(weight, masks.get(name)):
            bits = magnitude_bits(part, kind)
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


def refuse_non_finite(
    shards: Shards, counts: Tensor, kind: torch.dtype, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> None:
    """Infinities and NaNs have the largest exponent: their buckets are the last ones of the first histogram."""
    infinity = int(torch.tensor(float("inf"), dtype=kind).view(_INTEGERS[kind.itemsize]))
    any_here = bool(counts[infinity >> (DIGIT_BITS * (_digits_of(kind) - 1)) :].any())
    name, number = next(_non_finite(weights, masks), (None, "inf")) if any_here else (None, "")
    found = shards.first_of(name)
    if found is not None:
        raise TrainingDivergedError(
            f"{found} holds {number if found == name else 'an infinity or NaN'}; expected finite weights. Training "
            f"diverged: lower the learning rate, or go on from the last good round."
        )


def _non_finite(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    for name, weight in weights.items():
        for part, there in _slices(weight, masks.get(name)):
            bad = ~torch.isfinite(part) if there is None else ~torch.isfinite(part) & there
            if bad.any():
                yield name, part[bad][0].item()


def masks_above(weights: Mapping[str, Tensor], threshold: Threshold, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kind = widest_type(weights)
    ties_left = threshold.ties_kept
    chosen: dict[str, Tensor] = {}
    for name, weight in weights.items():
        chosen[name] = torch.empty_like(weight, dtype=torch.bool, requires_grad=False)
        ties = 0
        for part, there, keep in _slices(weight, masks.get(name), chosen[name]):
            bits = magnitude_bits(part, kind)
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


def _drop_last_ties(mask: Tensor, weight: Tensor, tied_bits: int, kind: torch.dtype, ties_kept: int) -> None:
    """Keeps, of the weights with exactly this magnitude, the first `ties_kept` in row-major order. In place."""
    for part, keep in zip(row_major_parts(weight.detach()), row_major_parts(mask), strict=True):
        tied = ((magnitude_bits(part, kind) == tied_bits) & keep).reshape(-1)
        here = int(tied.sum())
        if here > ties_kept:
            dropped = torch.zeros_like(tied)
            dropped[tied.nonzero().reshape(-1)[ties_kept:]] = True
            keep &= ~dropped.reshape(keep.shape)
        ties_kept = max(0, ties_kept - here)


def magnitude_bits(part: Tensor, kind: torch.dtype) -> Tensor:
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
        parts = zip(*(row_major_parts(tensor) for tensor in present), strict=True)
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


def row_major_parts(tensor: Tensor) -> Iterator[Tensor]:
    """Views of at most `SLICE` elements that follow one another in row-major order."""
    if tensor.numel() <= SLICE:
        yield tensor
        return
    split = next(dimension for dimension, size in enumerate(tensor.shape) if size > 1)
    rows = max(1, SLICE * tensor.shape[split] // tensor.numel())
    for part in tensor.split(rows, dim=split):
        yield from row_major_parts(part)
