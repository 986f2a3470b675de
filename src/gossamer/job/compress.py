"""The main job: a task's network, compressed round by round; the built-in counterpart of a user's own loop."""

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.job.callbacks import Callback, Callbacks
from gossamer.job.checkpoint import Checkpoint
from gossamer.job.training import DenseRound, Training
from gossamer.loop.cost import Work
from gossamer.loop.driver import rounds
from gossamer.loop.folder import kept_snapshot
from gossamer.loop.metrics import TEST_PREFIX
from gossamer.loop.normalisation import Batches, layers_with_statistics
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import TRAINING, read_records
from gossamer.loop.round import Round
from gossamer.loop.stop import Stop
from gossamer.prune.criteria import find_criterion
from gossamer.prune.cut import Cut
from gossamer.prune.scope import Scope
from gossamer.randomness import derived_seed
from gossamer.rewind import snapshot
from gossamer.rewind.strategies import START, Retraining, Schedule, Span
from gossamer.storage.files import absolute, remove
from gossamer.tasks import processor
from gossamer.tasks import retraining as of_task
from gossamer.tasks.evaluation import measure
from gossamer.tasks.loaded import Loaded
from gossamer.tasks.loading import failing, load_data
from gossamer.tasks.operations import Operations, count_operations
from gossamer.tasks.task import Data, Examples, Recipe, Split, Task, describe
from gossamer.tasks.training import (
    EpochReport,
    StepReport,
    batch_size_of,
    initial_model,
    losses,
    schedule_of,
    steps_per_epoch,
    train_by_steps,
    training_inputs,
)
from gossamer.tasks.trial import check_task
from gossamer.watch.progress import ProgressFile


def compress(
    task: Task,
    *,
    folder: str | Path,
    data_folder: Path | None = None,
    stop: Stop | None = None,
    cut: Cut | None = None,
    retraining: Retraining | None = None,
    scope: Scope | None = None,
    training: Training | None = None,
    dense: DenseRound | None = None,
    callbacks: Sequence[Callback] = (),
    task_source: str | None = None,
) -> list[RoundRecord]:
    """Trains and prunes the task's network until `stop` ends it; continues what the folder already holds.

    A network that comes trained (`Task.pretrained`) is the dense round as it is, and the weights of methods that rewind
    them go back to it. New random weights ("reinit") are drawn as the task's model draws its first ones. After averages
    of replicates, BatchNorm's statistics are computed by a pass over the training data.

    Args:
        folder, stop, cut, retraining, scope: see `gossamer.rounds`; gradients for a criterion come from training
            examples.
        data_folder: where the task's data are; None for data that a package brings along.
        training: epochs, seed, device, and what else is set beside the task's recipe.
        dense: where the dense network is from, and what is kept of its training; by default it is trained here.
        callbacks: who is told how far the job is.
        task_source: where a task of one's own is, `path/file.py:function`; recorded for people, never imported.

    Returns:
        The records of all rounds, the dense one first. The models come back with `gossamer.load_round`.

    Raises:
        GossamerError: see `gossamer.rounds` and `gossamer.tasks.training.train`.
    """
    # A task's own code may change the working directory.
    folder = absolute(folder)
    data_folder = None if data_folder is None else absolute(data_folder)
    task = task.at(data_folder)
    progress = ProgressFile(folder)
    job = _Job(task, data_folder, retraining or Retraining(), training or Training(), dense or DenseRound())
    callback = Callbacks(progress, *callbacks)
    for round in job.rounds(folder, stop or Stop(), cut or Cut(), scope, {"task": task_source}):
        if job.dense.only and round.number > 0:
            _require_snapshots(round.folder, job.dense.keep_snapshots)
            break
        job.train(round, callback)
        callback.round_finished(job.record(round, callback))
    progress.remove()
    # Left by a kill between the end of the last round and its removal there.
    remove(folder / TRAINING)
    return read_records(folder)


