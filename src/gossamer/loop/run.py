"""The method, as the paper has it: train, prune 20% of the weights globally, rewind the learning rate, repeat.

What is rewound between the cut and the retraining is a strategy by name (`gossamer.rewind.strategies`).
"""

import warnings
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gossamer import randomness
from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.loop import averages, fingerprint
from gossamer.loop import folder as run_folder
from gossamer.loop.agreement import begin_alike, end_alike, held, require_same_round
from gossamer.loop.configuration import Configuration
from gossamer.loop.fingerprint import Fingerprint
from gossamer.loop.metrics import deciding, on_test
from gossamer.loop.normalisation import Batches, layers_with_statistics, recompute_statistics
from gossamer.loop.opening import as_stored, open_folder, put_back, state_of
from gossamer.loop.plan import Plan
from gossamer.loop.pruned_model import PrunedModel
from gossamer.loop.record import FORMAT, RoundRecord, trained
from gossamer.loop.records import REPLICATES
from gossamer.loop.replicates import Start, load_trained, put_average, with_one_more
from gossamer.loop.rewinding import Rewinding
from gossamer.loop.round import Round
from gossamer.loop.settings import Settings
from gossamer.loop.spent import round_to_milliseconds
from gossamer.model.stored import fill, storable
from gossamer.model.wrappers import unwrap
from gossamer.prune import masks as masks_of
from gossamer.prune.choose import choose
from gossamer.prune.enforce import detach_masks, watch
from gossamer.prune.names import belonging_to_round
from gossamer.quantise.fake import FakeQuantisation
from gossamer.quantise.levels import LevelQuantisation
from gossamer.quantise.network import Quantisation
from gossamer.ranks.group import Ranks
from gossamer.rewind import snapshot
from gossamer.rewind.optimizers import restore_memory_formats
from gossamer.rewind.snapshot import StepCounter
from gossamer.storage.files import remove


class _TakenOver(BaseException):
    """Thrown into the iterator of a loop whose folder a later one wants."""


