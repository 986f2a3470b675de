"""`gossamer shrink`: the same network without the units that cannot matter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from gossamer.cli.console import console
from gossamer.cli.outputs import output
from gossamer.cli.repeated import DataFolder, OwnTask, RoundNumber, RunFolder
from gossamer.errors import ConfigurationError
from gossamer.wording import value_text

if TYPE_CHECKING:
    from gossamer.model.call import Call
    from gossamer.reopen import FinishedRound
    from gossamer.shrink import Shrunk
    from gossamer.shrink.verify import OutputsCompared

CHANNEL = "channel"
STRUCTURES = ("exact", CHANNEL)


def shrink(
    run: RunFolder,
    round: RoundNumber = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", callback=output, help="Write the smaller network to this .safetensors file."),
    ] = None,
    data: DataFolder = None,
    task: OwnTask = None,
    select_inputs: Annotated[
        bool,
        typer.Option(
            "--select-inputs", help="Cut unused input features out of the first layer too, behind an index_select."
        ),
    ] = False,
    structure: Annotated[
        str,
        typer.Option(
            help="exact: only what cannot matter. channel: then also the channels of the smallest norm, at some cost "
            "in accuracy, which is shown; nothing is retrained."
        ),
    ] = "exact",
    channels: Annotated[
        float | None, typer.Option(help="With --structure channel: share of the channels to remove, such as 0.25.")
    ] = None,
) -> None:
    """Cut dead units out of a round's network: the same outputs from smaller tensors.

    A unit goes if no surviving path leads from it to the output, or if it is the same for every input; what it
    contributes is added to biases. The outputs are compared on the validation data.
    """
    from gossamer.reopen import open_round
    from gossamer.shrink import load_shrunk, save_shrunk
    from gossamer.shrink import shrink as shrink_model
    from gossamer.shrink.arguments import as_call
    from gossamer.shrink.verify import verify
    from gossamer.tasks.in_memory import first_batches

    _check(structure, channels, select_inputs)
    terminal = console()
    with terminal.status("looking for dead units"):
        finished = open_round(run, round, data_folder=data, task=task)
        validation = finished.data.validation
        inputs = as_call(first_batches(validation, 64, 64)[0])
        shrunk = shrink_model(finished.model, inputs, select_unused_inputs=select_inputs)
    if channels is not None:
        _slim(finished, shrunk, inputs, channels, out)
        return
    smaller = shrunk.model
    if out is not None:
        save_shrunk(out, shrunk, source=f"{run.name}, round {finished.record.round}")
        # What is verified is what the file holds.
        smaller = load_shrunk(out, finished.task.model())
    agreement = verify(finished.model, smaller, validation, finished.task.metric)
    terminal.print(_table(shrunk))
    for line in _summary(finished, shrunk, agreement):
        terminal.print(line)
    if out is not None:
        terminal.print(_written(out))


def _check(structure: str, channels: float | None, select_inputs: bool) -> None:
    if structure not in STRUCTURES:
        raise ConfigurationError(f"--structure is {structure!r}; expected {' or '.join(STRUCTURES)}")
    if (structure == CHANNEL) != (channels is not None):
        raise ConfigurationError("--structure channel and --channels SHARE go together; give both or neither")
    if structure == CHANNEL and select_inputs:
        raise ConfigurationError("--select-inputs cannot be combined with --structure channel; leave one out")


def _slim(finished: "FinishedRound", shrunk: "Shrunk", inputs: "Call", share: float, out: Path | None) -> None:
    """Removes channels as well, and says what that costs on validation."""
    from gossamer.shrink import load_shrunk, remove_channels, save_shrunk
    from gossamer.tasks import evaluate

    slimmed = remove_channels(shrunk, inputs, share)
    smaller = slimmed.model
    if out is not None:
        source = f"{finished.folder.name}, round {finished.record.round}, {slimmed.removed} channels removed"
        save_shrunk(out, slimmed, source=source)
        smaller = load_shrunk(out, finished.task.model())
    validation, metric = finished.validation, finished.task.metric
    before, after = (evaluate(model, validation, metric) for model in (finished.model, smaller))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("channels", no_wrap=True)
    for layer in slimmed.layers:
        table.add_row(layer.name, _change(layer.before, layer.after))
    terminal = console()
    terminal.print(table)
    lines = [
        f"round {finished.record.round} of {finished.folder}: {shrunk.units_removed:,} units removed exactly, then "
        f"{slimmed.removed:,} of {sum(layer.before for layer in slimmed.layers):,} channels by their norm",
        f"parameters {shrunk.parameters_before:,} -> {slimmed.parameters_before:,} -> {slimmed.parameters:,}",
        f"on {len(validation):,} validation examples: {metric.name} {value_text(metric.name, before)} -> "
        f"{value_text(metric.name, after)}, without any retraining",
    ]
    if slimmed.untouched:
        lines.append("channels that had to stay: " + ", ".join(slimmed.untouched))
    if out is not None:
        lines.append(_written(out))
    for line in lines:
        terminal.print(line)


def _written(out: Path) -> str:
    return (
        f"written to {out} ({out.stat().st_size:,} bytes); it comes back with "
        f"gossamer.shrink.load_shrunk({str(out)!r}, model), model as it was before pruning"
    )


def _table(shrunk: "Shrunk") -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("layer", overflow="fold")
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


def _summary(finished: "FinishedRound", shrunk: "Shrunk", agreement: "OutputsCompared") -> list[str]:
    metric = finished.task.metric.name
    lines = [
        f"round {finished.record.round} of {finished.folder}: {shrunk.units_removed:,} of "
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
