"""The main job: a task's network, compressed round by round; the built-in counterpart of a user's own loop."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from gossamer.arguments import setting, whole_number
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.cost import Work
from gossamer.loop.driver import Round, restore_memory_format, rounds
from gossamer.loop.folder import kept_snapshot
from gossamer.loop.metrics import TEST_PREFIX
from gossamer.loop.normalisation import Batches, layers_with_statistics
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import REPLICATES, TRAINING, read_records
from gossamer.prune.criteria import find_criterion
from gossamer.prune.cut import DensityPlan
from gossamer.prune.scope import Scope
from gossamer.randomness import derived_seed
from gossamer.rewind import snapshot
from gossamer.rewind.strategies import DEFAULT, START, STRATEGIES, Schedule, Span
from gossamer.storage import state as states
from gossamer.storage.files import absolute, remove, write_file
from gossamer.tasks import processor, retraining
from gossamer.tasks.loading import failing, load_data
from gossamer.tasks.operations import Operations, count_operations
from gossamer.tasks.task import Data, Examples, Recipe, Task, describe
from gossamer.tasks.training import (
    EpochReport,
    evaluate,
    initial_model,
    losses,
    schedule_of,
    steps_per_epoch,
    train,
    training_inputs,
)
from gossamer.tasks.trial import check_task
from gossamer.watch.progress import ProgressFile

OptimizerState = Literal["keep", "fresh"]

CHECKPOINT_SECONDS = 10.0
"""At the end of an epoch the training state is saved if the last save is at least this long ago. Every epoch's random
numbers are derived from the seed, so a later resumption point costs time and changes no bit."""


class Listener(Protocol):
    """Who is told how far the job is."""

    def round_started(self, round: Round, last_round: int | None) -> None: ...

    def epoch_finished(self, round: Round, report: EpochReport) -> None: ...

    def round_finished(self, record: RoundRecord) -> None: ...


class Silent:
    """Tells nobody."""

    def round_started(self, round: Round, last_round: int | None) -> None:
        pass

    def epoch_finished(self, round: Round, report: EpochReport) -> None:
        pass

    def round_finished(self, record: RoundRecord) -> None:
        pass


class Together:
    """Tells several listeners, in this order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def round_started(self, round: Round, last_round: int | None) -> None:
        for listener in self.listeners:
            listener.round_started(round, last_round)

    def epoch_finished(self, round: Round, report: EpochReport) -> None:
        for listener in self.listeners:
            listener.epoch_finished(round, report)

    def round_finished(self, record: RoundRecord) -> None:
        for listener in self.listeners:
            listener.round_finished(record)


