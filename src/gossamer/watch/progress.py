"""How far the round is that goes on: a small file in the run's folder, there while a built-in job goes on."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gossamer.loop.record import LONGEST
from gossamer.storage.files import read_text, remove, replace_file
from gossamer.storage.typed import read_as

if TYPE_CHECKING:
    from gossamer.loop.record import RoundRecord
    from gossamer.loop.round import Round
    from gossamer.tasks.training import EpochReport, StepReport

FILE = "progress.json"
LEAST_SECONDS = 0.2
"""Between two writes inside a round, however short its epochs."""
LEAST_STEP_SECONDS = 1.0
"""Between two writes inside an epoch."""


@dataclass(frozen=True)
class Progress:
    """The round that goes on."""

    round: int
    last_round: int | None
    """The last one of the plan, if that is known."""
    density: float
    epochs_done: int
    epochs: int | None
    """None until the first epoch is over."""
    losses: tuple[float, ...]
    """Mean training loss of every epoch that this process has seen in this round."""
    learning_rate: float | None
    epoch_seconds: float | None
    """Seconds of the last epoch."""
    written: float
    """Seconds since 1970."""
    trainings: int = 1
    """How many trainings of equal length the epochs are."""
    trainings_left: int | None = None
    """The trainings of all later rounds, if the last one is known."""
    doing: str = "training"
    """Or the split that is being measured."""
    steps_done: int = 0
    """Steps of the epoch that goes on, or batches of the split."""
    steps: int = 0
    """Of so many; 0: not known, or nothing to tell of."""
    step_seconds: float | None = None
    """Seconds of a step of the epoch that goes on."""


class ProgressFile:
    """A callback that keeps the file up to date. It is no part of the result: it is neither synced to the disk, nor is
    a failure to write it (a full disk) a reason to stop training."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._now = Progress(0, None, 1.0, 0, None, (), None, None, 0.0)

    def round_started(self, round: "Round", last_round: int | None) -> None:
        self._now = Progress(
            round.number,
            last_round,
            round.density,
            0,
            None,
            (),
            None,
            None,
            0.0,
            round.trainings,
            round.trainings_left,
        )
        self._write()

    def step_finished(self, round: "Round", report: "StepReport") -> None:
        if time.time() - self._now.written < LEAST_STEP_SECONDS:
            return
        self._now = replace(
            self._now,
            doing=report.doing,
            steps_done=report.steps_done,
            steps=report.steps,
            step_seconds=report.seconds / max(1, report.steps_done - report.first_step),
        )
        self._write()

    def epoch_finished(self, round: "Round", report: "EpochReport") -> None:
        due = time.time() - self._now.written >= LEAST_SECONDS or report.epochs_done == report.epochs
        self._now = replace(
            self._now,
            epochs_done=report.epochs_done,
            epochs=report.epochs,
            losses=(*self._now.losses, report.loss),
            learning_rate=report.learning_rate,
            epoch_seconds=report.seconds,
            steps_done=0,
            steps=0,
            step_seconds=None,
        )
        if due:
            self._write()

    def round_finished(self, record: "RoundRecord") -> None:
        pass

    def remove(self) -> None:
        """Takes the file away, when there is nothing more to do."""
        with suppress(OSError):
            remove(self._path)

    def _write(self) -> None:
        self._now = replace(self._now, written=time.time())
        text = json.dumps(asdict(self._now))
        with suppress(OSError):
            replace_file(self._path, lambda path: path.write_text(text, encoding="utf-8"))


def read_progress(folder: Path) -> Progress | None:
    """What the file says; None if there is none, or none that can be believed."""
    try:
        found = read_as(Progress, json.loads(read_text(folder / FILE)))
    except (OSError, ValueError, RecursionError):
        return None
    counted = found.epochs is None or (0 < found.epochs_done <= found.epochs and len(found.losses) > 0)
    timed = found.epoch_seconds is None or 0 <= found.epoch_seconds < LONGEST
    stepped = found.steps_done >= 0 and (found.step_seconds is None or 0 <= found.step_seconds < LONGEST)
    return found if counted and timed and stepped and found.trainings >= 1 else None
