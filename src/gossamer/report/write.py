"""The report: runs are read, grouped, drawn, and written as one page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gossamer.errors import ConfigurationError, GossamerError
from gossamer.loop.cost import JOULES_PER_GPU_SECOND, JOULES_PER_PROCESSOR_SECOND, pays_after
from gossamer.report import charts, rows
from gossamer.report.charts import Chart
from gossamer.report.document import document
from gossamer.report.errors import ReportError
from gossamer.report.explained import Facts, Section, explained, plain, read_facts
from gossamer.report.latency import Latency, read_latencies
from gossamer.report.markup import Markup, chart, details, element, join, paragraph, select, table, text
from gossamer.report.published import Curve, read_curves
from gossamer.report.reproduce import commands
from gossamer.report.run import Run, flat, named_apart, read_run
from gossamer.report.series import Series, group
from gossamer.report.size import FLOAT16
from gossamer.storage.files import write_text
from gossamer.wording import SHARES, time_text, value_text

NEAR = (0.1, 0.05, 0.02, 0.01)
"""How far below the dense network the metric's axis can be made to reach."""


@dataclass(frozen=True)
class Given:
    """What a report is given beside the runs."""

    against: tuple[Path, ...] = ()
    """Files of published curves (`gossamer.report.published`)."""
    network: str | None = None
    """The network's name in them."""
    latency: tuple[tuple[int | None, Path], ...] = ()
    """Files of latencies (`gossamer.report.latency`), each with its round if it knows none."""
    facts: tuple[Path, ...] = ()
    """Files of `gossamer explain --json`."""
    explain: bool = True
    """Whether to compute such facts for the first run, if there is no file of them and its data are at hand."""
    data: Path | None = None
    task: str | None = None
    max_drop: float | None = None
    """The allowed loss by which rounds are recommended; None: the runs' own."""


@dataclass
class _Page:
    """The parts of the page as they come together."""

    parts: list[Markup] = field(default_factory=list)
    charts: dict[str, Chart] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    contents: list[tuple[str, str]] = field(default_factory=list)

    def section(self, name: str, title: str, *content: Markup) -> None:
        self.contents.append((name, title))
        self.parts.append(element("section", element("h2", text(title), id=name), *content))


def write_report(folders: Sequence[Path], out: Path, given: Given | None = None) -> None:
    """Writes the page about runs.

    Args:
        folders: of the runs; those that differ only by their seed become one curve.
        out: the .html file; written whole or not at all.

    Raises:
        GossamerError: a folder is no run, or damaged; a given file has another layout; the runs were judged by
            different metrics; a package that draws is not installed.
    """
    given = given or Given()
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigurationError("a run was given twice; expected the folders of different runs")
    runs = named_apart([read_run(folder, given.max_drop) for folder in folders])
    series = group(runs)
    metrics = dict.fromkeys(run.metric for run in runs)
    if len(metrics) > 1:
        raise ConfigurationError(
            f"the runs were judged by different metrics ({', '.join(map(str, metrics))}), which one axis cannot show; "
            f"make a report of each"
        )
    curves = [curve for path in given.against for curve in read_curves(path, given.network, runs[0].task)]
    latencies = [latency for number, path in given.latency for latency in read_latencies(path, number)]
    facts = [(read_facts(path), str(path)) for path in given.facts] or _computed(series, given)
    write_text(out, _page(series, curves, latencies, facts))


def _computed(series: Sequence[Series], given: Given) -> list[tuple[Facts, str]] | str:
    """Facts about the first run's recommended round; or, in words, why there are none."""
    from gossamer.explain import explain_round
    from gossamer.reopen import open_round

    first, *others = series[0].runs
    if not given.explain:
        return "They were not asked for."
    try:
        ticket = open_round(first.folder, first.recommended, data_folder=given.data, task=given.task)
        found = explain_round(ticket, against=[run.folder for run in others])
    except GossamerError as error:
        return (
            f"They could not be computed here: {error}. `gossamer explain RUN --json FILE` computes them, and "
            f"`gossamer report --explain FILE` draws them."
        )
    return [(plain(found.to_json()), str(first.folder))]


