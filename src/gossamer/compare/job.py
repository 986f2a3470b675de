"""One run of a comparison: a command that anybody could type, and whether its work is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import ConfigurationError
from gossamer.loop import configuration
from gossamer.loop.folder import kept_snapshot
from gossamer.loop.plan import Plan
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import read_records
from gossamer.loop.stop import Stop
from gossamer.prune.densities import read_densities


@dataclass(frozen=True)
class Job:
    """One run of `gossamer compress`."""

    name: str
    folder: Path
    options: tuple[str, ...]
    """The command line behind `gossamer`."""
    dense: Path | None
    """The folder of the dense network, which has to be there first."""
    stop: Stop | None
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
        if self.stop is None:
            return all(kept_snapshot(self.folder, moment).exists() for moment in self.snapshots)
        if self.stop.rounds is not None and records[-1].round >= self.stop.rounds:
            return True
        return records[-1].kept <= Plan(records[0].prunable, target_sparsity=self.stop.target_sparsity).smallest

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
    """The first weight whose density is another, with both."""
    name = next(name for name in (*then, *now) if then.get(name) != now.get(name))
    return f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now"
