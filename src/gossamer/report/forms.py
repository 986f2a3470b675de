"""Which form to ship: every network's metric against its milliseconds, and the front of them."""

from collections.abc import Sequence
from pathlib import PurePath

from gossamer.choice.choice import FORMS, Choice, Choices
from gossamer.choice.front import Point, fastest_within, points_of
from gossamer.report.drawing import Chart, altair, data_of, finished, format_of, metric_axis, stars
from gossamer.report.errors import ReportError
from gossamer.report.markup import Markup, chart, details, element, paragraph, table, text
from gossamer.report.page import Page, size_text
from gossamer.report.rows import Row
from gossamer.report.run import ReportedRun
from gossamer.report.series import Series
from gossamer.wording import value_text

NAME = "forms"
WIDE = 3.0
"""The largest time / the smallest from which on the axis is logarithmic."""
MARGIN = 24
"""Pixels between the axes' ends and the marks, whose names stand beside them."""


def forms(page: Page, series: Sequence[Series], choices: Choices, max_drop: float | None) -> None:
    """Adds the section about networks that were scored and timed (`gossamer bench forms --json`).

    Raises:
        ReportError: none of them is of a run of the report.
    """
    points = points_of(choices.choices, choices.better, lambda choice: _series_of(choice, series))
    names = {of.name for of in series}
    if not any(point.group in names for point in points):
        raise ReportError(
            f"no network of --forms belongs to a run of this report: they are of "
            f"{', '.join(dict.fromkeys(choice.run for choice in choices.choices))}"
        )
    ship = None if max_drop is None else fastest_within(points, max_drop, choices.better)
    page.charts[NAME] = front_chart(points, choices.metric, ship)
    page.section(
        NAME,
        "Which of these to ship",
        chart(
            NAME,
            f"{choices.metric} on validation against milliseconds",
            f"Milliseconds: {choices.what}; {choices.where}; one input. Named and joined: no other network is both "
            f"faster and better.{'' if ship is None else ' A star marks what to ship.'}",
            *answers(points, choices, max_drop, ship),
            details("All of them as a table", forms_table(points, choices)),
        ),
    )


