"""`gossamer show`: the table of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from gossamer.cli.console import console
from gossamer.cli.wording import value_text

if TYPE_CHECKING:
    from gossamer.rounds.record import RoundRecord


def show(run: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Print a run's table: every round's size and accuracy."""
    print_run(run)


def print_run(folder: Path) -> None:
    """Prints the table of the run in `folder`.

    Raises:
        CheckpointError: it is no run, or damaged.
    """
    from gossamer.rounds.configuration import read
    from gossamer.rounds.folder import read_records
    from gossamer.rounds.stopping import Allowance, smallest_allowed

    settings = read(folder)["rounds"]
    records = read_records(folder)
    terminal = console()
    if not records:
        terminal.print(f"{folder}: no round is finished yet")
        return
    allowance = None
    if "max_drop" in settings:
        allowance = Allowance(settings["max_drop"], settings.get("metric"), settings.get("better"))
    terminal.print(_table(records))
    for line in _summary(folder, records, smallest_allowed(records, allowance), allowance):
        terminal.print(line, highlight=False)


def _table(records: "list[RoundRecord]") -> Table:
    metric = records[0].metric
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("round", "density", "kept/prunable", "compression", f"val {metric}", f"test {metric}", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        table.add_row(
            str(record.round),
            f"{record.density:.2%}",
            f"{record.kept:,}/{record.prunable:,}",
            f"{record.compression:.1f}x",
            value_text(metric, record.val),
            value_text(metric, record.test),
            f"{record.seconds:.1f}",
        )
    return table


def _summary(folder: Path, records: "list[RoundRecord]", best: "RoundRecord", allowance: Any) -> list[str]:
    dense, last = records[0], records[-1]
    lines = [
        f"counted: {dense.prunable:,} prunable weights of {dense.parameters:,} parameters; round {last.round} keeps "
        f"{last.kept:,} ({last.density:.2%}) of the prunable, {last.parameters_kept:,} "
        f"({last.parameters_kept / last.parameters:.2%}) of all",
    ]
    if allowance is not None:
        lines.append(
            f"smallest within {allowance.max_drop:g} of the dense {best.metric}: round {best.round}, "
            f"{best.compression:.1f}x, {value_text(best.metric, best.val)} against "
            f"{value_text(dense.metric, dense.val)} (validation)"
        )
    lines.append(f"run: {folder} (a round's model: gossamer.load_round({str(folder)!r}, {best.round}, model))")
    return lines
