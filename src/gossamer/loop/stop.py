"""When a run ends: at a sparsity, after so many rounds, or with the smallest network within the allowed loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gossamer.arguments import as_written, require_kind, setting, whole_number
from gossamer.errors import ConfigurationError
from gossamer.loop.directions import Better, direction_of
from gossamer.loop.record import RoundRecord
from gossamer.options import as_option

EXAMPLES = ("accuracy", "f1", "bleu", "loss", "error", "perplexity")
"""Measures whose direction need not be said (`gossamer.loop.directions`)."""
TABLE = "rounds"
"""The table of a run's configuration in which these settings stand."""


@dataclass(frozen=True)
class Stop:
    """When a run ends: at the first of `target_sparsity`, `max_drop` and `rounds`.

    At least one of them must be given, unless `Cut.allocation` gives densities to end at.

    Raises:
        ConfigurationError: a value is out of range, or whether a higher or a lower metric is better is not known.
    """

    target_sparsity: float | None = None
    """Share of the prunable weights to remove, in (0, 1), such as 0.95; reached exactly."""
    max_drop: float | None = None
    """Largest loss of validation metric against dense, in the metric's units, such as 0.01; keeps the smallest network
    within it."""
    rounds: int | None = None
    """How many times to prune, at least 1."""
    metric: str | None = as_option(None, hidden=True)
    """The recorded metric that is a round's result, and that `max_drop` decides by; by default the first one."""
    better: Better | None = as_option(None, hidden=True)
    """Whether a "higher" or a "lower" metric is better; by default as the words of its name say
    (`gossamer.loop.directions`)."""

    def __post_init__(self) -> None:
        if self.target_sparsity is not None:
            expected = "a number between 0 and 1, such as 0.95 (95% of the weights pruned)"
            object.__setattr__(self, "target_sparsity", setting("target_sparsity", self.target_sparsity, expected))
            if not 0 < self.target_sparsity < 1:
                raise ConfigurationError(f"target_sparsity is {self.target_sparsity}; expected {expected}")
        if self.rounds is not None:
            expected = "at least 1, the number of times to prune"
            object.__setattr__(self, "rounds", whole_number("rounds", self.rounds, expected))
            if self.rounds < 1:
                raise ConfigurationError(f"rounds is {self.rounds}; expected {expected}")
        if self.metric is not None:
            require_kind("metric", self.metric, str, "the name of a recorded metric")
        if self.better is not None and not (isinstance(self.better, str) and self.better in ("higher", "lower")):
            raise ConfigurationError(f"better is {self.better!r}; expected 'higher' or 'lower'")
        if self.max_drop is not None:
            expected = "the allowed loss, 0 or more, such as 0.01"
            object.__setattr__(self, "max_drop", setting("max_drop", self.max_drop, expected))
            if not (math.isfinite(self.max_drop) and self.max_drop >= 0):
                raise ConfigurationError(f"max_drop is {self.max_drop}; expected {expected}")
            if self.metric is not None:
                self.direction(self.metric)

    @property
    def is_said(self) -> bool:
        """Whether anything ends the run."""
        return not (self.target_sparsity is None and self.max_drop is None and self.rounds is None)

    def direction(self, metric: str) -> Better:
        """Whether more or less of the metric is better.

        Raises:
            ConfigurationError: it was not said and cannot be known.
        """
        direction = self.better or direction_of(metric)
        if direction is None:
            raise ConfigurationError(
                f"max_drop needs to know whether a higher or a lower {metric!r} is better; pass better='higher' or "
                f"better='lower' (known: {', '.join(EXAMPLES)} and the like, as the last word of the name)"
            )
        return direction

    def allows(self, record: RoundRecord, dense: RoundRecord) -> bool:
        """Whether the round is at most `max_drop` worse than the dense network; read as decimals, so 0.95 - 0.94 is
        exactly 0.01. Without `max_drop` every round is allowed.

        Raises:
            ConfigurationError: a round recorded no metric.
        """
        if self.max_drop is None:
            return True
        if record.val is None or dense.val is None or record.metric is None:
            raise ConfigurationError(
                f"round {record.round} recorded no metric, but max_drop decides by one; call "
                f"round.record(accuracy=...) at the end of every round"
            )
        loss = as_written(dense.val) - as_written(record.val)
        if self.direction(record.metric) == "lower":
            loss = -loss
        return loss <= as_written(self.max_drop)

    def recommended(self, records: Sequence[RoundRecord]) -> RoundRecord:
        """Of a run's rounds the smallest network within the allowed loss, or the last one if nothing limits it."""
        return [record for record in records if self.allows(record, records[0])][-1]

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """The tables of a run's configuration that say this, by name. What is None is left out there."""
        return {TABLE: asdict(self)}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> "Stop":
        """The opposite.

        Raises:
            ConfigurationError: a value is out of range.
        """
        found = tables.get(TABLE, {})
        return cls(**{name: found.get(name) for name in cls.__dataclass_fields__})