def _page(
    series: Sequence[Series],
    curves: Sequence[Curve],
    latencies: Sequence[Latency],
    facts: list[tuple[Facts, str]] | str,
) -> str:
    page = _Page()
    names = [of.name for of in series]
    shown = [*names, *(curve.name for curve in curves)]
    first = series[0].runs[0]
    metric = first.metric or "no metric"
    page.state |= {"shown": shown, "round": first.recommended, "split": _split(series, curves), "drop": 0}
    page.state |= {"heat": names[0], "cost": rows.cost_names(series)[0]}
    _accuracy(page, series, curves, shown, metric)
    _density(page, series)
    _size(page, series, names, latencies)
    _cost(page, series, names)
    _facts(page, facts)
    _settings(page, series)
    title = f"gossamer: {', '.join(dict.fromkeys(run.task or run.name for of in series for run in of.runs))}"
    body = join(
        [_head(title, series, curves, page), *page.parts, element("footer", paragraph("Made by gossamer.", "quiet"))]
    )
    themes = {name: charts.theme(name) for name in ("light", "dark")}
    content = {
        "charts": page.charts,
        "themes": themes,
        "state": page.state,
        "facts": _round_facts(series, curves, metric),
    }
    return document(title, element("main", body), content)


def _head(title: str, series: Sequence[Series], curves: Sequence[Curve], page: _Page) -> Markup:
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
            _size_text(run.bytes_on_disk(best.round)),
            f"on disk, sparse float32 ({_size_text(run.bytes_on_disk(best.round, FLOAT16))} in float16); dense "
            f"{_size_text(run.bytes_dense())}",
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


def _controls(series: Sequence[Series], curves: Sequence[Curve], page: _Page) -> Markup:
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
    if _has(series, "val") and (_has(series, "test") or curves):
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
        "class_": f"swatch-{index % len(charts.SERIES['light'])}",
        "viewBox": "0 0 16 16",
        "aria_hidden": "true",
    }
    return element("svg", path, width=16, height=16, **attributes)


def _accuracy(
    page: _Page, series: Sequence[Series], curves: Sequence[Curve], shown: Sequence[str], metric: str
) -> None:
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
    figures = [
        chart(
            "accuracy",
            f"{metric} against compression",
            "A star marks a recommended round, a dotted line the dense network, a ring the round that is selected "
            "(slider, or click on a point). Published curves were measured on other code and data splits."
            if curves
            else "A star marks a recommended round, a dotted line the dense network, a ring the round that is selected "
            "(slider, or click on a point).",
            *below,
        )
    ]
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
    """By which rule rounds were recommended, and for which runs."""
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
                *(_spread_text(point, split, metric) for split in ("val", "test")),
                point["seeds"],
                "yes" if point["recommended"] else "",
            ]
        )
    headings = ["series", "round", "density", "compression", f"val {metric}", f"test {metric}", "runs", "recommended"]
    return details("As a table", table(headings, cells, "Median (least to largest) over runs"))


def _spread_text(point: rows.Row, split: str, metric: str) -> str:
    if point[split] is None:
        return "-"
    middle = value_text(metric, point[split])
    if point["seeds"] == 1:
        return middle
    return f"{middle} ({value_text(metric, point[f'{split}_low'])} to {value_text(metric, point[f'{split}_high'])})"


def _density(page: _Page, series: Sequence[Series]) -> None:
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


def _size(page: _Page, series: Sequence[Series], names: Sequence[str], latencies: Sequence[Latency]) -> None:
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


def _cost(page: _Page, series: Sequence[Series], names: Sequence[str]) -> None:
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


def _paid_back(run: Run) -> list[str]:
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


def _facts(page: _Page, facts: list[tuple[Facts, str]] | str) -> None:
    title = "What remained of the network"
    if isinstance(facts, str):
        page.section("remains", title, paragraph(facts, "quiet"))
        return
    sections: list[Section] = [explained(found, source) for found, source in facts[:1]]
    for section in sections:
        page.charts |= section.charts
        page.state |= section.state
    page.section("remains", title, *(section.body for section in sections))


def _settings(page: _Page, series: Sequence[Series]) -> None:
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


def _round_facts(series: Sequence[Series], curves: Sequence[Curve], metric: str) -> list[dict[str, Any]]:
    """A sentence for every series and round, for the list that follows the slider."""
    sizes = {
        (row["series"], row["round"]): row["bytes"] for row in rows.size_rows(series) if row["kind"][:7] == "float32"
    }
    return [
        {
            "series": point["series"],
            "round": point["round"],
            "text": f"{point['series']}: round {point['round']}, {point['compression']:.1f}x, density "
            f"{point['density']:.2%}, {metric} on validation {_spread_text(point, 'val', metric)}, on test "
            f"{_spread_text(point, 'test', metric)}, {_size_text(sizes[point['series'], point['round']])} on disk",
        }
        for point in rows.accuracy_rows(series, ())
    ]


def _split(series: Sequence[Series], curves: Sequence[Curve]) -> str:
    return "test" if _has(series, "test") or curves else "val"


def _has(series: Sequence[Series], split: str) -> bool:
    return any(getattr(record, split) is not None for of in series for run in of.runs for record in run.records)


def _size_text(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
