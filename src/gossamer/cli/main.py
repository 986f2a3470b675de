"""The `gossamer` command: its subcommands, and what becomes of errors and interruptions."""

import errno
import io
import os
import re
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from gossamer.cli.bench import bench
from gossamer.cli.compare import compare
from gossamer.cli.compress import compress
from gossamer.cli.console import ReaderGone, give_up, warn
from gossamer.cli.explain import explain
from gossamer.cli.export import export
from gossamer.cli.predict import predict
from gossamer.cli.prune import prune
from gossamer.cli.report import report
from gossamer.cli.search import search
from gossamer.cli.show import show
from gossamer.cli.shrink import shrink
from gossamer.cli.size import size
from gossamer.cli.tasks import tasks
from gossamer.cli.watch import watch
from gossamer.errors import ConfigurationError, GossamerError, GossamerWarning

USERS_MISTAKE = 2
INTERRUPTED = 128
"""Plus the signal's number, as shells count."""
WORKER_GONE = "DataLoader worker (pid"
"""How torch's messages of such a process begin. It raises them from a signal's handler, wherever Python is just then:
while a checkpoint is written too, where no task's name is known."""
SOON = 0.01
"""Seconds."""


class Commands(TyperGroup):
    """The subcommands, none of which takes an empty argument: as a path it would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, argument in zip(["", *args], args, strict=False):
            option, equals, value = argument.partition("=") if argument.startswith("--") else (before, "=", argument)
            if equals and not value:
                raise ConfigurationError(
                    f"{option if option.startswith('-') else 'an argument'} is empty; expected a value (a variable of "
                    f"the shell may not be set)"
                )
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="gossamer",
    cls=Commands,
    help="Compress neural networks by learning-rate rewinding: train, prune 20% globally, retrain, repeat.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(compress)
app.command()(compare)
app.command()(show)
app.command()(explain)
app.command()(shrink)
app.command()(export)
app.command()(predict)
app.command()(size)
app.command()(prune)
app.command()(report)
app.command()(search)
app.command()(watch)
app.command()(tasks)
app.add_typer(bench, name="bench")


INTERRUPTION = "interrupted; runs, comparisons and searches keep what was finished, and the same command continues them"


class Interrupted(BaseException):
    """SIGINT or SIGTERM, as an exception, so that what is open is closed. No KeyboardInterrupt: typer takes that for
    itself and says nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 2 the user's mistake, 130 and 143 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may hold letters that a terminal's own encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    for number in (signal.SIGINT, signal.SIGTERM):
        # Shells have what they put in the background ignore SIGINT.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _interrupt_again
    # A line on standard error, whatever Python was told to do about warnings in code.
    warnings.simplefilter("always", GossamerWarning)
    warnings.showwarning = _show_warning
    # Errors name paths as seen from where the command was given, though they are kept from the root.
    here = _working_directory()
    try:
        try:
            app()
        finally:
            # What typer printed by itself, such as help.
            if sys.stdout is not None:
                sys.stdout.flush()
    except GossamerError as error:
        warn(f"error: {here.sub('', str(error))}")
        sys.exit(USERS_MISTAKE)
    except Interrupted as interrupted:
        warn(INTERRUPTION)
        sys.exit(INTERRUPTED + interrupted.number)
    except ReaderGone:
        pass
    except RuntimeError as error:
        if not str(error).startswith(WORKER_GONE):
            raise
        warn(
            f"error: a process that reads examples is gone: {' '.join(str(error).split())}; expected it to live until "
            f"the epoch ends (the system kills one when memory runs out: try fewer workers)"
        )
        sys.exit(USERS_MISTAKE)
    except OSError as error:
        give_up(sys.stdout)
        if error.errno != errno.EPIPE:
            place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            warn(f"error: {place}{error.strerror or error}")
            sys.exit(USERS_MISTAKE)


def _working_directory() -> re.Pattern[str]:
    """What the absolute paths of files in it begin with; not what looks like it in the middle of another path."""
    try:
        here = f"{Path.cwd()}/"
    except OSError:
        # It is gone.
        here = "\0"
    return re.compile(rf"(?<![\w./-]){re.escape(here)}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """An interruption that came while a destructor ran (torch's loaders stop their workers in one) ends the destructor
    alone: it is raised once more, as soon as that is over."""
    interrupted = lost.exc_value
    if not isinstance(interrupted, Interrupted):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, lambda number, frame: _interrupt(interrupted.number, frame))
    signal.setitimer(signal.ITIMER_REAL, SOON)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours in one line, as errors are; where in our own code it was said tells a user nothing."""
    of_others = warnings.formatwarning(message, category, filename, lineno, line)
    warn(f"warning: {message}" if issubclass(category, GossamerWarning) else of_others.rstrip("\n"))


if __name__ == "__main__":
    main()
