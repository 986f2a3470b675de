"""The method, as the paper has it: train, prune 20% of the weights globally, rewind the learning rate, repeat.

What is rewound between the cut and the retraining is a strategy by name (`gossamer.rewind.strategies`).
"""

import math
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gossamer import randomness
from gossamer.arguments import plain, require_function, require_kind, truth, whole_number
from gossamer.errors import CheckpointError, ConfigurationError, GossamerWarning, TrainingDivergedError
from gossamer.loop import averages, fingerprint
from gossamer.loop import folder as run_folder
from gossamer.loop.configuration import FILE, Configuration
from gossamer.loop.cost import Cost, Work
from gossamer.loop.directions import Better
from gossamer.loop.fingerprint import Fingerprint
from gossamer.loop.metrics import is_on_test, numbers_of, on_test
from gossamer.loop.normalisation import Batches, layers_with_statistics, recompute_statistics
from gossamer.loop.plan import PER_ROUND, Plan
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import REPLICATES, SNAPSHOT, TRAINING, read_records, write_table
from gossamer.loop.replicates import Start, load_trained, put_average, with_one_more
from gossamer.loop.stopping import Allowance, smallest_allowed
from gossamer.model.stored import fill, storable
from gossamer.model.ties import require_ties, ties_of
from gossamer.model.whole import refuse_sharded_modules
from gossamer.model.wrappers import unwrap
from gossamer.prune import masks as masks_of
from gossamer.prune.cut import Cut, DensityPlan, allocation_of
from gossamer.prune.enforce import attach_masks, check, detach_masks, watch
from gossamer.prune.gradients import Losses
from gossamer.prune.names import belonging_to_round, vanished
from gossamer.prune.remarks import remarks
from gossamer.prune.scope import Scope, count_parameters, prunable_weights
from gossamer.rewind import snapshot
from gossamer.rewind.snapshot import StepCounter
from gossamer.rewind.strategies import DEFAULT, REWINDABLE, Retraining, Schedule, Span, Unit, restart_scale
from gossamer.storage.files import absolute, locked, remove


