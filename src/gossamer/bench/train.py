"""`gossamer bench train`: how long a training step of a built-in task takes, everything included."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gossamer.bench.measure import machine, spread
from gossamer.errors import ConfigurationError
from gossamer.tasks import Examples, Split, Task, find_task, initial_model, processor, train
from gossamer.tasks.char_gpt import CHARACTERS, CONTEXT, STRIDE
from gossamer.tasks.cifar10 import CIFAR10, standardised
from gossamer.tasks.loading import load_data
from gossamer.tasks.text import windows
from gossamer.tasks.training import sample, steps_per_epoch

CIFAR10_TRAINING = 45_000
"""Images, without those for validation."""
SHAKESPEARE_TRAINING = 948_085
"""Bytes: 85% of tiny Shakespeare."""


def run(
    task_name: str = "resnet-20",
    data_folder: Path | None = None,
    *,
    passes: int = 5,
    steps: int = 40,
    device: str = "cpu",
) -> dict[str, Any]:
    """Trains the dense network by `tasks.training.train` for a few passes of a few steps, and times each pass.

    A step is everything that training does: picking the batch, augmentation, forward and backward pass, optimizer. A
    first pass of `steps` is not counted (compilation, caches). Like `gossamer compress`, it sets how this process
    keeps memory and rounds denormal numbers.

    Args:
        task_name: a built-in task, or with data `path/file.py:function`.
        data_folder: the task's data; None for noise of the same shape, where the task's data are not embedded.
        passes: how many times the steps are timed.
        steps: in one pass; 0 for a whole epoch.

    Returns:
        `step_seconds` (median, min and max over the passes, each pass's time divided by its steps),
        `examples_per_second`, `epoch_steps` and `epoch_seconds` (those of the task's own training split, at the median
        step), `batch`, `precision`, `threads`, and `machine`.

    Raises:
        ConfigurationError: no such task, no stand-in for its data, or fewer than one pass.
        DataError: see `gossamer.tasks`.
    """
    if passes < 1 or steps < 0:
        raise ConfigurationError(f"got {passes} passes of {steps} steps; expected at least 1 pass, and 0 steps or more")
    processor.keep_freed_memory()
    processor.flush_denormals()
    task = find_task(task_name).at(data_folder)
    real = data_folder is not None or task_name == "digits"
    examples: Split = load_data(task, data_folder, seed=0).train if real else stand_in(task_name)
    batch = sample(task.recipe, examples).examples
    epoch_steps = steps_per_epoch(task.recipe, examples)
    steps = min(steps or epoch_steps, epoch_steps)
    seconds = _seconds_a_step(task, _first(examples, steps, batch).to(device), passes, steps, device)
    median = spread(seconds)["median"]
    return {
        "what": f"training step of {task_name}, batch {batch}",
        "data": "real" if real else "noise",
        "passes": passes,
        "steps": steps,
        "step_seconds": spread(seconds),
        "examples_per_second": batch / median,
        "epoch_steps": epoch_steps,
        "epoch_seconds": median * epoch_steps,
        "batch": batch,
        "precision": processor.precision(task.recipe, device),
        "device": device,
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }


def stand_in(task_name: str) -> Examples:
    """Noise of the shape, type and number of the task's training examples.

    Raises:
        ConfigurationError: there is none for this task.
    """
    if task_name not in STAND_INS:
        raise ConfigurationError(
            f"there is no stand-in for the data of {task_name!r}; give --data, or one of {', '.join(STAND_INS)}"
        )
    return STAND_INS[task_name](torch.Generator().manual_seed(0))


def _photographs(generator: torch.Generator) -> Examples:
    shape = (CIFAR10_TRAINING, CIFAR10.channels, CIFAR10.height, CIFAR10.width)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return Examples(images, torch.randint(CIFAR10.classes, shape[:1], generator=generator), standardised)


def _text(generator: torch.Generator) -> Examples:
    content = torch.randint(CHARACTERS, (SHAKESPEARE_TRAINING,), generator=generator, dtype=torch.uint8)
    return windows(content, CONTEXT, STRIDE)


STAND_INS: dict[str, Callable[[torch.Generator], Examples]] = {
    "resnet-20": _photographs,
    "resnet-56": _photographs,
    "char-gpt": _text,
}


def _seconds_a_step(task: Task, examples: Split, passes: int, steps: int, device: str) -> list[float]:
    """Returns the seconds of a step in each pass after the first."""
    model = initial_model(task, seed=0, device=device)
    optimizer = task.recipe.optimizer(model)
    reports = list(train(model, optimizer, task.recipe, examples, seed=0, epochs=1 + passes))
    return [report.seconds / steps for report in reports[1:]]


def _first(examples: Split, steps: int, batch: int) -> Split:
    """Examples for so many steps."""
    return examples.first(steps * batch) if isinstance(examples, Examples) else replace(examples, steps=steps)
