"""The page as its parts come together, and how its numbers are written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gossamer.report import rows
from gossamer.report.drawing import Chart
from gossamer.report.markup import Markup, element, text
from gossamer.report.series import Series
from gossamer.wording import value_text


@dataclass
class Page:
    """The parts of the page as they come together."""

    parts: list[Markup] = field(default_factory=list)
    charts: dict[str, Chart] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    contents: list[tuple[str, str]] = field(default_factory=list)

    def section(self, name: str, title: str, *content: Markup) -> None:
        self.contents.append((name, title))
        self.parts.append(element("section", element("h2", text(title), id=name), *content))


def has_split(series: Sequence[Series], split: str) -> bool:
    return any(getattr(record, split) is not None for of in series for run in of.runs for record in run.records)


def spread_text(point: rows.Row, split: str, metric: str) -> str:
    if point[split] is None:
        return "-"
    middle = value_text(metric, point[split])
    if point["seeds"] == 1:
        return middle
    return f"{middle} ({value_text(metric, point[f'{split}_low'])} to {value_text(metric, point[f'{split}_high'])})"


def size_text(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
