"""The cells of a comparison: which runs it takes, as commands that anybody could type, and which of them are done.

DIR/dense/seed-0               the dense network of a seed, trained once
DIR/cells/weight-rewind/seed-0 a run of `gossamer compress`, which takes the dense network over
DIR/cells/one-shot-lr-rewind/density-0.107/seed-0
DIR/cells/one-shot-lr-rewind+policy.toml/seed-0
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gossamer.arguments import as_written
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop import configuration
from gossamer.loop.folder import kept_snapshot
from gossamer.loop.plan import Plan
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import TRAINING, read_records
from gossamer.prune.allocate import ALLOCATIONS
from gossamer.prune.criteria import CRITERIA
from gossamer.prune.densities import read_densities
from gossamer.prune.structure import STRUCTURES, find_structure
from gossamer.rewind.strategies import STRATEGIES
from gossamer.storage import state as states

ONE_SHOT = "one-shot-"
REPLICATES = "replicates="
DENSITIES = ".toml"
"""How the name of an allocation ends that is a file of densities."""
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
            ConfigurationError: it is no such name, or two parts of it contradict each other.
        """
        retraining, *cut = text.split("+")
        strategy, at, epochs = retraining.removeprefix(ONE_SHOT).partition("@")
        if strategy not in STRATEGIES or (at and not (epochs.isdecimal() and int(epochs) > 0)):
            raise ConfigurationError(
                f"there is no method {text!r}; expected one of {', '.join(STRATEGIES)}, with {ONE_SHOT} before it to "
                f"cut once, @10 behind it to retrain for the last 10 epochs only, and +erk for another allocation, "
                f"criterion or structure, and +replicates=3 for averages of 3 trainings"
            )
        for option, count in Counter(_option(name)[0] for name in cut).items():
            if count > 1:
                given = " and ".join(f"+{name}" for name in cut if _option(name)[0] == option)
                raise ConfigurationError(
                    f"{text} has {given}, which are all of a kind ({option}); expected one of them, or methods of "
                    f"their own"
                )
        return cls(strategy, int(epochs) if at else None, text.startswith(ONE_SHOT), tuple(cut))

    @property
    def family(self) -> str:
        """The name without the retraining time, which is chosen on validation."""
        return (ONE_SHOT if self.one_shot else "") + self.strategy + "".join(f"+{name}" for name in self.cut)

    def __str__(self) -> str:
        time = "" if self.retrain_epochs is None else f"@{self.retrain_epochs}"
        return (ONE_SHOT if self.one_shot else "") + self.strategy + time + "".join(f"+{name}" for name in self.cut)

    @property
    def options(self) -> dict[str, str]:
        """What the names behind a plus are for `gossamer compress`."""
        return dict(map(_option, self.cut))

    @property
    def densities_file(self) -> Path | None:
        """Where the allocation is, if it has no name."""
        allocation = self.options.get("--allocation", "")
        return Path(allocation) if allocation.endswith(DENSITIES) else None

    @property
    def has_own_densities(self) -> bool:
        """Whether it cuts once, to the densities of its file."""
        return self.one_shot and self.densities_file is not None

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
    file_targets: Mapping[Method, float] = field(default_factory=dict)
    """The sparsity that those one-shot methods cut to whose densities are in a file (`before.targets_in_files`)."""

    def __post_init__(self) -> None:
        if not self.methods or len({str(method) for method in self.methods}) < len(self.methods):
            raise ConfigurationError("expected at least one method, and none of them twice")
        if not self.seeds:
            raise ConfigurationError("got no seeds; expected at least one, better three")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigurationError(f"epochs is {self.epochs}; expected at least 1")
        for method in self.methods:
            if method.retrain_epochs is not None and method.retrain_epochs > self.schedule_epochs:
                raise ConfigurationError(
                    f"{method} retrains for longer than the {self.schedule_epochs} epochs of the schedule; expected at "
                    f"most these"
                )
        for method in self.methods:
            if method.has_own_densities and method not in self.file_targets:
                raise ConfigurationError(
                    f"{method}: the sparsity that its file comes to is missing; expected it in file_targets, see "
                    f"gossamer.compare.before.targets_in_files"
                )
        for density in self.one_shot_densities:
            if not 0 < density < 1:
                raise ConfigurationError(f"one-shot density is {density}; expected a share of the weights, such as 0.1")
        Plan(prunable=10**9, per_round=self.per_round, target_sparsity=self.target_sparsity)
        self._refuse_shared_folders()

    @property
    def schedule_epochs(self) -> int:
        return self.recipe_epochs if self.epochs is None else self.epochs

    def densities_of(self, method: Method) -> tuple[float | None, ...]:
        """Where a method is looked at, a run for each. None: there is one run, with all its rounds or to the densities
        of its file."""
        return self.densities if method.one_shot and not method.has_own_densities else (None,)

    @property
    def densities(self) -> tuple[float, ...]:
        """Where one-shot methods are looked at that have no densities of their own."""
        if self.one_shot_densities:
            return self.one_shot_densities
        kept = 1 - as_written(self.per_round)
        densities, round_number = [], 0
        while kept**round_number > 1 - as_written(self.target_sparsity):
            densities.append(float(kept**round_number))
            round_number += DEFAULT_ONE_SHOT_ROUNDS
        return (*densities[1:], float(1 - as_written(self.target_sparsity)))

    def jobs(self) -> "list[Job]":
        """All runs, the dense ones first."""
        return [*self.dense_jobs(), *self.cells()]

    def dense_jobs(self) -> "Iterator[Job]":
        """The dense training of every seed."""
        snapshots = self._snapshots()
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
                for density in self.densities_of(method):
                    yield self._cell(method, seed, density)

    def cell_folder(self, method: Method, seed: int, density: float | None = None) -> Path:
        folder = self.folder / "cells" / str(method).replace("/", "_")
        return (folder if density is None else folder / f"density-{density:.6g}") / f"seed-{seed}"

    def trained_past_snapshots(self) -> list[Path]:
        """Folders of dense trainings that were interrupted after an epoch that a method goes back to, and did not keep
        it: the method was added since.

        Raises:
            CheckpointError: what is kept of such a training is damaged.
        """
        found = []
        for folder in map(self._dense_folder, self.seeds):
            if not (folder / TRAINING).exists() or read_records(folder):
                continue
            epochs_done = states.load_entries(folder / TRAINING).get("epochs_done", 0)
            if not isinstance(epochs_done, int):
                raise CheckpointError(f"{folder / TRAINING} does not say how far it is; remove it to begin again")
            missing = [epoch for epoch in self._snapshots() if not kept_snapshot(folder, _moment(epoch)).exists()]
            if any(epoch < epochs_done for epoch in missing):
                found.append(folder)
        return found

    def refuse_links(self) -> None:
        """Verifies that what is in the comparison's folder lies there: it may come from somebody else, and a link could
        lead runs anywhere.

        Raises:
            ConfigurationError: a run's folder is a link, or lies behind one.
        """
        for job in self.jobs():
            for folder in (job.folder, *job.folder.parents):
                if folder == self.folder:
                    break
                if folder.is_symlink():
                    raise ConfigurationError(f"{folder} is a link; expected the comparison's own folder in its place")

    def holds_constant_rates(self) -> bool:
        """Whether the folder has runs of methods that retrain with one learning rate."""
        names = (path.name.split("+")[0].removeprefix(ONE_SHOT) for path in (self.folder / "cells").glob("*"))
        held = (STRATEGIES.get(name.partition("@")[0]) for name in names)
        return any(strategy is not None and strategy.rates == "last" for strategy in held)

    def targets(self, method: Method) -> list[float]:
        """The sparsities that the method's runs end at."""
        return [self._target(method, density) for density in self.densities_of(method)]

    def _target(self, method: Method, density: float | None) -> float:
        if density is not None:
            return _sparsity(density)
        return self.file_targets[method] if method.has_own_densities else self.target_sparsity

    def _cell(self, method: Method, seed: int, density: float | None) -> "Job":
        folder = self.cell_folder(method, seed, density)
        dense: Path | None = self._dense_folder(seed)
        target = self._target(method, density)
        command = [*self._command(seed, folder), "--method", method.strategy]
        if method.rewinds_weights and self._lacks_snapshot(seed, self.rewound_to(method)):
            # A method that was added later trains the same dense network again, to pass by what it rewinds to.
            dense = None
        command += [] if dense is None else ["--dense", str(dense)]
        command += ["--target-sparsity", repr(target)]
        command += ["--one-shot"] if method.one_shot else ["--per-round", repr(self.per_round)]
        for option, value in method.options.items():
            command += [option, value]
        if method.retrain_epochs is not None:
            command += ["--rewind-epochs", str(method.retrain_epochs)]
        if self.fine_tune_rate is not None and method.constant_rate:
            command += ["--fine-tune-rate", repr(self.fine_tune_rate)]
        name = f"{method} seed {seed}" + ("" if density is None else f" density {density:.3g}")
        return Job(name, folder, tuple(command), dense, target, densities_file=method.densities_file)

    def _command(self, seed: int, folder: Path) -> list[str]:
        options = ["compress", self.task, "--seed", str(seed), "--out", str(folder), "--device", self.device]
        options += ["--data", str(self.data)] if self.data is not None else []
        options += ["--epochs", str(self.epochs)] if self.epochs is not None else []
        return options

    def _dense_folder(self, seed: int) -> Path:
        return self.folder / "dense" / f"seed-{seed}"

    def _lacks_snapshot(self, seed: int, epoch: int) -> bool:
        """Whether the dense run is finished and did not keep what it was after so many epochs."""
        folder = self._dense_folder(seed)
        finished = folder.exists() and bool(read_records(folder))
        return finished and not kept_snapshot(folder, _moment(epoch)).exists()

    def _snapshots(self) -> list[int]:
        """The epochs of the dense training that methods go back to."""
        return sorted({self.rewound_to(method) for method in self.methods if method.rewinds_weights})

    def _refuse_shared_folders(self) -> None:
        methods: dict[Path, Method] = {}
        for method in self.methods:
            folder = self.cell_folder(method, self.seeds[0])
            other = methods.setdefault(folder, method)
            if other != method:
                raise ConfigurationError(
                    f"{other} and {method} would both be kept in {folder.parent}; expected names that differ by more "
                    f"than / and _: rename one of the files"
                )
        named = Counter(f"{density:.6g}" for density in self.densities)
        twice = [name for name, count in named.items() if count > 1]
        if twice:
            raise ConfigurationError(
                f"one-shot density {twice[0]} is there {named[twice[0]]} times; expected densities that differ in "
                f"their first six digits"
            )

    def rewound_to(self, method: Method) -> int:
        """The epoch whose weights a method goes back to."""
        return 0 if method.retrain_epochs is None else self.schedule_epochs - method.retrain_epochs