class Round:
    """One round: the user trains the model, from the first learning rate to the last, and records how good it is."""

    number: int
    """0 for the dense network."""
    kept: int
    """Prunable weights that are left in this round."""
    prunable: int
    """Weights that may be pruned at all."""
    parameters: int
    """All parameters of the dense network."""
    masks: Mapping[str, Tensor]
    """By weight name, True where the weight is kept."""
    folder: Path
    """The folder of the run."""
    seconds_before: float
    """Time that an interrupted attempt at this round already took; whoever resumes it inside a round sets it."""
    processor_seconds_before: float
    """The same of processor time."""
    work: Work | None
    """For the ledger: what the round computed, where somebody counted it."""
    result: RoundRecord | None
    """What was recorded; None until then."""

    def __init__(self, run: "_Run", number: int, masks: Mapping[str, Tensor]) -> None:
        self._run = run
        self.number = number
        self.masks = masks
        self.kept = masks_of.count_kept(masks)
        self.prunable = run.plan.prunable
        self.parameters = run.parameters
        self.folder = run.folder
        self.seconds_before = 0.0
        self.result = None
        self._started = time.monotonic()
        self._processor_started = time.process_time()
        self.processor_seconds_before = 0.0
        self.work = None
        self._schedule: Schedule | None = None
        self._steps_per_epoch: int | None = None
        self._replicates: Literal["not begun", "begun", "averaged"] = "not begun"
        self._start = fingerprint.fingerprint(unwrap(run.model).named_parameters())
        """Of the parameters before the training: as the cut left them."""
        self._recorded: Fingerprint | None = None
        """Of the model as it was kept."""

    def __repr__(self) -> str:
        return f"<Round {self.number}: {self.kept} of {self.prunable} prunable weights, density {self.density:.2%}>"

    @property
    def density(self) -> float:
        """kept / prunable."""
        return self.kept / self.prunable

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1 - self.density

    @property
    def last(self) -> int | None:
        """The number of the last round of the plan; None when only `max_drop` will end it."""
        return self._run.plan.last

    @property
    def seconds(self) -> float:
        """Wall-clock time of this round so far, interrupted attempts up to their last checkpoint included."""
        return self.seconds_before + time.monotonic() - self._started

    @property
    def processor_seconds(self) -> float:
        """The same of processor time."""
        return self.processor_seconds_before + time.process_time() - self._processor_started

    @property
    def trainings(self) -> int:
        """How many times this round is trained: once in the dense round, `replicates` times in the others."""
        return self._run.retraining.replicates if self.number > 0 else 1

    @property
    def trainings_left(self) -> int | None:
        """The same of all rounds after this one; None when only `max_drop` will end the run."""
        return None if self.last is None else (self.last - self.number) * self._run.retraining.replicates

    @property
    def steps(self) -> int:
        """Optimizer steps of this round so far, as gossamer counts them. Whoever resumes a training inside a round sets
        what the interrupted attempt had taken."""
        return self._run.counter.steps

    @steps.setter
    def steps(self, taken: int) -> None:
        self._run.counter.steps = taken

    def schedule(self, total_steps: int, steps_per_epoch: int | None = None) -> Schedule:
        """Which learning rates this round trains with: for each of its steps, the step of the user's own schedule.

            for step in round.schedule(total_steps):
                optimizer.param_groups[0]["lr"] = my_schedule(step)
                ...                                              # one step of training

        In the dense round, and in every round of learning-rate rewinding for the full time, these are all steps from 0
        on; for other methods fewer, later, or the last one again and again. `len` of it is how long to train.

        Args:
            total_steps: length of the whole schedule, T.
            steps_per_epoch: needed only if what to rewind to was given in epochs.

        Raises:
            ConfigurationError: what to rewind to lies outside the schedule.
        """
        total_steps = whole_number("total_steps", total_steps, "a whole number, at least 1")
        if steps_per_epoch is not None:
            steps_per_epoch = whole_number("steps_per_epoch", steps_per_epoch, "a whole number, at least 1")
        if total_steps < 1 or (steps_per_epoch is not None and steps_per_epoch < 1):
            raise ConfigurationError(
                f"total_steps is {total_steps} and steps_per_epoch {steps_per_epoch}; expected at least 1"
            )
        self._steps_per_epoch = steps_per_epoch
        self._schedule = self._run.scheduled(self.number, total_steps, steps_per_epoch)
        return self._schedule

    def replicates(self, batches: Batches | None = None) -> Iterator[int]:
        """Trains this round as often as `rounds(replicates=...)` says, and leaves the average in the model.

            for replicate in round.replicates():
                train(model)                       # from one start; the data in another order each time
            round.record(accuracy=evaluate(model))

        Before each replicate the model and the `state` objects are put back to what they were after the cut. The global
        random numbers go on, so that a loop which draws from them draws another order; one that seeds them itself
        derives the seed from the number as well. Afterwards the parameters are the mean of the replicates', all else is
        as replicate 0 left it, and the statistics of normalisation layers are computed anew. Every finished replicate
        is written to the folder: after an interruption the loop goes on with the next. The dense round, and every round
        without `replicates`, has replicate 0 only and ends as its training does.

        Args:
            batches: for models whose normalisation layers have running statistics: a function that returns the inputs
                of the training data, batch by batch, each as the model takes it.

        Yields:
            The number of the replicate, from 0; what an interrupted attempt finished is left out.

        Raises:
            ConfigurationError: `batches` is missing, it was called before in this round, or the replicates end with the
                same weights.
            CheckpointError: the folder cannot be written, or is damaged.

        Source: Zimmer, Spiegel, Pokutta, "Sparse Model Soups", ICLR 2024.
        """
        require_function("batches", batches, "a function that returns the inputs of the training data, batch by batch")
        if self._replicates != "not begun":
            raise ConfigurationError(
                f"round.replicates() was called before in round {self.number}; call it once, around all training"
            )
        self._replicates = "begun"
        if self.trainings == 1:
            yield 0
        else:
            yield from self._run.replicates(self, batches)
        self._replicates = "averaged"

    def after_step(self, step: int, action: Callable[[], None]) -> None:
        """Does `action` once so many optimizer steps of this round were taken; at once if they were just now."""
        self._run.counter.after(step, action)

    def take_snapshot(self) -> None:
        """Keeps the model as it is now, in the dense round, as what later rounds rewind to. Needed only in loops whose
        optimizer is no `torch.optim.Optimizer`; otherwise gossamer counts the steps and does it by itself.

        Raises:
            ConfigurationError: this is not the dense round, or the method rewinds no weights.
        """
        if self.number > 0 or self._run.retraining.strategy.weights != "rewound":
            raise ConfigurationError(
                f"a snapshot is of the dense round, for a method that rewinds weights; this is round {self.number} of "
                f"{self._run.retraining.method}"
            )
        self._run.take_snapshot()

    def record(self, *, model: Any = None, untrained: bool = False, **metrics: Any) -> RoundRecord:
        """Ends the round: writes the model, its masks and these metrics to the run's folder. Call it after training.

        The first metric, or the one named in `rounds(metric=...)`, is the round's result. A metric whose name starts
        with `test_` is reported beside it and decides nothing. After an error it can be called again.

        Args:
            model: what was measured, if that is an average of the model (EMA, SWA): a deep copy, an `AveragedModel`, a
                wrapper that has one as an attribute, or an object with `shadow_params`. The masks are put on it, here
                and at the next cut; its weights are what the folder keeps, and they are put into the model that is
                trained, for the next cut to begin with. An average that lives across rounds belongs into `state` too.
            untrained: allows the prunable weights to be, bit for bit, what they were when the round began: for pruning
                without retraining, and for a network that came trained. Without it that is an error, for then another
                model than the one given to `rounds` was trained, or none.
            metrics: how good the model is, by name: numbers, numpy's and tensors with one entry too. Nested ones,
                such as `val={"acc": 0.9}`, are recorded as `val/acc`.

        Raises:
            ConfigurationError: the round was recorded already, a metric is no number, the one that decides is not
                among these, no weight was trained, or `model` is no average of the model.
            TrainingDivergedError: a metric is not finite; the round is not kept, the ones before it are.
            PrunedWeightError: a pruned weight is not zero.
            CheckpointError: the folder cannot be written.
        """
        if self.result is not None:
            raise ConfigurationError(f"round {self.number} was recorded already; record once, at its end")
        values = numbers_of(metrics)
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"{name} of round {self.number} is {value}; expected a finite number. The last good round is kept."
                )
        metric = self._run.metric_of(values, self.number)
        self.result = self._run.finish(self, metric, values, model, untrained)
        return self.result


