"""`gossamer watch`: a run, live in the terminal, whoever started it."""

import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gossamer.cli.console import console
from gossamer.wording import metric_text, printable, time_text, value_text

if TYPE_CHECKING:
    from gossamer.loop.record import RoundRecord
    from gossamer.watch import Glance, Progress

BLOCKS = "▁▂▃▄▅▆▇█"
SPARKLINE = 60
"""Columns."""
OTHER_LINES = 10
"""Lines of the display that are no rounds."""
LOCAL_FLAGS = 3
"""Their place in what termios says of a terminal."""
QUIT = "qQ\x03\x04"


def watch(
    run: Annotated[Path, typer.Argument(help="The folder of a run; it may not be there yet.")],
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Watch a run: its rounds, the epoch that it is in, its loss. It only looks, and never disturbs the run.

    In a terminal until q or Ctrl-C; elsewhere a line a round, until the run ends or stops.
    """
    from gossamer.watch import look

    terminal = console()
    if once:
        terminal.print(_picture(look(run), terminal.height))
    elif terminal.is_terminal and sys.stdin.isatty():
        _live(run, terminal, every)
    else:
        _lines(run, terminal, every)


def _live(run: Path, terminal: Console, every: float) -> None:
    from gossamer.watch import look

    with _single_keys(), Live(console=terminal, auto_refresh=False, screen=True) as live:
        key = ""
        while key not in QUIT or not key:
            live.update(_picture(look(run), terminal.height), refresh=True)
            key = _pressed(every)
    # The display had a screen of its own; what it showed last stays.
    terminal.print(_picture(look(run), terminal.height))


def _lines(run: Path, terminal: Console, every: float) -> None:
    """A line for each round as it is finished; and for each change of the run's state."""
    from gossamer.watch import look

    shown, state = 0, ""
    while True:
        glance = look(run)
        for record in glance.records[shown:]:
            terminal.print(_line(record))
        shown = len(glance.records)
        if glance.state != state:
            state = glance.state
            terminal.print(_status(glance))
        # What has not begun may still do so; what has stopped may be started again, and be watched again.
        if state in ("finished", "stopped"):
            return
        time.sleep(every)


@contextmanager
def _single_keys() -> Iterator[None]:
    """Keys arrive one by one and are not shown, instead of a line at a time; Ctrl-C is a key like the others."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        settings = termios.tcgetattr(sys.stdin)
        settings[LOCAL_FLAGS] &= ~termios.ISIG
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(seconds: float) -> str:
    """The key that is pressed within so many seconds; "none" if none is."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    # Read past Python's own buffer, which `select` cannot see. Nothing to read: the terminal has gone.
    return (os.read(sys.stdin.fileno(), 1).decode(errors="replace") or QUIT[0]) if ready else "none"


def _picture(glance: "Glance", height: int) -> RenderableType:
    parts: list[RenderableType] = [Text(_status(glance), style="bold")]
    if glance.problem is not None:
        parts.append(Text(printable(glance.problem), style="red"))
    if glance.records:
        parts.append(_table(glance.records, max(3, height - OTHER_LINES)))
    if glance.progress is not None:
        parts += _round(glance.progress)
    return Group(*parts)


def _status(glance: "Glance") -> str:
    name = printable(glance.folder)
    match glance.state:
        case "not begun":
            return f"{name}: not begun yet; waiting for it"
        case "running":
            return f"{name}: running"
        case "finished":
            return f"{name}: finished, {len(glance.records)} rounds"
        case "stopped":
            return f"{name}: stopped; the same command continues it"


def _table(records: "Sequence[RoundRecord]", most: int) -> Table:
    """The dense round, and the latest ones that there is room for."""
    metric = printable(records[0].metric)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    tested = any(record.test is not None for record in records)
    on_test = [f"test {metric}"] if tested else []
    marked = ["weights"] if any(record.quantised for record in records) else []
    for heading in ("round", "density", "compression", *marked, f"val {metric}", *on_test, "seconds"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    left_out = len(records) - most
    shown = [records[0], *records[max(1, left_out + 1) :]]
    for record in shown:
        table.add_row(
            str(record.round),
            f"{record.density:.2%}",
            f"{record.compression:.1f}x",
            *([record.mark] if marked else []),
            value_text(metric, record.val),
            *([value_text(metric, record.test)] if tested else []),
            f"{record.seconds:.1f}",
        )
        if record is records[0] and left_out > 0:
            table.add_row("...", *[""] * (4 + len(on_test) + len(marked)))
    return table


def _round(progress: "Progress") -> list[RenderableType]:
    last = "?" if progress.last_round is None else str(progress.last_round)
    words = Text(f"round {progress.round} of {last}, density {progress.density:.2%}")
    within = _within(progress)
    if progress.epochs is None:
        return [words, Text("in its first epoch" + (f": {within}" if within else ""))]
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text("epoch"),
        ProgressBar(total=progress.epochs, completed=progress.epochs_done, width=40),
        Text(f"{progress.epochs_done}/{progress.epochs}"),
        Text(_left(progress)),
    )
    loss = Text(f"loss {sparkline(progress.losses, SPARKLINE)} {progress.losses[-1]:.4f}")
    return [words, bar, *([Text(within)] if within else []), loss]


def _within(progress: "Progress") -> str:
    """How far the epoch is that goes on, or the measuring after the last."""
    if progress.doing != "training":
        of = f" of {progress.steps}" if progress.steps else ""
        return f"measuring on {printable(progress.doing)}: batch {progress.steps_done}{of}"
    if not progress.steps or progress.step_seconds is None:
        return ""
    left = time_text(progress.step_seconds * (progress.steps - progress.steps_done))
    return f"step {progress.steps_done} of {progress.steps}, {left} left of this epoch"


def _left(progress: "Progress") -> str:
    if progress.epochs is None or progress.epoch_seconds is None:
        return ""
    epochs = progress.epochs - progress.epochs_done
    if progress.trainings_left is None:
        return f"{time_text(progress.epoch_seconds * epochs)} left in this round"
    later = progress.trainings_left * progress.epochs / progress.trainings
    return f"{time_text(progress.epoch_seconds * (epochs + later))} left"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a line of blocks, from the lowest to the highest; at most `width`, means of neighbours if there are
    more values."""
    if len(values) > width:
        edges = [len(values) * index // width for index in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def _line(record: "RoundRecord") -> str:
    metric = printable(record.metric)
    return (
        f"round {record.round:>2}  density {record.density:>7.2%}  {record.compression:>6.1f}x  "
        f"{metric_text(metric, record.val, 'val')}  {metric_text(metric, record.test, 'test')}  "
        f"{record.seconds:.1f} s{f'  {record.mark}' if record.quantised else ''}"
    )
