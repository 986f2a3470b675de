"""Scalars for TensorBoard: of every epoch and of every round."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.errors import ConfigurationError

if TYPE_CHECKING:
    from gossamer.loop.record import RoundRecord
    from gossamer.loop.round import Round
    from gossamer.tasks.training import EpochReport, StepReport

FOLDER = "tensorboard"
"""A folder in the run's folder."""


class TensorBoard:
    """A callback that writes event files.

    `epoch/loss`, `epoch/learning_rate`, `epoch/seconds` and `epoch/density` have the number of epochs since the run
    began as their step; `round/...` (density, compression, seconds and every recorded metric) the number of the round.
    Epochs that are repeated after an interruption take the place of those that were lost.

    Raises:
        ConfigurationError: tensorboard is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigurationError(
                f"--tensorboard needs the package tensorboard, which cannot be imported ({error}). Install it with: "
                f"pip install 'gossamer[tensorboard]'"
            ) from error
        self._make = SummaryWriter
        self._folder = run / FOLDER
        if self._folder.is_symlink():
            raise ConfigurationError(f"{self._folder} is a link; expected a folder of the run's own. Remove it.")
        self._writer: Any = None

    def round_started(self, round: "Round", last_round: int | None) -> None:
        pass

    def step_finished(self, round: "Round", report: "StepReport") -> None:
        pass

    def epoch_finished(self, round: "Round", report: "EpochReport") -> None:
        # The dense round is trained once, every later one `trainings` times.
        before = 0 if round.number == 0 else report.epochs // round.trainings + (round.number - 1) * report.epochs
        step = before + report.epochs_done
        writer = self._open(step)
        for name, value in (
            ("loss", report.loss),
            ("learning_rate", report.learning_rate),
            ("seconds", report.seconds),
            ("density", round.density),
        ):
            writer.add_scalar(f"epoch/{name}", value, step)

    def round_finished(self, record: "RoundRecord") -> None:
        writer = self._open(None)
        scalars = {"density": record.density, "compression": record.compression, "seconds": record.seconds}
        for name, value in {**scalars, **record.metrics}.items():
            writer.add_scalar(f"round/{name}", value, record.round)
        writer.flush()

    def close(self) -> None:
        """Writes what is not written yet."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, step: int | None) -> Any:
        # Opened with its first scalar: only then is it known which steps an interrupted process wrote in vain.
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=step)
        return self._writer
