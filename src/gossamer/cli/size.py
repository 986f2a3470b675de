"""`gossamer size`: where the bytes of a file go."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from gossamer.cli.console import console
from gossamer.cli.export import with_export_packages
from gossamer.cli.repeated import DataFolder, OwnTask
from gossamer.wording import printable

if TYPE_CHECKING:
    from gossamer.export.ledger import Ledger


def size(
    source: Annotated[
        str,
        typer.Argument(help="An .onnx file, also one of gossamer export, or a run's folder, path/file.py:function."),
    ],
    round: Annotated[
        int | None, typer.Option(help="Which round of a run; the recommended one by default, -1 is the last.")
    ] = None,
    data: DataFolder = None,
    task: OwnTask = None,
) -> None:
    """Where the bytes of a file go: positions, values and the rest of each weight, and the graph.

    A run is looked at as gossamer export would write it. Beside it stands what the same network takes in other forms.
    """
    with_export_packages()
    from gossamer.export.compress import with_functions
    from gossamer.export.ledger import ledger_of
    from gossamer.export.source import open_source
    from gossamer.export.written import as_written
    from gossamer.graph.reading import read_onnx

    terminal = console()
    with terminal.status("reading the network"):
        if Path(source).suffix.lower() == ".onnx" and not Path(source).is_dir():
            model = read_onnx(Path(source))
        else:
            opened = open_source(source, round_number=round, data_folder=data, task=task)
            terminal.print(Text(printable(f"{opened.name}, as gossamer export writes it:")))
            model = as_written(with_functions(opened.dense)).model
        ledger = ledger_of(model)
    terminal.print(_table(ledger))
    for form, taken in ledger.others.items():
        terminal.print(f"{form}: {taken:,} bytes ({taken / ledger.size:.2f}x)")


def _table(ledger: "Ledger") -> Table:
    table = Table(box=None)
    table.add_column("weight", overflow="fold")
    for column in ("numbers", "kept", "positions", "values", "other", "bytes"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in ledger.entries:
        amounts = (entry.numbers, entry.kept, entry.positions, entry.values, entry.other, entry.size)
        table.add_row(Text(printable(entry.name)), *(f"{amount:,}" for amount in amounts))
    table.add_row("graph", *[""] * 5, f"{ledger.graph:,}")
    table.add_row("all", *[""] * 5, f"{ledger.size:,}")
    return table
