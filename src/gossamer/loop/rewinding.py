"""What is rewound between a cut and the retraining: the weights to a snapshot, the learning rate to a step."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.loop import folder as run_folder
from gossamer.loop.agreement import begin_alike
from gossamer.loop.records import SNAPSHOT
from gossamer.model.sharded import piece_of
from gossamer.model.wrappers import unwrap
from gossamer.prune import masks as masks_of
from gossamer.prune.shards import Shards
from gossamer.ranks.group import Ranks
from gossamer.rewind import snapshot
from gossamer.rewind.optimizers import restore_memory_formats
from gossamer.rewind.snapshot import StepCounter
from gossamer.rewind.strategies import Retraining, Schedule, restart_scale
from gossamer.storage.files import write_file


class Rewinding:
    """How far a run has got with what its retraining rewinds to."""

    def __init__(
        self, retraining: Retraining, model: nn.Module, state: Mapping[str, Any], folder: Path, ranks: Ranks
    ) -> None:
        self.retraining = retraining
        self.model = model
        self.state = state
        self.folder = folder
        self.ranks = ranks
        self.snapshot_step: int | None = None
        """k: the step of the dense round that weights go back to; None as long as it is not known."""
        self.relative_cut = (0.0, 0.0, 0.0)
        """What the linear restart needs of the last cut: norm of the weights before, of those removed, and
        the share removed."""

    @property
    def needs_snapshot(self) -> bool:
        return self.retraining.strategy.weights == "rewound"

    def begin_dense(self, counter: StepCounter) -> None:
        """Has the snapshot taken in the dense round, if its step is known already."""
        if self.retraining.first_known is not None:
            self._plan_snapshot(self.retraining.first_known, counter)

    def schedule(self, number: int, total: int, steps_per_epoch: int | None, counter: StepCounter) -> Schedule:
        """The learning rates of round `number`, as steps of the user's schedule of `total` steps.

        Raises:
            ConfigurationError: they do not fit what was rewound to.
        """
        first = self.retraining.first(total, steps_per_epoch)
        if number == 0:
            self._plan_snapshot(first, counter)
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
        """Keeps the model and the optimizers as they are now.

        Raises:
            ConfigurationError: of which step they are is not known.
        """
        if self.snapshot_step is None:
            raise ConfigurationError(
                "which step to rewind to is not known yet; call round.schedule(total_steps) before training"
            )
        if self.ranks.first:
            snapshot.take(self.folder / SNAPSHOT, self.snapshot_step, self.model, self.state)

    def snapshot_bytes(self) -> Tensor | None:
        """The snapshot file of the dense round that is going on; None if there is none (yet), and but in rank 0."""
        path = self.folder / SNAPSHOT
        if not self.ranks.first:
            return None
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) if path.exists() else None

    def restore_snapshot(self, content: Tensor) -> None:
        """Puts that file back, after an interruption in the dense round."""
        write_file(self.folder / SNAPSHOT, lambda temporary: temporary.write_bytes(content.numpy().tobytes()))

    def _plan_snapshot(self, step: int, counter: StepCounter) -> None:
        if not self.needs_snapshot or step == self.snapshot_step:
            return
        if self.snapshot_step is not None:
            raise ConfigurationError(
                f"the weights are rewound to step {self.snapshot_step} of the dense round, and now to step {step}; "
                f"call round.schedule with one length only"
            )
        self.snapshot_step = step
        if self.ranks.first and step < counter.steps and not (self.folder / SNAPSHOT).exists():
            raise ConfigurationError(
                f"the weights are rewound to step {step} of the dense round, which is past: {counter.steps} steps "
                f"were taken. Call round.schedule(total_steps) before training."
            )
        counter.after(step, self.take_snapshot)

    def rewind(self, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], cut: Mapping[str, Tensor]) -> None:
        """Puts the weights where the retraining begins; the cut, from `masks` to `cut`, is made afterwards."""
        also = self.retraining.rewinds
        match self.retraining.strategy.weights:
            case "rewound":
                path = run_folder.snapshot_of(self.folder)
                self.snapshot_step = snapshot.rewind(unwrap(self.model), self.state, path, also)
                restore_memory_formats(self.state)
            case "new":
                snapshot.reinitialise(unwrap(self.model), self.state, self.retraining.fresh_model, also)
                begin_alike(self.ranks, self.model)
            case "stay" if self.retraining.strategy.rates == "linear":
                self.relative_cut = _relative_cut(weights, masks, cut)

    def taken_snapshot(self, steps: int) -> Path | None:
        """The snapshot that was to be taken in the dense round, of so many steps; None if no weights are rewound, or
        another rank took it.

        Raises:
            ConfigurationError: it was not taken.
        """
        if not self.needs_snapshot:
            return None
        if self.snapshot_step is None:
            raise ConfigurationError(
                f"how many steps {self.retraining.length or self.retraining.start} are is not known; call "
                f"round.schedule(total_steps, steps_per_epoch) before training, in the dense round too"
            )
        path = self.folder / SNAPSHOT
        if not self.ranks.first:
            return None
        snapshot.require(path, self.snapshot_step, steps)
        return path

    def rewound_to(self, number: int, taken: tuple[Schedule, int | None] | None) -> tuple[float | None, float | None]:
        """The epoch (or step) whose learning rate round `number` began with, and the one whose weights.

        Args:
            taken: the schedule that the round took, with the steps of an epoch.
        """
        if number == 0:
            return None, None
        schedule, steps_per_epoch = taken or (None, None)
        rates = 0.0 if schedule is None or self.retraining.strategy.rates == "linear" else schedule[0]
        weights = 0.0 if schedule is None else float(schedule.first)
        per_epoch = steps_per_epoch or 1
        return (
            None if self.retraining.strategy.rates == "linear" else rates / per_epoch,
            weights / per_epoch if self.needs_snapshot else None,
        )


def _relative_cut(
    weights: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> tuple[float, float, float]:
    """Norm of the weights before a cut, norm of those that it removes, and their share of those that were left."""
    shards = Shards.of(weights)
    sums = torch.zeros(2, dtype=torch.float64)
    for name, weight in shards.counted(weights).items():
        squares = piece_of(weight).double().square()
        sums += torch.stack([squares.sum(), squares.masked_fill(piece_of(after[name]), 0.0).sum()]).cpu()
    total, removed = shards.ranks.sum(sums).tolist()
    left = masks_of.count_kept(before)
    return math.sqrt(total), math.sqrt(removed), (left - masks_of.count_kept(after)) / left
