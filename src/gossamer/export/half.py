"""What fp16 holds of weights, and how far that may move a network's outputs."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.errors import ExportError

LARGEST_HALF = 65520.0
"""What rounds to infinity."""
SMALLEST_EXACT = 2.0**-14
"""Below it fp16 has fewer digits, and below 2^-25 nothing but 0."""


@dataclass(frozen=True)
class LostWeights:
    """Kept weights of a layer that fp16 holds with fewer digits than others, or not at all."""

    name: str
    kept: int
    coarse: int
    """Smaller than 2^-14, where digits are missing, but not zero."""
    zeros: int
    """Weights that become zero."""


def is_halved(tensor: onnx.TensorProto) -> bool:
    """Whether a constant is stored as fp16 then: a weight in fp32. Of one axis are biases, windows and tables."""
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1


def require_half(layer: str, weight: NDArray[np.float32]) -> None:
    """Raises ExportError if a weight is beyond the range of fp16."""
    largest = float(np.abs(weight).max(initial=0.0))
    if largest >= LARGEST_HALF:
        raise ExportError(
            f"layer {layer}: a weight of {largest:g} is beyond the range of fp16 (65504); export without --half"
        )


def lost_in_half(layer: str, weight: NDArray[np.float32]) -> LostWeights | None:
    """What fp16 loses of a weight's numbers; None if it holds all of them to its 11 digits."""
    halved = weight.astype(np.float16).astype(np.float32)
    small = (weight != 0) & (np.abs(weight) < SMALLEST_EXACT) & (halved != weight)
    if not small.any():
        return None
    zeros = int(np.count_nonzero(small & (halved == 0)))
    return LostWeights(layer, int(np.count_nonzero(weight)), int(np.count_nonzero(small)) - zeros, zeros)


def lost_text(lost: LostWeights) -> str:
    """Such as "first (12 of 100 become zero, 3 lose digits)"."""
    parts = [(lost.zeros, "become zero"), (lost.coarse, "lose digits")]
    return f"{lost.name} ({', '.join(f'{n:,} of {lost.kept:,} {what}' for n, what in parts if n)})"
