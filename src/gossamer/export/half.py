"""What fp16 holds."""

import numpy as np
from numpy.typing import NDArray

from gossamer.export.errors import ExportError

LARGEST_HALF = 65520.0
"""What rounds to infinity."""


def require_half(layer: str, weight: NDArray[np.float32]) -> None:
    """Raises ExportError if a weight is beyond the range of fp16."""
    largest = float(np.abs(weight).max(initial=0.0))
    if largest >= LARGEST_HALF:
        raise ExportError(
            f"layer {layer}: a weight of {largest:g} is beyond the range of fp16 (65504); export without --half"
        )
