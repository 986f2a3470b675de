"""The training loop of the built-in tasks: one call of `train` is one round, the recipe's whole schedule."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer import randomness
from gossamer.errors import GossamerError, TrainingDivergedError
from gossamer.randomness import derived_seed
from gossamer.tasks import processor
from gossamer.tasks.errors import TaskError
from gossamer.tasks.loading import in_one_line
from gossamer.tasks.task import Examples, Metric, Precision, Recipe, Task

GRADIENT_BATCHES = 16
"""How many batches a criterion that needs gradients looks at before a cut."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch of training came to."""

    epochs_done: int
    """How many epochs of the schedule have passed: the `first_epoch` to go on from. What a callback of a job is told
    counts all trainings of a round, where it has several."""
    epochs: int
    loss: float
    """Mean training loss over the epoch's steps."""
    learning_rate: float
    """The rate of the epoch's last step."""
    seconds: float


def initial_model(task: Task, seed: int, device: torch.device | str = "cpu") -> nn.Module:
    """The task's model with the initial weights of this seed (the same on every device), ready to be trained there."""
    randomness.seed_all(derived_seed(seed, "initial weights"))
    return in_memory_format(task, made_model(task).to(device))


def in_memory_format(task: Task, model: nn.Module) -> nn.Module:
    """The model in the memory format of the task's recipe."""
    if task.recipe.channels_last:
        # torch's stub for the keyword-only form of `to` knows no memory format.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def made_model(task: Task) -> nn.Module:
    """What the task's `model` makes.

    Raises:
        TaskError: it fails, or makes something else than a module.
    """
    try:
        model = task.model()
    except GossamerError:
        raise
    except Exception as error:
        raise TaskError(f"{task.name}: making its model failed: {in_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise TaskError(f"{task.name}: its model is a {type(model).__name__}; expected a torch.nn.Module")
    return model


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    examples: Examples,
    *,
    seed: int,
    round_number: int = 0,
    replicate: int = 0,
    epochs: int | None = None,
    first_epoch: int = 0,
    first_step: int = 0,
    learning_rate: Callable[[int], float] | None = None,
    precision: Precision | None = None,
) -> Iterator[EpochReport]:
    """Trains from `first_epoch` to the end of the schedule, handing back control (to save, to show) after each epoch.

    Nothing happens until the iterator is run through. Model, optimizer and examples are on one device. On the CPU the
    weights after any epoch depend only on those before it, the optimizer's state, and the arguments, to the bit (for
    one machine and number of threads). The global random numbers of torch, numpy and Python are seeded at the start of
    each epoch.

    Args:
        seed, round_number, replicate: what the random numbers are derived from, with the epoch and what they are for.
        epochs: length of the schedule; the recipe's own unless given. The schedule is stretched over it.
        first_epoch: epochs of the schedule that have passed already (resuming, or rewinding to less than the start).
        first_step: steps of that epoch that are left out too, with their examples.
        learning_rate: step of the schedule, from 0 to epochs * steps_per_epoch - 1 -> learning rate; the recipe's
            schedule unless given.
        precision: what layers compute in; unless given, what recipe and processor agree on (`processor.precision`).

    Raises:
        ValueError: there are no examples, or `first_epoch` lies outside the schedule.
        TrainingDivergedError: a loss of the epoch is not finite.
    """
    epochs = recipe.epochs if epochs is None else epochs
    if not 0 <= first_epoch <= epochs:
        raise ValueError(f"first_epoch is {first_epoch}; expected 0 to {epochs}, the epochs of the schedule")
    if len(examples) == 0:
        raise ValueError("there are no examples to train on")
    device = next(model.parameters()).device
    compute = _autocast(device, precision or processor.precision(recipe, device))
    forward = processor.fastest_forward(model, device)
    batch_size = min(recipe.batch_size, len(examples))
    steps = steps_per_epoch(recipe, examples)
    rate = learning_rate or schedule_of(recipe, epochs * steps)
    if not 0 <= first_step < steps:
        raise ValueError(f"first_step is {first_step}; expected 0 to {steps - 1}, the steps of an epoch")
    # The first replicate has the random numbers of a round that is trained once.
    repeated = (replicate,) if replicate else ()
    for epoch in range(first_epoch, epochs):
        started = time.perf_counter()
        model.train()
        randomness.seed_all(derived_seed(seed, round_number, epoch, "layers", *repeated))
        order = _order(len(examples), derived_seed(seed, round_number, epoch, "order", *repeated)).to(device)
        drawn = derived_seed(seed, round_number, epoch, "augmentation", *repeated)
        generator = torch.Generator(device).manual_seed(drawn)
        total_loss = torch.zeros((), device=device)
        rate_now = 0.0
        skipped = first_step if epoch == first_epoch else 0
        for step in range(skipped, steps):
            inputs, targets = _batch(examples, order[step * batch_size : (step + 1) * batch_size], recipe, generator)
            rate_now = rate(epoch * steps + step)
            for group in optimizer.param_groups:
                group["lr"] = rate_now
            optimizer.zero_grad()
            with compute:
                outputs = forward(inputs)
            loss = recipe.loss(outputs.float(), targets)
            loss.backward()
            optimizer.step()
            total_loss += loss.detach()
        # The only wait for the device in an epoch. Once a loss is not finite, neither is the sum.
        report = EpochReport(
            epoch + 1, epochs, float(total_loss) / (steps - skipped), rate_now, time.perf_counter() - started
        )
        _refuse_diverged(report, round_number)
        yield report


