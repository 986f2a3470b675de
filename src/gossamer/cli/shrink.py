"""`gossamer shrink`: the same network without the units that cannot matter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from gossamer.cli.console import console
from gossamer.cli.wording import value_text

if TYPE_CHECKING:
    from gossamer.explain.subject import Subject
    from gossamer.shrink import Shrunk
    from gossamer.shrink.verify import Agreement


def shrink(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    round: Annotated[
        int | None, typer.Option(help="Which round; the recommended one by default, -1 is the last.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the smaller network to this .safetensors file.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the task's data are.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Only for a run of your own task: its path/file.py:function.")
    ] = None,
    select_inputs: Annotated[
        bool,
        typer.Option(
            "--select-inputs", help="Cut unused input features out of the first layer too, behind an index_select."
        ),
    ] = False,
) -> None:
    """Cut dead units out of a round's network: the same outputs from smaller tensors.

    A unit goes if no surviving path leads from it to the output, or if it is the same for every input; what it
    contributes is added to biases. The outputs are compared on the validation data.
    """
    from gossamer.explain.subject import open_round
    from gossamer.shrink import load_shrunk, save_shrunk
    from gossamer.shrink import shrink as shrink_model
    from gossamer.shrink.verify import verify

    subject = open_round(run, round, data_folder=data, task=task)
    validation = subject.data.validation
    inputs, _ = validation.batch(slice(0, 64))
    shrunk = shrink_model(subject.model, inputs, select_unused_inputs=select_inputs)
    smaller = shrunk.model
    if out is not None:
        save_shrunk(out, shrunk, source=f"{run.name}, round {subject.record.round}")
        # What is verified is what the file holds.
        smaller = load_shrunk(out, subject.task.model())
    agreement = verify(subject.model, smaller, validation, subject.task.metric)
    terminal = console()
    terminal.print(_table(shrunk))
    for line in _summary(subject, shrunk, agreement):
        terminal.print(line, highlight=False)
    if out is not None:
        terminal.print(
            f"written to {out} ({out.stat().st_size:,} bytes); it comes back with "
            f"gossamer.shrink.load_shrunk({str(out)!r}, model), model as it was before pruning",
            highlight=False,
        )


def _table(shrunk: "Shrunk") -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("layer", no_wrap=True)
    for heading in ("inputs", "units", "removed", "unused", "constant", "unused inputs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in shrunk.layers:
        table.add_row(
            layer.name,
            _change(layer.inputs_before, layer.inputs),
            _change(layer.outputs_before, layer.outputs),
            str(layer.removed),
            str(len(layer.unused)),
            str(len(layer.constant)),
            str(len(layer.unused_inputs)) if layer.unused_inputs else "-",
        )
    return table


def _change(before: int, after: int) -> str:
    return f"{before}" if before == after else f"{before} -> {after}"


def _summary(subject: "Subject", shrunk: "Shrunk", agreement: "Agreement") -> list[str]:
    metric = subject.task.metric.name
    lines = [
        f"round {subject.record.round} of {subject.folder}: {shrunk.units_removed:,} of "
        f"{sum(layer.outputs_before for layer in shrunk.layers):,} units removed",
        f"parameters {shrunk.parameters_before:,} -> {shrunk.parameters:,} "
        f"({shrunk.parameters_before / shrunk.parameters:.2f}x smaller as dense tensors); weights that are not zero "
        f"{shrunk.weights_before:,} -> {shrunk.weights:,}",
        f"on {agreement.examples:,} validation examples: largest difference of an output {agreement.difference:.3g} "
        f"(outputs up to {agreement.largest_output:.3g}), {metric} {value_text(metric, agreement.metric_before)} -> "
        f"{value_text(metric, agreement.metric)}",
    ]
    if shrunk.not_understood:
        lines.append("left as it was around: " + ", ".join(shrunk.not_understood))
    return lines
