"""What all charts share: the library, their colours, axes and marks."""

from collections.abc import Sequence
from typing import Any

from gossamer.report.errors import ReportError
from gossamer.report.rows import Row
from gossamer.wording import SHARES

Chart = dict[str, Any]

STAR = (
    "M0,-1L0.235,-0.324L0.951,-0.309L0.38,0.124L0.588,0.809L0,0.4L-0.588,0.809L-0.38,0.124L-0.951,-0.309L-0.235,-0.324Z"
)
ROUND = "datum.round === round"
SHOWN = "indexof(shown, datum.series) >= 0"
HEIGHT = 340
ROW_HEIGHTS = (11, 24)
"""Pixels a layer, of many layers and of few."""
TALL = 480
MARGIN = 12
"""Pixels between an axis's ends and the marks."""

INK = {"light": "#1b1f24", "dark": "#e6e9ee"}
GRID = {"light": "#d9dde3", "dark": "#363c46"}
SERIES = {
    # Okabe and Ito's colours, which the colour-blind can tell apart, darkened or lightened to 3:1 against the page.
    "light": ["#0072b2", "#c04f00", "#00805c", "#b3558c", "#8a6d00", "#3d7fa8", "#5a5a5a", "#7a3fb0"],
    "dark": ["#56b4e9", "#e69f00", "#2fc79b", "#e59cc4", "#f0e442", "#ff8a4c", "#b9bfc8", "#b79cf0"],
}
SYMBOLS = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]


def altair() -> Any:
    """The library, when something is to be drawn.

    Raises:
        ReportError: it is not installed.
    """
    try:
        import altair
    except ImportError as error:
        raise ReportError(
            f"a report needs the packages altair and vl-convert-python, which cannot be imported ({error}). Install "
            f"them with: pip install 'gossamer[report]'"
        ) from error
    return altair


def theme(name: str) -> Chart:
    """Colours and type of all charts, for the `light` or the `dark` page."""
    axis = {
        "labelColor": INK[name],
        "titleColor": INK[name],
        "gridColor": GRID[name],
        "domainColor": GRID[name],
        "tickColor": GRID[name],
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
    }
    return {
        "background": None,
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": axis,
        "legend": {"labelColor": INK[name], "titleColor": INK[name], "labelFontSize": 12, "titleFontSize": 12},
        "range": {"category": SERIES[name], "symbol": SYMBOLS},
        "rule": {"color": INK[name]},
        "text": {"color": INK[name]},
        "point": {"stroke": None},
    }


def finished(chart: Any, description: str, height: int = HEIGHT, **parameters: Any) -> Chart:
    """The specification, as wide as the page lets it be, with its parameters at their first values."""
    alt = altair()
    chart = chart.properties(width="container", height=height, description=description)
    chart = chart.add_params(*(alt.param(name=name, value=value) for name, value in parameters.items()))
    # Its schema takes half a second to look through, and what is drawn depends on no user's words.
    specification: Chart = chart.to_dict(validate=False)
    # The page brings its own colours, and its controls need to know what the chart listens to.
    specification.pop("config", None)
    specification["usermeta"] = {"listens": list(parameters)}
    return specification


def data_of(rows: Sequence[Row]) -> Any:
    return altair().Data(values=list(rows))


def colour_of(alt: Any, names: Sequence[str]) -> Any:
    return alt.Color("series:N", scale=alt.Scale(domain=list(names)), legend=None)


def shape_of(alt: Any, names: Sequence[str]) -> Any:
    return alt.Shape("series:N", scale=alt.Scale(domain=list(names)), legend=None)


def rings(alt: Any, base: Any) -> Any:
    """A ring around what belongs to the selected round."""
    return base.mark_point(size=230, filled=False, strokeWidth=1.6, clip=True).encode(
        opacity=alt.condition(ROUND, alt.value(1), alt.value(0))
    )


def stars(base: Any, condition: str) -> Any:
    return base.transform_filter(condition).mark_point(
        shape=STAR, filled=True, size=560, opacity=1, stroke="#ffffff", strokeWidth=1
    )


def metric_axis(alt: Any, field: str, metric: str, scale: Any = None, of: str | None = None) -> Any:
    return alt.Y(
        field,
        title=metric,
        scale=scale or open_axis(alt),
        axis=alt.Axis(format=".4~%" if (of or metric) in SHARES else "~r"),
    )


def reach(alt: Any, rows: Sequence[Row], higher: bool) -> Any:
    """The metric's axis: all of it, or down to `drop` below the dense networks."""
    values = [row[name] for row in rows if row["density"] == 1 for name in ("test", "val") if row.get(name) is not None]
    if not values or not higher:
        return open_axis(alt)
    lowest = min(
        row[name] for row in rows for name in ("test_low", "val_low", "test", "val") if row.get(name) is not None
    )
    return alt.Scale(zero=False, domainMin=alt.ExprRef(f"drop > 0 ? {float(max(values))!r} - drop : {float(lowest)!r}"))


def open_axis(alt: Any) -> Any:
    """An axis as long as its values, without zero."""
    return alt.Scale(zero=False, nice=False, padding=MARGIN)


def logarithmic(alt: Any) -> Any:
    return alt.Scale(type="log", nice=False, padding=MARGIN)


def format_of(metric: str) -> str:
    return ".2%" if metric in SHARES else ".4f"


def times_axis() -> Any:
    return altair().Axis(values=round_numbers(6), labelExpr="format(datum.value, '~s') + 'x'", labelOverlap=True)


def byte_axis() -> Any:
    return altair().Axis(values=round_numbers(12), labelExpr="format(datum.value, '~s') + 'B'", labelOverlap=True)


def round_numbers(powers: int) -> list[int]:
    """1, 2, 5, 10, 20, ...: ticks of a logarithmic axis; those outside of it are not drawn."""
    return [digit * 10**power for power in range(powers) for digit in (1, 2, 5)]
