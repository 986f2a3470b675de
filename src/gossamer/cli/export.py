"""`gossamer export`: a network as an ONNX file that runs faster the more zeros it has."""

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from gossamer.cli.console import console
from gossamer.cli.outputs import output
from gossamer.cli.prices import Device, prices_of
from gossamer.cli.repeated import DataFolder, OwnTask
from gossamer.cli.settings import Panel, with_settings
from gossamer.cli.sizes import Input, Size, inputs_of, sizes_of
from gossamer.export.form import FileForm
from gossamer.wording import listed, printable, value_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gossamer.export.costs import Costs
    from gossamer.export.exporting import Exported
    from gossamer.export.int8 import Quantised
    from gossamer.export.source import Source
    from gossamer.predict.calibration import Calibration
    from gossamer.predict.forms import ExpectedForms

MUCH = 0.1
"""The share of outputs that int8 changes, from which on people are asked whether that is meant: 1 to 5% is usual."""
LARGER, METADATA = 1.25, 10_000
"""How many times what was given a file takes, and bytes more than it, from which on that is said."""


@with_settings
def export(
    source: Annotated[
        str,
        typer.Argument(help="A run's folder, an .onnx file that holds zeros, path/file.py:function, or a task."),
    ],
    form: Annotated[FileForm, Panel("What is stored")],
    round: Annotated[
        int | None, typer.Option(help="Which round of a run; the recommended one by default, -1 is the last.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", callback=output, help="The file to write.")] = Path("model.onnx"),
    shrink: Annotated[
        bool,
        typer.Option("--shrink", help="Of a run: cut dead units out of the tensors first, as gossamer shrink does."),
    ] = False,
    data: DataFolder = None,
    task: OwnTask = None,
    input: Input = None,
    size: Size = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="A file of `gossamer bench calibrate`: sparse is what is faster there, by its prices."),
    ] = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a network as ONNX; pruned layers become sparse ops where those are faster (gossamer-runtime runs them).

    The file is kept only if it computes what the network computes, on the task's validation data; that of
    an .onnx file on --input, or on random inputs.
    """
    with_export_packages()
    # onnx and ONNX Runtime are imported, half a second, by what is asked for.
    from gossamer.export.exporting import export as export_source
    from gossamer.export.source import open_source

    terminal = console()
    inputs, sizes, prices = inputs_of(input), sizes_of(size), prices_of(calibration, device)
    # Dead units cost bytes and compute nothing.
    shrunk = shrink or (form.smallest and Path(source).is_dir())
    with terminal.status("reading the network") as status:
        opened = open_source(
            source, round_number=round, data_folder=data, task=task, shrunk=shrunk, inputs=inputs, sizes=sizes
        )
        exported = export_source(
            opened,
            out,
            form=form,
            costs=None if prices is None else _calibrated(prices, form.half_arithmetic),
            overwrite=overwrite,
            progress=lambda text: status.update(Text(text)),
        )
        expected = None
        if exported.quantised is not None:
            status.update("expecting times")
            expected = _expected(opened, exported.quantised, prices, sizes)
    if exported.layers:
        terminal.print(_table(exported))
    for line in (*_summary(opened, exported, form.dense), *_forms(expected, form.dense)):
        terminal.print(printable(line))


def _expected(
    source: "Source", found: "Quantised", prices: "Calibration | None", sizes: "Mapping[str, int]"
) -> "ExpectedForms | None":
    """The times to expect of the network in all forms; None where sizes are open."""
    from gossamer.errors import ConfigurationError
    from gossamer.predict.forms import expected_forms

    try:
        return expected_forms(source.dense, found.model, prices, sizes)
    except ConfigurationError:
        return None


def _forms(expected: "ExpectedForms | None", dense: bool) -> list[str]:
    if expected is None:
        return []
    of_bytes = expected.dense_int8 if dense else expected.sparse_int8
    threads = f"{expected.threads} thread{'s' if expected.threads > 1 else ''}"
    by = "modelled" if expected.modelled else "expected"
    lines = [
        f"{by} by the prices of {expected.processor}, {threads}: {1e3 * of_bytes:.3g} ms in int8; dense in int8 "
        f"{1e3 * expected.dense_int8:.3g}, in fp32 {1e3 * expected.sparse_fp32:.3g}, dense in fp32 "
        f"{1e3 * expected.dense_fp32:.3g}"
    ]
    if expected.fp32_is_faster(dense=dense):
        sparse = expected.sparse_fp32 < expected.dense_fp32
        lines.append(
            f"int8 makes this network smaller, not faster: in fp32 it is expected to take {1e3 * expected.fp32:.3g} ms "
            f"({'gossamer export without --int8' if sparse else 'gossamer export --dense without --int8'})"
        )
    return lines


def _calibrated(prices: "Calibration", half_arithmetic: bool) -> "Costs":
    from gossamer.predict.network import CalibratedCosts

    return CalibratedCosts(prices, half_arithmetic)


def with_export_packages() -> None:
    """Raises ConfigurationError if what exporting needs is not installed."""
    from importlib.util import find_spec

    from gossamer.errors import ConfigurationError

    needed = ("onnx", "onnxruntime", "onnxscript", "networkx", "gossamer_runtime")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"exporting needs {', '.join(missing)}, which cannot be imported. Install with: "
            "pip install 'gossamer[export]', and gossamer-runtime with: pip install ./runtime"
        )


def _table(exported: "Exported") -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("weight", no_wrap=True)
    table.add_column("kept", justify="right", no_wrap=True)
    table.add_column("runs")
    for layer in exported.layers:
        runs = layer.form if not layer.reason else f"{layer.form}: {layer.reason}"
        shape = " x ".join(str(size) for size in layer.weight_shape)
        table.add_row(Text(printable(layer.name)), shape, f"{layer.density:.2%}", runs)
    return table


def _rounded_down(share: float) -> str:
    """A share of which 100% are all."""
    return f"{math.floor(1e5 * share) / 1e3:.3f}%"


def _summary(source: "Source", exported: "Exported", dense: bool) -> list[str]:
    from gossamer.export.half import lost_text
    from gossamer.export.left import why_left

    forms: Counter[str] = Counter(layer.form for layer in exported.layers)
    lines = [_looked_at(forms, dense, exported.quantised is not None), *why_left(exported.left), *source.notes]
    agreement = exported.agreement
    compared = (
        f"compared on {exported.inputs}: largest difference of an output {agreement.difference:.3g} "
        f"(outputs up to {agreement.largest:.3g})"
    )
    if source.scoring is not None and exported.quantised is None and exported.smallest is None:
        metric = source.scoring.name
        compared += f", {metric} {value_text(metric, exported.metric_before)} -> {value_text(metric, exported.metric)}"
    lines.append(compared)
    if exported.same_bytes is not None:
        lines.append(
            f"of what quantised ops make, {_rounded_down(exported.same_bytes)} are the same bytes as "
            f"ONNX Runtime's; the others differ by one step"
        )
    if exported.same_floats is not None:
        lines.append(
            f"of the floats that quantised ops make, {_rounded_down(exported.same_floats)} are ONNX Runtime's; the "
            f"others differ by rounding"
        )
    if exported.unvaried is not None:
        lines.append(
            f"that proves nothing: the outputs are {exported.unvaried} on these inputs; compare on others (of an .onnx "
            f"file: --input NAME=FILE.npy)"
        )
    if exported.reader is not None:
        lines.append(
            f"the layer {exported.reader} reads values that are infinite or NaN, of which a dense layer's zeros make "
            f"NaN and a sparse one's do not: outputs that are NaN in the dense network were not compared"
        )
    if exported.quantised is not None:
        lines += _quantised(exported.quantised)
    if exported.smallest is not None:
        lines.append(f"weights in levels: {exported.smallest.words}")
        lines += [f"{one.metric} on all of {split}: {one.text()}" for split, one in exported.smallest.scores.items()]
    if exported.lost:
        lines.append(f"small weights that fp16 loses: {listed([lost_text(lost) for lost in exported.lost])}")
    ratio = exported.dense_bytes / exported.file_bytes
    lines.append(
        f"{source.name} written to {exported.path}: {exported.file_bytes:,} bytes, dense {exported.dense_bytes:,} "
        f"({ratio:.2f}x smaller)"
    )
    given = exported.file_bytes if source.given is None else source.given.model.ByteSize()
    if exported.file_bytes > max(LARGER * given, given + METADATA):
        lines.append(
            f"that is larger than what was given, {given:,} bytes: weights that are computed there, from smaller "
            f"numbers, are stored as they are multiplied"
        )
    if forms["sparse"] or forms["stem"]:
        lines.append(f"it runs with gossamer_runtime.Session({str(exported.path)!r}), or: gossamer-run {exported.path}")
    elif exported.layers:
        lines.append("no layer is faster sparse, so any ONNX runtime runs it")
    elif not dense:
        lines.append("any ONNX runtime runs it")
    return lines


def _quantised(found: "Quantised") -> list[str]:
    lines = [
        f"{len(found.layers)} of {len(found.layers) + len(found.kept_float)} layers compute in int8, ranges by "
        f"{found.ranges}; outputs differ from those in fp32 by {found.difference:.2%} (root mean square)"
    ]
    if found.difference > MUCH and not found.scores:
        lines.append(
            "that is much: are these examples like what the network will be given? Else layers may be left in float "
            "(--keep-float NAME)"
        )
    if found.kept_float:
        lines.append(f"left in float: {listed(list(found.kept_float))}")
    lines += [f"{score.metric} on all of {split}: {score.text()}" for split, score in found.scores.items()]
    return lines


def _looked_at(forms: Counter[str], dense: bool, int8: bool) -> str:
    """How many layers there are and what became of them."""
    if dense and int8:
        return "written with ONNX's own ops alone, QuantizeLinear and DequantizeLinear among them (--dense --int8)"
    if dense:
        return "written with ONNX's own ops alone, zeros and all (--dense)"
    if not forms:
        return "no layer was found that could run sparse (a Conv, Gemm or MatMul with a constant fp32 weight)"
    stems = f", {forms['stem']} as stems" if forms["stem"] else ""
    dense_ones = ", the others as dense ones" if forms["dense"] else ""
    return f"{forms['sparse']} of {forms.total()} layers run sparse{stems}{dense_ones}"
