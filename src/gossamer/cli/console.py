"""Where text goes."""

import errno
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from gossamer.errors import GossamerError
from gossamer.wording import printable_lines

READABLE_WIDTH = 120
"""Columns assumed where there is no terminal to ask, so that a table in a file or a pipe is not cut."""


class OutputError(GossamerError):
    """Standard output cannot be written."""


class ReaderGone(BaseException):
    """Whoever read our output has gone (`gossamer show RUN | head`). No Exception: nothing is to be done about it."""


def console(goes_on: bool = False) -> Console:
    """Standard output: as wide as the terminal, or wide enough. What is printed is text and nothing else: brackets are
    no markup, and what could steer the terminal is shown as ?.

    Args:
        goes_on: whether the text is only the log of something that goes on without it. Otherwise a failure to write it
            ends the command.
    """
    output = None if sys.stdout is None else cast(TextIO, _Output(sys.stdout, goes_on))
    terminal = _Plain(file=output)
    return terminal if terminal.is_terminal else _Plain(file=output, width=READABLE_WIDTH)


def warn(line: str) -> None:
    """Tells something on standard error; if that cannot be written either, or is closed, nobody can be told."""
    if sys.stderr is None:
        # Python would print it on standard output, among the results.
        return
    try:
        print(printable_lines(line), file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Sends what a stream still holds, and what is written to it from now on, nowhere: Python would try again at the
    end and fail with an exit code of its own."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        # No stream of the system's, as in tests.
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Plain(Console):
    """Prints texts as they are, whoever wrote them."""

    def __init__(self, file: TextIO | None, width: int | None = None) -> None:
        super().__init__(file=file, width=width, soft_wrap=True, markup=False, highlight=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Control segments are rich's own: moving the cursor, hiding it.
            yield segment if segment.control else Segment(printable_lines(segment.text), segment.style)


class _Output:
    """A stream that tells apart what can go wrong with it."""

    def __init__(self, stream: TextIO, goes_on: bool) -> None:
        self._stream = stream
        self._goes_on = goes_on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        give_up(self._stream)
        if self._goes_on:
            warn(f"warning: standard output cannot be written ({error.strerror or error}); this goes on without it")
        elif error.errno == errno.EPIPE:
            raise ReaderGone from error
        else:
            raise OutputError(
                f"standard output cannot be written: {error.strerror or error}; send it somewhere else"
            ) from error