def _option(name: str) -> tuple[str, str]:
    """What a name behind a plus is for `gossamer compress`: an option and its value.

    Raises:
        ConfigurationError: nothing.
    """
    if name in ALLOCATIONS or name.endswith(DENSITIES):
        return "--allocation", name
    if name in CRITERIA:
        return "--criterion", name
    if name in STRUCTURES or ":" in name:
        find_structure(name)
        return "--structure", name
    if name.startswith(REPLICATES):
        count = name.removeprefix(REPLICATES)
        if not (count.isdecimal() and int(count) > 0):
            raise ConfigurationError(f"got +{name}; expected how many trainings to average, such as +{REPLICATES}3")
        return "--replicates", count
    known = ", ".join([*ALLOCATIONS, *CRITERIA, *STRUCTURES])
    raise ConfigurationError(
        f"+{name} names no allocation, criterion or structure; expected one of {known}, or a file "
        f"of densities that ends in .toml"
    )


def _sparsity(density: float) -> float:
    return float(1 - as_written(density))


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
    densities_file: Path | None = None
    """Where the densities are that the run prunes to, if they are in a file."""

    @property
    def done(self) -> bool:
        """Whether the folder holds all that the command would put there.

        Raises:
            ConfigurationError: what it holds was made with other densities.
        """
        self.refuse_other_densities()
        records = self._records()
        if not records:
            return False
        if self.target_sparsity is None:
            return all(kept_snapshot(self.folder, moment).exists() for moment in self.snapshots)
        return records[-1].kept <= Plan(records[0].prunable, target_sparsity=self.target_sparsity).smallest

    def refuse_other_densities(self) -> None:
        """Verifies that what the folder holds was made with the densities that the file holds now.

        Raises:
            ConfigurationError: it was not, or the file cannot be read.
        """
        if self.densities_file is None or not self._records():
            return
        now = dict(read_densities(self.densities_file).of)
        described = configuration.read(self.folder).get("method")
        then = described.get("densities") if isinstance(described, dict) else None
        then = then if isinstance(then, dict) else {}
        if then != now:
            raise ConfigurationError(
                f"{self.folder} was made with other densities than {self.densities_file} holds now "
                f"({_difference(then, now)}). Put the old file back; or give the new one another name, a method of its "
                f"own; or remove the folder to have it trained again."
            )

    def _records(self) -> list[RoundRecord]:
        return read_records(self.folder) if self.folder.exists() else []


def _difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Of the first weight whose density is another."""
    name = next(name for name in (*then, *now) if then.get(name) != now.get(name))
    return f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now"