def _refuse_diverged(report: EpochReport, round_number: int) -> None:
    if not math.isfinite(report.loss):
        raise TrainingDivergedError(
            f"the training loss became {report.loss} in epoch {report.epochs_done} of {report.epochs}, round "
            f"{round_number}, at a learning rate of {report.learning_rate:.4g}; expected a finite number. Lower the "
            f"learning rate, or look for values in the data that are not finite."
        )


def steps_per_epoch(recipe: Recipe, examples: Examples) -> int:
    """Optimizer steps of an epoch over these examples, at least one of them."""
    return len(examples) // min(recipe.batch_size, len(examples))


def schedule_of(recipe: Recipe, total_steps: int) -> Callable[[int], float]:
    """The recipe's schedule, stretched over so many steps: step -> learning rate."""
    return lambda step: recipe.learning_rate(step / total_steps)


@torch.no_grad()
def evaluate(model: nn.Module, examples: Examples, metric: Metric, *, batch_size: int = 1024) -> float:
    """The mean of the metric's score over all examples, computed in float32 and evaluation mode; the model's mode is
    put back after. Model and examples are on one device.

    Raises:
        ValueError: there are no examples.
        TrainingDivergedError: an output of the model is not a number, or the mean score is not finite.
    """
    if len(examples) == 0:
        raise ValueError("there are no examples to evaluate on")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total, count = torch.zeros((), dtype=torch.float64, device=examples.targets.device), 0
    try:
        for start in range(0, len(examples), batch_size):
            inputs, targets = examples.batch(slice(start, start + batch_size))
            outputs = model(inputs)
            scores = metric.score(outputs, targets)
            # An output that is not a number still has an argmax, so accuracy alone would not notice.
            total += torch.where(outputs.isnan().any(), torch.nan, scores.double().sum())
            count += scores.numel()
    finally:
        for module, mode in modes.items():
            module.training = mode
    mean = float(total) / count
    if not math.isfinite(mean):
        raise TrainingDivergedError(
            f"the {metric.name} of the model is {mean}; expected a finite number. A weight or an output is not finite: "
            "lower the learning rate, or go back to an earlier round."
        )
    return mean


def losses(model: nn.Module, recipe: Recipe, examples: Examples, seed: int) -> Iterator[Tensor]:
    """The recipe's loss on `GRADIENT_BATCHES` batches of training examples as they are, without augmentation, computed
    in float32; the same examples whenever it is asked with this seed. Each a scalar to be derived."""
    batch_size = min(recipe.batch_size, len(examples))
    order = _order(len(examples), derived_seed(seed, "gradients")).to(examples.targets.device)
    for rows in order.split(batch_size)[:GRADIENT_BATCHES]:
        inputs, targets = examples.batch(rows)
        yield recipe.loss(model(inputs).float(), targets)


def training_inputs(recipe: Recipe, examples: Examples, seed: int) -> Iterator[Tensor]:
    """The inputs of one epoch of training, batch by batch, in an order and with augmentation drawn from `seed`."""
    batch_size = min(recipe.batch_size, len(examples))
    device = examples.targets.device
    order = _order(len(examples), derived_seed(seed, "order")).to(device)
    generator = torch.Generator(device).manual_seed(derived_seed(seed, "augmentation"))
    for step in range(steps_per_epoch(recipe, examples)):
        yield _batch(examples, order[step * batch_size : (step + 1) * batch_size], recipe, generator)[0]


def _order(count: int, seed: int) -> Tensor:
    """A permutation of the examples, drawn on the CPU so that it is the same for every device. Shape (count,)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _batch(examples: Examples, rows: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs = examples.inputs.index_select(0, rows)
    if recipe.augment is not None:
        inputs = recipe.augment(inputs, generator)
    if examples.prepare is not None:
        inputs = examples.prepare(inputs)
    if recipe.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs, examples.targets.index_select(0, rows)


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