class Run:
    """A model, its plan and its folder."""

    def __init__(
        self, network: PrunedModel, folder: Path, plan: Plan, settings: Settings, dense: Path | None, ranks: Ranks
    ) -> None:
        self.network = network
        self.model = network.model
        self.state = network.state
        self.folder = folder
        self.plan = plan
        self.settings = settings
        self.stop = settings.stop
        self.retraining = settings.retraining
        self.dense = dense
        self.ranks = ranks
        self.rewinding = Rewinding(settings.retraining, network.model, network.state, folder, ranks)
        self.counter = StepCounter(network.model)
        self.metric = settings.stop.metric
        """The recorded metric that is a round's result; None as long as it is the first one."""
        self.average: Any = None
        """What the last round recorded in the model's place: at the next cut it is pruned too."""
        self.recorded: Fingerprint = {}
        """The fingerprint of the model as the last round kept it."""
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
            self.refuse_if_taken_over()

    def _end(self) -> None:
        iterator = self._iterator()
        if iterator is not None:
            iterator.throw(_TakenOver())

    def refuse_if_taken_over(self) -> None:
        """Raises:
        ConfigurationError: a later call goes on in the folder."""
        if self.taken_over:
            raise ConfigurationError(
                f"a later call of gossamer.rounds goes on in {self.folder}, so this loop has ended; use one loop a "
                f"folder"
            )

    def _rounds(self, configuration: Configuration) -> Iterator[Round]:
        with held(self.ranks, self.folder, self._end):
            records = self._opened(configuration)
            masks: Mapping[str, Tensor] = masks_of.full(self.network.weights)
            if records:
                with self.ranks.together():
                    masks, self.average = put_back(self.network, self.folder, records[-1].round, self.ranks)
            else:
                with self.ranks.together():
                    self.network.verify_initialised()
                begin_alike(self.ranks, self.model)
                # The dense round is dense, even if the model was pruned before: its zeros may grow again.
                detach_masks(unwrap(self.model).parameters())
            watch()
            for number, kept in enumerate(self.plan):
                if number < len(records):
                    continue
                if self.stop.max_drop is not None and records:
                    if not self.stop.allows(records[-1], records[0]):
                        break
                    # What decided the dense round decides the others: losses are not compared with accuracies.
                    self.metric = records[0].metric
                if number > 0:
                    masks = self._cut_and_rewind(number, kept, masks)
                round = self._next(number, masks)
                require_same_round(self.ranks, number, masks, self.model)
                with snapshot.counted(self.counter), belonging_to_round(self.model), self._rounding(round):
                    yield round
                    # What nobody recorded claims nothing about a training.
                    records.append(round.result or round.record(untrained=True))
                # Of a round in levels what rounded to zero is gone.
                masks = round.masks
                self._return_to(round)
            # Left by a crash between the end of the last round and its removal there.
            if self.ranks.first:
                remove(self.folder / REPLICATES)
            best = self.stop.recommended(records)
            if best.round != records[-1].round:
                run_folder.load_round(self.folder, best.round, self.model)

    def _opened(self, configuration: Configuration) -> list[RoundRecord]:
        """The finished rounds of the folder, as rank 0 found them."""
        records: list[RoundRecord] = []
        with self.ranks.together():
            if self.ranks.first:
                moment = self.retraining.moment
                records = open_folder(self.folder, configuration, self.dense, moment, self._trained)
        return run_folder.from_first(self.ranks, records)

    def _cut_and_rewind(self, number: int, kept: int, masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Prunes to `kept` weights and puts the weights where the retraining begins; returns the new masks."""
        weights, seed = self.network.weights, self.settings.seed or 0
        # Rounds in levels may have left fewer than planned.
        kept = min(kept, masks_of.count_kept(masks))
        cut = choose(self.settings.cut, self.model, weights, kept, masks, round_number=number, seed=seed)
        self.rewinding.rewind(weights, masks, cut)
        self.network.attach_masks(cut)
        averages.put_masks(self.average, self.model, cut)
        self.average = None
        return cut

    def _next(self, number: int, masks: Mapping[str, Tensor]) -> Round:
        self.counter = StepCounter(self.model)
        # What cannot be pruned or kept any more is said early.
        self.counter.after(1, self.network.refuse_vanished)
        if number == 0:
            self.rewinding.begin_dense(self.counter)
        return Round(self, number, masks, self._quantisation(number))

    def _quantisation(self, number: int) -> Quantisation | None:
        """What a round's layers round to, which begins with the weights that the cut left."""
        if not self._is_quantised(number):
            return None
        if self.retraining.levels is None:
            return FakeQuantisation(self.model, self.network.weights)
        return LevelQuantisation(self.model, self.network.weights, self.retraining.levels)

    def _is_quantised(self, number: int) -> bool:
        return self.plan.is_among_last(number, self.retraining.quantised_rounds)

    def _trained(self, number: int) -> str:
        """How a round is to be trained, for people."""
        return trained(self._is_quantised(number), self.retraining.levels)

    def _rounding(self, round: Round) -> AbstractContextManager[None]:
        """Inside, the layers of a round that is trained with rounded numbers round."""
        if round.quantisation is None:
            return nullcontext()
        living_on = [module for thing in self.state.values() for module in averages.modules_of(thing, self.model)]
        return round.quantisation.attached(living_on)

    def replicates(self, round: Round, batches: Batches | None) -> Iterator[int]:
        """See `Round.replicates`."""
        if batches is None and layers_with_statistics(unwrap(self.model)):
            raise ConfigurationError(
                "the average of networks with BatchNorm needs statistics of its own; pass round.replicates(batches=...)"
                ", a function that returns the inputs of the training data, batch by batch"
            )
        # After the cut: resuming made it again, to the same bits, so it needs no file.
        start = Start(self.model, self.state)
        trained = load_trained(self.folder, round.number)
        if trained is not None:
            round.spent.go_on_from(trained.steps, trained.seconds, trained.processor_seconds)
            randomness.restore(dict(trained.random))
        for number in range(0 if trained is None else trained.count, round.trainings):
            if number > 0:
                start.restore(self.model, self.state)
                # What was pruned is cleared out of the optimizer's slots again, as before the first replicate.
                self.network.attach_masks(round.masks)
            yield number
            self.refuse_if_taken_over()
            if not self.network.is_trained(round.start):
                raise ConfigurationError(_untrained(f"replicate {number} of round {round.number}"))
            trained = with_one_more(trained, self.model, self.state, round.number, round.spent)
            trained.save(self.folder)
        assert trained is not None
        with as_stored(f"the replicates in {self.folder / REPLICATES} do not fit this run"):
            put_average(trained, self.model, self.state)
        restore_memory_formats(self.state)
        if batches is not None:
            recompute_statistics(unwrap(self.model), batches())

    def finish(self, round: Round, metrics: dict[str, float], average: Any, untrained: bool) -> RoundRecord:
        """See `Round.record`."""
        metric = deciding(metrics, self.metric, self.stop, round.number)
        with self.ranks.together():
            self.refuse_if_taken_over()
            seconds = round_to_milliseconds(round.spent.seconds)
            self._verify(round, untrained)
            snapshot_file = self.rewinding.taken_snapshot(self.counter.steps) if round.number == 0 else None
            kept = storable(self.model)
            if isinstance(average, nn.Module) and unwrap(average) is unwrap(self.model):
                average = None
            if average is not None:
                kept |= self._averaged(round, average, kept)
            self.network.verify_finite(kept, round.number)
            masks = round.masks
            if round.quantisation is not None:
                kept, masks = round.quantisation.settled(kept, masks)
        if self.network.is_sharded and not (untrained or any(self.ranks.gather(self.network.is_trained(round.start)))):
            raise ConfigurationError(_untrained_round(round))
        others = end_alike(self.ranks, self.model, kept, round.number)
        record = self._record_of(round, masks, metrics, metric, seconds)
        state, pieces = state_of(self.state, self._living_on(average), self.ranks)
        cost = round.spent.cost(round.number, self.retraining.method, self.network.device, seconds)
        written = run_folder.write_round(
            self.folder,
            record,
            kept,
            masks,
            state,
            snapshot_file,
            cost,
            round.beside,
            round.ranges if round.quantised and round.levels is None else None,
            self.ranks,
            pieces,
        )
        if average is not None:
            self.average = average
        if average is not None or others or round.levels is not None:
            fill(unwrap(self.model), kept, self.folder)
        if round.levels is not None:
            self.network.attach_masks(masks)
            round.keep(masks)
        self.recorded = fingerprint.of_state(self.model)
        if snapshot_file is not None:
            remove(snapshot_file)
        if self.ranks.first:
            remove(self.folder / REPLICATES)
        return written

    def _record_of(
        self, round: Round, masks: Mapping[str, Tensor], metrics: dict[str, float], metric: str | None, seconds: float
    ) -> RoundRecord:
        """What is known of a round that ends with these masks."""
        rates_from, weights_from = self.rewinding.rewound_to(round.number, round.taken_schedule)
        left = masks_of.count_kept(masks)
        return RoundRecord(
            round=round.number,
            density=left / round.prunable,
            kept=left,
            prunable=round.prunable,
            parameters=round.parameters,
            val=metrics[metric] if metric is not None else None,
            test=on_test(metric, metrics) if metric is not None else None,
            metric=metric,
            seconds=seconds,
            lr_rewound_to=rates_from,
            weights_rewound_to=weights_from,
            seed=self.settings.seed,
            metrics=metrics,
            sha256={},
            quantised=round.quantised,
            levels=round.levels,
            rounded_to_zero=round.kept - left,
            format=FORMAT,
        )

    def _living_on(self, average: Any) -> str | None:
        """The name in the run's state of what a round recorded in the model's place: it is pruned at the next cut, also
        after an interruption."""
        names = [name for name, thing in self.state.items() if averages.are_same(average, thing, self.model)]
        return names[-1] if names else None

    def _verify(self, round: Round, untrained: bool) -> None:
        """That the round was trained as it was to be, and that its zeros are where they were."""
        if round.trainings > 1 and not round.averaged:
            raise ConfigurationError(
                f"round {round.number} has {round.trainings} replicates to average, and not all of them were trained; "
                f"train inside for replicate in round.replicates(), to its end, and record after it"
            )
        self.network.verify_zeros(round.masks, dense=round.number == 0)
        if round.number > 0 and round.taken_schedule is None and not self.retraining.plain:
            raise ConfigurationError(
                f"round {round.number} of {self.retraining.method} trains with other learning rates than the dense "
                f"round, but did not ask for them; train for step in round.schedule(total_steps)"
            )
        # A process may have no numbers of sharded weights: that is asked of all of them, afterwards.
        if not untrained and not self.network.is_sharded and not self.network.is_trained(round.start):
            raise ConfigurationError(_untrained_round(round))

        if round.quantisation is not None:
            round.quantisation.require_trained(round.number)

    def _averaged(self, round: Round, average: Any, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What an average has in the places of `kept`, its pruned weights set to zero."""
        if round.trainings > 1:
            raise ConfigurationError(
                f"round {round.number} ends with the average of its replicates, and not with another model; leave "
                f"model= out, or replicates"
            )
        if self.network.is_sharded:
            raise ConfigurationError(
                f"the network is sharded, and model= is another one ({type(average).__name__}); expected the network "
                f"itself to be recorded. Leave model= out: put the average's weights into the network before"
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

    def _return_to(self, round: Round) -> None:
        """The next cut begins with the network that was recorded, as it does after an interruption."""
        self.network.weights = self.network.current_weights()
        now = fingerprint.of_state(self.model)
        changed = [name for name, digest in now.items() if self.recorded.get(name) != digest]
        if changed:
            warnings.warn(
                f"{changed[0]} was changed after round {round.number} was recorded. The run goes on with what was "
                f"recorded; to keep another network, change the model before, or name it in round.record(model=...).",
                GossamerWarning,
                stacklevel=3,
            )
            run_folder.load_round(self.folder, round.number, self.model)


def _untrained_round(round: Round) -> str:
    return (
        f"{_untrained(f'round {round.number}')} If no training is meant (pruning without retraining, a network "
        f"that came trained), say so: round.record(..., untrained=True)."
    )


def _untrained(what: str) -> str:
    return (
        f"the prunable weights of {what} are, bit for bit, what they were when it began: another model than the one "
        f"given to rounds() was trained, or none. Train that very model (a Trainer with model_init makes one of its "
        f"own; a Lightning Trainer that has finished does nothing when it is used again: make a new one), "
        f"at a learning rate that is not zero in every step."
    )
