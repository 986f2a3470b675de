"""How good a network is on a split: the mean of a metric's score, or a metric of the whole set."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from gossamer.arguments import number
from gossamer.errors import ConfigurationError, TrainingDivergedError
from gossamer.model.modes import in_evaluation
from gossamer.model.nested import any_nan
from gossamer.randomness import derived_seed
from gossamer.tasks.batch import Batch
from gossamer.tasks.errors import TaskError
from gossamer.tasks.loaded import Loaded
from gossamer.tasks.task import Examples, Metric, Split

BATCH = 1024
"""Examples that are measured at a time, of those in memory."""

Told = Callable[[int, int | None], None]
"""Is told how many batches were measured, of how many (None: nobody knows)."""


def evaluate(model: nn.Module, examples: Split, metric: Metric, *, batch_size: int = BATCH) -> float:
    """The metric of the model on a split, computed in evaluation mode; the model's mode is put back after. The model
    and examples in memory are on one device.

    Args:
        batch_size: of examples in memory.

    Raises:
        ValueError: there are no examples.
        TaskError: reading them fails, or the metric of a whole set gives no number.
        TrainingDivergedError: an output of the model is not a number, or the metric is not finite.
    """
    return measure(model, examples, metric, batch_size=batch_size)[metric.name]


@torch.no_grad()
def measure(
    model: nn.Module, examples: Split, metric: Metric, *, batch_size: int = BATCH, told: Told | None = None
) -> dict[str, float]:
    """The metric as `evaluate` has it, by name; first the one that decides, then what else the metric of a whole set
    gave: its other numbers, as far as they are finite."""
    with in_evaluation(model):
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        values = measure_outputs(_outputs(model, examples, batch_size, told), metric, device)
    if not math.isfinite(values[metric.name]):
        raise TrainingDivergedError(
            f"the {metric.name} of the model is {values[metric.name]}; expected a finite number. A weight or an output "
            "is not finite: lower the learning rate, or go back to an earlier round."
        )
    return {name: value for name, value in values.items() if math.isfinite(value)}


def measure_outputs(
    outputs: Iterable[tuple[Any, Any]], metric: Metric, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """The metric of what a network returned, with the targets, batch by batch, by name; NaN if an output is that."""
    return _mean(outputs, metric) if metric.whole_set is None else _over_set(outputs, metric, device)


def batches_of(model: nn.Module, examples: Split, batch_size: int = BATCH) -> Iterator[Batch]:
    """The batches of a split for measuring, on the model's device."""
    if isinstance(examples, Examples):
        for start in range(0, len(examples), batch_size):
            inputs, targets = examples.batch(slice(start, start + batch_size))
            yield Batch((inputs,), targets=targets)
        return
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    for batch in examples.once(functools.partial(derived_seed, "evaluation")):
        yield batch.to(device)


def _outputs(model: nn.Module, examples: Split, batch_size: int, told: Told | None) -> Iterator[tuple[Any, Any]]:
    """What the model returns for each batch, with the targets."""
    if isinstance(examples, Examples):
        if len(examples) == 0:
            raise ValueError("there are no examples to evaluate on")
        count: int | None = -(-len(examples) // batch_size)
    else:
        count = examples.once_steps if isinstance(examples, Loaded) else None
    for done, batch in enumerate(batches_of(model, examples, batch_size), 1):
        yield batch.of(model), batch.targets
        if told is not None:
            told(done, count)


def _mean(outputs: Iterable[tuple[Any, Any]], metric: Metric) -> dict[str, float]:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for output, targets in outputs:
        scores = metric.score(output, targets)
        # An output that is not a number still has an argmax, so accuracy alone would not notice.
        total = total.to(scores.device) + torch.where(any_nan(output), torch.nan, scores.double().sum())
        count += scores.numel()
    return {metric.name: float(total) / count if count else math.nan}


def _over_set(outputs: Iterable[tuple[Any, Any]], metric: Metric, device: torch.device | str) -> dict[str, float]:
    assert metric.whole_set is not None
    whole: Any = metric.whole_set()
    if hasattr(whole, "to"):
        whole = whole.to(device)
    wrong = torch.tensor(False)
    for output, targets in outputs:
        whole.update(output, targets)
        wrong = wrong.to(device) | any_nan(output).to(device)
    values = numbers_of(whole.compute(), metric.name)
    return {**values, metric.name: math.nan} if bool(wrong) else values


def numbers_of(computed: Any, name: str) -> dict[str, float]:
    """What a metric of a whole set computed as numbers by name, the deciding one first.

    Raises:
        TaskError: it is no number, or several without the one that decides.
    """
    if not isinstance(computed, Mapping):
        computed = {name: computed}
    if name not in computed:
        raise TaskError(
            f"the metric {name} computed {', '.join(map(str, computed)) or 'nothing'}; expected a number, or several "
            f"with {name!r} among them"
        )
    try:
        found = {name: number(name, computed[name])}
    except ConfigurationError as error:
        raise TaskError(f"the metric {error}, of a whole set") from error
    for other, value in computed.items():
        # Such as one number a class: not what a round is recorded with.
        try:
            found.setdefault(str(other), number(str(other), value))
        except ConfigurationError:
            continue
    return found
