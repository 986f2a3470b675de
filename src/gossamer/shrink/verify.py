"""Whether two networks compute the same, on a task's data."""

from dataclasses import dataclass

import torch
from torch import nn

from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.shrinking import TOLERANCE
from gossamer.tasks import Examples, Metric, evaluate


@dataclass(frozen=True)
class Agreement:
    """How two networks compare on the same examples."""

    examples: int
    difference: float
    """Largest absolute difference of an output."""
    largest_output: float
    """Largest absolute output of the original."""
    metric_before: float
    metric: float


def verify(original: nn.Module, smaller: nn.Module, examples: Examples, metric: Metric) -> Agreement:
    """Compares all outputs on the examples, and the metric; both networks are in evaluation mode and on one device.

    Raises:
        ShrinkError: an output differs by more than `TOLERANCE`, relative to the largest output (or to 1).
    """
    difference = largest = 0.0
    with torch.no_grad():
        for start in range(0, len(examples), 500):
            inputs, _ = examples.batch(slice(start, start + 500))
            expected = original(inputs)
            difference = max(difference, float((smaller(inputs) - expected).abs().max()))
            largest = max(largest, float(expected.abs().max()))
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ShrinkError(
            f"on {len(examples)} examples the smaller network's outputs differ by up to {difference:.3g} (outputs are "
            f"up to {largest:.3g}); expected at most {TOLERANCE:g} of that. This is a defect of gossamer: please "
            f"report it with the model."
        )
    return Agreement(
        len(examples), difference, largest, evaluate(original, examples, metric), evaluate(smaller, examples, metric)
    )
