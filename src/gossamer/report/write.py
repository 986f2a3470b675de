"""The report: runs are read, grouped, drawn, and written as one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gossamer.choice.choice import Choices, read_choices
from gossamer.errors import ConfigurationError, GossamerError
from gossamer.explain import explain_round
from gossamer.reopen import open_round
from gossamer.report import rows, sections
from gossamer.report.document import document
from gossamer.report.drawing import theme
from gossamer.report.explained import Facts, plain, read_facts
from gossamer.report.files import MeasuredFile, files, read_files
from gossamer.report.forms import forms
from gossamer.report.head import first_split, head
from gossamer.report.latency import Latency, read_latencies
from gossamer.report.markup import element, join, paragraph
from gossamer.report.page import Page
from gossamer.report.published import Curve, read_curves
from gossamer.report.run import named_apart, read_run
from gossamer.report.series import Series, group
from gossamer.storage.files import write_text


@dataclass(frozen=True)
class Given:
    """What a report is given beside the runs."""

    against: tuple[Path, ...] = ()
    """Files of published curves (`gossamer.report.published`)."""
    network: str | None = None
    """The network's name in them."""
    latency: tuple[tuple[int | None, Path], ...] = ()
    """Files of latencies (`gossamer.report.latency`), each with its round if it knows none."""
    forms: Path | None = None
    """A file of `gossamer bench forms --json`."""
    files: tuple[Path, ...] = ()
    """ONNX files, such as exports of the runs, whose bytes are drawn."""
    facts: tuple[Path, ...] = ()
    """Files of `gossamer explain --json`."""
    explain: bool = True
    """Whether to compute such facts for the first run, if there is no file of them and its data are at hand."""
    data: Path | None = None
    task: str | None = None
    max_drop: float | None = None
    """The allowed loss by which rounds are recommended; None: the runs' own."""


def write_report(folders: Sequence[Path], out: Path, given: Given | None = None) -> None:
    """Writes the page about runs.

    Args:
        folders: of the runs; those that differ only by their seed become one curve.
        out: the .html file; written whole or not at all.

    Raises:
        GossamerError: a folder is no run, or damaged; a given file has another layout; the runs were measured by
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
            f"the runs were measured by different metrics ({', '.join(map(str, metrics))}), which one axis cannot "
            f"show; make a report of each"
        )
    curves = [curve for path in given.against for curve in read_curves(path, given.network, runs[0].task)]
    latencies = [latency for number, path in given.latency for latency in read_latencies(path, number)]
    facts = [(read_facts(path), str(path)) for path in given.facts] or _computed(series, given)
    choices = None if given.forms is None else read_choices(given.forms)
    measured = read_files(given.files)
    write_text(out, _page(series, curves, latencies, facts, choices, measured, given.max_drop))


def _computed(series: Sequence[Series], given: Given) -> list[tuple[Facts, str]] | str:
    """Facts about the first run's recommended round; or, in words, why there are none."""
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
    choices: Choices | None,
    measured: Sequence[MeasuredFile],
    max_drop: float | None,
) -> str:
    page = Page()
    names = [of.name for of in series]
    shown = [*names, *(curve.name for curve in curves)]
    first = series[0].runs[0]
    metric = first.metric or "no metric"
    page.state |= {"shown": shown, "round": first.recommended, "split": first_split(series, curves), "drop": 0}
    page.state |= {"heat": names[0], "cost": rows.cost_names(series)[0]}
    sections.accuracy(page, series, curves, shown, metric)
    if choices is not None:
        forms(page, series, choices, max_drop if max_drop is not None else first.max_drop)
    sections.density(page, series)
    sections.size(page, series, names, latencies)
    if measured:
        files(page, measured)
    sections.cost(page, series, names)
    sections.remains(page, facts)
    sections.settings(page, series)
    title = f"gossamer: {', '.join(dict.fromkeys(run.task or run.name for of in series for run in of.runs))}"
    body = join(
        [head(title, series, curves, page), *page.parts, element("footer", paragraph("Made by gossamer.", "quiet"))]
    )
    themes = {name: theme(name) for name in ("light", "dark")}
    content = {
        "charts": page.charts,
        "themes": themes,
        "state": page.state,
        "facts": sections.round_facts(series, curves, metric),
    }
    return document(title, element("main", body), content)
