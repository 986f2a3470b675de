"""How numbers are written for people."""

from collections.abc import Sequence

SHARES = ("accuracy", "error")
"""Metrics that are shares of the examples, written in percent."""
NAMED = 5
"""Names that a sentence has at most."""


def value_text(metric: str | None, value: float | None) -> str:
    """A metric's value: 98.25% for an accuracy, 1.4127 for a loss, a dash for none."""
    if value is None:
        return "-"
    return f"{value:.2%}" if metric in SHARES else f"{value:.4f}"


def metric_text(metric: str | None, value: float | None, split: str) -> str:
    """Such as "val accuracy 98.25%"."""
    return "" if value is None else f"{split} {metric} {value_text(metric, value)}"


def time_text(seconds: float) -> str:
    """Such as "40 s", "3 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def printable(text: object) -> str:
    """Text of somebody else's as one line that cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def printable_lines(text: str) -> str:
    """The same of a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, and how many more there are than are named."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
