"""The charts, as specifications of Vega-Lite. They listen to the page's controls through parameters:

shown   the series that are drawn            round  the round that is marked
split   "test" or "val"                      drop   how far below the dense network the metric's axis reaches
heat    the series of the heat map           cost   the cost of the ledger
weight  the weight of the ablation
"""

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


def accuracy(rows: Sequence[Row], names: Sequence[str], metric: str, higher: bool, split: str) -> Chart:
    """The metric against compression, with the spread over seeds."""
    alt = altair()
    base = (
        alt.Chart(_data(rows))
        .transform_calculate(
            value="split === 'test' ? datum.test : datum.val",
            low="split === 'test' ? datum.test_low : datum.val_low",
            high="split === 'test' ? datum.test_high : datum.val_high",
        )
        .transform_filter(f"{SHOWN} && isValid(datum.value)")
    )
    x = alt.X("compression:Q", title="compression (prunable weights / kept)", scale=_logarithmic(alt), axis=_times())
    y = _metric(alt, "value:Q", metric, _reach(alt, rows, higher))
    colour, shape = _colour(alt, names), _shape(alt, names)
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("compression:Q", format=".1f"),
        alt.Tooltip("density:Q", format=".2%"),
        alt.Tooltip("value:Q", title=metric, format=_format(metric)),
        alt.Tooltip("low:Q", title="least", format=_format(metric)),
        alt.Tooltip("high:Q", title="largest", format=_format(metric)),
        alt.Tooltip("seeds:Q", title="runs"),
    ]
    dense = base.transform_filter("datum.density === 1").mark_rule(strokeDash=[2, 4], opacity=0.7, clip=True)
    lines = base.mark_line(strokeWidth=1.8, clip=True)
    spread = base.mark_rule(strokeWidth=1.6, opacity=0.75, clip=True)
    points = base.mark_point(filled=True, size=48, opacity=1, clip=True)
    return _finished(
        alt.layer(
            dense.encode(y=y, color=colour),
            lines.encode(x=x, y=y, color=colour),
            spread.encode(x=x, y=_metric(alt, "low:Q", metric), y2="high:Q", color=colour),
            points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
            _rings(alt, base).encode(x=x, y=y, stroke=colour),
            _stars(base, "datum.recommended").encode(x=x, y=y, fill=colour, tooltip=tooltip),
        ),
        f"{metric} against compression, a line for each of {len(names)} series",
        shown=list(names),
        split=split,
        drop=0,
        round=0,
    )


