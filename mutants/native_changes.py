"""Single changes to C++ code, found by a small tokenizer.

It relies on the code's format: binary operators stand between spaces, which brackets of templates, references and
pointers do not.
"""

import itertools
import re
from collections.abc import Iterator

from mutants.change import Change

SKIPPED = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^[ \t]*#(?:\\\n|[^\n])*|\bstatic_assert\s*\([^;]*;',
    re.DOTALL | re.MULTILINE,
)
"""Comments, texts, preprocessor lines, and what the compiler checks."""
BINARY = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">"),
    "<=": ("<", ">="),
    ">": (">=", "<"),
    ">=": (">", "<="),
    "&&": ("||",),
    "||": ("&&",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "%": ("*",),
    "<<": (">>",),
    ">>": ("<<",),
    "&": ("|",),
    "|": ("&",),
    "+=": ("-=",),
    "-=": ("+=",),
    "*=": ("/=",),
}
TOKEN = re.compile(
    r"(?<=\s)(?P<binary>==|!=|<=|>=|&&|\|\||<<|>>|\+=|-=|\*=|[-+*/%<>&|])(?=\s)"
    r"|(?<![\w.])(?P<number>\d+)(?P<suffix>[uUlLzZ]*)(?![\w.'])"
    r"|(?<![\w.])(?P<float>\d+\.\d*(?:e[-+]?\d+)?)(?=f?\b)"
    r"|\b(?P<truth>true|false)\b"
    r"|(?P<negation>!)(?=[\w(])"
    r"|(?P<name>\bstd::(?:min|max))\b"
    r"|(?P<condition>\bif \()"
)
STATEMENT = re.compile(
    r"^[ \t]+(?P<statement>(?:return\b[^;{}]*|(?:[\w.:]|->)+\([^;{}]*\)|break|continue);)[ \t]*$", re.MULTILINE
)


def changes(file: str, text: str) -> list[Change]:
    """All single changes to the file, those that do not compile among them."""
    return sorted({change for change in _found(file, text, _blanked(text)) if change.before(text) != change.after})


def _blanked(text: str) -> str:
    """The text with as many blanks in place of all that is skipped."""
    return SKIPPED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def _found(file: str, text: str, code: str) -> Iterator[Change]:
    for match in itertools.chain(TOKEN.finditer(code), STATEMENT.finditer(code)):
        kind = match.lastgroup if match.lastgroup != "suffix" else "number"
        assert kind is not None
        start, end = match.span(kind)
        for after in _others(kind, match.group(kind)):
            yield Change(file, start, end, after, kind)
        if kind == "condition":
            closing = _closing(code, match.end() - 1)
            inside = text[match.end() : closing]
            if ";" not in inside and "constexpr" not in inside:
                yield Change(file, match.end(), closing, f"!({inside})", "negated condition")


def _others(kind: str, piece: str) -> tuple[str, ...]:
    if kind == "binary":
        return BINARY[piece]
    if kind == "number":
        number = int(piece, 8) if piece.startswith("0") and piece != "0" else int(piece)
        return (str(number + 1), str(number - 1)) if number else ("1",)
    if kind == "float":
        return (f"{float(piece) * 2 or 1.0!r}",)
    if kind == "truth":
        return ("false" if piece == "true" else "true",)
    if kind == "negation":
        return ("",)
    if kind == "name":
        return ("std::max" if piece.endswith("min") else "std::min",)
    return (";",) if kind == "statement" else ()


def _closing(text: str, opening: int) -> int:
    """The offset of the bracket that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)
