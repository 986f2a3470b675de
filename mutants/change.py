"""A single change to a file."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Change:
    """Replaces a piece of a file by another one."""

    file: str
    """Path in the repository."""
    start: int
    """Offset of the piece's first character."""
    end: int
    """Offset behind its last one."""
    after: str
    """What stands there instead."""
    kind: str
    """What sort of change it is, such as "comparison"."""
    folder: str = ""
    """The folder of tests that belongs to the file."""
    first_line: int = 0
    last_line: int = 0
    """The lines (from 1) of the statement that is changed: who runs one of them may notice."""

    def apply(self, text: str) -> str:
        return text[: self.start] + self.after + text[self.end :]

    def before(self, text: str) -> str:
        return text[self.start : self.end]

    def line(self, text: str) -> int:
        """The line (from 1) that the piece begins in."""
        return text.count("\n", 0, self.start) + 1

    def identity(self, text: str) -> tuple[str, str, str, str]:
        """What it is called where lines may have moved: file, the line's text, what is replaced, by what. The piece is
        told with what follows in its line if it occurs there more than once."""
        line = text.splitlines()[self.line(text) - 1]
        column = self.start - (text.rfind("\n", 0, self.start) + 1)
        before = self.before(text)
        if line.count(before) > 1:
            return self.file, line.strip(), f"{before}{line[column + len(before) :]}".strip(), self.after
        return self.file, line.strip(), before, self.after


def by_line(changes: Sequence[Change], texts: dict[str, str]) -> dict[tuple[str, int], list[Change]]:
    """The changes of every line that has some, in order."""
    lines: dict[tuple[str, int], list[Change]] = {}
    for change in sorted(changes):
        lines.setdefault((change.file, change.line(texts[change.file])), []).append(change)
    return lines
