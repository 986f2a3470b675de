"""The charts, as specifications of Vega-Lite. They listen to the page's controls through parameters:

shown   the series that are drawn            round  the round that is marked
split   "test" or "val"                      drop   how far below the dense network the metric's axis reaches
heat    the series of the heat map           cost   the cost of the ledger
weight  the weight of the ablation
"""

from collections.abc import Sequence
from typing import Any

from gossamer.report.drawing import (
    ROUND,
    ROW_HEIGHTS,
    SHOWN,
    TALL,
    Chart,
    altair,
    byte_axis,
    colour_of,
    data_of,
    finished,
    format_of,
    logarithmic,
    metric_axis,
    open_axis,
    reach,
    rings,
    shape_of,
    stars,
    times_axis,
)
from gossamer.report.rows import Row


def accuracy(rows: Sequence[Row], names: Sequence[str], metric: str, higher: bool, split: str) -> Chart:
    """The metric against compression, with the spread over seeds."""
    alt = altair()
    base = (
        alt.Chart(data_of(rows))
        .transform_calculate(
            value="split === 'test' ? datum.test : datum.val",
            low="split === 'test' ? datum.test_low : datum.val_low",
            high="split === 'test' ? datum.test_high : datum.val_high",
        )
        .transform_filter(f"{SHOWN} && isValid(datum.value)")
    )
    x = alt.X("compression:Q", title="compression (prunable weights / kept)", scale=logarithmic(alt), axis=times_axis())
    y = metric_axis(alt, "value:Q", metric, reach(alt, rows, higher))
    colour, shape = colour_of(alt, names), shape_of(alt, names)
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("compression:Q", format=".1f"),
        alt.Tooltip("density:Q", format=".2%"),
        alt.Tooltip("value:Q", title=metric, format=format_of(metric)),
        alt.Tooltip("low:Q", title="least", format=format_of(metric)),
        alt.Tooltip("high:Q", title="largest", format=format_of(metric)),
        alt.Tooltip("seeds:Q", title="runs"),
        alt.Tooltip("weights:N", title="trained in"),
    ]
    dense = base.transform_filter("datum.density === 1").mark_rule(strokeDash=[2, 4], opacity=0.7, clip=True)
    lines = base.mark_line(strokeWidth=1.8, clip=True)
    spread = base.mark_rule(strokeWidth=1.6, opacity=0.75, clip=True)
    points = base.mark_point(filled=True, size=48, opacity=1, clip=True)
    return finished(
        alt.layer(
            dense.encode(y=y, color=colour),
            lines.encode(x=x, y=y, color=colour),
            spread.encode(x=x, y=metric_axis(alt, "low:Q", metric), y2="high:Q", color=colour),
            points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
            *(one.encode(x=x, y=y, stroke=colour, shape=shape, tooltip=tooltip) for one in _rounded(rows, base)),
            rings(alt, base).encode(x=x, y=y, stroke=colour),
            stars(base, "datum.recommended").encode(x=x, y=y, fill=colour, tooltip=tooltip),
        ),
        f"{metric} against compression, a line for each of {len(names)} series",
        shown=list(names),
        split=split,
        drop=0,
        round=0,
    )


def _rounded(rows: Sequence[Row], base: Any) -> list[Any]:
    """Outlines of rounds that were trained and measured with rounded weights; without any no layer, for an empty one
    has no extent."""
    if all(row["weights"] == "float" for row in rows):
        return []
    marked = base.transform_filter("datum.weights !== 'float'")
    return [marked.mark_point(filled=False, size=110, strokeWidth=1.6, clip=True)]