def compress(
    task: Task,
    *,
    folder: str | Path,
    data_folder: Path | None = None,
    target_sparsity: float | None = None,
    max_drop: float | None = None,
    round_count: int | None = None,
    per_round: float | None = None,
    criterion: str = "magnitude",
    allocation: DensityPlan = "global",
    structure: str = "unstructured",
    scope: Scope | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    optimizer_state: OptimizerState = "keep",
    method: str = DEFAULT,
    one_shot: bool = False,
    rewind_epochs: int | None = None,
    rewind_to_epoch: int | None = None,
    rewind_to_step: int | None = None,
    rewound: Sequence[str] | None = None,
    replicates: int = 1,
    fine_tune_rate: float | None = None,
    dense: Path | None = None,
    dense_only: bool = False,
    keep_snapshots: Sequence[int] = (),
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    listener: Listener | None = None,
    task_source: str | None = None,
) -> list[RoundRecord]:
    """Trains and prunes the task's network until a stopping rule ends it; continues what the folder already holds.

    A network that comes trained (`Task.pretrained`) is the dense round as it is, and the weights of methods that rewind
    them go back to it.

    Args:
        data_folder: where the task's data are; None for data that a package brings along.
        epochs: training time of every round; the recipe's by default.
        seed: of the initial weights, the order of the data and the augmentation. The same seed gives the same bits on
            the CPU (with the same versions and number of threads).
        device: "cpu" or a GPU such as "cuda".
        optimizer_state: "keep" hands the momentum from the end of one round to the next, as the paper's code does;
            "fresh" begins every round with none.
        method, one_shot, rewind_epochs, rewind_to_epoch, rewind_to_step, rewound: how to retrain, see
            `gossamer.rounds`. New random weights ("reinit") are drawn as the task's model draws its first ones.
        replicates: how many times each round after the dense one is trained, each time with other random numbers from
            the same start, to go on with the average of the weights; see `gossamer.loop.driver.Round.replicates`.
            BatchNorm's statistics are then computed by a pass over the training data.
        fine_tune_rate: the learning rate of methods that retrain with a constant one; by default the recipe's
            `fine_tune_rate`, or the last one of its schedule.
        dense: folder of another run of the same settings, whose dense network is taken over instead of training it.
        dense_only: train the dense network and stop, for others to take over.
        keep_snapshots: with `dense_only`, the epochs after which what they may rewind to is kept.
        checkpoint_seconds: least time between two saves of the training state inside a round.
        task_source: where a task of one's own is, `path/file.py:function`; recorded for people, never imported.
        The others: see `gossamer.rounds`.

    Returns:
        The records of all rounds, the dense one first. The models come back with `gossamer.load_round`.

    Raises:
        GossamerError: see `gossamer.rounds` and `gossamer.tasks.training.train`.
    """
    # A task's own code may change the working directory.
    folder = absolute(folder)
    data_folder = None if data_folder is None else absolute(data_folder)
    progress = ProgressFile(folder)
    listener = Together(progress, listener or Silent())
    epochs = task.recipe.epochs if epochs is None else whole_number("epochs", epochs, "a whole number, at least 1")
    seed = whole_number("seed", seed)
    fine_tune_rate = None if fine_tune_rate is None else setting("fine_tune_rate", fine_tune_rate)
    if epochs < 1:
        raise ConfigurationError(f"epochs is {epochs}; expected at least 1")
    where = processor.find_device(device)
    constant_rate = retraining.constant_rate(task.recipe, method, fine_tune_rate)
    if keep_snapshots and not dense_only:
        raise ConfigurationError(
            "snapshots for other runs are kept of a dense network that is trained for them; give dense_only with "
            "keep_snapshots, or leave it out"
        )
    told_from_start = rewind_to_epoch is not None or rewind_to_step is not None
    if rewind_epochs is not None and not told_from_start and 0 < rewind_epochs <= epochs and _rewinds_weights(method):
        # The same point, told from the start, which is how snapshots are called.
        rewind_to_epoch, rewind_epochs = epochs - rewind_epochs, None
    moments = (rewind_to_epoch, rewind_to_step) if _rewinds_weights(method) else ()
    retraining.check_moments(task, [*keep_snapshots, *moments])
    model = initial_model(task, seed, where)
    optimizer = _optimizer(task, model)
    precision = processor.precision(task.recipe, where)
    settings = {
        "task": task.name,
        "epochs": epochs,
        "batch_size": task.recipe.batch_size,
        "recipe": describe(task.recipe),
        "precision": precision,
        "device": where.type,
        "optimizer_state": optimizer_state,
        "fine_tune_rate": constant_rate,
        "pretrained": task.pretrained or None,
    }
    data: Data | None = None

    def the_data() -> Data:
        # Loaded when there is something to train: a finished run is shown again without its data.
        nonlocal data
        if data is None:
            data = load_data(task, data_folder, seed).to(where)
            check_task(task, model, data)
        return data

    driver = rounds(
        model,
        folder=folder,
        target_sparsity=target_sparsity,
        max_drop=max_drop,
        rounds=round_count,
        per_round=per_round,
        criterion=criterion,
        allocation=allocation,
        structure=structure,
        losses=(lambda: losses(model, task.recipe, the_data().train, seed))
        if find_criterion(criterion).needs_gradients
        else None,
        scope=scope,
        metric=task.metric.name,
        better=task.metric.better,
        state={"optimizer": optimizer} if optimizer_state == "keep" else None,
        seed=seed,
        settings=settings,
        method=method,
        one_shot=one_shot,
        rewind_epochs=rewind_epochs,
        rewind_to_epoch=rewind_to_epoch,
        rewind_to_step=rewind_to_step,
        rewound=rewound,
        replicates=replicates,
        fresh_model=None if task.pretrained else task.model,
        dense=dense,
        origin={"task": task_source},
    )
    operations: Operations | None = None
    for round in driver:
        if dense_only and round.number > 0:
            _require_snapshots(round.folder, keep_snapshots)
            break
        splits = the_data()
        if optimizer_state == "fresh":
            optimizer = _optimizer(task, model)
        listener.round_started(round, round.last)
        epoch_steps = steps_per_epoch(task.recipe, splits.train)
        checkpoint = _Checkpoint(round, model, optimizer, epoch_steps, checkpoint_seconds)
        # Of an optimizer that ends with the round, the driver knows nothing.
        empty = copy.deepcopy(optimizer.state_dict()) if optimizer_state == "fresh" else None
        for replicate in round.replicates(_inputs(task.recipe, splits.train, seed, round.number)):
            if empty is not None:
                optimizer.load_state_dict(copy.deepcopy(empty))
            epochs_done = checkpoint.restore(replicate)
            schedule = round.schedule(epochs * epoch_steps, epoch_steps)
            for epoch in keep_snapshots if dense_only else ():
                _keep_snapshot(
                    round, epoch, epoch_steps, model, {} if optimizer_state == "fresh" else {"optimizer": optimizer}
                )
            if task.pretrained and round.number == 0:
                continue
            first_epoch, first_step = (epochs_done, 0) if epochs_done else divmod(schedule.first, epoch_steps)
            with failing(task, "its learning rate"):
                rate = _learning_rate(schedule, task.recipe, constant_rate)
            reports = train(
                model,
                optimizer,
                task.recipe,
                splits.train,
                seed=seed,
                round_number=round.number,
                replicate=replicate,
                epochs=epochs,
                first_epoch=first_epoch,
                first_step=first_step,
                learning_rate=rate,
                precision=precision,
            )
            for report in _trained(task, reports):
                checkpoint.save_if_due(report, replicate)
                listener.epoch_finished(round, _of_round(report, replicate, round.trainings))
        metrics = {
            task.metric.name: evaluate(model, splits.validation, task.metric),
            f"{TEST_PREFIX}{task.metric.name}": evaluate(model, splits.test, task.metric),
        }
        operations = operations or count_operations(model, task.recipe, splits.train)
        round.work = _work(operations, round, model, task.recipe, splits.train)
        record = round.record(untrained=task.pretrained and round.number == 0, **metrics)
        checkpoint.remove()
        listener.round_finished(record)
        for epoch in keep_snapshots if dense_only else ():
            snapshot.require(_kept(round.folder, epoch), epoch * epoch_steps, round.steps)
    progress.remove()
    # Left by a kill between the end of the last round and its removal there.
    remove(folder / TRAINING)
    return read_records(folder)


