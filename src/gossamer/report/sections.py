"""The sections of the page, each with its charts and tables."""

import math
from collections.abc import Sequence
from typing import Any

from gossamer.loop.configuration import flat
from gossamer.loop.cost import JOULES_PER_GPU_SECOND, JOULES_PER_PROCESSOR_SECOND, pays_after
from gossamer.report import charts, rows
from gossamer.report.errors import ReportError
from gossamer.report.explained import Facts, Section, explained
from gossamer.report.latency import Latency
from gossamer.report.markup import Markup, chart, details, element, paragraph, select, table, text
from gossamer.report.page import Page, size_text, spread_text
from gossamer.report.published import Curve
from gossamer.report.reproduce import commands
from gossamer.report.run import ReportedRun
from gossamer.report.series import Series
from gossamer.wording import SHARES

NEAR = (0.1, 0.05, 0.02, 0.01)
"""How far below the dense network the metric's axis can be made to reach."""


def accuracy(page: Page, series: Sequence[Series], curves: Sequence[Curve], shown: Sequence[str], metric: str) -> None:
    points = rows.accuracy_rows(series, curves)
    if not any(point.get(name) is not None for point in points for name in ("val", "test")):
        page.section("accuracy", "How far it goes", paragraph("No metric was recorded in these runs."))
        return
    higher = series[0].runs[0].higher_is_better
    page.charts["accuracy"] = charts.accuracy(points, shown, metric, higher, page.state["split"])
    below = [_accuracy_table(series, metric)]
    if higher and metric in SHARES:
        options = [("0", "all"), *((str(drop), f"down to {drop:.0%} below dense") for drop in NEAR)]
        below.insert(0, select("drop", "axis shows ", options))
    caption = (
        "A star marks a recommended round, a dotted line the dense network, a ring the round that is selected (slider, "
        "or click on a point)."
    )
    if any(point["weights"] != "float" for point in points):
        caption += " An outline marks a round that was trained and measured for int8, or in levels."
    if curves:
        caption += " Published curves were measured on other code and data splits."
    figures = [chart("accuracy", f"{metric} against compression", caption, *below)]
    networks = rows.front_rows(series)
    if networks:
        names = [of.name for of in series]
        page.charts["front"] = charts.front(networks, names, metric)
        figures.append(
            chart(
                "front",
                "Pareto front: size against the metric on validation",
                "Networks on the front are joined: no other is both smaller and better. A star with its number marks a "
                f"recommended round. {_recommendations(series)}",
            )
        )
    selected = element(
        "div",
        element("h3", text("The selected round")),
        element("ul", id="round-facts", aria_live="polite"),
        class_="card wide",
    )
    page.section("accuracy", "How far it goes", element("div", *figures, selected, class_="grid"))


def _recommendations(series: Sequence[Series]) -> str:
    """Says by which rule rounds were recommended, and for which runs."""
    rules: dict[str, list[str]] = {}
    for of in series:
        for run in of.runs:
            rules.setdefault(run.why, []).append(run.name)
    return " ".join(f"{', '.join(names)}: {why}." for why, names in rules.items())


def _accuracy_table(series: Sequence[Series], metric: str) -> Markup:
    cells = []
    for point in rows.accuracy_rows(series, ()):
        cells.append(
            [
                point["series"],
                point["round"],
                f"{point['density']:.2%}",
                f"{point['compression']:.1f}x",
                *(spread_text(point, split, metric) for split in ("val", "test")),
                point["seeds"],
                "yes" if point["recommended"] else "",
                point["weights"],
            ]
        )
    headings = ["series", "round", "density", "compression", f"val {metric}", f"test {metric}", "runs", "recommended"]
    headings.append("trained in")
    return details("As a table", table(headings, cells, "Median (least to largest) over runs"))


def density(page: Page, series: Sequence[Series]) -> None:
    page.charts["density"] = charts.density(rows.density_rows(series), series[0].name)
    names = [of.name for of in series]
    choice = [select("heat", "series ", [(name, name) for name in names])] if len(names) > 1 else []
    tables = [_density_table(of) for of in series]
    page.section(
        "density",
        "Which layers gave up their weights",
        chart(
            "density",
            "Density of every layer in every round",
            "Bright: dense, dark: few weights left; the mean over the runs of a series. A click on a cell selects its "
            "round.",
            *choice,
            details("As a table", *tables),
        ),
    )


def _density_table(of: Series) -> Markup:
    densities = rows.density_rows([of])
    headings = ["layer", "weights", *(str(number) for number in range(of.rounds))]
    cells = ([row["layer"], row["weights"], *(f"{density:.2%}" for density in row["density"])] for row in densities)
    return table(headings, cells, f"Density by round: {of.name}")


