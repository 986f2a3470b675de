"""Runs that differ only by their seed, taken together; each series is a curve of the report."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from gossamer.loop.record import RoundRecord
from gossamer.report.run import ReportedRun

LONGEST_NAME = 60


@dataclass(frozen=True)
class SeedSpread:
    """Several values of one thing."""

    middle: float
    """The median."""
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Series:
    """Runs of one configuration."""

    name: str
    runs: tuple[ReportedRun, ...]

    @property
    def rounds(self) -> int:
        """How many rounds the longest has finished."""
        return max(len(run.records) for run in self.runs)

    def records(self, number: int) -> list[RoundRecord]:
        """The records of a round, in all runs that have it."""
        return [run.records[number] for run in self.runs if number < len(run.records)]

    def spread(self, number: int, value: Callable[[ReportedRun], float | None]) -> SeedSpread | None:
        """The spread of a value over the runs that have the round; None if none knows it."""
        values = [
            found for run in self.runs if number < len(run.records) for found in [value(run)] if found is not None
        ]
        return SeedSpread(median(values), min(values), max(values), len(values)) if values else None


def group(runs: Sequence[ReportedRun]) -> list[Series]:
    """The series, in the order in which their first runs are given, each under a name of its own."""
    found: list[tuple[dict[str, Any], list[ReportedRun]]] = []
    for run in runs:
        settings = run.deciding()
        for known, members in found:
            if known == settings:
                members.append(run)
                break
        else:
            found.append((settings, [run]))
    names = _names([settings for settings, _ in found], [members for _, members in found])
    return [Series(name, tuple(members)) for name, (_, members) in zip(names, found, strict=True)]


def _names(settings: list[dict[str, Any]], members: list[list[ReportedRun]]) -> list[str]:
    """What tells the series apart: the values of the few settings that differ, else the folders' names."""
    if len(settings) == 1:
        return [members[0][0].task or members[0][0].name]
    keys = [
        key
        for key in dict.fromkeys(key for found in settings for key in found)
        if len({repr(found.get(key)) for found in settings}) > 1
    ]
    names = [", ".join(_said(key, found[key]) for key in keys if key in found) for found in settings]
    if not all(names) or len(set(names)) < len(names) or max(map(len, names)) > LONGEST_NAME:
        names = [runs[0].name for runs in members]
    return distinct(names)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, those that occur several times with a number."""
    total, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if total[name] == 1 else f"{name} ({seen[name]})")
    return found


def _said(key: str, value: Any) -> str:
    """A method is known by its name; what a number means has to be said."""
    named = isinstance(value, str) and not value[:1].isdigit()
    return str(value) if named else f"{key.rpartition('.')[2]} {value}"
