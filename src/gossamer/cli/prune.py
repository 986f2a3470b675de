"""`gossamer prune`: weights in files, larger than memory perhaps, set to zero by their magnitude."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from gossamer.cli.console import console
from gossamer.cli.progress import LINE_SECONDS
from gossamer.cli.settings import Panel, with_settings
from gossamer.prune.scope import Scope
from gossamer.wording import printable

if TYPE_CHECKING:
    from gossamer.files import Planned, Pruned

NAMED = 5
"""Files that are named, of those that are not copied."""
LAYERS = Panel("Which weights", only=("include", "exclude", "embeddings"))


@with_settings
def prune(
    source: Annotated[
        Path,
        typer.Argument(
            help="A .safetensors file, a folder with shards and their index (Hugging Face's), or an .onnx file, with "
            "external data or without."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    sparsity: Annotated[float, typer.Option(help="Share of the prunable weights to remove, in (0, 1), such as 0.5.")],
    scope: Annotated[Scope, LAYERS],
    layerwise: Annotated[
        bool, typer.Option("--layerwise", help="Remove this share of every tensor, not the smallest of all.")
    ] = False,
    structure: Annotated[
        str, typer.Option(help="unstructured, or 2:4 (any N:M) along the input channels.")
    ] = "unstructured",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that this command wrote.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be pruned, kept and written, and write nothing.")
    ] = False,
) -> None:
    """Set the smallest weights of files to zero, without loading them: the network may be larger than memory.

    Everything else stays as it is, so that what loaded the source loads the result. Nothing is retrained, which costs
    accuracy: gossamer.rounds on the loaded model goes on from here.
    """
    from gossamer.files import Planned
    from gossamer.files import prune as prune_files

    what: dict[str, Any] = {"sparsity": sparsity, "layerwise": layerwise, "structure": structure, "scope": scope}
    terminal = console()
    if dry_run:
        planned = Planned.of(source, out, overwrite=overwrite, **what)
        terminal.print(_table(planned))
        for line in _plan(planned, out):
            terminal.print(printable(line))
        return
    with _progress() as progress:
        pruned = prune_files(source, out, overwrite=overwrite, progress=progress, **what)
    terminal.print(_table(pruned))
    for line in _summary(pruned, out):
        terminal.print(printable(line))


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Bytes read and written: a bar in a terminal, now and then a line elsewhere."""
    terminal = console(goes_on=True)
    if not terminal.is_terminal:
        last = time.monotonic()

        def tell(done: int, work: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_SECONDS:
                last = time.monotonic()
                terminal.print(f"{done / work:.0%} of {work:,} bytes read and written")

        yield tell
        return
    columns = (TextColumn("pruning"), BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=terminal, transient=True) as bar:
        task = bar.add_task("pruning", total=None)
        yield lambda done, work: bar.update(task, completed=done, total=work)


def _table(pruned: "Pruned | Planned") -> Table:
    """One row for all tensors that differ by the numbers in their names alone."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("tensors", overflow="fold")
    for heading in ("shape", "type"):
        table.add_column(heading, no_wrap=True)
    for heading in ("number", "weights", "kept"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("stays as it is", max_width=36)
    rows: dict[tuple[str, ...], list[int]] = {}
    for tensor in pruned.tensors:
        counts = rows.setdefault((_alike(tensor.name), _shape(tensor.shape), tensor.kind, ""), [0, 0, 0])
        # Of a plan it may not be known, of one tensor as of all.
        for index, count in enumerate((1, tensor.size, -1 if tensor.kept is None else tensor.kept)):
            counts[index] += count
    for left in pruned.left:
        stored = left.stored
        counts = rows.setdefault((_alike(stored.name), _shape(stored.shape), stored.kind, left.reason), [0, 0, 0])
        counts[0] += 1
        counts[1] += stored.size
    for (name, shape, kind, reason), (number, weights, kept) in rows.items():
        share = "" if reason else "?" if kept < 0 else f"{kept / weights:.2%}"
        table.add_row(Text(printable(name)), shape, kind, f"{number:,}", f"{weights:,}", share, Text(printable(reason)))
    return table


def _alike(name: str) -> str:
    return re.sub(r"(?<![^._:])\d+(?![^._:])", "*", name)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"


def _plan(planned: "Planned", out: Path) -> list[str]:
    prunable, kept = planned.prunable, planned.kept
    lines = [
        f"{kept:,} of {prunable:,} prunable weights would be kept, {prunable - kept:,} be zero (sparsity "
        f"{1 - kept / prunable:.4%}); which are prunable is known by {planned.known_by}",
        *_not_copied(planned),
        f"{planned.bytes:,} bytes would be written to {out}; nothing was",
    ]
    if any(tensor.kept is None for tensor in planned.tensors):
        lines.append("?: the smallest of all go, and which these are only the weights tell (--layerwise shares alike)")
    return lines


def _not_copied(pruned: "Pruned | Planned") -> list[str]:
    if not pruned.left_behind:
        return []
    more = f" and {len(pruned.left_behind) - NAMED} more" if len(pruned.left_behind) > NAMED else ""
    return [
        f"not copied, since they are pickled, or hold the weights once more, unpruned: "
        f"{', '.join(pruned.left_behind[:NAMED])}{more}"
    ]


def _summary(pruned: "Pruned", out: Path) -> list[str]:
    prunable, kept = pruned.prunable, pruned.kept
    zeros = sum(tensor.zeros_before for tensor in pruned.tensors)
    before = f"; {zeros:,} of them were zero before" if zeros else ""
    lines = [
        f"{kept:,} of {prunable:,} prunable weights kept, {prunable - kept:,} are zero (sparsity "
        f"{1 - kept / prunable:.4%}){before}; which are prunable is known by {pruned.known_by}",
        *_not_copied(pruned),
        f"written to {out}",
    ]
    lines.append(
        "nothing was retrained, which costs accuracy: measure it, load the model and go on with gossamer.rounds(model, "
        "folder=..., target_sparsity=...), which prunes its own rounds from the weights that are here"
    )
    onnx = [file for file in pruned.files if file.endswith(".onnx")]
    if onnx:
        lines.append(f"as a file with sparse ops: gossamer export {out / onnx[0]}")
    return lines