def size(page: Page, series: Sequence[Series], names: Sequence[str], latencies: Sequence[Latency]) -> None:
    page.charts["size"] = charts.size(rows.size_rows(series), names)
    figures = [
        chart(
            "size",
            "Size on disk",
            "In gossamer's packed format (positions as bits or gaps, whichever is shorter, and the values), with all "
            "other parameters as they are. Computed from the masks; the file of an export has its graph in addition.",
            details("As a table", _size_table(series)),
        )
    ]
    times = rows.latency_rows(series, latencies)
    if times:
        page.charts["latency"] = charts.latency(times, names)
        where = "; ".join(dict.fromkeys(row["where"] for row in times))
        cells = [
            [row[name] for name in ("series", "round", "engine")] + [f"{row['milliseconds']:.3f}"] for row in times
        ]
        figures.append(
            chart(
                "latency",
                "Latency",
                where,
                details("As a table", table(["series", "round", "engine", "milliseconds"], cells, "Latency by round")),
            )
        )
    elif latencies:
        raise ReportError(
            "no latency that was given belongs to a run of this report: its runs and rounds are other ones"
        )
    page.section("size", "Size and speed", element("div", *figures, class_="grid"))


def _size_table(series: Sequence[Series]) -> Markup:
    sizes = {(row["series"], row["round"], row["kind"]): row for row in rows.size_rows(series)}
    cells = []
    for of in series:
        for number in range(of.rounds):
            full, half = (sizes[of.name, number, f"{kind} values"] for kind in ("float32", "float16"))
            cells.append([of.name, number, f"{full['bytes']:,.0f}", f"{full['share']:.2%}", f"{half['bytes']:,.0f}"])
    headings = ["series", "round", "bytes, float32", "of dense float32", "bytes, float16"]
    return table(headings, cells, "Bytes by round")


def cost(page: Page, series: Sequence[Series], names: Sequence[str]) -> None:
    costs = rows.cost_names(series)
    page.charts["cost"] = charts.cost(rows.cost_rows(series), names, costs[0])
    choice = [select("cost", "cost ", [(name, name) for name in costs])] if len(costs) > 1 else []
    totals = [
        [
            run.name,
            len(run.records),
            *(f"{sum(costs.get(name, 0.0) for costs in run.costs):,.6g}" for name in costs),
        ]
        for of in series
        for run in of.runs
    ]
    by_round = [
        [run.name, number, *(f"{costs_of[name]:,.6g}" if name in costs_of else "-" for name in costs)]
        for of in series
        for run in of.runs
        for number, costs_of in enumerate(run.costs)
    ]
    page.section(
        "cost",
        "What it cost",
        chart(
            "cost",
            "Cost of every round",
            "Wall-clock seconds of training and evaluating, and what else the run's ledger holds.",
            *choice,
            table(["run", "rounds", *costs], totals, "Sum over the rounds"),
            details("Every round", table(["run", "round", *costs], by_round, "Cost by round")),
            *(paragraph(line) for of in series for run in of.runs for line in _paid_back(run)),
        ),
    )


def _paid_back(run: ReportedRun) -> list[str]:
    """After how many inferences the recommended round makes up for what it cost, if that is known."""
    inferences = pays_after(run.ledger, run.recommended)
    if inferences is None or not math.isfinite(inferences) or run.recommended == 0:
        return []
    return [
        f"{run.name}: round {run.recommended} makes up for all pruning and retraining after {inferences:.3g} "
        f"inferences, if an operation costs the same in training and inference and zeros are skipped entirely "
        f"(sparse kernels). "
        f"Joules are an estimate: {JOULES_PER_PROCESSOR_SECOND:g} W a busy core, {JOULES_PER_GPU_SECOND:g} W a GPU."
    ]


def remains(page: Page, facts: list[tuple[Facts, str]] | str) -> None:
    title = "What remained of the network"
    if isinstance(facts, str):
        page.section("remains", title, paragraph(facts, "quiet"))
        return
    sections: list[Section] = [explained(found, source) for found, source in facts[:1]]
    for section in sections:
        page.charts |= section.charts
        page.state |= section.state
    page.section("remains", title, *(section.body for section in sections))


def settings(page: Page, series: Sequence[Series]) -> None:
    parts = []
    for of in series:
        run = of.runs[0]
        settings = flat(run.tables)
        cells = [[name, _shown(value)] for name, value in settings.items()]
        seeds = ", ".join(str(each.seed) for each in of.runs)
        parts.append(
            element(
                "div",
                element("h3", text(of.name)),
                paragraph(f"{', '.join(each.name for each in of.runs)}; seeds {seeds}"),
                *(element("pre", element("code", text("\n".join(commands(each)))), tabindex="0") for each in of.runs),
                details("Configuration and versions", table(["setting", "value"], cells, f"config.toml of {run.name}")),
                class_="card",
            )
        )
    page.section("reproduce", "Configuration, and how to make it again", element("div", *parts, class_="grid"))


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _trained(point: rows.Row) -> str:
    return "" if point["weights"] == "float" else f", trained and measured in {point['weights']}"


def round_facts(series: Sequence[Series], curves: Sequence[Curve], metric: str) -> list[dict[str, Any]]:
    """A sentence for every series and round, for the list that follows the slider."""
    sizes = {
        (row["series"], row["round"]): row["bytes"] for row in rows.size_rows(series) if row["kind"][:7] == "float32"
    }
    return [
        {
            "series": point["series"],
            "round": point["round"],
            "text": f"{point['series']}: round {point['round']}, {point['compression']:.1f}x, density "
            f"{point['density']:.2%}, {metric} on validation {spread_text(point, 'val', metric)}, on test "
            f"{spread_text(point, 'test', metric)}, {size_text(sizes[point['series'], point['round']])} on disk"
            f"{_trained(point)}",
        }
        for point in rows.accuracy_rows(series, ())
    ]
