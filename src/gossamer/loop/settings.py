"""All that is set of a run, and the tables of its configuration that say it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gossamer.loop.plan import per_round_and_rounds
from gossamer.loop.stop import TABLE, Stop
from gossamer.prune.cut import Cut
from gossamer.prune.scope import Scope
from gossamer.rewind.strategies import Retraining


@dataclass(frozen=True)
class Settings:
    """When a run ends, how it cuts, how it retrains, and which weights it prunes."""

    stop: Stop = field(default_factory=Stop)
    cut: Cut = field(default_factory=Cut)
    retraining: Retraining = field(default_factory=Retraining)
    scope: Scope = field(default_factory=Scope)
    seed: int | None = None
    """What the run's initial weights, the order of its data and a random criterion are derived from."""

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """The tables of the run's configuration, by name. What is None is left out there."""
        stop, cut = self.stop.to_tables(), self.cut.to_tables()
        per_round, rounds = per_round_and_rounds(self.stop, self.cut)
        shares = {"per_round": per_round, "rounds": rounds}
        return {
            TABLE: stop[TABLE] | cut[TABLE] | shares | {"seed": self.seed},
            "method": self.retraining.to_tables()["method"] | cut["method"],
            **self.scope.to_tables(),
        }

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> "Settings":
        """The opposite.

        Raises:
            ConfigurationError: a value is out of range.
        """
        stop, cut = Stop.from_tables(tables), Cut.from_tables(tables)
        return cls(
            replace(stop, rounds=None) if cut.one_shot else stop,
            cut,
            Retraining.from_tables(tables),
            Scope.from_tables(tables),
            tables.get(TABLE, {}).get("seed"),
        )
