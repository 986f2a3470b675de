"""The method, as the paper has it: train, prune 20% of the weights globally, rewind the learning rate, repeat."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import CheckpointError, ConfigurationError, TrainingDivergedError
from gossamer.prune import masks as masks_of
from gossamer.prune.cut import Cut, DensityPlan, allocation_of
from gossamer.prune.enforce import check, hold, release
from gossamer.prune.gradients import Losses
from gossamer.prune.scope import Scope, count_parameters, prunable_weights, unwrap
from gossamer.rounds import folder as run_folder
from gossamer.rounds import randomness
from gossamer.rounds.configuration import FILE, Configuration
from gossamer.rounds.files import locked
from gossamer.rounds.plan import Plan
from gossamer.rounds.record import RoundRecord
from gossamer.rounds.stopping import Allowance, Better, smallest_allowed

TEST_PREFIX = "test_"
"""A metric recorded under this prefix is reported and never used for a choice."""


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

    def record(self, **metrics: float) -> RoundRecord:
        """Ends the round: writes the model, its masks and these metrics to the run's folder. Call it after training.

        The first metric, or the one named in `rounds(metric=...)`, is the round's result. A metric whose name starts
        with `test_` is reported beside it and decides nothing.

        Raises:
            ConfigurationError: the round was recorded already, a metric is no number, or the one that decides is not
                among these.
            TrainingDivergedError: a metric is not finite; the round is not kept, the ones before it are.
            PrunedWeightError: a pruned weight is not zero.
            CheckpointError: the folder cannot be written.
        """
        if self.result is not None:
            raise ConfigurationError(f"round {self.number} was recorded already; record once, at its end")
        values = {name: _number(name, value) for name, value in metrics.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"{name} of round {self.number} is {value}; expected a finite number. The last good round is kept."
                )
        metric = self._run.metric_of(values, self.number)
        self.result = self._run.finish(self, metric, values)
        return self.result


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
        self.parameters = count_parameters(model)

    def rounds(self, configuration: Configuration) -> Iterator[Round]:
        with locked(self.folder):
            records = self._open(configuration)
            masks: Mapping[str, Tensor] = masks_of.full(self.weights)
            if records:
                masks = self._restore(records[-1].round)
            else:
                # The dense round is dense, even if the model was pruned before: its zeros may grow again.
                release(unwrap(self.model).parameters())
            for number, kept in enumerate(self.plan):
                if number < len(records):
                    continue
                if self.allowance is not None and records:
                    if not self.allowance.allows(records[-1], records[0]):
                        break
                    # What decided the dense round decides the others: losses are not compared with accuracies.
                    self.metric = records[0].metric
                if number > 0:
                    masks = self.cut.choose(self.model, self.weights, kept, masks, round_number=number)
                    hold(self.model, self.weights, masks)
                round = Round(self, number, masks)
                yield round
                records.append(round.result or round.record())
            best = smallest_allowed(records, self.allowance)
            if best.round != records[-1].round:
                run_folder.load_round(self.folder, best.round, self.model)

    def metric_of(self, metrics: Mapping[str, float], number: int) -> str | None:
        names = [name for name in metrics if not name.startswith(TEST_PREFIX)]
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

    def finish(self, round: Round, metric: str | None, metrics: dict[str, float]) -> RoundRecord:
        seconds = round.seconds_before + time.monotonic() - round._started
        self._verify(round)
        record = RoundRecord(
            round=round.number,
            density=round.density,
            kept=round.kept,
            prunable=round.prunable,
            parameters=round.parameters,
            val=metrics[metric] if metric is not None else None,
            test=metrics.get(f"{TEST_PREFIX}{metric}"),
            metric=metric,
            seconds=round_to_milliseconds(seconds),
            lr_rewound_to=0.0 if round.number > 0 else None,
            weights_rewound_to=None,
            seed=self.seed,
            metrics=metrics,
            sha256={},
        )
        state = {
            "random": randomness.capture(),
            "objects": {name: thing.state_dict() for name, thing in self.state.items()},
        }
        return run_folder.write_round(self.folder, record, self.model, round.masks, state)

    def _verify(self, round: Round) -> None:
        current = prunable_parameters(self.model, self.weights)
        if any(current[name] is not weight for name, weight in self.weights.items()):
            # The parameters were replaced (load_state_dict(assign=True), a new head): hold the new ones from here on.
            self.weights = current
            if round.number > 0:
                check(self.model, masks=round.masks)
                hold(self.model, self.weights, round.masks)
        elif round.number > 0:
            check(self.model)
        parameters = dict(unwrap(self.model).named_parameters(remove_duplicate=False))
        for name, tensor in unwrap(self.model).state_dict().items():
            # A buffer may hold infinities, as attention masks do.
            if not bool(torch.isfinite(tensor).all() if name in parameters else ~torch.isnan(tensor).any()):
                raise TrainingDivergedError(
                    f"{name} is not finite after round {round.number}: training diverged. The last good round is kept; "
                    f"lower the learning rate and start in a new folder."
                )

    def _open(self, configuration: Configuration) -> list[RoundRecord]:
        """Makes the folder, or verifies that it holds this very run; returns its finished rounds."""
        run_folder.clear_leftovers(self.folder)
        records = run_folder.read_records(self.folder)
        if records or (self.folder / run_folder.TRAINING).exists():
            configuration.refuse_other(self.folder)
        else:
            # Nothing was computed yet, so a setting that was mended after an error loses nothing.
            configuration.write(self.folder)
        run_folder.write_table(self.folder, records)
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
            return {name: masks[name] for name in self.weights}


def rounds(
    model: nn.Module,
    *,
    folder: str | Path,
    target_sparsity: float | None = None,
    max_drop: float | None = None,
    rounds: int | None = None,
    per_round: float = 0.2,
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
        per_round: share of the remaining weights that each round prunes, in (0, 1); the paper's 0.2 by default.
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
        better: "higher" or "lower", for a metric that is not in `gossamer.rounds.stopping.KNOWN_METRICS`.
        state: what lives on across rounds, by name, such as {"optimizer": optimizer}: objects with `state_dict` and
            `load_state_dict`, saved with every round and restored on resuming. What each round makes anew needs none.
        seed: only recorded.
        settings: anything else that decides what the run computes (plain values); recorded, and compared on resuming.
        origin: where things came from (plain values); recorded, and not compared.

    Raises:
        ConfigurationError: an argument is out of range, or the folder holds another run.
        NothingToPruneError: no weight is prunable, or the target would prune none.
        CheckpointError: the folder is damaged or cannot be written.

    Source: Renda, Frankle, Carbin 2020, section 2 and algorithm 1, "learning rate rewinding", iterative.
    """
    cut = Cut(criterion, allocation_of(allocation), structure, losses, seed or 0)
    scope = scope or Scope()
    weights = prunable_weights(model, scope)
    if target_sparsity is None and max_drop is None and rounds is None:
        target_sparsity = cut.own_target(weights)
    if target_sparsity is None and max_drop is None and rounds is None:
        raise ConfigurationError("when to stop was not said; pass target_sparsity=0.95, max_drop=0.01 or rounds=10")
    prunable = sum(weight.numel() for weight in weights.values())
    plan = Plan(prunable, per_round, target_sparsity, rounds)
    cut.check(model, weights, None if plan.last is None else plan.kept(plan.last))
    allowance = None if max_drop is None else Allowance(max_drop, metric, better)
    run_folder.storable(model)
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
                "metric": metric,
                "better": better,
                "seed": seed,
            },
            "method": {
                "retraining": "lr-rewind",
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
            "settings": dict(settings or {}),
        },
        dict(origin or {}),
    )
    folder = Path(folder)
    make_folder(folder)
    run = _Run(model, folder, plan, weights, cut, allowance, metric, state or {}, seed)
    return run.rounds(configuration)


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
    missing = [name for name in weights if name not in parameters or parameters[name].shape != weights[name].shape]
    if missing:
        raise ConfigurationError(
            f"{missing[0]} is no longer a parameter of the model, or has another shape; expected the model's layers to "
            f"stay as they were when the rounds began"
        )
    return {name: parameters[name] for name in weights}


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


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{name} is {value!r}; expected a number") from error


def restore_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Lays the optimizer's slots out as its parameters (channels_last): files keep row-major tensors only."""
    for parameter, slots in optimizer.state.items():
        for name, slot in slots.items():
            if isinstance(slot, Tensor) and slot.shape == parameter.shape and slot.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter, dtype=slot.dtype, requires_grad=False).copy_(slot)