def _optimizer(task: Task, model: nn.Module) -> torch.optim.Optimizer:
    with failing(task, "making its optimizer"):
        return task.recipe.optimizer(model)


def _trained(task: Task, reports: Iterator[EpochReport]) -> Iterator[EpochReport]:
    """The same; what the task's own functions raise on the way is told in one line."""
    with failing(task, "training"):
        yield from reports


class _Checkpoint:
    """The training state inside a round: model, optimizer, and how much of the schedule has passed."""

    def __init__(
        self,
        round: Round,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        epoch_steps: int,
        least_seconds: float,
    ) -> None:
        self.path = round.folder / TRAINING
        self.round = round
        self.model = model
        self.optimizer = optimizer
        self.epoch_steps = epoch_steps
        self.least_seconds = least_seconds
        self.last_save = time.monotonic()

    def restore(self, replicate: int) -> int:
        """Puts back what an interrupted attempt at this replicate saved; returns the epochs that need no repetition.

        Raises:
            CheckpointError: the file is damaged, does not fit, or is of a later replicate.
        """
        if not self.path.exists():
            return 0
        saved = states.load_entries(self.path)
        # Not in the files of older versions.
        of_replicate = saved.get("replicate", 0)
        if not isinstance(of_replicate, int) or not isinstance(saved.get("round"), int):
            raise CheckpointError(f"{self.path} does not say of which round it is; remove it to repeat the round")
        if saved.get("round") != self.round.number or of_replicate < replicate:
            # Its round or its replicate is finished.
            self.remove()
            return 0
        if of_replicate > replicate:
            raise CheckpointError(
                f"{self.path} is of replicate {of_replicate} of round {self.round.number}, but {REPLICATES} does not "
                f"hold the ones before it; restore that, or remove both to repeat the round from its start"
            )
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            restore_memory_format(self.optimizer)
            self.round.seconds_before = float(saved["seconds"])
            # Not in the files of older versions.
            self.round.processor_seconds_before = float(saved.get("processor_seconds", 0.0))
            epochs_done = int(saved["epochs_done"])
            # Snapshots are counted from the dense round's first step, whichever attempt took it.
            self.round.steps = int(saved.get("steps", epochs_done * self.epoch_steps))
        except (ArithmeticError, AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.path} does not fit this run ({error}); remove it to repeat round {self.round.number} from its "
                f"start"
            ) from error
        return epochs_done

    def save_if_due(self, report: EpochReport, replicate: int) -> None:
        if report.epochs_done == report.epochs or time.monotonic() - self.last_save < self.least_seconds:
            return
        state: Mapping[str, Any] = {
            "round": self.round.number,
            "replicate": replicate,
            "epochs_done": report.epochs_done,
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.round.steps,
            "processor_seconds": self.round.processor_seconds,
            "seconds": self.round.seconds,
        }
        write_file(self.path, lambda temporary: states.save(temporary, state))
        self.last_save = time.monotonic()

    def remove(self) -> None:
        remove(self.path)


