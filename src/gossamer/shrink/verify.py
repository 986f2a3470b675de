"""Whether two networks compute the same, on a task's data."""

from dataclasses import dataclass

import torch
from torch import nn

from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.outputs import Distance, compare, over_batches, tensors_of, worst
from gossamer.tasks import Batch, Metric, Split
from gossamer.tasks.evaluation import measure_outputs
from gossamer.tasks.sample import sample


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


def verify(original: nn.Module, smaller: nn.Module, examples: Split, metric: Metric) -> OutputsCompared:
    """Compares all outputs on the examples, and the metric; both networks are in evaluation mode and on one device.

    Args:
        examples: of those that are read while they are used, the first `tasks.in_memory.MOST`.

    Raises:
        ShrinkError: an output differs by more than `outputs.tolerance` lets rounding do.
    """
    batches = sample(examples)
    with torch.no_grad():
        found = worst(over_batches(_compared(original, smaller, batch) for batch in batches))
        count = len(batches)
        if not found.largest <= found.allowed:
            raise ShrinkError(
                f"on {count} examples the smaller network's outputs differ by up to {found.largest:.3g} (outputs are "
                f"up to {found.largest_output:.3g}); expected at most {found.allowed:.3g}. This is a defect of "
                f"gossamer: please report it with the model."
            )
        before, after = (
            measure_outputs(((batch.of(model), batch.targets) for batch in batches), metric)[metric.name]
            for model in (original, smaller)
        )
    return OutputsCompared(count, found.largest, found.largest_output, before, after)


def _compared(original: nn.Module, smaller: nn.Module, batch: Batch) -> list[Distance]:
    return compare(*(tensors_of(batch.of(model), type(model).__name__) for model in (original, smaller)))