class _TakenOver(BaseException):
    """Thrown into the iterator of a loop whose folder a later one wants."""


class _Run:
    """A model, its plan and its folder."""

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        plan: Plan,
        weights: Mapping[str, nn.Parameter],
        cut: Cut,
        allowance: Allowance | None,
        metric: str | None,
        state: Mapping[str, Any],
        seed: int | None,
        retraining: Retraining,
        fresh_model: Callable[[], nn.Module] | None,
        dense: Path | None,
    ) -> None:
        self.model = model
        self.folder = folder
        self.plan = plan
        self.weights = weights
        self.cut = cut
        self.allowance = allowance
        self.metric = metric
        self.state = state
        self.seed = seed
        self.retraining = retraining
        self.fresh_model = fresh_model
        self.dense = dense
        self.parameters = count_parameters(model)
        self.ties = ties_of(model)
        self.counter = StepCounter(model)
        self.average: Any = None
        """What the last round recorded in the model's place: at the next cut it is pruned too."""
        self.snapshot_step: int | None = None
        """k: the step of the dense round that weights go back to; None as long as it is not known."""
        self.relative_cut = (0.0, 0.0, 0.0)
        """Of the last cut, for the linear restart: norm of the weights before, of those removed, share removed."""
        self.taken_over = False
        """Whether a later call, in the same process, goes on in the folder."""

    def begin(self, configuration: Configuration) -> Iterator[Round]:
        """The rounds, which end when a later call in this thread wants the folder: of a loop that was left by `break`
        or an error, the iterator may live on (in a notebook, in a traceback) and hold it."""
        iterator = self._rounds_or_taken_over(configuration)
        # No cycle of references: what was left is to go at once if nobody else holds it.
        self._iterator = weakref.ref(iterator)
        return iterator

    def _rounds_or_taken_over(self, configuration: Configuration) -> Generator[Round, None, None]:
        try:
            yield from self._rounds(configuration)
        except _TakenOver:
            self.taken_over = True
        if self.taken_over:
            yield None  # type: ignore[misc]  # to `_end`
            self._refuse_if_taken_over()

    def _end(self) -> None:
        iterator = self._iterator()
        if iterator is not None:
            iterator.throw(_TakenOver())

    def _refuse_if_taken_over(self) -> None:
        if self.taken_over:
            raise ConfigurationError(
                f"a later call of gossamer.rounds goes on in {self.folder}, so this loop has ended; use one loop a "
                f"folder"
            )

    def _rounds(self, configuration: Configuration) -> Iterator[Round]:
        with locked(self.folder, self._end):
            records = self._open(configuration)
            masks: Mapping[str, Tensor] = masks_of.full(self.weights)
            if records:
                masks = self._restore(records[-1].round)
            else:
                # The dense round is dense, even if the model was pruned before: its zeros may grow again.
                detach_masks(unwrap(self.model).parameters())
            watch()
            for number, kept in enumerate(self.plan):
                if number < len(records):
                    continue
                if self.allowance is not None and records:
                    if not self.allowance.allows(records[-1], records[0]):
                        break
                    # What decided the dense round decides the others: losses are not compared with accuracies.
                    self.metric = records[0].metric
                if number > 0:
                    cut = self.cut.choose(self.model, self.weights, kept, masks, round_number=number)
                    self._rewind(masks, cut)
                    masks = cut
                    self._hold(masks)
                    averages.put_masks(self.average, self.model, masks)
                    self.average = None
                round = Round(self, number, masks)
                self.counter = StepCounter(self.model)
                # What cannot be pruned or kept any more is said early.
                self.counter.after(1, self._refuse_vanished)
                if number == 0 and self.retraining.first_known is not None:
                    self._plan_snapshot(self.retraining.first_known)
                with snapshot.counted(self.counter), belonging_to_round(self.model):
                    yield round
                    # What nobody recorded claims nothing about a training.
                    records.append(round.result or round.record(untrained=True))
                self._return_to(round)
            # Left by a crash between the end of the last round and its removal there.
            remove(self.folder / REPLICATES)
            best = smallest_allowed(records, self.allowance)
            if best.round != records[-1].round:
                run_folder.load_round(self.folder, best.round, self.model)

    def _hold(self, masks: Mapping[str, Tensor]) -> None:
        attach_masks(self.model, self._current_weights(), masks, snapshot.optimizers(self.state).values())

    def replicates(self, round: Round, batches: Batches | None) -> Iterator[int]:
        if batches is None and layers_with_statistics(unwrap(self.model)):
            raise ConfigurationError(
                "the average of networks with BatchNorm needs statistics of its own; pass round.replicates(batches=...)"
                ", a function that returns the inputs of the training data, batch by batch"
            )
        # After the cut: resuming made it again, to the same bits, so it needs no file.
        start = Start(self.model, self.state)
        trained = load_trained(self.folder, round.number)
        if trained is not None:
            round.steps = trained.steps
            round.seconds_before, round.processor_seconds_before = trained.seconds, trained.processor_seconds
            randomness.restore(dict(trained.random))
        for number in range(0 if trained is None else trained.count, round.trainings):
            if number > 0:
                start.restore(self.model, self.state)
                # What was pruned is cleared out of the optimizer's slots again, as before the first replicate.
                self._hold(round.masks)
            yield number
            self._refuse_if_taken_over()
            if not self._is_trained(round):
                raise ConfigurationError(_untrained(f"replicate {number} of round {round.number}"))
            trained = with_one_more(
                trained,
                self.model,
                self.state,
                round_number=round.number,
                steps=round.steps,
                seconds=round.seconds,
                processor_seconds=round.processor_seconds,
            )
            trained.save(self.folder)
        assert trained is not None
        with _as_stored(f"the replicates in {self.folder / REPLICATES} do not fit this run"):
            put_average(trained, self.model, self.state)
        self._lay_out_state()
        if batches is not None:
            recompute_statistics(unwrap(self.model), batches())

    def _lay_out_state(self) -> None:
        for optimizer in snapshot.optimizers(self.state).values():
            restore_memory_format(optimizer)

    def metric_of(self, metrics: Mapping[str, float], number: int) -> str | None:
        names = [name for name in metrics if not is_on_test(name)]
        if self.metric is not None and self.metric not in names:
            raise ConfigurationError(
                f"round {number} recorded {names or 'no metric'}; expected {self.metric!r} among them"
            )
        if self.allowance is not None and not names:
            raise ConfigurationError(
                f"round {number} recorded no metric, but max_drop decides by one; call round.record(accuracy=...)"
            )
        metric = self.metric or next(iter(names), None)
        if self.allowance is not None and metric is not None:
            # Known before anything is written, so that the call can still be mended.
            self.allowance.direction(metric)
        return metric

    def scheduled(self, number: int, total: int, steps_per_epoch: int | None) -> Schedule:
        first = self.retraining.first(total, steps_per_epoch)
        if number == 0:
            self._plan_snapshot(first)
            return Schedule(total)
        if self.snapshot_step is not None and first != self.snapshot_step:
            raise ConfigurationError(
                f"the weights were rewound to step {self.snapshot_step} of the dense round, but this schedule of "
                f"{total} steps begins at step {first}; use the schedule of the dense round"
            )
        rates = self.retraining.strategy.rates
        scale = restart_scale(*self.relative_cut, (total - first) / total) if rates == "linear" else 1.0
        return Schedule(total, first, rates, scale)

    def take_snapshot(self) -> None:
        self._refuse_if_taken_over()
        if self.snapshot_step is None:
            raise ConfigurationError(
                "which step to rewind to is not known yet; call round.schedule(total_steps) before training"
            )
        snapshot.take(self.folder / SNAPSHOT, self.snapshot_step, self.model, self.state)

    def _plan_snapshot(self, step: int) -> None:
        if self.retraining.strategy.weights != "rewound" or step == self.snapshot_step:
            return
        if self.snapshot_step is not None:
            raise ConfigurationError(
                f"the weights are rewound to step {self.snapshot_step} of the dense round, and now to step {step}; "
                f"call round.schedule with one length only"
            )
        self.snapshot_step = step
        if step < self.counter.steps and not (self.folder / SNAPSHOT).exists():
            raise ConfigurationError(
                f"the weights are rewound to step {step} of the dense round, which is past: {self.counter.steps} steps "
                f"were taken. Call round.schedule(total_steps) before training."
            )
        self.counter.after(step, self.take_snapshot)

    def _rewind(self, masks: Mapping[str, Tensor], cut: Mapping[str, Tensor]) -> None:
        """Puts the weights where the retraining begins; the cut is made afterwards."""
        also = self.retraining.rewinds
        match self.retraining.strategy.weights:
            case "rewound":
                path = run_folder.snapshot_of(self.folder)
                self.snapshot_step = snapshot.rewind(unwrap(self.model), self.state, path, also)
                self._lay_out_state()
            case "new":
                snapshot.reinitialise(unwrap(self.model), self.state, self.fresh_model, also)
            case "stay" if self.retraining.strategy.rates == "linear":
                self.relative_cut = _relative_cut(self.weights, masks, cut)

    def finish(
        self, round: Round, metric: str | None, metrics: dict[str, float], average: Any, untrained: bool
    ) -> RoundRecord:
        self._refuse_if_taken_over()
        seconds = round.seconds
        if round.trainings > 1 and round._replicates != "averaged":
            raise ConfigurationError(
                f"round {round.number} has {round.trainings} replicates to average, and not all of them were trained; "
                f"train inside for replicate in round.replicates(), to its end, and record after it"
            )
        self._verify_zeros(round)
        if round.number > 0 and round._schedule is None and not self.retraining.plain:
            raise ConfigurationError(
                f"round {round.number} of {self.retraining.method} trains with other learning rates than the dense "
                f"round, but did not ask for them; train for step in round.schedule(total_steps)"
            )
        if not untrained and not self._is_trained(round):
            raise ConfigurationError(
                f"{_untrained(f'round {round.number}')} If no training is meant (pruning without retraining, a network "
                f"that came trained), say so: round.record(..., untrained=True)."
            )
        snapshot_file = self._snapshot_taken() if round.number == 0 else None
        kept = storable(self.model)
        if isinstance(average, nn.Module) and unwrap(average) is unwrap(self.model):
            average = None
        if average is not None:
            kept |= self._averaged(round, average, kept)
        self._verify_finite(round, kept)
        record = RoundRecord(
            round=round.number,
            density=round.density,
            kept=round.kept,
            prunable=round.prunable,
            parameters=round.parameters,
            val=metrics[metric] if metric is not None else None,
            test=on_test(metric, metrics) if metric is not None else None,
            metric=metric,
            seconds=round_to_milliseconds(seconds),
            lr_rewound_to=self._rates_from(round),
            weights_rewound_to=self._weights_from(round),
            seed=self.seed,
            metrics=metrics,
            sha256={},
        )
        state: dict[str, Any] = {
            "random": randomness.capture(),
            "objects": {name: thing.state_dict() for name, thing in self.state.items()},
        }
        for name, thing in self.state.items():
            if averages.are_same(average, thing, self.model):
                # It lives on, so it is pruned at the next cut, after an interruption too.
                state["average"] = name
        cost = Cost(
            round=round.number,
            method=self.retraining.method if round.number > 0 else "dense",
            device=next(self.model.parameters()).device.type,
            steps=self.counter.steps,
            wall_seconds=round_to_milliseconds(seconds),
            processor_seconds=round_to_milliseconds(round.processor_seconds),
            work=round.work,
        )
        written = run_folder.write_round(self.folder, record, kept, round.masks, state, snapshot_file, cost)
        if average is not None:
            self.average = average
            fill(unwrap(self.model), kept, self.folder)
        round._recorded = fingerprint.of_state(self.model)
        if snapshot_file is not None:
            remove(snapshot_file)
        remove(self.folder / REPLICATES)
        return written

    def _snapshot_taken(self) -> Path | None:
        """The snapshot that was to be taken in the dense round."""
        if self.retraining.strategy.weights != "rewound":
            return None
        if self.snapshot_step is None:
            raise ConfigurationError(
                f"how many steps {self.retraining.length or self.retraining.start} are is not known; call "
                f"round.schedule(total_steps, steps_per_epoch) before training, in the dense round too"
            )
        path = self.folder / SNAPSHOT
        snapshot.require(path, self.snapshot_step, self.counter.steps)
        return path

    def _rates_from(self, round: Round) -> float | None:
        schedule, per_epoch = round._schedule, round._steps_per_epoch or 1
        if round.number == 0 or self.retraining.strategy.rates == "linear":
            return None
        return 0.0 if schedule is None else schedule[0] / per_epoch

    def _weights_from(self, round: Round) -> float | None:
        schedule, per_epoch = round._schedule, round._steps_per_epoch or 1
        if round.number == 0 or self.retraining.strategy.weights != "rewound":
            return None
        return 0.0 if schedule is None else schedule.first / per_epoch

    def _averaged(self, round: Round, average: Any, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What an average has in the places of `kept`, its pruned weights set to zero."""
        if round.trainings > 1:
            raise ConfigurationError(
                f"round {round.number} ends with the average of its replicates, and not with another model; leave "
                f"model= out, or replicates"
            )
        tensors = averages.tensors_of(average, self.model)
        found = averages.put_masks(average, self.model, round.masks)
        if found:
            warnings.warn(
                f"{found} pruned weights of the {type(average).__name__} that round {round.number} recorded were not "
                f"zero: what was measured is not quite what is kept. Begin the average anew in every round, or record "
                f"it in all of them, so that it is pruned with the model.",
                GossamerWarning,
                stacklevel=4,
            )
        return {name: tensors[name].detach().cpu().contiguous().clone() for name in kept if name in tensors}

    def _refuse_vanished(self) -> None:
        """At a first step: an adapter may be around a weight, until it is merged."""
        there = {id(parameter) for parameter in unwrap(self.model).parameters()}
        self._find({name: weight for name, weight in self.weights.items() if id(weight) not in there})

    def _current_weights(self) -> dict[str, nn.Parameter]:
        return self._find(self.weights)

    def _find(self, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        refuse_sharded_modules(self.model)
        require_ties(self.model, self.ties)
        return prunable_parameters(self.model, weights)

    def _verify_zeros(self, round: Round) -> None:
        current = self._current_weights()
        if round.number > 0:
            check(self.model, masks=round.masks)
        if any(current[name] is not weight for name, weight in self.weights.items()):
            # The parameters were replaced (load_state_dict(assign=True), a new head): these get the masks.
            self.weights = current
            if round.number > 0:
                self._hold(round.masks)

    def _verify_finite(self, round: Round, kept: Mapping[str, Tensor]) -> None:
        parameters = dict(unwrap(self.model).named_parameters(remove_duplicate=False))
        for name, tensor in kept.items():
            # A buffer may hold infinities, as attention masks do.
            if not bool(torch.isfinite(tensor).all() if name in parameters else ~torch.isnan(tensor).any()):
                raise TrainingDivergedError(
                    f"{name} is not finite after round {round.number}: training diverged. The last good round is kept; "
                    f"lower the learning rate and start in a new folder."
                )

    def _is_trained(self, round: Round) -> bool:
        """Whether a prunable weight is another one than at the start; of frozen ones, whether any parameter is."""
        current = dict(unwrap(self.model).named_parameters())
        frozen = not any(current[name].requires_grad for name in self.weights)
        names = current if frozen else self.weights
        # One after the other: the first weight is enough to know.
        return any(fingerprint.fingerprint([(name, current[name])]).items() - round._start.items() for name in names)

    def _return_to(self, round: Round) -> None:
        """The next cut begins with the network that was recorded, as it does after an interruption."""
        self.weights = self._current_weights()
        now = fingerprint.of_state(self.model)
        changed = [name for name, digest in now.items() if (round._recorded or {}).get(name) != digest]
        if changed:
            warnings.warn(
                f"{changed[0]} was changed after round {round.number} was recorded. The run goes on with what was "
                f"recorded; to keep another network, change the model before, or name it in round.record(model=...).",
                GossamerWarning,
                stacklevel=3,
            )
            run_folder.load_round(self.folder, round.number, self.model)

    def _open(self, configuration: Configuration) -> list[RoundRecord]:
        """Makes the folder, or verifies that it holds this very run; returns its finished rounds."""
        run_folder.clear_leftovers(self.folder)
        records = read_records(self.folder)
        training = (self.folder / TRAINING).exists()
        if records or training:
            configuration.refuse_other(self.folder)
        else:
            # Nothing was computed yet, so a setting that was mended after an error loses nothing.
            configuration.write(self.folder)
        if not (records or training):
            # Left by a crash in the dense round, which begins again.
            for path in self.folder.glob("snapshot*.safetensors"):
                remove(path)
        elif records:
            # Left by a crash between the end of the dense round and its removal.
            remove(self.folder / SNAPSHOT)
        if self.dense is not None and not (records or training):
            configuration.refuse_other_dense(self.dense)
            records = [run_folder.take_over_dense(self.folder, self.dense, self.retraining.moment)]
        write_table(self.folder, records)
        return records

    def _restore(self, number: int) -> dict[str, Tensor]:
        run_folder.load_round(self.folder, number, self.model)
        device = {name: weight.device for name, weight in self.weights.items()}
        masks = {name: mask.to(device[name]) for name, mask in run_folder.load_masks(self.folder, number).items()}
        state = run_folder.read_state(self.folder, number)
        for name, thing in self.state.items():
            with _as_stored(f"the state of round {number} in {self.folder} does not fit {name!r}"):
                thing.load_state_dict(state["objects"][name])
            if isinstance(thing, torch.optim.Optimizer):
                restore_memory_format(thing)
        with _as_stored(f"the state of round {number} in {self.folder} has no random generators"):
            randomness.restore(state["random"])
        with _as_stored(f"the masks of round {number} in {self.folder} do not fit the model"):
            self.average = self.state.get(state.get("average"))
            return {name: masks[name] for name in self.weights}


def rounds(
    model: nn.Module,
    *,
    folder: str | Path,
    target_sparsity: float | None = None,
    max_drop: float | None = None,
    rounds: int | None = None,
    per_round: float | None = None,
    criterion: str = "magnitude",
    allocation: DensityPlan = "global",
    structure: str = "unstructured",
    losses: Losses | None = None,
    scope: Scope | None = None,
    metric: str | None = None,
    better: Better | None = None,
    state: Mapping[str, Any] | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    method: str = DEFAULT,
    one_shot: bool = False,
    rewind_steps: int | None = None,
    rewind_epochs: int | None = None,
    rewind_to_step: int | None = None,
    rewind_to_epoch: int | None = None,
    rewound: Sequence[str] | None = None,
    replicates: int = 1,
    fresh_model: Callable[[], nn.Module] | None = None,
    dense: str | Path | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Iterator[Round]:
    """Compresses `model` by iterative global magnitude pruning with learning-rate rewinding, around the user's loop.

        for round in gossamer.rounds(model, target_sparsity=0.95, folder="runs/mine"):
            train(model)                       # the user's own: first learning rate to last
            round.record(accuracy=evaluate(model))

    Round 0 trains the dense network; before every further one the smallest weights are pruned. When the folder
    already holds rounds of this very run, the last one is put into the model, with the random generators as they were
    after it, and the loop goes on with the next. After the loop the model is the last round's or, with `max_drop`,
    the smallest within the allowed loss; any round comes back with `gossamer.load_round`.

    It ends at the first of `target_sparsity`, `max_drop` and `rounds`; at least one must be given, unless `allocation`
    gives densities to end at.

    Args:
        model: trained in place. Its class, hooks and `state_dict` stay as they are.
        folder: where the rounds are kept; made if it is not there.
        target_sparsity: pruned / prunable weights to end at, exactly; in (0, 1).
        max_drop: the largest loss against the dense network that is allowed, in the metric's units.
        rounds: how many times to prune, at least 1.
        per_round: share of the remaining weights that each round prunes, in (0, 1); by default the paper's 0.2.
        criterion: what a weight is worth: "magnitude" (the paper's), "lamp", "taylor" or "random".
        allocation: how the kept weights are shared among the layers: "global" (the paper's: one ranking over all),
            "uniform", "erk", the path of a `.toml` file of densities (see `gossamer.prune.densities`), or densities by
            weight name.
        structure: what stays or goes together: "unstructured", "2:4" (or any N:M) along the input channels, "1x4"
            blocks along the input channels, or whole output "channels". Blocks and channels are kept as long as whole
            ones fit into the plan's number of weights.
        losses: for the criterion "taylor": called before every cut, yields the model's loss on one batch after
            another. Their mean gradient is used; the model is in evaluation mode meanwhile.
        scope: which weights are prunable; by default those of every convolution and linear layer.
        metric: the recorded metric that `max_drop` decides by; by default the first one.
        better: "higher" or "lower", for a metric whose name does not say it (see `gossamer.loop.directions`).
        state: what lives on across rounds, by name, such as {"optimizer": optimizer}: objects with `state_dict` and
            `load_state_dict`, saved with every round and restored on resuming. What each round makes anew needs none.
        seed: only recorded.
        settings: anything else that decides what the run computes (plain values); recorded, and compared on resuming.
        method: how to retrain, one of `gossamer.rewind.strategies.STRATEGIES`:
            "lr-rewind": weights stay, the schedule is replayed;
            "weight-rewind": weights and schedule go back to step k of the dense round (k = 0: the lottery ticket);
            "fine-tune": weights stay, at the last learning rate;
            "reinit": new random weights under the mask, the schedule is replayed (a control);
            "low-lr-weight-rewind": weights go back to step k, at the last learning rate (a control);
            "linear-lr-restart": weights stay, the rate falls on a line from a share of its highest value (Zimmer 2023).
            All but "lr-rewind", "weight-rewind" and "reinit" over the whole schedule need `round.schedule`.
        one_shot: cut once, straight to `target_sparsity`, instead of round by round.
        rewind_steps, rewind_epochs: t, how long to retrain: the schedule restarts at T - t and runs to T. All of it by
            default.
        rewind_to_step, rewind_to_epoch: k = T - t instead of t; at most one of the four may be given. For k > 0
            gossamer takes the snapshot by itself, by counting the optimizer's steps in the dense round.
        rewound: what goes back with the weights, of "optimizer" (state of the torch optimizers in `state`) and
            "statistics" (the model's buffers, such as BatchNorm's); both by default, as in the paper's code.
        replicates: how many times each round after the dense one is trained, to go on with the average (Zimmer 2024);
            more than 1 needs `round.replicates`.
        dense: folder of another run of the same settings, whose dense round is taken over instead of training it again.
        fresh_model: for "reinit", makes a newly initialised model; by default the layers' `reset_parameters`.
        origin: where things came from (plain values); recorded, and not compared.

    Raises:
        ConfigurationError: an argument is out of range, or the folder holds another run.
        NothingToPruneError: no weight is prunable, or the target would prune none.
        CheckpointError: the folder is damaged or cannot be written.

    Source: Renda, Frankle, Carbin 2020, sections 2 and 3, algorithm 1; code of the paper: everything that is rewound.
    """
    require_kind("folder", folder, (str, Path), "a path")
    require_kind("dense", dense, (str, Path, NoneType), "the folder of another run")
    for name, mapping in {"state": state, "settings": settings, "origin": origin}.items():
        require_kind(name, mapping, (Mapping, NoneType), "a dictionary")
    require_function("fresh_model", fresh_model, "a function that makes a newly initialised model")
    one_shot = truth("one_shot", one_shot)
    seed = None if seed is None else whole_number("seed", seed)
    cut = Cut(criterion, allocation_of(allocation), structure, losses, seed or 0)
    scope = Scope() if scope is None else scope
    weights = prunable_weights(model, scope)
    if target_sparsity is None and max_drop is None and rounds is None:
        target_sparsity = cut.own_target(weights)
    if target_sparsity is None and max_drop is None and rounds is None:
        raise ConfigurationError("when to stop was not said; pass target_sparsity=0.95, max_drop=0.01 or rounds=10")
    prunable = sum(weight.numel() for weight in weights.values())
    if one_shot:
        if target_sparsity is None or rounds is not None or per_round is not None:
            raise ConfigurationError(
                "one_shot cuts once, straight to target_sparsity; give that, and neither rounds nor a share per round"
            )
        per_round, rounds = target_sparsity, 1
    plan = Plan(prunable, PER_ROUND if per_round is None else per_round, target_sparsity, rounds)
    per_round, target_sparsity, rounds = plan.per_round, plan.target_sparsity, plan.rounds
    retraining = _retraining(
        method,
        {"steps": rewind_steps, "epochs": rewind_epochs},
        {"steps": rewind_to_step, "epochs": rewind_to_epoch},
        rewound,
        replicates,
    )
    if retraining.strategy.weights == "new" and fresh_model is None:
        snapshot.check_can_reinitialise(model)
    cut.check(model, weights, None if plan.last is None else plan.kept(plan.last))
    require_kind("metric", metric, (str, NoneType), "the name of a recorded metric")
    allowance = None if max_drop is None else Allowance(max_drop, metric, better)
    max_drop = None if allowance is None else allowance.max_drop
    storable(model)
    for remark in remarks(model, scope, weights):
        warnings.warn(remark, GossamerWarning, stacklevel=2)
    for name, thing in (state or {}).items():
        if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
            raise ConfigurationError(
                f"state[{name!r}] is a {type(thing).__name__}; expected an object with state_dict and load_state_dict"
            )
    configuration = Configuration(
        {
            "rounds": {
                "target_sparsity": target_sparsity,
                "max_drop": max_drop,
                "rounds": rounds,
                "per_round": per_round,
                "one_shot": one_shot or None,
                "metric": metric,
                "better": better,
                "seed": seed,
            },
            "method": {
                **retraining.described(),
                **cut.describe(),
                "state": sorted(state or {}),
            },
            "scope": {
                "include": list(scope.include),
                "exclude": list(scope.exclude),
                "embeddings": scope.embeddings,
            },
            "model": {
                "class": type(unwrap(model)).__name__,
                "parameters": count_parameters(model),
                "prunable": prunable,
                "weights": {name: list(weight.shape) for name, weight in weights.items()},
            },
            "settings": plain(settings or {}),
        },
        plain(origin or {}),
    )
    # The loop may change the working directory; the run stays where it is.
    folder, dense = absolute(folder), None if dense is None else absolute(dense)
    make_folder(folder)
    run = _Run(model, folder, plan, weights, cut, allowance, metric, state or {}, seed, retraining, fresh_model, dense)
    return run.begin(configuration)


def _retraining(
    method: str,
    length: Mapping[Unit, int | None],
    start: Mapping[Unit, int | None],
    rewound: Sequence[str] | None,
    replicates: int,
) -> Retraining:
    listed = (list, tuple, set, frozenset, NoneType)
    require_kind("rewound", rewound, listed, f"a list of {' and '.join(REWINDABLE)}, or of one of them")
    lengths = [Span(count, unit) for unit, count in length.items() if count is not None]
    starts = [Span(count, unit) for unit, count in start.items() if count is not None]
    if len(lengths) + len(starts) > 1:
        raise ConfigurationError(
            f"got {' and '.join(map(str, [*lengths, *starts]))} to rewind; give only one of rewind_steps, "
            f"rewind_epochs, rewind_to_step and rewind_to_epoch"
        )
    return Retraining(
        method,
        next(iter(starts), None),
        next(iter(lengths), None),
        None if rewound is None else tuple(rewound),
        replicates,
    )


def _relative_cut(
    weights: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> tuple[float, float, float]:
    """Norm of the weights before a cut, norm of those that it removes, and their share of those that were left."""
    total = removed = 0.0
    for name, weight in weights.items():
        squares = weight.detach().double().square()
        total += float(squares.sum())
        removed += float(squares.masked_fill(after[name], 0.0).sum())
    left = masks_of.count_kept(before)
    return math.sqrt(total), math.sqrt(removed), (left - masks_of.count_kept(after)) / left


def make_folder(folder: Path) -> None:
    """Makes the folder of a run.

    Raises:
        ConfigurationError: it is a file, cannot be made, or holds something that is no run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {folder}: {error.strerror}; choose another one") from error
    if not (folder / FILE).exists() and any(folder.glob("round*")):
        raise CheckpointError(f"{folder} holds rounds but no {FILE}; restore it, or choose another folder")


def prunable_parameters(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The model's parameters of today under the names of `weights`."""
    parameters = dict(unwrap(model).named_parameters())
    for name, weight in weights.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.shape != weight.shape:
            raise ConfigurationError(vanished(name, weight.shape, parameter))
    return {name: parameters[name] for name in weights}


def _untrained(what: str) -> str:
    return (
        f"the prunable weights of {what} are, bit for bit, what they were when it began: another model than the one "
        f"given to rounds() was trained, or none. Train that very model (a Trainer with model_init makes one of its "
        f"own; a Lightning Trainer that has finished does nothing when it is used again: make a new one)."
    )


def round_to_milliseconds(seconds: float) -> float:
    return math.floor(seconds * 1000 + 0.5) / 1000


@contextmanager
def _as_stored(problem: str) -> Iterator[None]:
    """What goes wrong with the content of an intact file is the file's fault, or that of what it is loaded into."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{problem} ({type(error).__name__}: {error}); go on with the objects and the scope that it was made with, "
            f"or start in a new folder"
        ) from error


def restore_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Lays the optimizer's slots out as its parameters (channels_last): files keep row-major tensors only."""
    for parameter, slots in optimizer.state.items():
        # Some optimizers keep numbers of their own among the parameters' slots (MADGRAD's step, under the key "k").
        for name, slot in slots.items() if isinstance(slots, dict) else ():
            if isinstance(slot, Tensor) and slot.shape == parameter.shape and slot.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter, dtype=slot.dtype, requires_grad=False).copy_(slot)
