"""Who is told how far a job is."""

import time
from typing import Protocol

from gossamer.loop.record import RoundRecord
from gossamer.loop.round import Round
from gossamer.tasks.training import EpochReport, StepReport

LEAST_SECONDS = 0.2
"""Between two reports inside an epoch."""


class Callback(Protocol):
    """Is called at the moments of a job."""

    def round_started(self, round: Round, last_round: int | None) -> None: ...

    def step_finished(self, round: Round, report: StepReport) -> None:
        """Now and then inside an epoch, and while the round is measured."""

    def epoch_finished(self, round: Round, report: EpochReport) -> None: ...

    def round_finished(self, record: RoundRecord) -> None: ...


class Callbacks:
    """Calls any number of callbacks, in this order."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks
        self._last_step = time.monotonic()

    def round_started(self, round: Round, last_round: int | None) -> None:
        for callback in self.callbacks:
            callback.round_started(round, last_round)

    def step_finished(self, round: Round, report: StepReport) -> None:
        if time.monotonic() - self._last_step < LEAST_SECONDS:
            return
        for callback in self.callbacks:
            callback.step_finished(round, report)
        self._last_step = time.monotonic()

    def epoch_finished(self, round: Round, report: EpochReport) -> None:
        for callback in self.callbacks:
            callback.epoch_finished(round, report)

    def round_finished(self, record: RoundRecord) -> None:
        for callback in self.callbacks:
            callback.round_finished(record)