class _Job:
    """A task's network, its optimizer and its data."""

    def __init__(
        self, task: Task, data_folder: Path | None, retraining: Retraining, training: Training, dense: DenseRound
    ) -> None:
        self.task = task
        self.recipe = task.recipe
        self.training = training
        self.dense = dense
        self.epochs = training.epochs_of(task.recipe.epochs)
        self.device = processor.find_device(training.device)
        self.constant_rate = of_task.constant_rate(task.recipe, retraining.method, training.fine_tune_rate)
        self.retraining = _told_from_start(retraining, self.epochs)
        rewinds = retraining.strategy.weights == "rewound"
        moments = (self.retraining.rewind_to_epoch, self.retraining.rewind_to_step) if rewinds else ()
        of_task.check_moments(task, [*dense.keep_snapshots, *moments])
        self.model = initial_model(task, training.seed, self.device)
        self.optimizer = self._new_optimizer()
        self.precision = processor.precision(task.recipe, self.device)
        self._data_folder = data_folder
        self._data: Data | None = None
        self._operations: Operations | None = None

    def rounds(
        self, folder: Path, stop: Stop, cut: Cut, scope: Scope | None, origin: Mapping[str, Any]
    ) -> Iterator[Round]:
        """The rounds of the method."""
        if find_criterion(cut.criterion).needs_gradients and cut.losses is None:
            cut = replace(cut, losses=lambda: losses(self.model, self.recipe, self.data.train, self.training.seed))
        retraining = self.retraining
        if not self.task.pretrained and retraining.fresh_model is None:
            retraining = replace(retraining, fresh_model=self.task.model)
        if self.dense.only and stop.target_sparsity is None and stop.rounds is None:
            # A rule of when to stop has to be given, but the dense network is trained before the first cut.
            stop = replace(stop, rounds=1)
        return rounds(
            self.model,
            folder=folder,
            stop=replace(stop, metric=self.task.metric.name, better=self.task.metric.better),
            cut=cut,
            retraining=retraining,
            scope=scope,
            state=None if self.training.fresh_optimizer else {"optimizer": self.optimizer},
            seed=self.training.seed,
            settings=self._settings(),
            dense=self.dense.taken_from,
            origin=origin,
        )

    @property
    def data(self) -> Data:
        """Loaded when there is something to train: a finished run is shown again without its data."""
        if self._data is None:
            self._data = load_data(self.task, self._data_folder, self.training.seed).to(self.device)
            check_task(self.task, self.model, self._data)
            _tell_of(self.task, self._data)
        return self._data

    def train(self, round: Round, callback: Callback) -> None:
        """Trains the round, as often as it has replicates, from where an interrupted attempt had come to."""
        examples = self.data.train
        if self.training.fresh_optimizer:
            self.optimizer = self._new_optimizer()
        callback.round_started(round, round.last)
        epoch_steps = steps_per_epoch(self.recipe, examples)
        checkpoint = Checkpoint(round, self.model, self.optimizer, epoch_steps, self.training.checkpoint_seconds)
        # Of an optimizer that ends with the round, the driver knows nothing.
        empty = copy.deepcopy(self.optimizer.state_dict()) if self.training.fresh_optimizer else None
        for replicate in round.replicates(
            _inputs(self.recipe, examples, self.training.seed, round.number, self.device)
        ):
            if empty is not None:
                self.optimizer.load_state_dict(copy.deepcopy(empty))
            done = checkpoint.restore(replicate)
            schedule = round.schedule(self.epochs * epoch_steps, epoch_steps)
            for epoch in self.dense.keep_snapshots:
                self._keep_snapshot(round, epoch, epoch_steps)
            if self.task.pretrained and round.number == 0:
                continue
            for report in self._trained(round, replicate, schedule, *done):
                if isinstance(report, EpochReport):
                    checkpoint.save_if_due(report, replicate)
                    callback.epoch_finished(round, _of_round(report, replicate, round.trainings))
                    continue
                # Examples in memory, and those of an iterable, are gone on with from an epoch's end.
                if isinstance(examples, Loaded) and examples.numbered:
                    checkpoint.save_if_due(report, replicate)
                callback.step_finished(round, _of_round(report, replicate, round.trainings))

    def record(self, round: Round, callback: Callback) -> RoundRecord:
        """Measures the round and ends it."""
        splits = self.data
        metrics = self._of_splits(round, callback)
        if round.quantised:
            with round.in_float():
                in_float = self._of_splits(round, callback)
            decided = (self.task.metric.name, f"{TEST_PREFIX}{self.task.metric.name}")
            metrics |= {_named_in_float(name): value for name, value in in_float.items() if name in decided}
        self._operations = self._operations or count_operations(self.model, self.recipe, splits.train)
        round.spent.work = _work(self._operations, round, self.model, self.recipe, splits.train)
        record = round.record(untrained=self.task.pretrained and round.number == 0, **metrics)
        remove(round.folder / TRAINING)
        epoch_steps = steps_per_epoch(self.recipe, splits.train)
        for epoch in self.dense.keep_snapshots:
            snapshot.require(_kept(round.folder, epoch), epoch * epoch_steps, round.steps)
        return record

    def _of_splits(self, round: Round, callback: Callback) -> dict[str, float]:
        """What the round's network measures, on validation and test data."""
        metrics = self._measured(round, "validation", self.data.validation, callback)
        if self.data.test is not None:
            on_test = self._measured(round, "test", self.data.test, callback)
            metrics |= {f"{TEST_PREFIX}{name}": value for name, value in on_test.items()}
        return metrics

    def _measured(self, round: Round, name: str, split: Split, callback: Callback) -> dict[str, float]:
        """The task's metric on a split, by name."""
        started = time.perf_counter()

        def told(done: int, count: int | None) -> None:
            report = StepReport(self.epochs, self.epochs, done, count or 0, time.perf_counter() - started, 0, name)
            callback.step_finished(round, _of_round(report, round.trainings - 1, round.trainings))

        with failing(self.task, f"measuring on the {name} split"):
            return measure(self.model, split, self.task.metric, told=told)

    def _trained(
        self, round: Round, replicate: int, schedule: Schedule, epochs_done: int, steps_done: int
    ) -> Iterator[EpochReport | StepReport]:
        """Trains step by step; what the task's own functions raise on the way is told in one line."""
        epoch_steps = steps_per_epoch(self.recipe, self.data.train)
        begun = epochs_done or steps_done
        first_epoch, first_step = (epochs_done, steps_done) if begun else divmod(schedule.first, epoch_steps)
        with failing(self.task, "its learning rate"):
            rate = _learning_rate(schedule, self.recipe, self.constant_rate)
        with failing(self.task, "training"):
            yield from train_by_steps(
                self.model,
                self.optimizer,
                self.recipe,
                self.data.train,
                seed=self.training.seed,
                round_number=round.number,
                replicate=replicate,
                epochs=self.epochs,
                first_epoch=first_epoch,
                first_step=first_step,
                learning_rate=rate,
                precision=self.precision,
            )

    def _new_optimizer(self) -> torch.optim.Optimizer:
        with failing(self.task, "making its optimizer"):
            return self.recipe.optimizer(self.model)

    def _keep_snapshot(self, round: Round, epoch: int, epoch_steps: int) -> None:
        """After so many epochs of the dense round, writes what another run may rewind to."""
        objects = {} if self.training.fresh_optimizer else {"optimizer": self.optimizer}
        path, step = _kept(round.folder, epoch), epoch * epoch_steps
        round.after_step(step, lambda: snapshot.take(path, step, self.model, objects))

    def _settings(self) -> dict[str, Any]:
        """What decides the result beside what `gossamer.rounds` records."""
        training = replace(self.training, device=self.device.type)
        return {
            "task": self.task.name,
            **training.to_tables(self.recipe.epochs, self.constant_rate)["settings"],
            "batch_size": self.recipe.batch_size,
            "recipe": describe(self.recipe),
            "precision": self.precision,
            "pretrained": self.task.pretrained or None,
            "classes": list(self.task.classes) if self.task.classes else None,
        }


