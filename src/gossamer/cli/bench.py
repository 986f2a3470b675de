"""`gossamer bench`: the measurements behind the claims, to be repeated on any machine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gossamer.cli.console import console

bench = typer.Typer(help="Measure, on this machine, what the documentation claims.", no_args_is_help=True)

Json = Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")]
Runs = Annotated[int, typer.Option(help="Measured runs; medians are shown.", min=1)]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


@bench.command()
def select(json_file: Json = None, runs: Runs = 5, device: Device = "cpu") -> None:
    """Global selection on ResNet-50's 25.5 M weights against torch.nn.utils.prune.global_unstructured."""
    from gossamer.bench import select as bench_select

    result = bench_select.run(runs, device)
    lines = [
        f"{result['weights']:,} weights, {runs} runs in turn, medians ({result['machine']['processor']}, {device})",
        f"gossamer  {result['seconds']:.3f} s" + _extra(result, "extra_mib"),
        f"torch     {result['torch_seconds']:.3f} s" + _extra(result, "torch_extra_mib"),
        f"gossamer is {result['speedup']:.1f} times faster",
        *(f"  {name:<26}{seconds:.3f} s" for name, seconds in result["seconds_by_type"].items()),
    ]
    _report(lines, result, json_file)


@bench.command()
def enforce(json_file: Json = None, runs: Runs = 30) -> None:
    """A training step of ResNet-20 with masks held against the same step without (batch 128, CIFAR-10's shape)."""
    from gossamer.bench import enforce as bench_enforce

    result = bench_enforce.run(runs)
    lines = [
        f"ResNet-20, batches of 128, {runs} steps in turn, medians ({result['machine']['processor']})",
        f"without masks  {result['plain_seconds'] * 1000:.1f} ms a step",
        f"with masks     {result['held_seconds'] * 1000:.1f} ms a step",
        f"overhead       {result['overhead']:+.2%}  (the holding alone: {result['holding_share']:.2%} of a step)",
    ]
    _report(lines, result, json_file)


@bench.command()
def train(
    task: Annotated[str, typer.Argument(help="A built-in task.")] = "resnet-20",
    data: Annotated[Path | None, typer.Option(help="The task's data; noise of their shape without.")] = None,
    json_file: Json = None,
    runs: Runs = 5,
    steps: Annotated[int, typer.Option(help="Training steps a run; 0 for a whole epoch.", min=0)] = 40,
    device: Device = "cpu",
) -> None:
    """A training step of a built-in task, data order and augmentation included."""
    from gossamer.bench import train as bench_train

    result = bench_train.run(task, data, passes=runs, steps=steps, device=device)
    step = result["step_seconds"]
    lines = [
        f"{result['what']}, {result['precision']}, {runs} runs of {result['steps']} steps "
        f"({result['machine']['processor']}, {result['threads']} threads, {device})",
        f"a step    {step['median'] * 1000:.1f} ms ({step['min'] * 1000:.1f} to {step['max'] * 1000:.1f})",
        f"an epoch  {result['epoch_seconds']:.1f} s ({result['epoch_steps']} steps)",
    ]
    _report(lines, result, json_file)


def _extra(result: dict[str, Any], key: str) -> str:
    return f"  {result[key]:8.1f} MiB beyond the masks" if key in result else ""


def _report(lines: list[str], result: dict[str, Any], json_file: Path | None) -> None:
    for line in lines:
        console().print(line, highlight=False)
    if json_file is not None:
        from gossamer.rounds.files import write_text

        write_text(json_file, json.dumps(result, indent=2) + "\n")
        console().print(f"written to {json_file}", highlight=False)
