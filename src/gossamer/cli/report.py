"""`gossamer report`: one page about runs, to look at."""

from pathlib import Path
from typing import Annotated

import typer

from gossamer.cli.console import console
from gossamer.cli.export import with_export_packages
from gossamer.cli.outputs import output
from gossamer.cli.repeated import DataFolder, OwnTask


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; those that differ only by seed are one curve.")],
    out: Annotated[Path, typer.Option("--out", "-o", callback=output, help="The page to write.")] = Path("report.html"),
    against: Annotated[
        list[Path] | None, typer.Option(help="A JSON file of published curves to draw beside the runs (repeatable).")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="The network's name in these files, if they have several.")
    ] = None,
    latency: Annotated[
        list[str] | None,
        typer.Option(
            help="A JSON file of measured or predicted latencies, or ROUND=FILE of gossamer bench --json (repeatable)."
        ),
    ] = None,
    forms: Annotated[
        Path | None,
        typer.Option(help="A file of `gossamer bench forms --json`: draws which form of these networks to ship."),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(help="An ONNX file, such as an export of a run: draws where its bytes go (repeatable)."),
    ] = None,
    explain: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file of `gossamer explain --json`; without, the facts are computed if the data are there."
        ),
    ] = None,
    facts: Annotated[
        bool, typer.Option("--facts/--no-facts", help="Whether to compute what remained of the first run's network.")
    ] = True,
    data: DataFolder = None,
    task: OwnTask = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Recommend the smallest network within this loss, such as 0.01.")
    ] = None,
) -> None:
    """Draw runs as one page: a single file that needs no network, for a browser on a phone or a desk."""
    from gossamer.report import Given, write_report
    from gossamer.report.latency import as_given

    if file:
        with_export_packages()
    given = Given(
        against=tuple(against or ()),
        network=network,
        latency=tuple(as_given(text) for text in latency or ()),
        forms=forms,
        files=tuple(file or ()),
        facts=tuple(explain or ()),
        explain=facts,
        data=data,
        task=task,
        max_drop=max_drop,
    )
    terminal = console()
    with terminal.status("drawing the page"):
        write_report(runs, out, given)
    terminal.print(f"report: {out.resolve()} ({out.stat().st_size / 1e6:.2f} MB)")
