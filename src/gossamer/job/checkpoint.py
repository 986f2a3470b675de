"""The training state of a built-in job inside a round: saved now and then, and gone on from after an interruption."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gossamer.errors import CheckpointError
from gossamer.loop.records import REPLICATES, TRAINING
from gossamer.loop.round import Round
from gossamer.rewind.optimizers import restore_memory_formats
from gossamer.storage import state as states
from gossamer.storage.files import remove, write_file
from gossamer.storage.versions import refuse_newer
from gossamer.tasks.training import EpochReport, StepReport

VERSION = 2
"""The version of the file's format. A file without one is of version 1, which knew ends of epochs only; what that lacks
takes its default."""

LEAST_SHARE = 50
"""Inside an epoch the time between two saves is at least so many times what one takes, for networks that take long."""


class Checkpoint:
    """Model, optimizer, and how much of the schedule has passed."""

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
        self.save_seconds = 0.0

    def restore(self, replicate: int) -> tuple[int, int]:
        """Puts back what an interrupted attempt at this replicate saved; returns the epochs that need no repetition,
        and the steps of the one after them.

        Raises:
            CheckpointError: the file is damaged, does not fit, or is of a later replicate or a newer version.
        """
        if not self.path.exists():
            return 0, 0
        saved = states.load_entries(self.path)
        refuse_newer(saved.get("version", 1), VERSION, self.path)
        of_replicate = saved.get("replicate", 0)
        if not isinstance(of_replicate, int) or not isinstance(saved.get("round"), int):
            raise CheckpointError(f"{self.path} does not say of which round it is; remove it to repeat the round")
        if saved.get("round") != self.round.number or of_replicate < replicate:
            # Its round or its replicate is finished.
            self.remove()
            return 0, 0
        if of_replicate > replicate:
            raise CheckpointError(
                f"{self.path} is of replicate {of_replicate} of round {self.round.number}, but {REPLICATES} does not "
                f"hold the ones before it; restore that, or remove both to repeat the round from its start"
            )
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            restore_memory_formats({"optimizer": self.optimizer})
            self.round.load_ranges(saved)
            epochs_done, steps_done = int(saved["epochs_done"]), int(saved.get("steps_done", 0))
            if steps_done and not (0 < steps_done < self.epoch_steps == saved["epoch_steps"]):
                raise ValueError(f"an epoch has {self.epoch_steps} steps now, and had {saved['epoch_steps']}")
            # Snapshots are counted from the dense round's first step, whichever attempt took it.
            steps = int(saved.get("steps", epochs_done * self.epoch_steps))
            seconds, processor_seconds = float(saved["seconds"]), float(saved.get("processor_seconds", 0.0))
            self.round.spent.go_on_from(steps, seconds, processor_seconds)
        except (ArithmeticError, AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.path} does not fit this run ({error}); remove it to repeat round {self.round.number} from its "
                f"start"
            ) from error
        return epochs_done, steps_done

    def save_if_due(self, report: EpochReport | StepReport, replicate: int) -> None:
        """Saves at the end of an epoch or after a step of one, if the last save is long enough ago; never after
        the last epoch."""
        steps_done = report.steps_done if isinstance(report, StepReport) else 0
        # Not after an epoch's last step, whose end comes next.
        over = report.epochs_done == report.epochs or steps_done == self.epoch_steps
        since, least = time.monotonic() - self.last_save, self.least_seconds
        if over or since < least or (least and steps_done and since < LEAST_SHARE * self.save_seconds):
            return
        started = time.monotonic()
        spent, quantisation = self.round.spent, self.round.quantisation
        state: Mapping[str, Any] = {
            "version": VERSION,
            "round": self.round.number,
            "replicate": replicate,
            "epochs_done": report.epochs_done,
            "steps_done": steps_done,
            "epoch_steps": self.epoch_steps,
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "steps": spent.steps,
            "processor_seconds": spent.processor_seconds,
            "seconds": spent.seconds,
            "ranges": None if quantisation is None else quantisation.state_dict(),
        }
        write_file(self.path, lambda temporary: states.save(temporary, state))
        self.last_save = time.monotonic()
        self.save_seconds = self.last_save - started

    def remove(self) -> None:
        """Forgets the state: its round is finished."""
        remove(self.path)
