"""`gossamer show`: the table of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from gossamer.cli.console import console
from gossamer.cli.repeated import RunFolder
from gossamer.wording import time_text, value_text

if TYPE_CHECKING:
    from gossamer.loop.cost import Cost
    from gossamer.loop.finished import FinishedRounds
    from gossamer.loop.record import RoundRecord


def show(run: RunFolder) -> None:
    """Print a run's table: every round's size and accuracy."""
    print_run(run, console())


def print_run(folder: Path, terminal: Console) -> None:
    """Prints the table of the run in `folder`.

    Raises:
        CheckpointError: it is no run, or damaged.
    """
    from gossamer.loop.finished import read_finished
    from gossamer.loop.records import read_ledger

    run = read_finished(folder)
    if not run.records:
        terminal.print(f"{folder}: no round is finished yet")
        return
    terminal.print(_table(run.records))
    for line in [*_summary(run), *_ledger(read_ledger(folder), run.recommended.round)]:
        terminal.print(line)


def _table(records: "Sequence[RoundRecord]") -> Table:
    metric = records[0].metric
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    tested = any(record.test is not None for record in records)
    on_test = [f"test {metric}"] if tested else []
    marked = ["weights"] if any(record.quantised for record in records) else []
    for heading in ("round", "density", "kept/prunable", "compression", *marked, f"val {metric}", *on_test, "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        table.add_row(
            str(record.round),
            f"{record.density:.2%}",
            f"{record.kept:,}/{record.prunable:,}",
            f"{record.compression:.1f}x",
            *([record.mark] if marked else []),
            value_text(metric, record.val),
            *([value_text(metric, record.test)] if tested else []),
            f"{record.seconds:.1f}",
        )
    return table


def _summary(run: "FinishedRounds") -> list[str]:
    dense, last, best = run.records[0], run.records[-1], run.recommended
    lines = [
        f"counted: {dense.prunable:,} prunable weights of {dense.parameters:,} parameters; round {last.round} keeps "
        f"{last.kept:,} ({last.density:.2%}) of the prunable, {last.parameters_kept:,} "
        f"({last.parameters_kept / last.parameters:.2%}) of all",
    ]
    if run.stop.max_drop is not None:
        lines.append(
            f"smallest within {run.stop.max_drop:g} of the dense {best.metric}: round {best.round}, "
            f"{best.compression:.1f}x, {value_text(best.metric, best.val)} against "
            f"{value_text(dense.metric, dense.val)} (validation)"
        )
    lines += _quantised(run.records)
    if dense.test is None and "task" in run.tables.get("settings", {}):
        lines.append("the task has no test split: what is shown was measured on validation")
    lines.append(f"run: {run.folder} (a round's model: gossamer.load_round({str(run.folder)!r}, {best.round}, model))")
    return lines


def _quantised(records: "Sequence[RoundRecord]") -> list[str]:
    """Which rounds' numbers are those of an int8 network, or of one in levels."""
    lines = []
    for mark in dict.fromkeys(record.mark for record in records if record.quantised):
        found = [record for record in records if record.mark == mark]
        last, metric = found[-1], found[-1].metric
        which = f"round {last.round} was" if len(found) == 1 else f"rounds {found[0].round} to {last.round} were"
        in_float = last.metrics.get(f"float_{metric}")
        rest = (
            "" if in_float is None else f"; in float round {last.round} has {value_text(metric, in_float)} (validation)"
        )
        how = "with weights and inputs rounded to 8 bits" if last.levels is None else "with weights rounded so"
        gone = sum(record.rounded_to_zero for record in found)
        zero = f"; {gone:,} weights rounded to zero and are gone" if gone else ""
        lines.append(f"{which} trained {last.trained} and measured {how}{zero}{rest}")
    return lines


def _ledger(costs: "list[Cost]", chosen: int) -> list[str]:
    """What the compression cost, beyond the dense network, and when that is made up for."""
    from gossamer.loop.cost import pays_after, total

    bill = total([cost for cost in costs if cost.round > 0])
    if not bill.rounds:
        return []
    counted = ""
    if bill.epochs is not None and bill.training_flops is not None:
        counted = f"{bill.epochs:g} epochs, {bill.training_flops:.2e} FLOPs as if dense, "
    lines = [
        f"cost of the {bill.rounds} rounds after the dense one: {counted}{bill.steps:,} steps, "
        f"{time_text(bill.wall_seconds)} ({time_text(bill.processor_seconds)} of processors), "
        f"{bill.joules / 1000:.3g} kJ (an estimate: 10 W a busy core, 400 W a GPU)"
    ]
    inferences = pays_after(costs, chosen)
    if inferences is not None and chosen > 0:
        lines.append(
            f"round {chosen} pays for itself after {inferences:.3g} inferences, if an operation costs the same in "
            f"training and inference and zeros are skipped entirely (sparse kernels)"
        )
    return lines
