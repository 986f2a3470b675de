"""The cells of a comparison: which runs it takes, as commands that anybody could type, and which of them are done.

DIR/dense/seed-0               the dense network of a seed, trained once
DIR/cells/weight-rewind/seed-0 a run of `gossamer compress`, which takes the dense network over
DIR/cells/one-shot-lr-rewind/density-0.107/seed-0
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gossamer.errors import ConfigurationError
from gossamer.prune.allocate import ALLOCATIONS
from gossamer.prune.criteria import CRITERIA
from gossamer.prune.structure import STRUCTURES, find_structure
from gossamer.rewind.strategies import STRATEGIES
from gossamer.rounds.folder import kept_snapshot, read_records
from gossamer.rounds.plan import Plan, as_written

ONE_SHOT = "one-shot-"
REPLICATES = "replicates="
DEFAULT_ONE_SHOT_ROUNDS = 3
"""One-shot methods need a whole retraining for every density: without a list, those of every third round."""


@dataclass(frozen=True)
class Method:
    """What is compared: a strategy, how long it retrains, iteratively or in one shot."""

    strategy: str
    retrain_epochs: int | None = None
    """t; None: the whole schedule."""
    one_shot: bool = False
    cut: tuple[str, ...] = ()
    """Names of a criterion, an allocation (or its file) and a structure that are not the paper's; or replicates=3, for
    rounds that are trained three times and averaged."""

    @classmethod
    def named(cls, text: str) -> "Method":
        """Reads lr-rewind, weight-rewind@10 (retrain for the last 10 epochs), one-shot-fine-tune, lr-rewind+erk+lamp or
        lr-rewind+replicates=3.

        Raises:
            ConfigurationError: it is no such name.
        """
        retraining, *cut = text.split("+")
        strategy, at, epochs = retraining.removeprefix(ONE_SHOT).partition("@")
        if strategy not in STRATEGIES or (at and not (epochs.isdecimal() and int(epochs) > 0)):
            raise ConfigurationError(
                f"there is no method {text!r}; expected one of {', '.join(STRATEGIES)}, with {ONE_SHOT} before it to "
                f"cut once, @10 behind it to retrain for the last 10 epochs only, and +erk for another allocation, "
                f"criterion or structure, and +replicates=3 for averages of 3 trainings"
            )
        for name in cut:
            _options(name)
        return cls(strategy, int(epochs) if at else None, text.startswith(ONE_SHOT), tuple(cut))

    @property
    def family(self) -> str:
        """The name without the retraining time, which is chosen on validation."""
        return (ONE_SHOT if self.one_shot else "") + self.strategy + "".join(f"+{name}" for name in self.cut)

    def __str__(self) -> str:
        time = "" if self.retrain_epochs is None else f"@{self.retrain_epochs}"
        return (ONE_SHOT if self.one_shot else "") + self.strategy + time + "".join(f"+{name}" for name in self.cut)

    @property
    def rewinds_weights(self) -> bool:
        return STRATEGIES[self.strategy].weights == "rewound"

    @property
    def constant_rate(self) -> bool:
        """Whether it retrains with one learning rate instead of a schedule."""
        return STRATEGIES[self.strategy].rates == "last"


@dataclass(frozen=True)
class Grid:
    """What is compared with what, and where it is kept."""

    folder: Path
    task: str
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    target_sparsity: float
    per_round: float = 0.2
    one_shot_densities: tuple[float, ...] = ()
    data: Path | None = None
    epochs: int | None = None
    """None: the recipe's."""
    recipe_epochs: int = 0
    device: str = "cpu"
    fine_tune_rate: float | None = None
    extra: tuple[str, ...] = ()
    """Further options of `gossamer compress`, the same for every cell."""

    def __post_init__(self) -> None:
        if not self.methods or len({str(method) for method in self.methods}) < len(self.methods):
            raise ConfigurationError("expected at least one method, and none of them twice")
        if not self.seeds:
            raise ConfigurationError("got no seeds; expected at least one, better three")
        for method in self.methods:
            if method.retrain_epochs is not None and method.retrain_epochs > self.schedule_epochs:
                raise ConfigurationError(
                    f"{method} retrains for longer than the {self.schedule_epochs} epochs of the schedule; expected at "
                    f"most these"
                )
        for density in self.one_shot_densities:
            if not 0 < density < 1:
                raise ConfigurationError(f"one-shot density is {density}; expected a share of the weights, such as 0.1")
        Plan(prunable=10**9, per_round=self.per_round, target_sparsity=self.target_sparsity)

    @property
    def schedule_epochs(self) -> int:
        return self.recipe_epochs if self.epochs is None else self.epochs

    @property
    def densities(self) -> tuple[float, ...]:
        """Where one-shot methods are looked at."""
        if self.one_shot_densities:
            return self.one_shot_densities
        kept = 1 - as_written(self.per_round)
        densities, round_number = [], 0
        while kept**round_number > 1 - as_written(self.target_sparsity):
            densities.append(float(kept**round_number))
            round_number += DEFAULT_ONE_SHOT_ROUNDS
        return (*densities[1:], float(1 - as_written(self.target_sparsity)))

    def dense_jobs(self) -> "Iterator[Job]":
        """The dense training of every seed."""
        snapshots = sorted({self._rewound_to(method) for method in self.methods if method.rewinds_weights})
        for seed in self.seeds:
            folder = self._dense_folder(seed)
            command = [*self._command(seed, folder), "--dense-only", "--target-sparsity", repr(self.target_sparsity)]
            command += ["--per-round", repr(self.per_round)]
            if snapshots:
                command += ["--keep-snapshots", ",".join(map(str, snapshots))]
            # What a dense run that is finished did not keep cannot be had from it any more: see `_cell`.
            moments = [_moment(epoch) for epoch in snapshots if not self._lacks_snapshot(seed, epoch)]
            yield Job(f"dense seed {seed}", folder, tuple(command), None, None, tuple(moments))

    def cells(self) -> "Iterator[Job]":
        """Every run that takes a dense network over: seed by seed, so that whole comparisons are ready early."""
        for seed in self.seeds:
            for method in self.methods:
                for density in self.densities if method.one_shot else (None,):
                    yield self._cell(method, seed, density)

    def cell_folder(self, method: Method, seed: int, density: float | None = None) -> Path:
        folder = self.folder / "cells" / str(method).replace("/", "_")
        return (folder if density is None else folder / f"density-{density:.6g}") / f"seed-{seed}"

    def holds_constant_rates(self) -> bool:
        """Whether the folder has runs of methods that retrain with one learning rate."""
        names = (path.name.split("+")[0].removeprefix(ONE_SHOT) for path in (self.folder / "cells").glob("*"))
        held = (STRATEGIES.get(name.partition("@")[0]) for name in names)
        return any(strategy is not None and strategy.rates == "last" for strategy in held)

    def _cell(self, method: Method, seed: int, density: float | None) -> "Job":
        folder = self.cell_folder(method, seed, density)
        dense: Path | None = self._dense_folder(seed)
        target = self.target_sparsity if density is None else float(1 - as_written(density))
        command = [*self._command(seed, folder), "--method", method.strategy]
        if method.rewinds_weights and self._lacks_snapshot(seed, self._rewound_to(method)):
            # A method that was added later trains the same dense network again, to pass by what it rewinds to.
            dense = None
        command += [] if dense is None else ["--dense", str(dense)]
        command += ["--target-sparsity", repr(target)]
        command += ["--per-round", repr(self.per_round)] if density is None else ["--one-shot"]
        for name in method.cut:
            command += _options(name)
        if method.retrain_epochs is not None:
            command += ["--rewind-epochs", str(method.retrain_epochs)]
        if self.fine_tune_rate is not None and method.constant_rate:
            command += ["--fine-tune-rate", repr(self.fine_tune_rate)]
        name = f"{method} seed {seed}" + ("" if density is None else f" density {density:.3g}")
        return Job(name, folder, tuple(command), dense, target)

    def _command(self, seed: int, folder: Path) -> list[str]:
        options = ["compress", self.task, "--seed", str(seed), "--out", str(folder), "--device", self.device]
        options += ["--data", str(self.data)] if self.data is not None else []
        options += ["--epochs", str(self.epochs)] if self.epochs is not None else []
        return [*options, *self.extra]

    def _dense_folder(self, seed: int) -> Path:
        return self.folder / "dense" / f"seed-{seed}"

    def _lacks_snapshot(self, seed: int, epoch: int) -> bool:
        """Whether the dense run is finished and did not keep what it was after so many epochs."""
        folder = self._dense_folder(seed)
        finished = folder.exists() and bool(read_records(folder))
        return finished and not kept_snapshot(folder, _moment(epoch)).exists()

    def _rewound_to(self, method: Method) -> int:
        """The epoch whose weights a method goes back to."""
        return 0 if method.retrain_epochs is None else self.schedule_epochs - method.retrain_epochs