def front_chart(points: Sequence[Point], metric: str, ship: Point | None) -> Chart:
    """Every network by its milliseconds and its metric. Forms differ in colour and in shape; those of the front are
    joined, and named."""
    alt = altair()
    times = [point.milliseconds for point in points]
    rows = _rows(points, ship)
    kinds = [form for form in FORMS if any(point.form == form for point in points)]
    # Warned about otherwise: a logarithmic axis has no zero.
    kind = {"type": "log"} if max(times) > WIDE * min(times) else {"zero": False}
    x = alt.X(
        "milliseconds:Q",
        title="milliseconds",
        scale=alt.Scale(**kind, nice=False, padding=MARGIN),
        axis=alt.Axis(format="~g", labelOverlap=True),
    )
    height = alt.Scale(zero=False, nice=False, padding=MARGIN)
    y = metric_axis(alt, "value:Q", f"{metric} (validation)", height, metric)
    colour = alt.Color(
        "form:N", scale=alt.Scale(domain=kinds), legend=alt.Legend(title=None, orient="bottom", columns=3)
    )
    shape = alt.Shape("form:N", scale=alt.Scale(domain=kinds), legend=alt.Legend(title=None, orient="bottom"))
    tooltip = [
        alt.Tooltip("form:N"),
        alt.Tooltip("series:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("density:Q", format=".2%"),
        alt.Tooltip("milliseconds:Q", format=".4~g"),
        alt.Tooltip("bytes:Q", format=",.0f"),
        alt.Tooltip("value:Q", title=f"{metric}, validation", format=format_of(metric)),
        alt.Tooltip("test:Q", title=f"{metric}, test", format=format_of(metric)),
        alt.Tooltip("runs:Q"),
    ]
    base = alt.Chart(data_of(rows))
    front = base.transform_filter("datum.front")
    layers = [
        front.mark_line(interpolate="step-after", strokeWidth=1.2, strokeDash=[5, 3], color="#888888").encode(x=x, y=y),
        base.mark_point(filled=True, opacity=1).encode(
            x=x,
            y=y,
            color=colour,
            shape=shape,
            size=alt.condition("datum.front", alt.value(150), alt.value(60)),
            opacity=alt.condition("datum.front", alt.value(1), alt.value(0.55)),
            tooltip=tooltip,
        ),
        stars(base, "datum.ship").encode(x=x, y=y, fill=colour, tooltip=tooltip),
    ]
    if any(point.runs > 1 for point in points):
        spread = base.mark_rule(strokeWidth=1.6, opacity=0.6)
        layers.append(spread.encode(x=x, y=metric_axis(alt, "low:Q", metric, height), y2="high:Q", color=colour))
    # Above and to the left of the front there is nothing; at the chart's left edge, no room either.
    for side, across, down in (("left", 9, 14), ("right", -9, -9)):
        if any(row["front"] and row["side"] == side for row in rows):
            names = front.transform_filter(f"datum.side === '{side}'")
            names = names.mark_text(align=side, dx=across, dy=down, fontSize=12)
            layers.append(names.encode(x=x, y=y, text=alt.Text("name:N")))
    return finished(alt.layer(*layers), f"{metric} against milliseconds, for {len(points)} networks", height=400)


def answers(points: Sequence[Point], choices: Choices, max_drop: float | None, ship: Point | None) -> list[Markup]:
    """What to ship, in words, and the networks of the front, the fastest first."""
    several = _several(points)
    said = []
    if max_drop is not None:
        found = (
            "none of these networks" if ship is None else f"{ship.name(with_group=several)}, {_facts(ship, choices)}"
        )
        said.append(paragraph(f"The fastest within {max_drop:g} of the dense {choices.metric} on validation: {found}."))
    front = sorted((point for point in points if point.on_front), key=lambda point: point.milliseconds)
    items = [element("li", text(f"{point.name(with_group=several)}: {_facts(point, choices)}")) for point in front]
    said.append(paragraph("The front, the fastest first:"))
    said.append(element("ul", *items))
    said += [paragraph(f"Left out: {name}: {why}", "quiet") for name, why in choices.left_out.items()]
    return said


def forms_table(points: Sequence[Point], choices: Choices) -> Markup:
    """A row for each network, the fastest first."""
    metric = choices.metric
    headings = ["form", "series", "round", "kept", "milliseconds", "bytes", f"val {metric}", f"test {metric}", "runs"]
    cells = [
        [
            point.form,
            point.group,
            point.round,
            f"{point.density:.2%}",
            f"{point.milliseconds:.4g}",
            f"{point.bytes:,.0f}",
            value_text(metric, point.value),
            value_text(metric, point.test),
            point.runs,
            "yes" if point.on_front else "",
        ]
        for point in sorted(points, key=lambda point: point.milliseconds)
    ]
    return table([*headings, "front"], cells, f"Networks by milliseconds ({choices.what}; {choices.where})")


def _facts(point: Point, choices: Choices) -> str:
    test = "" if point.test is None else f", {value_text(choices.metric, point.test)} on test"
    return (
        f"{point.milliseconds:.4g} ms, {choices.metric} {value_text(choices.metric, point.value)} on validation{test}, "
        f"{size_text(point.bytes)}"
    )


def _rows(points: Sequence[Point], ship: Point | None) -> list[Row]:
    times = sorted(point.milliseconds for point in points)
    middle = (times[0] * times[-1]) ** 0.5
    several = _several(points)
    return [
        {
            "name": point.name(with_group=several),
            "series": point.group,
            "round": point.round,
            "form": point.form,
            "density": point.density,
            "milliseconds": point.milliseconds,
            "bytes": point.bytes,
            "value": point.value,
            "low": point.low,
            "high": point.high,
            "test": point.test,
            "runs": point.runs,
            "front": point.on_front,
            "ship": point is ship,
            # A name goes where there is room for it.
            "side": "left" if point.milliseconds < middle else "right",
        }
        for point in points
    ]


def _several(points: Sequence[Point]) -> bool:
    """Whether a form alone does not tell two networks apart."""
    forms = {(point.group, point.form) for point in points if not point.dense}
    return len({form for _, form in forms}) < len(forms)


def _series_of(choice: Choice, series: Sequence[Series]) -> str:
    """The series that its run belongs to; the run's own name, if that is not in the report."""
    for of in series:
        if any(_is(choice, run) for run in of.runs):
            return of.name
    return PurePath(choice.run).name


def _is(choice: Choice, run: ReportedRun) -> bool:
    """Runs are known by as much of their folders' paths as tells them apart."""
    parts = PurePath(run.name).parts
    return PurePath(choice.run).parts[-len(parts) :] == parts
