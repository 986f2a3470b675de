"""What can go wrong in a run of a comparison and can be known before the first one: by the checks that it makes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from gossamer.compare.grid import Grid
from gossamer.compare.method import Method
from gossamer.errors import ConfigurationError, GossamerError
from gossamer.loop.plan import Plan
from gossamer.loop.records import TRAINING
from gossamer.prune.choose import check, own_target
from gossamer.prune.prunable import prunable_weights
from gossamer.storage.files import locked, remove
from gossamer.tasks import processor, retraining
from gossamer.tasks.loading import load_data
from gossamer.tasks.task import Task
from gossamer.tasks.training import initial_model


def check_methods(grid: Grid, task: Task) -> None:
    """Verifies that the task's network can be cut and retrained by every method.

    Raises:
        ConfigurationError: it cannot; the message names the method.
    """
    model = initial_model(task, grid.seeds[0])
    for method in grid.methods:
        with _named(method):
            rate = grid.training.fine_tune_rate if method.constant_rate else None
            retraining.constant_rate(task.recipe, method.strategy, rate)
            retraining.check_moments(task, [grid.rewound_to(method)] if method.rewinds_weights else [])
            _check_cuts(grid, method, model)


def targets_in_files(methods: Sequence[Method], task: Task) -> dict[Method, float]:
    """The sparsity of the task's network that those one-shot methods cut to whose densities are in a file.

    Raises:
        ConfigurationError: a file cannot be read, or is not of this network; the message names the method.
    """
    own = [method for method in methods if method.has_own_densities]
    if not own:
        return {}
    weights = prunable_weights(initial_model(task, seed=0))
    found = {}
    for method in own:
        with _named(method):
            target = own_target(method.cut, weights)
        if target is not None:
            found[method] = target
    return found


def check_machine(grid: Grid, task: Task) -> None:
    """Verifies that the device and the task's data are there.

    Raises:
        ConfigurationError: there is no such device.
        GossamerError: the data cannot be had.
    """
    processor.find_device(grid.training.device)
    load_data(task, grid.data, grid.seeds[0])


def begin_again(grid: Grid) -> list[str]:
    """Has dense trainings begin again that were interrupted after an epoch whose weights a method goes back to that was
    added since: what is lost of them is less than each run of that method would take to train its own.

    Returns:
        The names of their folders.

    Raises:
        ConfigurationError: another process is training one of them.
    """
    folders = grid.trained_past_snapshots()
    for folder in folders:
        with locked(folder):
            remove(folder / TRAINING)
    return [str(folder) for folder in folders]


@contextmanager
def _named(method: Method) -> Iterator[None]:
    """Puts the method's name before what is wrong with it."""
    try:
        yield
    except GossamerError as error:
        raise ConfigurationError(f"{method}: {error}") from error


def _check_cuts(grid: Grid, method: Method, model: nn.Module) -> None:
    weights = prunable_weights(model)
    prunable = sum(weight.numel() for weight in weights.values())
    for target in grid.targets(method):
        check(method.cut, model, weights, Plan(prunable, target_sparsity=target).smallest)
