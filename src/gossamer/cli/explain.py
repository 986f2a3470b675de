"""`gossamer explain`: facts about what is left of a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from gossamer.cli.console import console
from gossamer.cli.outputs import output
from gossamer.cli.repeated import DataFolder, OwnTask, RoundNumber, RunFolder
from gossamer.wording import value_text

if TYPE_CHECKING:
    from gossamer.explain import Explanation
    from gossamer.explain.decision import Decision

SHOWN_CONNECTIONS = 8


def explain(
    run: RunFolder,
    round: RoundNumber = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=output, help="Write all facts to this file.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(callback=output, help="Draw to this .png file how many connections read each pixel.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Another run, to compare the tickets with (repeatable).")
    ] = None,
    example: Annotated[int, typer.Option(help="The validation example whose prediction is explained.")] = 0,
    ablation_examples: Annotated[
        int, typer.Option(help="Validation examples that the ablation is measured on; 0: no ablation.", min=0)
    ] = 1000,
    data: DataFolder = None,
    task: OwnTask = None,
) -> None:
    """Say what is left of a network: dead units, what inputs reach, paths, which connections matter, and more.

    Everything is computed on validation data; how, is said with every fact in the JSON file.
    """
    from gossamer.explain import draw_input_use, explain_round
    from gossamer.explain.picture import is_image
    from gossamer.reopen import open_round
    from gossamer.storage.files import write_text

    terminal = console()
    with terminal.status("looking at the network"):
        ticket = open_round(run, round, data_folder=data, task=task)
        facts = explain_round(
            ticket, against=tuple(against or ()), example=example, ablation_examples=ablation_examples or None
        )
    terminal.print(
        f"round {facts.round} of {run}: {ticket.record.kept:,} of {ticket.record.prunable:,} prunable weights kept",
    )
    terminal.print(_units(facts))
    for line in [*_lines(facts), *_ablation(facts), *_decision(facts.decision), *_missing(facts)]:
        terminal.print(line)
    if picture is not None:
        if facts.inputs is not None and is_image(facts.inputs):
            terminal.print(f"{picture}: {draw_input_use(facts.inputs, picture)}")
        else:
            terminal.print(f"no picture: {facts.missing.get('inputs', 'the input is no image')}")
    if json_file is not None:
        write_text(json_file, facts.to_json() + "\n")
        terminal.print(f"all facts: {json_file}")


def _units(facts: "Explanation") -> Table:
    """A row for each layer: its dead units and fans."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("layer", overflow="fold")
    for heading in ("units", "alive", "unread", "constant", "silent", "median fan-in", "median fan-out"):
        table.add_column(heading, justify="right", no_wrap=True)
    fans = {layer.layer: layer for layer in facts.fans.layers} if facts.fans is not None else {}
    for layer in facts.dead_units.layers:
        fan = fans.get(layer.layer)
        table.add_row(
            layer.layer,
            *(str(count) for count in (layer.units, layer.alive)),
            *(str(len(dead)) for dead in (layer.unread, layer.constant, layer.silent)),
            f"{fan.median_fan_in:g}" if fan else "-",
            f"{fan.median_fan_out:g}" if fan else "-",
        )
    return table


def _lines(facts: "Explanation") -> list[str]:
    dead = facts.dead_units
    lines = [
        f"density {dead.density:.2%}, without the weights of units that are cut off {dead.effective_density:.2%}, "
        f"without those of units silent on {dead.examples:,} examples {dead.effective_density_on_data:.2%}"
    ]
    if facts.inputs is not None:
        lines.append(
            f"inputs: {facts.inputs.unused:,} of {len(facts.inputs.connections):,} positions are read by nothing"
        )
    if facts.paths is not None:
        lines.append(f"paths from input to output: {_large(facts.paths.total)} of {_large(facts.paths.dense)}")
    if facts.signs is not None and facts.signs.rounds:
        latest = facts.signs.rounds[-1]
        lines.append(
            f"signs: {latest.flipped:,} of {latest.survivors:,} weights ({latest.share:.2%}) have another sign than a "
            f"round before; most in round {max(facts.signs.rounds, key=lambda flips: flips.share).round}"
        )
    for overlap in facts.overlaps:
        total = overlap.total
        lines.append(
            f"shared with round {overlap.other_round} of {overlap.other}: {total.both:,} of {total.kept:,} weights; by "
            f"chance {total.expected:,.0f} ({total.chance[0]:,.0f} to {total.chance[1]:,.0f} in 95% of cases)"
        )
    return lines


def _large(count: int) -> str:
    """A number of paths, of which only the first digits say something."""
    return f"{count:,}" if count < 10**9 else f"{count:.2e}" if count < 10**300 else f"10^{len(str(count)) - 1}"


def _ablation(facts: "Explanation") -> list[str]:
    ablation = facts.ablation
    if ablation is None or not ablation.points:
        return []
    fraction = min((point.fraction for point in ablation.points), key=lambda fraction: abs(fraction - 0.2))
    lines = [
        f"{ablation.metric} {value_text(ablation.metric, ablation.baseline)} on {ablation.examples:,} validation "
        f"examples; when {fraction:.0%} of a layer's survivors are removed:"
    ]
    for weight in dict.fromkeys(point.weight for point in ablation.points):
        texts = [
            f"the {point.which} {value_text(ablation.metric, point.metric)} ({point.interval[0]:+.3f} to "
            f"{point.interval[1]:+.3f})"
            for point in ablation.points
            if point.weight == weight and point.fraction == fraction
        ]
        lines.append(f"  {weight}: " + ", ".join(texts))
    return lines


def _decision(decision: "Decision | None") -> list[str]:
    if decision is None:
        return []
    lines = [
        f"example {decision.example} (class {decision.target}): predicted {decision.predicted}, {decision.margin:.3f} "
        f"ahead of {decision.rival}; "
        + (
            f"without the {decision.decisive} connections that speak most for it {decision.changed_to}"
            if decision.decisive is not None
            else "removing the connections that speak most for it did not change that"
        )
    ]
    for connection in decision.connections[:SHOWN_CONNECTIONS]:
        lines.append(
            f"  {connection.contribution:+.3f}  {connection.source} -> {connection.target}  "
            f"(weight {connection.value:+.3f}, {connection.weight}[{', '.join(map(str, connection.index))}])"
        )
    return lines


def _missing(facts: "Explanation") -> list[str]:
    return [f"no {name.replace('_', ' ')}: {why}" for name, why in facts.missing.items()]