def _keep_snapshot(
    round: Round, epoch: int, epoch_steps: int, model: nn.Module, objects: Mapping[str, torch.optim.Optimizer]
) -> None:
    """After so many epochs of the dense round, writes what another run may rewind to."""
    step = epoch * epoch_steps
    round.after_step(step, lambda: snapshot.take(_kept(round.folder, epoch), step, model, objects))


def _inputs(recipe: Recipe, examples: Examples, seed: int, round_number: int) -> Batches:
    """What BatchNorm's statistics after averaging are computed from."""
    return lambda: training_inputs(recipe, examples, derived_seed(seed, round_number, "statistics"))


def _of_round(report: EpochReport, replicate: int, trainings: int) -> EpochReport:
    """A report of one training as one of its round, which has `trainings` of them."""
    return replace(report, epochs_done=replicate * report.epochs + report.epochs_done, epochs=trainings * report.epochs)


def _work(operations: Operations, round: Round, model: nn.Module, recipe: Recipe, examples: Examples) -> Work:
    """For the ledger: what this round computed."""
    epoch_steps, batch_size = steps_per_epoch(recipe, examples), min(recipe.batch_size, len(examples))
    averaged = round.trainings > 1 and layers_with_statistics(model)
    statistics = epoch_steps * batch_size * operations.forward if averaged else 0.0
    return Work(
        epochs=round.steps / epoch_steps,
        training_flops=round.steps * batch_size * operations.training + statistics,
        inference_flops=operations.forward,
        inference_flops_left=operations.left(round.masks),
    )


def _require_snapshots(folder: Path, epochs: Sequence[int]) -> None:
    missing = [epoch for epoch in epochs if not _kept(folder, epoch).exists()]
    if missing:
        raise ConfigurationError(
            f"the dense network in {folder} is trained already and kept no snapshot after epoch {missing[0]}; train "
            f"it again in another folder"
        )


def _kept(folder: Path, epoch: int) -> Path:
    return kept_snapshot(folder, str(Span(epoch, "epochs") if epoch else START))


def _rewinds_weights(method: str) -> bool:
    return method in STRATEGIES and STRATEGIES[method].weights == "rewound"


def _learning_rate(schedule: Schedule, recipe: Recipe, constant: float | None) -> Callable[[int], float]:
    """Step of the recipe's schedule -> learning rate of this round."""
    if schedule.follows == "last" and constant is not None:
        return lambda step: constant
    rates = schedule.rates(schedule_of(recipe, schedule.total))
    return lambda step: rates[step - schedule.first]
