"""A run as its folder tells it: what it was asked for, its finished rounds, and the recommended one. Read without the
networks, and without torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gossamer.errors import CheckpointError
from gossamer.loop.configuration import read_of_run
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import read_records
from gossamer.loop.stop import Stop


@dataclass(frozen=True)
class FinishedRounds:
    """The finished rounds of a run."""

    folder: Path
    tables: dict[str, Any]
    """What its config.toml says."""
    records: tuple[RoundRecord, ...]
    """The dense round first; none before that one is finished."""
    stop: Stop
    """When it ends, and by what a round is recommended."""

    @property
    def recommended(self) -> RoundRecord:
        """The smallest network within the allowed loss, or the last one if nothing limits it.

        Raises:
            CheckpointError: no round is finished.
            ConfigurationError: the rounds recorded no metric, or one that cannot decide.
        """
        if not self.records:
            raise CheckpointError(
                f"{self.folder}: no round is finished yet; wait for the first, or run the same command again"
            )
        return self.stop.recommended(self.records)


def read_finished(folder: Path, max_drop: float | None = None) -> FinishedRounds:
    """Reads what the folder of a run says of its rounds.

    Args:
        max_drop: the allowed loss by which a round is recommended; None: the run's own.

    Raises:
        CheckpointError: it is no run, or damaged.
        ConfigurationError: it is of something else.
    """
    tables = read_of_run(folder)
    stop = Stop.from_tables(tables)
    stop = stop if max_drop is None else replace(stop, max_drop=max_drop)
    return FinishedRounds(folder, tables, tuple(read_records(folder)), stop)