def front(rows: Sequence[Row], names: Sequence[str], metric: str) -> Chart:
    """Every network by its size and its metric; those of the Pareto front are joined."""
    alt = altair()
    base = alt.Chart(_data(rows)).transform_filter(SHOWN)
    x = alt.X("bytes:Q", title="size on disk, sparse float32", scale=_logarithmic(alt), axis=_bytes())
    y = _metric(alt, "value:Q", f"{metric} (validation)", _open(alt), format_of=metric)
    tooltip = [
        alt.Tooltip("run:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("bytes:Q", format=",d"),
        alt.Tooltip("value:Q", title=metric, format=_format(metric)),
    ]
    marked = base.transform_filter("datum.front")
    return _finished(
        alt.layer(
            alt.Chart(_data([row for row in rows if row["front"]]))
            .mark_line(interpolate="step-after", strokeWidth=1.2, strokeDash=[5, 3], color="#888888")
            .encode(x=x, y=y),
            base.transform_filter("!datum.front")
            .mark_point(filled=True, size=34, opacity=0.45)
            .encode(x=x, y=y, color=_colour(alt, names), shape=_shape(alt, names), tooltip=tooltip),
            marked.mark_point(filled=True, size=80, opacity=1).encode(
                x=x, y=y, color=_colour(alt, names), shape=_shape(alt, names), tooltip=tooltip
            ),
            _rings(alt, base).encode(x=x, y=y, stroke=_colour(alt, names)),
            _stars(base, "datum.recommended").encode(x=x, y=y, fill=_colour(alt, names), tooltip=tooltip),
            _stars(base, "datum.recommended")
            .mark_text(dy=-20, fontSize=12, fontWeight="bold")
            .encode(x=x, y=y, text=alt.Text("round:Q")),
        ),
        f"{metric} on validation against bytes on disk, for {len(rows)} networks",
        shown=list(names),
        round=0,
    )


def density(rows: Sequence[Row], first: str) -> Chart:
    """The heat map of densities: a row for each layer, a column for each round."""
    alt = altair()
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    step = max(ROW_HEIGHTS[0], min(ROW_HEIGHTS[1], TALL // len(layers)))
    font = min(12, step - 2)
    base = alt.Chart(_data(rows)).transform_filter("datum.series === heat").transform_flatten(["round", "density"])
    x = alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0, labelOverlap=True, orient="top"))
    y = alt.Y(
        "layer:N",
        title=None,
        sort=layers,
        axis=alt.Axis(labelLimit=150, labelOverlap=False, labelFontSize=font),
    )
    colour = alt.Color(
        "density:Q",
        # The cube root shows differences between 1% and 3% as well as those between 50% and 100%; zero has a place.
        scale=alt.Scale(type="pow", exponent=1 / 3, domain=[0, 1], scheme="viridis"),
        legend=alt.Legend(
            title="density", format=".1%", orient="bottom", gradientLength=220, values=[0, 0.01, 0.1, 0.3, 1]
        ),
    )
    tooltip = [
        alt.Tooltip("layer:N"),
        alt.Tooltip("weights:Q", format=","),
        alt.Tooltip("round:O"),
        alt.Tooltip("density:Q", format=".3%"),
    ]
    return _finished(
        alt.layer(
            base.mark_rect().encode(x=x, y=y, color=colour, tooltip=tooltip),
            alt.Chart(_data([{"round": number} for number in range(max(len(row["round"]) for row in rows))]))
            .transform_filter(ROUND)
            .mark_rect(fill=None, strokeWidth=2, stroke="#ff4fa3")
            .encode(x=x),
        ),
        f"density of {len(layers)} layers in every round",
        height=len(layers) * step,
        heat=first,
        round=0,
    )


def size(rows: Sequence[Row], names: Sequence[str]) -> Chart:
    """Bytes on disk in every round."""
    alt = altair()
    base = alt.Chart(_data(rows)).transform_filter(SHOWN)
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("bytes:Q", format=",d"),
        alt.Tooltip("share:Q", title="of dense float32", format=".2%"),
    ]
    y = alt.Y("bytes:Q", title="bytes on disk", scale=_logarithmic(alt), axis=_bytes())
    dash = alt.StrokeDash(
        "kind:N", title=None, legend=alt.Legend(orient="bottom"), scale=alt.Scale(range=[[1, 0], [5, 4]])
    )
    return _by_round(alt, base, y, names, tooltip, dash, "bytes on disk in every round")


def latency(rows: Sequence[Row], names: Sequence[str]) -> Chart:
    """Milliseconds in every round."""
    alt = altair()
    base = alt.Chart(_data(rows)).transform_filter(SHOWN)
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("engine:N"),
        alt.Tooltip("milliseconds:Q", format=".3f"),
        alt.Tooltip("where:N"),
    ]
    y = alt.Y("milliseconds:Q", title="milliseconds", scale=alt.Scale(zero=True))
    dash = alt.StrokeDash("engine:N", title=None, legend=alt.Legend(orient="bottom"))
    return _by_round(alt, base, y, names, tooltip, dash, "milliseconds in every round")


