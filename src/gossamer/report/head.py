"""The top of the page: what the first series came to, and the controls of the charts."""

from collections.abc import Sequence

from gossamer.report.drawing import SERIES
from gossamer.report.markup import Markup, element, join, paragraph, select, text
from gossamer.report.page import Page, has_split, size_text
from gossamer.report.published import Curve
from gossamer.report.series import Series
from gossamer.report.size import FLOAT16
from gossamer.wording import time_text, value_text


def head(title: str, series: Sequence[Series], curves: Sequence[Curve], page: Page) -> Markup:
    runs = [run for of in series for run in of.runs]
    links = [element("li", element("a", text(label), href=f"#{name}")) for name, label in page.contents]
    return join(
        [
            element("a", text("Skip to the charts"), href="#accuracy", class_="skip"),
            element("h1", text(title)),
            paragraph(
                f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} in {len(series)} series. Runs that differ only by "
                f"their seed are one series: lines are medians, bars reach from the least to the largest value.",
                "quiet",
            ),
            _tiles(series),
            element("nav", element("ul", *links), aria_label="Contents"),
            _controls(series, curves, page),
        ]
    )


def _tiles(series: Sequence[Series]) -> Markup:
    """What the first series came to, at its first run's recommended round."""
    run = series[0].runs[0]
    dense, best = run.records[0], run.records[run.recommended]
    value, name = (best.test, "test") if best.test is not None else (best.val, "validation")
    before = dense.test if best.test is not None else dense.val
    facts = [
        (f"{best.compression:.1f}x", f"compression in round {best.round}, {run.why}"),
        (value_text(run.metric, value), f"{run.metric or 'metric'} on {name}; dense {value_text(run.metric, before)}"),
        (
            size_text(run.bytes_on_disk(best.round)),
            f"on disk, sparse float32 ({size_text(run.bytes_on_disk(best.round, FLOAT16))} in float16); dense "
            f"{size_text(run.bytes_dense())}",
        ),
        (time_text(sum(costs["seconds"] for costs in run.costs)), f"for all {len(run.records)} rounds of {run.name}"),
    ]
    return element(
        "div",
        *(
            element("div", element("strong", text(big)), element("span", text(small)), class_="card tile")
            for big, small in facts
        ),
        class_="tiles",
    )


def _controls(series: Sequence[Series], curves: Sequence[Curve], page: Page) -> Markup:
    last = max(of.rounds for of in series) - 1
    slider = element(
        "label",
        text("round "),
        element(
            "input",
            type="range",
            min=0,
            max=last,
            value=page.state["round"],
            data_parameter="round",
            autocomplete="off",
        ),
        element("output", text(page.state["round"]), id="round-shown"),
        class_="control",
    )
    controls = [
        element("div", *_legend(page.state["shown"]), class_="legend", role="group", aria_label="Series"),
        slider,
    ]
    if has_split(series, "val") and (has_split(series, "test") or curves):
        controls.append(select("split", "measured on", [("test", "test"), ("val", "validation")]))
    return element("div", *controls, class_="controls", role="group", aria_label="What the charts show")


def _legend(names: Sequence[str]) -> list[Markup]:
    return [
        element("button", _swatch(index), text(name), type="button", aria_pressed="true", data_series=index)
        for index, name in enumerate(names)
    ]


SHAPES = (
    "M8,4a4,4 0 1,0 0.01,0z",
    "M4.5,4.5h7v7h-7z",
    "M8,3.5L12.5,11.5H3.5Z",
    "M8,3L12.5,8L8,13L3.5,8Z",
    "M6.5,3.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "M8,12.5L12.5,4.5H3.5Z",
)


def _swatch(index: int) -> Markup:
    """The colour and the shape of a series, as the charts have them."""
    path = element("path", d=SHAPES[index % len(SHAPES)], fill="currentColor")
    attributes = {
        "class_": f"swatch-{index % len(SERIES['light'])}",
        "viewBox": "0 0 16 16",
        "aria_hidden": "true",
    }
    return element("svg", path, width=16, height=16, **attributes)


def first_split(series: Sequence[Series], curves: Sequence[Curve]) -> str:
    return "test" if has_split(series, "test") or curves else "val"
