"""A round, as the user's loop sees it."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from gossamer.arguments import require_function, require_kind, whole_number
from gossamer.errors import CheckpointError, ConfigurationError, TrainingDivergedError
from gossamer.loop.agreement import reduced
from gossamer.loop.fingerprint import Fingerprint, summary
from gossamer.loop.metrics import numbers_of
from gossamer.loop.normalisation import Batches
from gossamer.loop.record import RoundRecord
from gossamer.loop.spent import Spent
from gossamer.prune import masks as masks_of
from gossamer.quantise.network import Quantisation
from gossamer.quantise.ranges import Ranges
from gossamer.rewind.schedulers import Interval, RoundScheduler, round_scheduler
from gossamer.rewind.strategies import Schedule

if TYPE_CHECKING:
    from gossamer.loop.run import Run


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
    """The masks by weight name, True where the weight is kept."""
    folder: Path
    """The folder of the run."""
    spent: Spent
    """Steps and time of this round so far."""
    start: Fingerprint
    """The fingerprint of the parameters before the training: as the cut left them."""
    taken_schedule: tuple[Schedule, int | None] | None
    """What `schedule` returned last, with its `steps_per_epoch`."""
    averaged: bool
    """Whether all replicates were trained, and their average is in the model."""
    beside: Callable[[Path], object] | None
    """Writes further files into the folder that it is given, which becomes the round's when it is recorded, such as the
    configuration of a model; None: there are none."""
    quantisation: Quantisation | None
    """Of a round that is trained for int8, or in levels: its layers, which round, and what they round to."""
    result: RoundRecord | None
    """What was recorded; None until then."""

    def __init__(self, run: "Run", number: int, masks: Mapping[str, Tensor], quantisation: Quantisation | None) -> None:
        self._run = run
        self.number = number
        self.masks = masks
        self.kept = masks_of.count_kept(masks)
        self.prunable = run.plan.prunable
        self.parameters = run.network.parameters
        self.folder = run.folder
        self.start = run.network.fingerprint()
        self.spent = Spent(run.counter)
        self.taken_schedule = None
        self.averaged = False
        self.beside = None
        self.quantisation = quantisation
        self.result = None
        self._replicates_begun = False

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
    def trainings(self) -> int:
        """How many times this round is trained: once in the dense round, `replicates` times in the others."""
        return self._run.retraining.replicates if self.number > 0 else 1

    @property
    def trainings_left(self) -> int | None:
        """How many trainings all rounds have after this one; None when only `max_drop` will end the run."""
        return None if self.last is None else (self.last - self.number) * self._run.retraining.replicates

    @property
    def steps(self) -> int:
        """Optimizer steps of this round so far, as gossamer counts them."""
        return self.spent.steps

    @property
    def quantised(self) -> bool:
        """Whether it is trained, and measured, with weights and inputs rounded for int8, or with weights in levels."""
        return self.quantisation is not None

    @property
    def levels(self) -> int | None:
        """How many levels on either side of zero its weights are trained in; None: they are in float, or for int8."""
        return None if self.quantisation is None else self.quantisation.levels

    @property
    def ranges(self) -> Ranges:
        """Name of a layer's weight -> the range of the layer's inputs, as the training has found it so far; of a round
        in levels from the lowest to the highest level of the weight; empty where the round is not `quantised`. Whoever
        goes back to the weights of an earlier epoch sets it to what it was then."""
        return {} if self.quantisation is None else self.quantisation.ranges

    @ranges.setter
    def ranges(self, ranges: Ranges) -> None:
        if self.quantisation is not None:
            self.quantisation.ranges = ranges

    def keep(self, masks: Mapping[str, Tensor]) -> None:
        """Goes on with these masks, which keep no more than the round's: gossamer calls it when a round in levels
        ends."""
        self.masks = masks
        self.kept = masks_of.count_kept(masks)

    def in_float(self) -> AbstractContextManager[None]:
        """Inside, the model computes in float even if the round is `quantised`, to measure it so too.

        with round.in_float():
            float_accuracy = evaluate(model)
        """
        return nullcontext() if self.quantisation is None else self.quantisation.interrupted()

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
        schedule = self._run.rewinding.schedule(self.number, total_steps, steps_per_epoch, self._run.counter)
        self.taken_schedule = schedule, steps_per_epoch
        return schedule

    def scheduler(
        self,
        optimizer: Optimizer,
        make: Callable[[Any], Any],
        total_steps: int,
        steps_per_epoch: int | None = None,
        interval: Interval = "step",
    ) -> RoundScheduler:
        """The same as a torch `LRScheduler`, for trainers that take one.

            def make(optimizer):
                return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=1000)

            scheduler = round.scheduler(optimizer, make, total_steps=1000)
            for _ in range(scheduler.total_steps):
                ...                                              # one step of the optimizer
                scheduler.step()

        The scheduler that `make` returns is read off beforehand, on an optimizer with the same param groups: the
        learning rates of all of them, and whatever else it moves (OneCycleLR the momentum). It begins with the rates
        that the groups had before any scheduler moved them (torch's `initial_lr`), so that an optimizer that lives
        across rounds is rewound as well. With "linear-lr-restart", which has rates of its own, all else stays.

        Args:
            optimizer: the one that trains the round.
            make: makes your own scheduler, for the optimizer that it is given. The whole schedule, as for the dense
                round.
            total_steps: length of the whole schedule in optimizer steps, T.
            steps_per_epoch: optimizer steps of an epoch; needed if what to rewind to was given in epochs, or with
                `interval="epoch"`.
            interval: "epoch", if your own scheduler is meant to be stepped after every epoch.

        Returns:
            A scheduler to be stepped after every step of the optimizer, whatever `interval` is. `total_steps` of it is
            how long to train; its `state_dict` holds plain numbers.

        Raises:
            ConfigurationError: what to rewind to lies outside the schedule, or the scheduler waits for a metric
                (ReduceLROnPlateau) or is none of torch's.
        """
        require_kind("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer")
        require_function("make", make, "a function that makes a scheduler for the optimizer that it is given")
        schedule = self.schedule(total_steps, steps_per_epoch)
        return round_scheduler(optimizer, make, schedule, interval, steps_per_epoch)

    def replicates(self, batches: Batches | None = None) -> Iterator[int]:
        """Trains this round as often as `Retraining.replicates` says, and leaves the average in the model.

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
        if self._replicates_begun:
            raise ConfigurationError(
                f"round.replicates() was called before in round {self.number}; call it once, around all training"
            )
        self._replicates_begun = True
        if self.trainings == 1:
            yield 0
        else:
            yield from self._run.replicates(self, batches)
        self.averaged = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint inside the round needs of the round itself, beside those of the model and the optimizer:
        steps and time so far, which attempt it is of, in the dense round the snapshot to rewind to, if it was taken,
        and in a `quantised` one the ranges.

            torch.save({"round": round.state_dict(), "model": ..., "optimizer": ..., "random": ...}, path)

        Raises:
            ConfigurationError: the round is trained several times (`replicates`); it goes on after the last one that
                was finished.
        """
        self._refuse_replicates()
        return {
            "round": self.number,
            "attempt": self._attempt,
            "steps": self.spent.steps,
            "seconds": self.spent.seconds,
            "processor_seconds": self.spent.processor_seconds,
            "snapshot": self._run.rewinding.snapshot_bytes() if self.number == 0 else None,
            "ranges": None if self.quantisation is None else self.quantisation.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint inside the round: call it before the first step, when the model and the optimizer
        get theirs.

        Raises:
            ConfigurationError: the round is trained several times.
            CheckpointError: the checkpoint is of another round, or its round began with other weights.
        """
        self._refuse_replicates()
        if state.get("round") != self.number or state.get("attempt") != self._attempt:
            raise CheckpointError(
                f"the checkpoint of round {state.get('round')} is not one of this round {self.number}, or that began "
                f"with other weights; begin the round anew"
            )
        try:
            spent = int(state["steps"]), float(state["seconds"]), float(state["processor_seconds"])
            snapshot = state["snapshot"]
            self.load_ranges(state)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"this is no state of a round ({error!r}); begin the round anew") from error
        if snapshot is not None:
            self._run.rewinding.restore_snapshot(snapshot)
        self.spent.go_on_from(*spent)

    def load_ranges(self, state: Mapping[str, Any]) -> None:
        """Puts the ranges of such a state back, and nothing else of it.

        Raises:
            LookupError, ValueError: they are of other layers, or the round of the state was quantised and this one is
                not, or the other way round.
        """
        ranges: Any = state.get("ranges")
        if (ranges is not None) != self.quantised:
            raise ValueError(f"its ranges are {'missing' if self.quantised else 'those of a quantised round'}")
        if self.quantisation is not None:
            self.quantisation.load_state_dict(ranges)

    @property
    def _attempt(self) -> str:
        """By what the round began with: the weights that the cut left, or in the dense round their names and shapes,
        for a checkpoint brings the weights that nobody had recorded."""
        if self.number > 0:
            return summary(self.start)
        return summary({name: repr(tuple(shape)).encode() for name, shape in self._run.network.shapes().items()})

    def _refuse_replicates(self) -> None:
        if self.trainings > 1:
            raise ConfigurationError(
                f"round {self.number} has {self.trainings} replicates, and goes on after the last finished one; leave "
                f"the round out of checkpoints inside a replicate, or leave out replicates"
            )

    def after_step(self, step: int, action: Callable[[], None]) -> None:
        """Does `action` once so many optimizer steps of this round were taken; at once if they were just now."""
        self._run.counter.after(step, action)

    def take_snapshot(self) -> None:
        """Keeps the model as it is now, in the dense round, as what later rounds rewind to. Needed only in loops whose
        optimizer is no `torch.optim.Optimizer`; otherwise gossamer counts the steps and does it by itself.

        Raises:
            ConfigurationError: this is not the dense round, or the method rewinds no weights.
        """
        retraining = self._run.retraining
        if self.number > 0 or retraining.strategy.weights != "rewound":
            raise ConfigurationError(
                f"a snapshot is of the dense round, for a method that rewinds weights; this is round {self.number} of "
                f"{retraining.method}"
            )
        self._run.refuse_if_taken_over()
        self._run.rewinding.take_snapshot()

    def record(self, *, model: Any = None, untrained: bool = False, reduce: Any = None, **metrics: Any) -> RoundRecord:
        """Ends the round: writes the model, its masks and these metrics to the run's folder. Call it after training.

        The first metric, or the one named by `Stop.metric`, is the round's result. A metric whose name starts with
        `test_` is reported beside it and decides nothing. After an error it can be called again.

        Args:
            model: what was measured, if that is an average of the model (EMA, SWA): a deep copy, an `AveragedModel`, a
                wrapper that has one as an attribute, or an object with `shadow_params`. The masks are put on it, here
                and at the next cut; its weights are what the folder keeps, and they are put into the model that is
                trained, for the next cut to begin with. An average that lives across rounds belongs into `state` too.
            untrained: allows the prunable weights to be, bit for bit, what they were when the round began: for pruning
                without retraining, and for a network that came trained. Without it that is an error, for then another
                model than the one given to `rounds` was trained, or none.
            reduce: of several processes (torch.distributed): makes the round's metrics of those of all ranks, a list
                of dictionaries in their order. By default each is the mean over the ranks that recorded it.
            metrics: how good the model is, by name: numbers, numpy's and tensors with one entry too. Nested ones,
                such as `val={"acc": 0.9}`, are recorded as `val/acc`.

        Raises:
            ConfigurationError: the round was recorded already, a metric is no number, the one that decides is not
                among these, no weight was trained, or `model` is no average of the model.
            TrainingDivergedError: a metric is not finite; the round is not kept, the ones before it are.
            PrunedWeightError: a pruned weight is not zero.
            CheckpointError: the folder cannot be written.
            RankError: of several processes one was trained to other weights, or is gone.
        """
        require_function("reduce", reduce, "a function that makes metrics of a list of those of all ranks")
        if self.result is not None:
            raise ConfigurationError(f"round {self.number} was recorded already; record once, at its end")
        with self._run.ranks.together():
            values = numbers_of(metrics)
        values = reduced(self._run.ranks, values, reduce)
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"{name} of round {self.number} is {value}; expected a finite number. The last good round is kept."
                )
        self.result = self._run.finish(self, values, model, untrained)
        return self.result