def cost(rows: Sequence[Row], names: Sequence[str], first: str) -> Chart:
    """What every round cost."""
    alt = altair()
    base = alt.Chart(_data(rows)).transform_filter(f"{SHOWN} && datum.cost === cost")
    return _finished(
        base.mark_bar().encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            xOffset=alt.XOffset("series:N", scale=alt.Scale(domain=list(names))),
            y=alt.Y("amount:Q", title="a run, mean", axis=alt.Axis(format="~s")),
            color=_colour(alt, names),
            opacity=alt.condition(ROUND, alt.value(1), alt.value(0.72)),
            tooltip=[
                alt.Tooltip("series:N"),
                alt.Tooltip("round:Q"),
                alt.Tooltip("cost:N"),
                alt.Tooltip("amount:Q", format=",.4~r"),
            ],
        ),
        "the cost of every round",
        height=240,
        shown=list(names),
        cost=first,
        round=0,
    )


def units(rows: Sequence[Row]) -> Chart:
    """Of every layer, how many units are alive and how many dead, and why."""
    alt = altair()
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    kinds = ["alive", "silent", "constant", "unread"]
    return _finished(
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            y=alt.Y("layer:N", title=None, sort=layers, axis=alt.Axis(labelLimit=150)),
            x=alt.X("units:Q", title="share of the layer's units", stack="normalize", axis=alt.Axis(format="%")),
            color=alt.Color("kind:N", scale=alt.Scale(domain=kinds), legend=alt.Legend(title=None, orient="bottom")),
            order=alt.Order("position:Q"),
            tooltip=[alt.Tooltip("layer:N"), alt.Tooltip("kind:N"), alt.Tooltip("units:Q")],
        ),
        f"units of {len(layers)} layers that are alive or dead",
        height=len(layers) * max(14, min(ROW_HEIGHTS[1], TALL // len(layers))),
    )


def signs(rows: Sequence[Row]) -> Chart:
    """The share of surviving weights whose sign is another one than a round before."""
    alt = altair()
    base = alt.Chart(_data(rows))
    x = alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1))
    y = alt.Y("share:Q", title="signs that flipped", axis=alt.Axis(format="%"))
    tooltip = [alt.Tooltip(f"{name}:Q") for name in ("round", "survivors", "flipped")]
    tooltip.append(alt.Tooltip("share:Q", format=".2%"))
    return _finished(
        alt.layer(
            base.mark_line(point=True).encode(x=x, y=y, tooltip=tooltip),
            _rings(alt, base).encode(x=x, y=y),
        ),
        "share of weights whose sign flipped, by round",
        height=220,
        round=0,
    )


def ablation(rows: Sequence[Row], baseline: float, metric: str) -> Chart:
    """The metric when a layer's weakest or strongest survivors are taken away, with intervals."""
    alt = altair()
    base = alt.Chart(_data(rows)).transform_filter("datum.weight === weight")
    x = alt.X("fraction:Q", title="share of the layer's survivors removed", axis=alt.Axis(format="%"))
    colour = alt.Color(
        "which:N", scale=alt.Scale(domain=["weakest", "strongest"]), legend=alt.Legend(title=None, orient="bottom")
    )
    shape = alt.Shape("which:N", scale=alt.Scale(domain=["weakest", "strongest"]), legend=alt.Legend(title=None))
    tooltip = [
        alt.Tooltip("which:N"),
        alt.Tooltip("fraction:Q", format=".0%"),
        alt.Tooltip("removed:Q", format=","),
        alt.Tooltip("metric:Q", title=metric, format=_format(metric)),
        alt.Tooltip("low:Q", format=_format(metric)),
        alt.Tooltip("high:Q", format=_format(metric)),
    ]
    y = _metric(alt, "metric:Q", metric)
    return _finished(
        alt.layer(
            alt.Chart(_data([{"baseline": baseline}])).mark_rule(strokeDash=[2, 4]).encode(y="baseline:Q"),
            base.mark_line().encode(x=x, y=y, color=colour),
            base.mark_rule(strokeWidth=1.6).encode(x=x, y=_metric(alt, "low:Q", metric), y2="high:Q", color=colour),
            base.mark_point(filled=True, size=55, opacity=1).encode(
                x=x, y=y, color=colour, shape=shape, tooltip=tooltip
            ),
        ),
        f"{metric} without a layer's weakest or strongest weights",
        height=260,
        weight=rows[0]["weight"],
    )