def _named_in_float(name: str) -> str:
    """`float_accuracy` of `accuracy`, `test_float_accuracy` of `test_accuracy`."""
    on_test = TEST_PREFIX if name.startswith(TEST_PREFIX) else ""
    return f"{on_test}float_{name.removeprefix(on_test)}"


def _told_from_start(retraining: Retraining, epochs: int) -> Retraining:
    """The retraining with the epoch to rewind the weights to told from the start, which is how snapshots are called."""
    length = retraining.rewind_epochs
    if retraining.strategy.weights != "rewound" or length is None or length > epochs:
        return retraining
    return replace(retraining, rewind_epochs=None, rewind_to_epoch=epochs - length)


def _inputs(recipe: Recipe, examples: Split, seed: int, round_number: int, device: torch.device) -> Batches:
    """What BatchNorm's statistics after averaging are computed from."""
    return lambda: training_inputs(recipe, examples, derived_seed(seed, round_number, "statistics"), device)


_Report = TypeVar("_Report", EpochReport, StepReport)


def _of_round(report: _Report, replicate: int, trainings: int) -> _Report:
    """A report of one training as one of its round, which has `trainings` of them."""
    return replace(report, epochs_done=replicate * report.epochs + report.epochs_done, epochs=trainings * report.epochs)


def _tell_of(task: Task, data: Data) -> None:
    """Warns of data that come in another order, or are others, when an epoch of them is read again."""
    if not isinstance(data.train, Loaded):
        return
    why = data.train.why_not_repeated()
    if why is not None:
        warnings.warn(
            f"{data.train.name} cannot be read again as it was ({why}): {task.name} trains, but the same command may "
            f"give another result, and so may a run that was interrupted",
            GossamerWarning,
            stacklevel=2,
        )


def _work(operations: Operations, round: Round, model: nn.Module, recipe: Recipe, examples: Split) -> Work:
    """What this round computed, for the ledger."""
    epoch_steps = steps_per_epoch(recipe, examples)
    # A loader's batches may differ in size; the first stands for them.
    batch_size = batch_size_of(recipe, examples) if isinstance(examples, Examples) else operations.batch_size
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


def _learning_rate(schedule: Schedule, recipe: Recipe, constant: float | None) -> Callable[[int], float]:
    """Step of the recipe's schedule -> learning rate of this round."""
    if schedule.follows == "last" and constant is not None:
        return lambda step: constant
    rates = schedule.rates(schedule_of(recipe, schedule.total))
    return lambda step: rates[step - schedule.first]
