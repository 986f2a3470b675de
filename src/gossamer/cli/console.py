"""Where text goes."""

from rich.console import Console

READABLE_WIDTH = 120
"""Columns assumed where there is no terminal to ask, so that a table in a file or a pipe is not cut."""


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough."""
    terminal = Console(soft_wrap=True)
    return terminal if terminal.is_terminal else Console(soft_wrap=True, width=READABLE_WIDTH)
