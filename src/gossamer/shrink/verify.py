"""Whether two networks compute the same, on a task's data."""

from dataclasses import dataclass

import torch
from torch import nn

from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.outputs import compare, over_batches, tensors_of, worst
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
        ShrinkError: an output differs by more than `outputs.tolerance` lets rounding do.
    """
    compared = []
    with torch.no_grad():
        for start in range(0, len(examples), BATCH):
            inputs, _ = examples.batch(slice(start, start + BATCH))
            expected, got = (tensors_of(model(inputs), type(model).__name__) for model in (original, smaller))
            compared.append(compare(expected, got))
    found = worst(over_batches(compared))
    if not found.largest <= found.allowed:
        raise ShrinkError(
            f"on {len(examples)} examples the smaller network's outputs differ by up to {found.largest:.3g} (outputs "
            f"are up to {found.largest_output:.3g}); expected at most {found.allowed:.3g}. This is a defect of "
            f"gossamer: please report it with the model."
        )
    return OutputsCompared(
        len(examples),
        found.largest,
        found.largest_output,
        evaluate(original, examples, metric),
        evaluate(smaller, examples, metric),
    )