def _options(name: str) -> list[str]:
    """What a name behind a plus is for `gossamer compress`.

    Raises:
        ConfigurationError: nothing.
    """
    if name in ALLOCATIONS or name.endswith(".toml"):
        return ["--allocation", name]
    if name in CRITERIA:
        return ["--criterion", name]
    if name in STRUCTURES or ":" in name:
        find_structure(name)
        return ["--structure", name]
    if name.startswith(REPLICATES):
        count = name.removeprefix(REPLICATES)
        if not (count.isdecimal() and int(count) > 0):
            raise ConfigurationError(f"got +{name}; expected how many trainings to average, such as +{REPLICATES}3")
        return ["--replicates", count]
    known = ", ".join([*ALLOCATIONS, *CRITERIA, *STRUCTURES])
    raise ConfigurationError(
        f"+{name} names no allocation, criterion or structure; expected one of {known}, or a file "
        f"of densities that ends in .toml"
    )


def _moment(epoch: int) -> str:
    return f"{epoch} epochs" if epoch else "0 steps"


@dataclass(frozen=True)
class Job:
    """One run of `gossamer compress`."""

    name: str
    folder: Path
    options: tuple[str, ...]
    """The command line behind `gossamer`."""
    dense: Path | None
    """The folder of the dense network, which has to be there first."""
    target_sparsity: float | None
    """None: it trains the dense network only."""
    snapshots: tuple[str, ...] = ()
    """What a dense training keeps for others to rewind to."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "gossamer.cli.main", *self.options]

    @property
    def rounds_done(self) -> int:
        return len(read_records(self.folder)) if self.folder.exists() else 0

    @property
    def done(self) -> bool:
        """Whether the folder holds all that the command would put there."""
        records = read_records(self.folder) if self.folder.exists() else []
        if not records:
            return False
        if self.target_sparsity is None:
            return all(kept_snapshot(self.folder, moment).exists() for moment in self.snapshots)
        return records[-1].kept <= Plan(records[0].prunable, target_sparsity=self.target_sparsity).smallest
