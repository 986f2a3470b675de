"""Where the bytes of exported files go, beside other forms of the same networks: the ledger of `gossamer size`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gossamer.report.drawing import (
    ROW_HEIGHTS,
    TALL,
    Chart,
    altair,
    byte_axis,
    data_of,
    finished,
    logarithmic,
)
from gossamer.report.errors import ReportError
from gossamer.report.markup import Markup, chart, details, element, select, table
from gossamer.report.page import Page, size_text
from gossamer.report.rows import Row
from gossamer.report.series import distinct

if TYPE_CHECKING:
    from gossamer.export.ledger import Ledger

NAME = "bytes"
FORMS = "file-forms"
KINDS = ("positions", "values", "names, shapes and headers", "graph")
"""What bytes hold. Of coded weights one stream holds positions and values."""
GRAPH = "graph"
THIS = "this file"


@dataclass(frozen=True)
class MeasuredFile:
    """An ONNX file, and where its bytes go."""

    name: str
    ledger: "Ledger"


def read_files(paths: Sequence[Path]) -> list[MeasuredFile]:
    """Reads the files, each under a name of its own.

    Raises:
        ReportError: a file was given twice.
        GossamerError: one is no ONNX file, or damaged.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ReportError("a file was given twice with --file; expected different ones")
    if not paths:
        return []
    # A report without files needs none of the packages that exporting does.
    from gossamer.export.ledger import ledger_of
    from gossamer.graph.reading import read_onnx

    names = distinct([path.name for path in paths])
    return [MeasuredFile(name, ledger_of(read_onnx(path))) for name, path in zip(names, paths, strict=True)]


def files(page: Page, measured: Sequence[MeasuredFile]) -> None:
    """Adds the section about files that were exported (`gossamer report --file`)."""
    first = measured[0].name
    page.state["file"] = first
    page.charts[NAME] = bytes_chart(measured)
    page.charts[FORMS] = forms_chart(measured)
    names = [(one.name, one.name) for one in measured]
    choice = [select("file", "file ", names)] if len(names) > 1 else []
    sizes = ", ".join(f"{one.name}: {size_text(one.ledger.size)}" for one in measured)
    page.section(
        NAME,
        "Where the bytes go",
        element(
            "div",
            chart(
                NAME,
                "Bytes of every weight",
                f"{sizes}. Values of a coded weight are its one stream, which holds its positions too. Biases and "
                f"other constants are taken together.",
                *choice,
                details("As a table", *(_ledger_table(one) for one in measured)),
            ),
            chart(
                FORMS,
                "The same network in other forms",
                "Bytes of whole files. int8 and the entropy of positions and values with static tables are computed; "
                "balanced is what gossamer export writes by default.",
                details("As a table", _forms_table(measured)),
            ),
            class_="grid",
        ),
    )


def ledger_rows(measured: Sequence[MeasuredFile]) -> list[Row]:
    """A row for each file, part of it, and kind of bytes that it has."""
    rows = []
    for one in measured:
        parts = [(e.name, (e.positions, e.values, e.other, 0), e.kept, e.numbers) for e in one.ledger.entries]
        parts.append((GRAPH, (0, 0, 0, one.ledger.graph), 0, 0))
        labels = distinct([name for name, *_ in parts])
        rows += [
            {
                "file": one.name,
                "part": label,
                "kind": kind,
                "bytes": count,
                "kept": kept,
                "numbers": numbers,
                "order": i,
            }
            for label, (_, counts, kept, numbers) in zip(labels, parts, strict=True)
            for i, (kind, count) in enumerate(zip(KINDS, counts, strict=True))
            if count
        ]
    return rows


def form_rows(measured: Sequence[MeasuredFile]) -> list[Row]:
    """A row for each file and form of its network, itself first."""
    return [
        {"file": one.name, "form": form, "bytes": count, "times": count / one.ledger.size, "this": form == THIS}
        for one in measured
        for form, count in {THIS: one.ledger.size, **one.ledger.others}.items()
    ]