def _by_round(
    alt: Any, base: Any, y: Any, names: Sequence[str], tooltip: list[Any], dash: Any, description: str
) -> Chart:
    x = alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1))
    return _finished(
        alt.layer(
            base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=_colour(alt, names), strokeDash=dash),
            base.mark_point(filled=True, size=40, opacity=1).encode(
                x=x, y=y, color=_colour(alt, names), shape=_shape(alt, names), tooltip=tooltip
            ),
            _rings(alt, base).encode(x=x, y=y, stroke=_colour(alt, names)),
        ),
        description,
        height=260,
        shown=list(names),
        round=0,
    )


def _finished(chart: Any, description: str, height: int = HEIGHT, **parameters: Any) -> Chart:
    """The specification, as wide as the page lets it be, with its parameters at their first values."""
    alt = altair()
    chart = chart.properties(width="container", height=height, description=description)
    chart = chart.add_params(*(alt.param(name=name, value=value) for name, value in parameters.items()))
    specification: Chart = chart.to_dict()
    # The page brings its own colours, and its controls need to know what the chart listens to.
    specification.pop("config", None)
    specification["usermeta"] = {"listens": list(parameters)}
    return specification


def _data(rows: Sequence[Row]) -> Any:
    return altair().Data(values=list(rows))


def _colour(alt: Any, names: Sequence[str]) -> Any:
    return alt.Color("series:N", scale=alt.Scale(domain=list(names)), legend=None)


def _shape(alt: Any, names: Sequence[str]) -> Any:
    return alt.Shape("series:N", scale=alt.Scale(domain=list(names)), legend=None)


def _rings(alt: Any, base: Any) -> Any:
    """A ring around what belongs to the selected round."""
    return base.mark_point(size=230, filled=False, strokeWidth=1.6, clip=True).encode(
        opacity=alt.condition(ROUND, alt.value(1), alt.value(0))
    )


def _stars(base: Any, condition: str) -> Any:
    return base.transform_filter(condition).mark_point(
        shape=STAR, filled=True, size=560, opacity=1, stroke="#ffffff", strokeWidth=1
    )


def _metric(alt: Any, field: str, metric: str, scale: Any = None, format_of: str | None = None) -> Any:
    return alt.Y(
        field,
        title=metric,
        scale=scale or _open(alt),
        axis=alt.Axis(format=".4~%" if (format_of or metric) in SHARES else "~r"),
    )


def _reach(alt: Any, rows: Sequence[Row], higher: bool) -> Any:
    """The metric's axis: all of it, or down to `drop` below the dense networks."""
    values = [row[name] for row in rows if row["density"] == 1 for name in ("test", "val") if row.get(name) is not None]
    if not values or not higher:
        return _open(alt)
    lowest = min(
        row[name] for row in rows for name in ("test_low", "val_low", "test", "val") if row.get(name) is not None
    )
    return alt.Scale(zero=False, domainMin=alt.ExprRef(f"drop > 0 ? {float(max(values))!r} - drop : {float(lowest)!r}"))


def _open(alt: Any) -> Any:
    """An axis as long as its values, without zero."""
    return alt.Scale(zero=False, nice=False, padding=MARGIN)


def _logarithmic(alt: Any) -> Any:
    return alt.Scale(type="log", nice=False, padding=MARGIN)


def _format(metric: str) -> str:
    return ".2%" if metric in SHARES else ".4f"


def _times() -> Any:
    return altair().Axis(values=_round_numbers(6), labelExpr="format(datum.value, '~s') + 'x'", labelOverlap=True)


def _bytes() -> Any:
    return altair().Axis(values=_round_numbers(12), labelExpr="format(datum.value, '~s') + 'B'", labelOverlap=True)


def _round_numbers(powers: int) -> list[int]:
    """1, 2, 5, 10, 20, ...: ticks of a logarithmic axis; those outside of it are not drawn."""
    return [digit * 10**power for power in range(powers) for digit in (1, 2, 5)]
