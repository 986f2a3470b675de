"""Who is told how far a job is."""

from typing import Protocol

from gossamer.loop.record import RoundRecord
from gossamer.loop.round import Round
from gossamer.tasks.training import EpochReport


class Callback(Protocol):
    """Is called at the moments of a job."""

    def round_started(self, round: Round, last_round: int | None) -> None: ...

    def epoch_finished(self, round: Round, report: EpochReport) -> None: ...

    def round_finished(self, record: RoundRecord) -> None: ...


class Callbacks:
    """Calls any number of callbacks, in this order."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def round_started(self, round: Round, last_round: int | None) -> None:
        for callback in self.callbacks:
            callback.round_started(round, last_round)

    def epoch_finished(self, round: Round, report: EpochReport) -> None:
        for callback in self.callbacks:
            callback.epoch_finished(round, report)

    def round_finished(self, record: RoundRecord) -> None:
        for callback in self.callbacks:
            callback.round_finished(record)