def front(rows: Sequence[Row], names: Sequence[str], metric: str) -> Chart:
    """Every network by its size and its metric; those of the Pareto front are joined."""
    alt = altair()
    base = alt.Chart(data_of(rows)).transform_filter(SHOWN)
    x = alt.X("bytes:Q", title="size on disk, sparse float32", scale=logarithmic(alt), axis=byte_axis())
    y = metric_axis(alt, "value:Q", f"{metric} (validation)", open_axis(alt), of=metric)
    tooltip = [
        alt.Tooltip("run:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("bytes:Q", format=",d"),
        alt.Tooltip("value:Q", title=metric, format=format_of(metric)),
    ]
    marked = base.transform_filter("datum.front")
    return finished(
        alt.layer(
            alt.Chart(data_of([row for row in rows if row["front"]]))
            .mark_line(interpolate="step-after", strokeWidth=1.2, strokeDash=[5, 3], color="#888888")
            .encode(x=x, y=y),
            base.transform_filter("!datum.front")
            .mark_point(filled=True, size=34, opacity=0.45)
            .encode(x=x, y=y, color=colour_of(alt, names), shape=shape_of(alt, names), tooltip=tooltip),
            marked.mark_point(filled=True, size=80, opacity=1).encode(
                x=x, y=y, color=colour_of(alt, names), shape=shape_of(alt, names), tooltip=tooltip
            ),
            rings(alt, base).encode(x=x, y=y, stroke=colour_of(alt, names)),
            stars(base, "datum.recommended").encode(x=x, y=y, fill=colour_of(alt, names), tooltip=tooltip),
            stars(base, "datum.recommended")
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
    base = alt.Chart(data_of(rows)).transform_filter("datum.series === heat").transform_flatten(["round", "density"])
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
    return finished(
        alt.layer(
            base.mark_rect().encode(x=x, y=y, color=colour, tooltip=tooltip),
            alt.Chart(data_of([{"round": number} for number in range(max(len(row["round"]) for row in rows))]))
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
    base = alt.Chart(data_of(rows)).transform_filter(SHOWN)
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("bytes:Q", format=",d"),
        alt.Tooltip("share:Q", title="of dense float32", format=".2%"),
    ]
    y = alt.Y("bytes:Q", title="bytes on disk", scale=logarithmic(alt), axis=byte_axis())
    dash = alt.StrokeDash(
        "kind:N", title=None, legend=alt.Legend(orient="bottom"), scale=alt.Scale(range=[[1, 0], [5, 4]])
    )
    return _by_round(alt, base, y, names, tooltip, dash, "bytes on disk in every round")


def latency(rows: Sequence[Row], names: Sequence[str]) -> Chart:
    """Milliseconds in every round."""
    alt = altair()
    base = alt.Chart(data_of(rows)).transform_filter(SHOWN)
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
    base = alt.Chart(data_of(rows)).transform_filter(f"{SHOWN} && datum.cost === cost")
    return finished(
        base.mark_bar().encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            xOffset=alt.XOffset("series:N", scale=alt.Scale(domain=list(names))),
            y=alt.Y("amount:Q", title="a run, mean", axis=alt.Axis(format="~s")),
            color=colour_of(alt, names),
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
    return finished(
        alt.Chart(data_of(rows))
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
    base = alt.Chart(data_of(rows))
    x = alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1))
    y = alt.Y("share:Q", title="signs that flipped", axis=alt.Axis(format="%"))
    tooltip = [alt.Tooltip(f"{name}:Q") for name in ("round", "survivors", "flipped")]
    tooltip.append(alt.Tooltip("share:Q", format=".2%"))
    return finished(
        alt.layer(
            base.mark_line(point=True).encode(x=x, y=y, tooltip=tooltip),
            rings(alt, base).encode(x=x, y=y),
        ),
        "share of weights whose sign flipped, by round",
        height=220,
        round=0,
    )


def ablation(rows: Sequence[Row], baseline: float, metric: str) -> Chart:
    """The metric when a layer's weakest or strongest survivors are taken away, with intervals."""
    alt = altair()
    base = alt.Chart(data_of(rows)).transform_filter("datum.weight === weight")
    x = alt.X("fraction:Q", title="share of the layer's survivors removed", axis=alt.Axis(format="%"))
    colour = alt.Color(
        "which:N", scale=alt.Scale(domain=["weakest", "strongest"]), legend=alt.Legend(title=None, orient="bottom")
    )
    shape = alt.Shape("which:N", scale=alt.Scale(domain=["weakest", "strongest"]), legend=alt.Legend(title=None))
    tooltip = [
        alt.Tooltip("which:N"),
        alt.Tooltip("fraction:Q", format=".0%"),
        alt.Tooltip("removed:Q", format=","),
        alt.Tooltip("metric:Q", title=metric, format=format_of(metric)),
        alt.Tooltip("low:Q", format=format_of(metric)),
        alt.Tooltip("high:Q", format=format_of(metric)),
    ]
    y = metric_axis(alt, "metric:Q", metric)
    return finished(
        alt.layer(
            alt.Chart(data_of([{"baseline": baseline}])).mark_rule(strokeDash=[2, 4]).encode(y="baseline:Q"),
            base.mark_line().encode(x=x, y=y, color=colour),
            base.mark_rule(strokeWidth=1.6).encode(x=x, y=metric_axis(alt, "low:Q", metric), y2="high:Q", color=colour),
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
    return finished(
        alt.layer(
            base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour_of(alt, names), strokeDash=dash),
            base.mark_point(filled=True, size=40, opacity=1).encode(
                x=x, y=y, color=colour_of(alt, names), shape=shape_of(alt, names), tooltip=tooltip
            ),
            rings(alt, base).encode(x=x, y=y, stroke=colour_of(alt, names)),
        ),
        description,
        height=260,
        shown=list(names),
        round=0,
    )
