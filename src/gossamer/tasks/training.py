"""The training loop of the built-in tasks: one call of `train` is one round, the recipe's whole schedule."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor, nn

from gossamer import randomness
from gossamer.errors import GossamerError, TrainingDivergedError
from gossamer.model.nested import in_float32
from gossamer.randomness import Draw, derived_seed
from gossamer.tasks import processor
from gossamer.tasks.batch import Batch, called
from gossamer.tasks.errors import TaskError
from gossamer.tasks.loaded import Loaded, order_of
from gossamer.tasks.loading import in_one_line
from gossamer.tasks.task import Examples, Precision, Recipe, Split, Task

SAMPLE = 32
"""Examples to try things with, where the recipe does not say how many a step has."""
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


@dataclass(frozen=True)
class StepReport:
    """How far an epoch of training is."""

    epochs_done: int
    """Epochs of the schedule that have passed."""
    epochs: int
    steps_done: int
    """Optimizer steps of the epoch that goes on."""
    steps: int
    """Optimizer steps of an epoch."""
    seconds: float
    """Since the epoch began, or was gone on with."""
    first_step: int = 0
    """The step that it began with, or was gone on from."""
    doing: str = "training"
    """Or the split that is being measured; the steps are its batches then, 0 of them if nobody knows how many."""


class TrainingOptions(TypedDict, total=False):
    """The options of `train` by name; what they mean and their defaults are `train_by_steps`'s."""

    seed: Required[int]
    round_number: int
    replicate: int
    epochs: int | None
    first_epoch: int
    first_step: int
    learning_rate: Callable[[int], float] | None
    precision: Precision | None


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    examples: Split,
    **options: Unpack[TrainingOptions],
) -> Iterator[EpochReport]:
    """Trains as `train_by_steps` does, and hands back control (to save, to show) after each epoch."""
    for report in train_by_steps(model, optimizer, recipe, examples, **options):
        if isinstance(report, EpochReport):
            yield report


def train_by_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    examples: Split,
    *,
    seed: int,
    round_number: int = 0,
    replicate: int = 0,
    epochs: int | None = None,
    first_epoch: int = 0,
    first_step: int = 0,
    learning_rate: Callable[[int], float] | None = None,
    precision: Precision | None = None,
) -> Iterator[StepReport | EpochReport]:
    """Trains from `first_epoch` to the end of the schedule, handing back control after each step and each epoch.

    Nothing happens until the iterator is run through. Model, optimizer and examples in memory are on one device. On the
    CPU the weights after any epoch depend only on those before it, the optimizer's state, and the arguments, to the bit
    (for one machine and number of threads). The global random numbers of torch, numpy and Python are seeded at the
    start of each epoch; with examples that are read while they are used (`Loaded`), at each step.

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
        TaskError: examples cannot be read.
        TrainingDivergedError: a loss of the epoch is not finite.
    """
    epochs = recipe.epochs if epochs is None else epochs
    if not 0 <= first_epoch <= epochs:
        raise ValueError(f"first_epoch is {first_epoch}; expected 0 to {epochs}, the epochs of the schedule")
    if isinstance(examples, Examples) and len(examples) == 0:
        raise ValueError("there are no examples to train on")
    device = next(model.parameters()).device
    compute = _autocast(device, precision or processor.precision(recipe, device))
    forward = processor.fastest_forward(model, device)
    steps = steps_per_epoch(recipe, examples)
    rate = learning_rate or schedule_of(recipe, epochs * steps)
    if not 0 <= first_step < steps:
        raise ValueError(f"first_step is {first_step}; expected 0 to {steps - 1}, the steps of an epoch")
    # The first replicate has the random numbers of a round that is trained once.
    repeated = (replicate,) if replicate else ()
    for epoch in range(first_epoch, epochs):
        started = time.perf_counter()
        model.train()
        draw = _drawing((seed, round_number, epoch), repeated)
        randomness.seed_all(draw("layers"))
        total_loss = torch.zeros((), device=device)
        rate_now = 0.0
        skipped = first_step if epoch == first_epoch else 0
        for step, batch in enumerate(training_batches(recipe, examples, draw, device, skipped), skipped):
            rate_now = rate(epoch * steps + step)
            for group in optimizer.param_groups:
                group["lr"] = rate_now
            optimizer.zero_grad()
            with compute:
                outputs = called(forward, batch, recipe.loss)
            loss = recipe.loss(in_float32(outputs), batch.targets)
            loss.backward()
            optimizer.step()
            total_loss += loss.detach()
            yield StepReport(epoch, epochs, step + 1, steps, time.perf_counter() - started, skipped)
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


