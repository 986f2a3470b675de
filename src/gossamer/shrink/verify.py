"""Whether two networks compute the same, on a task's data."""

from dataclasses import dataclass

import torch
from torch import nn

from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.shrinking import tolerance
from gossamer.tasks import Examples, Metric, evaluate

BATCH = 500


@dataclass(frozen=True)
class OutputsCompared:
    """How two networks compare on the same examples."""

    examples: int
    difference: float
    """Largest absolute difference of an output."""
    largest_output: float
    """Largest absolute output of the original."""
    metric_before: float
    metric: float


def verify(original: nn.Module, smaller: nn.Module, examples: Examples, metric: Metric) -> OutputsCompared:
    """Compares all outputs on the examples, and the metric; both networks are in evaluation mode and on one device.

    Raises:
        ShrinkError: an output differs by more than `tolerance` lets rounding do.
    """
    # Kept as tensors: their maximum is NaN if one is.
    differences, sizes = [], []
    with torch.no_grad():
        for start in range(0, len(examples), BATCH):
            inputs, _ = examples.batch(slice(start, start + BATCH))
            expected = original(inputs)
            differences.append((smaller(inputs) - expected).abs().max())
            sizes.append(expected.abs().max())
    difference, largest = (float(torch.stack(found).max()) for found in (differences, sizes))
    allowed = tolerance(largest, sizes[0].dtype)
    if not difference <= allowed:
        raise ShrinkError(
            f"on {len(examples)} examples the smaller network's outputs differ by up to {difference:.3g} (outputs are "
            f"up to {largest:.3g}); expected at most {allowed:.3g}. This is a defect of gossamer: please report it "
            f"with the model."
        )
    return OutputsCompared(
        len(examples), difference, largest, evaluate(original, examples, metric), evaluate(smaller, examples, metric)
    )
