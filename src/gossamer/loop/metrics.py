"""What a round is measured by: metrics by name, those on test data apart."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gossamer.arguments import number
from gossamer.errors import ConfigurationError
from gossamer.loop.stop import Stop

TEST_PREFIX = "test_"
"""A metric recorded under this prefix is reported and never used for a choice."""
SEPARATOR = "/"
"""Between the names of nested metrics; `test/accuracy` is one on test data too."""


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics as plain numbers, nested ones one after the other under names such as `dog/accuracy`.

    Raises:
        ConfigurationError: one is no number, or there are two of a name.
    """
    found: dict[str, float] = {}
    for name, value in _flat(metrics, ""):
        if name in found:
            raise ConfigurationError(f"there are two metrics {name!r}; give each a name of its own")
        found[name] = number(name, value)
    return found


def is_on_test(name: str) -> bool:
    """Whether the name is one of a metric on test data."""
    return name.startswith((TEST_PREFIX, f"test{SEPARATOR}"))


def on_test(metric: str, metrics: Mapping[str, float]) -> float | None:
    """The metric's counterpart on test data: `test_accuracy` of `accuracy`, `test/acc` of `val/acc`."""
    of_test = re.sub(r"^(val|valid|validation|eval|dev)(?=[_/])", "test", metric)
    names = [f"{TEST_PREFIX}{metric}", f"test{SEPARATOR}{metric}", *([of_test] if of_test != metric else [])]
    return next((metrics[name] for name in names if name in metrics), None)


def deciding(metrics: Mapping[str, float], named: str | None, stop: Stop, round_number: int) -> str | None:
    """The metric that is the round's result: the one that was named, or the first that is not on test data.

    Raises:
        ConfigurationError: it was not recorded, or `max_drop` decides by one whose direction is not known.
    """
    names = [name for name in metrics if not is_on_test(name)]
    if named is not None and named not in names:
        raise ConfigurationError(f"round {round_number} recorded {names or 'no metric'}; expected {named!r} among them")
    if stop.max_drop is not None and not names:
        raise ConfigurationError(
            f"round {round_number} recorded no metric, but max_drop decides by one; call round.record(accuracy=...)"
        )
    metric = named or next(iter(names), None)
    if stop.max_drop is not None and metric is not None:
        # Known before anything is written, so that the call can still be mended.
        stop.direction(metric)
    return metric


def _flat(metrics: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}{SEPARATOR}")
        else:
            yield f"{prefix}{name}", value