def steps_per_epoch(recipe: Recipe, examples: Split) -> int:
    """Optimizer steps of an epoch over these examples, at least one of them."""
    if isinstance(examples, Loaded):
        return examples.epoch_steps
    return len(examples) // batch_size_of(recipe, examples)


def batch_size_of(recipe: Recipe, examples: Examples) -> int:
    """Examples in memory of one step.

    Raises:
        TaskError: the recipe does not say it.
    """
    if recipe.batch_size is None:
        raise TaskError("the recipe's batch_size is None, which only a DataLoader knows; expected a whole number")
    return min(recipe.batch_size, len(examples))


def schedule_of(recipe: Recipe, total_steps: int) -> Callable[[int], float]:
    """The recipe's schedule, stretched over so many steps: step -> learning rate."""
    return lambda step: recipe.learning_rate(step / total_steps)


def losses(model: nn.Module, recipe: Recipe, examples: Split, seed: int) -> Iterator[Tensor]:
    """The recipe's loss on `GRADIENT_BATCHES` batches of training examples as they are, without the recipe's
    augmentation, computed in float32; the same examples whenever it is asked with this seed. Each a scalar to be
    derived."""
    draw = partial(derived_seed, seed, "gradients")
    device = next(model.parameters()).device
    if isinstance(examples, Examples):
        batch_size = batch_size_of(recipe, examples)
        order = order_of(len(examples), draw()).to(device)
        read: Iterator[Batch] = (
            Batch((inputs,), targets=targets) for inputs, targets in map(examples.batch, order.split(batch_size))
        )
    else:
        read = _isolated(examples, draw, device)
    for batch in islice(read, GRADIENT_BATCHES):
        yield recipe.loss(in_float32(called(model, batch, recipe.loss)), batch.targets)


def _isolated(examples: Loaded, draw: Draw, device: torch.device) -> Iterator[Batch]:
    """An epoch of batches; the global random numbers are as before once it is over."""
    with randomness.seeded(draw("global")):
        for batch in examples.epoch(draw):
            yield batch.to(device)


def training_inputs(recipe: Recipe, examples: Split, seed: int, device: torch.device) -> Iterator[Batch]:
    """One epoch of training batches, in an order and with augmentation drawn from `seed`."""
    return training_batches(recipe, examples, partial(derived_seed, seed), device)


def training_batches(
    recipe: Recipe, examples: Split, draw: Draw, device: torch.device, first_step: int = 0
) -> Iterator[Batch]:
    """The batches of an epoch of training, from `first_step` on, on the device."""
    if isinstance(examples, Loaded):
        for step, batch in enumerate(examples.epoch(draw, first_step), first_step):
            # Anew for each step, so that an epoch can be gone on with from any.
            randomness.seed_all(draw("layers", step))
            moved = batch.to(device)
            yield moved.mapped(_channels_last) if recipe.channels_last else moved
        return
    batch_size = batch_size_of(recipe, examples)
    order = order_of(len(examples), draw("order")).to(device)
    generator = torch.Generator(device).manual_seed(draw("augmentation"))
    for step in range(first_step, steps_per_epoch(recipe, examples)):
        yield _batch(examples, order[step * batch_size : (step + 1) * batch_size], recipe, generator)


def sample(recipe: Recipe, examples: Split, count: int | None = None) -> Batch:
    """The first examples of a split, to try things with; the same ones each time, and nothing is drawn.

    Args:
        count: how many; None: as many as a step has.
    """
    if isinstance(examples, Loaded):
        batch = examples.sample(count)
        return batch if count is None else batch.first(count)
    inputs, targets = examples.batch(slice(0, count or recipe.batch_size or SAMPLE))
    return Batch((inputs,), targets=targets)


def _drawing(first: tuple[int, ...], last: tuple[int, ...]) -> Draw:
    return lambda *purpose: derived_seed(*first, *purpose, *last)


def _batch(examples: Examples, rows: Tensor, recipe: Recipe, generator: torch.Generator) -> Batch:
    inputs = examples.inputs.index_select(0, rows)
    if recipe.augment is not None:
        inputs = recipe.augment(inputs, generator)
    if examples.prepare is not None:
        inputs = examples.prepare(inputs)
    if recipe.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return Batch((inputs,), targets=examples.targets.index_select(0, rows))


def _channels_last(tensor: Tensor) -> Tensor:
    """Images with their channels innermost; anything else as it is."""
    images = tensor.dim() == 4 and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if images else tensor


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
