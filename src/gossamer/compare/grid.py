"""The cells of a comparison: which runs it takes, as commands that anybody could type, and which of them are done.

DIR/dense/seed-0               the dense network of a seed, trained once
DIR/cells/weight-rewind/seed-0 a run of `gossamer compress`, which takes the dense network over
DIR/cells/one-shot-lr-rewind/density-0.107/seed-0
DIR/cells/one-shot-lr-rewind+policy.toml/seed-0
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gossamer.arguments import as_written
from gossamer.compare.job import Job
from gossamer.compare.method import ONE_SHOT, Method
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.job.training import DenseRound, Training
from gossamer.loop.folder import kept_snapshot
from gossamer.loop.records import TRAINING, read_records
from gossamer.loop.stop import Stop
from gossamer.options import to_options
from gossamer.prune.cut import PER_ROUND, Cut
from gossamer.rewind.strategies import STRATEGIES
from gossamer.storage import state as states

DEFAULT_ONE_SHOT_ROUNDS = 3
"""One-shot methods need a whole retraining for every density: without a list, those of every third round."""


@dataclass(frozen=True)
class Grid:
    """What is compared with what, and where it is kept."""

    folder: Path
    task: str
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    stop: Stop
    """When iterative methods end; one-shot methods cut to densities on the way there."""
    per_round: float = PER_ROUND
    one_shot_densities: tuple[float, ...] = ()
    data: Path | None = None
    training: Training = field(default_factory=Training)
    """How every run is trained; the seeds are `seeds`."""
    recipe_epochs: int = 0
    file_targets: Mapping[Method, float] = field(default_factory=dict)
    """The sparsity that those one-shot methods cut to whose densities are in a file (`before.targets_in_files`)."""

    def __post_init__(self) -> None:
        if not self.methods or len({str(method) for method in self.methods}) < len(self.methods):
            raise ConfigurationError("expected at least one method, and none of them twice")
        if not self.seeds:
            raise ConfigurationError("got no seeds; expected at least one, better three")
        if self.stop.target_sparsity is None or self.stop.max_drop is not None:
            raise ConfigurationError(
                "a comparison looks at all methods at the same densities, and max_drop would end each at another; "
                "expected Stop(target_sparsity=...), with or without rounds"
            )
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
        Cut(per_round=self.per_round)
        self._refuse_shared_folders()

    @property
    def schedule_epochs(self) -> int:
        return self.training.epochs_of(self.recipe_epochs)

    @property
    def target_sparsity(self) -> float:
        """Where iterative methods end, if their rounds are enough."""
        assert self.stop.target_sparsity is not None
        return self.stop.target_sparsity

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
        end = 1 - as_written(self.target_sparsity)
        end = end if self.stop.rounds is None else max(end, kept**self.stop.rounds)
        densities, round_number = [], 0
        while kept**round_number > end:
            densities.append(float(kept**round_number))
            round_number += DEFAULT_ONE_SHOT_ROUNDS
        return (*densities[1:], float(end))

    def jobs(self) -> list[Job]:
        """All runs, the dense ones first."""
        return [*self.dense_jobs(), *self.cells()]

    def dense_jobs(self) -> Iterator[Job]:
        """The dense training of every seed."""
        snapshots = self._snapshots()
        for seed in self.seeds:
            folder = self._dense_folder(seed)
            training = replace(self.training, fine_tune_rate=None)
            dense = DenseRound(only=True, keep_snapshots=tuple(snapshots))
            command = self._command(seed, folder, training, dense)
            command += to_options(self.stop) + to_options(Cut(per_round=self.per_round))
            # What a dense run that is finished did not keep cannot be had from it any more: see `_cell`.
            moments = [_moment(epoch) for epoch in snapshots if not self._lacks_snapshot(seed, epoch)]
            yield Job(f"dense seed {seed}", folder, tuple(command), None, None, tuple(moments))

    def cells(self) -> Iterator[Job]:
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

    def _stop(self, method: Method, density: float | None) -> Stop:
        return Stop(self._target(method, density)) if method.one_shot else self.stop

    def _target(self, method: Method, density: float | None) -> float:
        if density is not None:
            return _sparsity(density)
        return self.file_targets[method] if method.has_own_densities else self.target_sparsity

    def _cell(self, method: Method, seed: int, density: float | None) -> Job:
        folder = self.cell_folder(method, seed, density)
        dense: Path | None = self._dense_folder(seed)
        stop = self._stop(method, density)
        rate = self.training.fine_tune_rate if method.constant_rate else None
        if method.rewinds_weights and self._lacks_snapshot(seed, self.rewound_to(method)):
            # A method that was added later trains the same dense network again, to pass by what it rewinds to.
            dense = None
        cut = Cut(one_shot=True) if method.one_shot else Cut(per_round=self.per_round)
        command = self._command(seed, folder, replace(self.training, fine_tune_rate=rate), DenseRound(dense))
        command += to_options(stop) + to_options(cut)
        # By name: a file of densities is read where it is used, not for every line that tells of it.
        for name in ("criterion", "allocation", "structure"):
            command += [f"--{name}", method.settings[name]] if name in method.settings else []
        command += to_options(method.retraining)
        name = f"{method} seed {seed}" + ("" if density is None else f" density {density:.3g}")
        return Job(name, folder, tuple(command), dense, stop, densities_file=method.densities_file)

    def _command(self, seed: int, folder: Path, training: Training, dense: DenseRound) -> list[str]:
        words = ["compress", self.task, "--seed", str(seed), "--out", str(folder)]
        words += ["--data", str(self.data)] if self.data is not None else []
        return words + to_options(training) + to_options(dense)

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


def _sparsity(density: float) -> float:
    return float(1 - as_written(density))


def _moment(epoch: int) -> str:
    return f"{epoch} epochs" if epoch else "0 steps"
