"""When a run has gone far enough: the smallest network within the allowed loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.arguments import as_written, require_kind, setting
from gossamer.errors import ConfigurationError
from gossamer.loop.directions import Better, direction_of
from gossamer.loop.record import RoundRecord

EXAMPLES = ("accuracy", "f1", "bleu", "loss", "error", "perplexity")
"""Of measures whose direction need not be said (`gossamer.loop.directions`)."""


@dataclass(frozen=True)
class Allowance:
    """How much worse than the dense network a pruned one may be."""

    max_drop: float
    """In the metric's own units: 0.01 of an accuracy between 0 and 1 is one percentage point."""
    metric: str | None = None
    """The recorded metric that decides; None: the first one."""
    better: Better | None = None
    """Whether a higher or a lower metric is better; None: as the words of its name say."""

    @classmethod
    def of_run(cls, rounds: Mapping[str, Any], max_drop: float | None = None) -> "Allowance | None":
        """What a run allows, or None if nothing limits it.

        Args:
            rounds: the table of that name in the run's configuration.
            max_drop: instead of the run's own.
        """
        allowed = rounds.get("max_drop") if max_drop is None else max_drop
        return None if allowed is None else cls(allowed, rounds.get("metric"), rounds.get("better"))

    def __post_init__(self) -> None:
        expected = "the allowed loss, 0 or more, such as 0.01"
        object.__setattr__(self, "max_drop", setting("max_drop", self.max_drop, expected))
        if not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise ConfigurationError(f"max_drop is {self.max_drop}; expected {expected}")
        if self.better is not None and not (isinstance(self.better, str) and self.better in ("higher", "lower")):
            raise ConfigurationError(f"better is {self.better!r}; expected 'higher' or 'lower'")
        if self.metric is not None:
            require_kind("metric", self.metric, str, "the name of a recorded metric")
            self.direction(self.metric)

    def direction(self, metric: str) -> Better:
        """Whether more or less of the metric is better.

        Raises:
            ConfigurationError: it was not said and cannot be known.
        """
        if self.better is not None:
            return self.better
        direction = direction_of(metric)
        if direction is None:
            raise ConfigurationError(
                f"max_drop needs to know whether a higher or a lower {metric!r} is better; pass better='higher' or "
                f"better='lower' (known: {', '.join(EXAMPLES)} and the like, as the last word of the name)"
            )
        return direction

    def allows(self, record: RoundRecord, dense: RoundRecord) -> bool:
        """Whether the round is at most `max_drop` worse than the dense network; read as decimals, so 0.95 - 0.94 is
        exactly 0.01."""
        if record.val is None or dense.val is None or record.metric is None:
            raise ConfigurationError(
                f"round {record.round} recorded no metric, but max_drop decides by one; call "
                f"round.record(accuracy=...) at the end of every round"
            )
        loss = as_written(dense.val) - as_written(record.val)
        if self.direction(record.metric) == "lower":
            loss = -loss
        return loss <= as_written(self.max_drop)


def smallest_allowed(records: Sequence[RoundRecord], allowance: Allowance | None) -> RoundRecord:
    """The recommended round: the smallest network within the allowance, or the last one if nothing limits it."""
    if allowance is None:
        return records[-1]
    return [record for record in records if allowance.allows(record, records[0])][-1]
