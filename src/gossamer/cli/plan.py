"""`gossamer compress --dry-run`: the plan as a table."""

from rich import box
from rich.table import Table

from gossamer.cli.console import console
from gossamer.job.training import Training
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.prune.scope import Scope
from gossamer.rewind.strategies import Retraining


def print_plan(task: object, stop: Stop, cut: Cut, scope: Scope, training: Training, retraining: Retraining) -> None:
    """Prints what a job would do."""
    # torch takes a second to load, which `gossamer --help` need not.
    from gossamer.job.planned import MOST, planned_rounds
    from gossamer.tasks.task import Task

    assert isinstance(task, Task)
    rounds = planned_rounds(task, stop, cut, scope, training, retraining)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("round", "weights kept", "of all", "epochs", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in rounds:
        epochs = "?" if one.epochs is None else f"{one.epochs:g}"
        table.add_row(str(one.number), f"{one.kept:,}", f"{one.kept / one.prunable:.2%}", epochs, f"{one.bytes:,}")
    terminal = console()
    terminal.print(table)
    known = [one.epochs for one in rounds if one.epochs is not None]
    total = f"{sum(known):g} epochs" if len(known) == len(rounds) else "as many steps as --rewind-... says, a round"
    terminal.print(f"{len(rounds)} rounds, {total}, {sum(one.bytes for one in rounds):,} bytes; nothing was trained")
    terminal.print(
        "(bytes of tensors; random states, records and headers are about 30 kB a round, and more of many tensors)"
    )
    if stop.max_drop is not None:
        terminal.print("--max-drop ends it earlier, after the first round that loses more")
    if len(rounds) == MOST:
        terminal.print(f"the first {MOST} rounds are shown")
