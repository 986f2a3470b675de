"""What is shown while a run goes on: a live display in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gossamer.cli.console import console
from gossamer.wording import metric_text, time_text

if TYPE_CHECKING:
    from gossamer.job.callbacks import Callback
    from gossamer.loop.record import RoundRecord
    from gossamer.loop.round import Round
    from gossamer.tasks.training import EpochReport, StepReport

LINE_SECONDS = 10.0
"""Without a terminal an epoch is reported if the last line is at least this old."""
STEP_LINE_SECONDS = 60.0
"""And a step inside an epoch, or a batch that is measured, if it is this old."""


@contextmanager
def progress() -> "Iterator[Callback]":
    """The callback that fits where the output goes."""
    # Training goes on, whatever becomes of what is told of it.
    terminal = console(goes_on=True)
    if not terminal.is_terminal:
        yield PlainLines(terminal)
        return
    bars = Progress(
        TextColumn("{task.description:<7}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[position]:<9}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        console=terminal,
    )
    with bars:
        yield LiveDisplay(bars)


class Clock:
    """Estimates the time left from the epochs that this process has seen."""

    def __init__(self) -> None:
        self._epochs = 0
        self._seconds = 0.0

    def epoch_took(self, seconds: float) -> None:
        self._epochs += 1
        self._seconds += seconds

    @property
    def started(self) -> bool:
        """Whether any epoch was seen."""
        return self._epochs > 0

    def left(self, round: "Round", report: "EpochReport") -> str:
        """Such as "3 min left"; without a known last round only the time left in this one."""
        if not self._epochs:
            return ""
        an_epoch = self._seconds / self._epochs
        in_round = report.epochs - report.epochs_done
        if round.trainings_left is None:
            return f"{time_text(an_epoch * in_round)} left in this round"
        return f"{time_text(an_epoch * (in_round + round.trainings_left * report.epochs // round.trainings))} left"


def within(report: "StepReport") -> str:
    """Such as "step 120/5004, 12 min left of this epoch"."""
    if report.doing != "training":
        return f"measuring on {report.doing}: batch {report.steps_done}" + (f"/{report.steps}" if report.steps else "")
    a_step = report.seconds / max(1, report.steps_done - report.first_step)
    left = time_text(a_step * (report.steps - report.steps_done))
    return f"step {report.steps_done}/{report.steps}, {left} left of this epoch"


class PlainLines:
    """One line a round, and now and then one an epoch."""

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._clock = Clock()
        self._last_line = time.monotonic()

    def round_started(self, round: "Round", last_round: int | None) -> None:
        if round.number == 0 or not self._clock.started:
            self._print(
                f"{round.prunable:,} prunable weights of {round.parameters:,} parameters; "
                + (f"rounds 0 to {last_round}" if last_round is not None else "until the allowed loss is exceeded")
                + (f"; continuing with round {round.number}" if round.number else "")
            )

    def step_finished(self, round: "Round", report: "StepReport") -> None:
        if time.monotonic() - self._last_line >= STEP_LINE_SECONDS:
            self._print(
                f"round {round.number}  epoch {min(report.epochs_done + 1, report.epochs)}/{report.epochs}  "
                f"{within(report)}"
            )

    def epoch_finished(self, round: "Round", report: "EpochReport") -> None:
        self._clock.epoch_took(report.seconds)
        if time.monotonic() - self._last_line >= LINE_SECONDS and report.epochs_done < report.epochs:
            self._print(
                f"round {round.number}  epoch {report.epochs_done}/{report.epochs}  loss {report.loss:.4f}  "
                f"{self._clock.left(round, report)}"
            )

    def round_finished(self, record: "RoundRecord") -> None:
        self._print(
            f"round {record.round:>2}  density {record.density:>7.2%}  {record.compression:>6.1f}x  "
            f"{metric_text(record.metric, record.val, 'val')}  {metric_text(record.metric, record.test, 'test')}  "
            f"{record.seconds:.1f} s"
        )

    def _print(self, line: str) -> None:
        self._terminal.print(line)
        self._last_line = time.monotonic()


class LiveDisplay:
    """Two bars, rounds and epochs; finished rounds scroll by above them."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._clock = Clock()
        self._last_epoch = time.monotonic()
        self._lines = PlainLines(bars.console)
        self._rounds = bars.add_task("rounds", total=None, position="", facts="")
        self._epochs = bars.add_task("epochs", total=None, position="", facts="")

    def round_started(self, round: "Round", last_round: int | None) -> None:
        self._lines.round_started(round, last_round)
        last = "?" if last_round is None else str(last_round)
        self._bars.update(
            self._rounds,
            total=None if last_round is None else last_round + 1,
            completed=round.number,
            position=f"{round.number}/{last}",
            facts=f"density {round.density:.2%}",
        )
        self._bars.reset(self._epochs, position="", facts="")

    def step_finished(self, round: "Round", report: "StepReport") -> None:
        if time.monotonic() - self._last_epoch >= LINE_SECONDS:
            self._bars.update(self._epochs, facts=within(report))

    def epoch_finished(self, round: "Round", report: "EpochReport") -> None:
        self._clock.epoch_took(report.seconds)
        self._last_epoch = time.monotonic()
        self._bars.update(
            self._epochs,
            total=report.epochs,
            completed=report.epochs_done,
            position=f"{report.epochs_done}/{report.epochs}",
            facts=f"loss {report.loss:.4f}  {self._clock.left(round, report)}",
        )

    def round_finished(self, record: "RoundRecord") -> None:
        self._lines.round_finished(record)
        self._bars.update(self._rounds, completed=record.round + 1)