def bytes_chart(measured: Sequence[MeasuredFile]) -> Chart:
    """The bytes of every part of a file, by what they hold."""
    alt = altair()
    rows = ledger_rows(measured)
    parts = list(dict.fromkeys(row["part"] for row in rows))
    most = max(len({row["part"] for row in rows if row["file"] == one.name}) for one in measured)
    base = alt.Chart(data_of(rows)).transform_filter("datum.file === file")
    bars = base.mark_bar().encode(
        y=alt.Y("part:N", title=None, sort=parts, axis=alt.Axis(labelLimit=150, labelOverlap=False)),
        x=alt.X("bytes:Q", title="bytes", stack="zero", axis=alt.Axis(format="~s", labelOverlap=True)),
        color=alt.Color(
            "kind:N", scale=alt.Scale(domain=list(KINDS)), legend=alt.Legend(title=None, orient="bottom", columns=2)
        ),
        order=alt.Order("order:Q"),
        tooltip=[
            alt.Tooltip("part:N"),
            alt.Tooltip("kind:N"),
            alt.Tooltip("bytes:Q", format=",d"),
            alt.Tooltip("kept:Q", title="numbers that are not zero", format=",d"),
            alt.Tooltip("numbers:Q", format=",d"),
        ],
    )
    height = most * max(ROW_HEIGHTS[0], min(ROW_HEIGHTS[1], TALL // most))
    return finished(bars, f"bytes of {most} parts of a file", height=height, file=measured[0].name)


def forms_chart(measured: Sequence[MeasuredFile]) -> Chart:
    """Bytes of a file beside those of other forms of the same network, on a logarithmic axis."""
    alt = altair()
    rows = form_rows(measured)
    forms = list(dict.fromkeys(row["form"] for row in rows))
    base = alt.Chart(data_of(rows)).transform_filter("datum.file === file")
    x = alt.X("bytes:Q", title="bytes", scale=logarithmic(alt), axis=byte_axis())
    y = alt.Y("form:N", title=None, sort=forms, axis=alt.Axis(labelLimit=170, labelOverlap=False, grid=True))
    tooltip = [
        alt.Tooltip("form:N"),
        alt.Tooltip("bytes:Q", format=",d"),
        alt.Tooltip("times:Q", title="of this file", format=".2f"),
    ]
    colour = alt.Color("this:N", scale=alt.Scale(domain=[True, False]), legend=None)
    points = base.mark_point(filled=True, size=110, opacity=1).encode(x=x, y=y, color=colour, tooltip=tooltip)
    labels = base.mark_text(dy=-10, fontSize=11).encode(x=x, y=y, text=alt.Text("bytes:Q", format=",d"))
    return finished(
        alt.layer(points, labels),
        f"bytes of {len(forms)} forms of a network",
        height=len(forms) * 36,
        file=measured[0].name,
    )


def _ledger_table(one: MeasuredFile) -> Markup:
    cells = [
        [e.name, f"{e.numbers:,}", f"{e.kept:,}", f"{e.positions:,}", f"{e.values:,}", f"{e.other:,}", f"{e.size:,}"]
        for e in one.ledger.entries
    ]
    cells += [[GRAPH, "", "", "", "", "", f"{one.ledger.graph:,}"], ["all", "", "", "", "", "", f"{one.ledger.size:,}"]]
    return table(["weight", "numbers", "kept", "positions", "values", "other", "bytes"], cells, f"Bytes of {one.name}")


def _forms_table(measured: Sequence[MeasuredFile]) -> Markup:
    cells = [[row["file"], row["form"], f"{row['bytes']:,}", f"{row['times']:.2f}x"] for row in form_rows(measured)]
    return table(["file", "form", "bytes", "of the file"], cells, "Bytes by form")
