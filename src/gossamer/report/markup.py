"""Pieces of HTML. Whatever is text comes in as text and is escaped here; only what these functions return is markup."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any, NewType

Markup = NewType("Markup", str)

NUMBER = "number"
"""The class of cells that line up to the right."""
NUMERIC = re.compile(r"[+-]?\d[\d,.]*(e[+-]?\d+)?[%x]?( \(.*\)| to .*)?")


def text(value: Any) -> Markup:
    """Any value as text."""
    return Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("\n".join(parts))


def element(name: str, *content: Markup, **attributes: Any) -> Markup:
    """An element; attributes that are None are left out, `class_` and `for_` lose their underscore, and other
    underscores become hyphens."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{said}>{join(content)}</{name}>")


def paragraph(words: str, class_: str | None = None) -> Markup:
    return element("p", text(words), class_=class_)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> Markup:
    """A table that scrolls by itself where the screen is narrow, with the keyboard too. Numbers, and text that is
    one, are set to the right."""
    head = element("tr", *(element("th", text(heading), scope="col") for heading in headings))
    body = [element("tr", *(element("td", text(cell), class_=_aligned(cell)) for cell in row)) for row in rows]
    content = element("table", element("caption", text(caption)), element("thead", head), element("tbody", *body))
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)


def details(summary: str, *content: Markup) -> Markup:
    """Content that opens on demand."""
    return element("details", element("summary", text(summary)), *content)


def chart(name: str, title: str, caption: str, *below: Markup) -> Markup:
    """The place of a chart, with what it shows in words."""
    return element(
        "figure",
        element("h3", text(title)),
        element("div", id=f"chart-{name}", class_="chart"),
        element("figcaption", text(caption)),
        *below,
    )


def select(name: str, label: str, options: Sequence[tuple[str, str]]) -> Markup:
    """A choice, whose value the page's script hands to the charts; options are (value, shown)."""
    choices = [element("option", text(shown), value=value) for value, shown in options]
    return element(
        "label", text(label), element("select", *choices, data_parameter=name, autocomplete="off"), class_="control"
    )


def _aligned(cell: Any) -> str | None:
    return NUMBER if isinstance(cell, int | float) or NUMERIC.fullmatch(str(cell)) else None
