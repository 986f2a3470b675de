"""Tables that fit the terminal: where it is narrow, words give way, and numbers stay whole."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

GAP = 2
"""Cells between columns."""


@dataclass(frozen=True)
class Column:
    """What stands above a column, in one line or more, and how the column gives way."""

    heading: str
    words: bool = False
    """Whether it has words, which stand to the left, and are cut where there is no room; numbers stand to the right
    and are never cut."""
    spare: bool = False
    """Left out as a whole where there is no room."""


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table of at most `width` cells, if its numbers fit at all.

    Args:
        columns: of them the spare ones are left out from the last on, as far as needed.
        rows: a cell for each column.
    """
    shown = list(range(len(columns)))
    for index in reversed(range(len(columns))):
        if columns[index].spare and _width(columns, rows, shown) > width:
            shown.remove(index)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for index in shown:
        column = columns[index]
        # What may not wrap is what rich narrows last; words are kept in one line by themselves.
        table.add_column(column.heading, justify="left" if column.words else "right", no_wrap=not column.words)
    for row in rows:
        table.add_row(*(Text(row[index], no_wrap=True, overflow="ellipsis") for index in shown))
    return table


def _width(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    widths = (
        max(cell_len(text) for text in (*columns[index].heading.split("\n"), *(row[index] for row in rows)))
        for index in shown
    )
    return sum(widths) + GAP * (len(shown) - 1)
