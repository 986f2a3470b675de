"""`gossamer bench`: the measurements behind the claims, to be repeated on any machine."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from gossamer.cli.bench_tables import engine_lines, engine_table, forms_lines, forms_table, layer_table
from gossamer.cli.console import console
from gossamer.cli.export import with_export_packages
from gossamer.cli.outputs import output
from gossamer.cli.repeated import DataFolder, Device, OwnTask
from gossamer.cli.sizes import Size, sizes_of

if TYPE_CHECKING:
    import onnx


class _ModelByDefault(TyperGroup):
    """`gossamer bench FILE` is short for `gossamer bench model FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # The context is click's own or, in newer versions of typer, that of its copy of click.
        if args and args[0] not in self.commands and not {*args} & {*ctx.help_option_names}:
            args = ["model", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(
    cls=_ModelByDefault,
    help="Measure networks and what the documentation claims, on this machine.\n\n"
    "gossamer bench model.onnx (short for: gossamer bench model model.onnx) times a network on several engines in "
    "turn; gossamer bench shapes resnet-50 does so with random weights.",
    no_args_is_help=True,
)

Json = Annotated[Path | None, typer.Option("--json", callback=output, help="Write everything measured to this file.")]
Runs = Annotated[int, typer.Option(help="Measured runs; medians are shown.", min=1)]

Threads = Annotated[int, typer.Option(help="Threads of each engine.", min=1)]
Against = Annotated[
    str,
    typer.Option(
        help="Engines to compare with, separated by commas: gossamer-int8, dense, int8, int8-qoperator (ONNX Runtime), "
        "deepsparse, deepsparse-int8, openvino, openvino-bf16, ncnn, litert, litert-int8. deepsparse, ncnn and litert "
        "get environments of their own, made when they are asked for first."
    ),
]
Turns = Annotated[int, typer.Option(help="Timed runs of each engine.", min=1)]
Layers = Annotated[bool, typer.Option("--layers", help="Also the time of every layer.")]


@bench.command()
def model(
    file: Annotated[Path, typer.Argument(help="An ONNX file: exported by gossamer, or plain with zeros in it.")],
    threads: Threads = 1,
    against: Against = "dense,int8",
    runs: Turns = 25,
    layers: Layers = False,
    size: Size = None,
    json_file: Json = None,
) -> None:
    """A network on gossamer against other engines, which take turns, at batch size 1 and on random inputs."""
    with_export_packages()
    from gossamer.graph.axes import sizes_text
    from gossamer.graph.reading import read_onnx

    if not file.exists() and not file.suffix:
        raise typer.BadParameter(f"{str(file)!r} is neither a file nor one of {', '.join(COMMANDS)}")
    sizes = sizes_of(size)
    what = f"{file} ({sizes_text(sizes)})" if sizes else str(file)
    _compare(read_onnx(file), what, threads, against, runs, layers, json_file, sizes)


@bench.command()
def shapes(
    network: Annotated[
        str,
        typer.Argument(help="resnet-50, mobilenet-v1, vgg-16, resnet-20, bert-base-block, or a file of layers."),
    ],
    density: Annotated[float, typer.Option(help="Share of the weights that are not zero.", min=0.0, max=1.0)] = 0.1,
    threads: Threads = 1,
    against: Against = "dense,int8",
    runs: Turns = 25,
    layers: Layers = False,
    seed: Annotated[int, typer.Option(help="Of the weights and zeros.")] = 0,
    structure: Annotated[
        str, typer.Option(help="Of the zeros: unstructured, or 1x4 (blocks of four input channels).")
    ] = "unstructured",
    json_file: Json = None,
) -> None:
    """A whole network with random weights and zeros on gossamer against other engines: needs no training."""
    with_export_packages()
    from gossamer.bench.network import build, find_network

    built = build(find_network(network), density, seed, structure)
    what = f"{network} at {1 - density:.4g} zeros" + ("" if structure == "unstructured" else f" ({structure})")
    _compare(built, what, threads, against, runs, layers, json_file)


@bench.command()
def calibrate(
    threads: Threads = 1,
    runs: Annotated[
        int, typer.Option(help="Of each of the small networks in every round; more are steadier.", min=3)
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", callback=output, help="The file; by default in the user's cache folder."),
    ] = None,
) -> None:
    """Measure this machine, in about five minutes, for `gossamer predict` and `gossamer export --calibration`.

    It replaces what was measured.
    """
    with_export_packages()
    from gossamer.predict.calibrate import calibrate as measure
    from gossamer.predict.calibration import default_path, write_calibration

    path = out or default_path(threads)
    with console().status("calibrating") as status:
        found = measure(threads, runs, lambda text: status.update(f"calibrating: {text}"))
    write_calibration(path, found)
    lines = [f"{len(found.prices)} kinds of layers and ops measured; written to {path}"]
    if found.deviation is not None:
        lines.append(
            f"the prices explain the measured networks within {found.deviation.median:.1%} (median) and "
            f"{found.deviation.largest:.1%} (largest: {found.deviation.network})"
        )
    _print_lines([*lines, *filter(None, [found.warning])])


@bench.command()
def predictions(
    threads: Annotated[int | None, typer.Option(help="Threads of the calibration; 1 by default.", min=1)] = None,
    runs: Turns = 25,
    calibration: Annotated[Path | None, typer.Option(help="Of `gossamer bench calibrate`.")] = None,
    json_file: Json = None,
) -> None:
    """What `gossamer predict` expects of the networks of `gossamer bench shapes`, and what they take."""
    with_export_packages()
    from gossamer.predict.calibration import find_calibration
    from gossamer.predict.predictions import ROUNDS, run

    prices = find_calibration(calibration, threads)
    with _progress() as progress:
        result = run(prices, runs, progress)
    lines = [*filter(None, [prices.warning])]
    lines += [
        f"medians of {runs} runs, the shortest of {ROUNDS} rounds, ms "
        f"({result['machine']['processor']}, {result['threads']} threads)"
    ]
    for row in result["networks"]:
        lines.append(
            f"{row['network']:<16}{row['zeros']:>5.0%} zeros   {row['values']}   expected {row['expected']:8.3f}   "
            f"took {row['milliseconds']:8.3f}   {row['error']:+.1%}"
            f"      dense: expected {row['dense_expected']:8.3f}   took {row['dense_milliseconds']:8.3f}   "
            f"{row['dense_error']:+.1%}"
        )
    _report(lines, result, json_file)


@bench.command()
def forms(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs of one task.")],
    rounds: Annotated[
        str, typer.Option(help="Beside the dense one: recommended, all, or numbers separated by commas.")
    ] = "recommended",
    max_drop: Annotated[
        float | None, typer.Option(help="The allowed loss, such as 0.01: recommends a round, and a network to ship.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each network; 1 by default.", min=1)] = None,
    turns: Annotated[int, typer.Option("--runs", help="Timed runs of each network.", min=1)] = 25,
    predicted: Annotated[
        bool, typer.Option("--predicted", help="Predict the times from a calibration instead of measuring them.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Predict from this file of `gossamer bench calibrate`.")
    ] = None,
    data: DataFolder = None,
    task: OwnTask = None,
    json_file: Json = None,
) -> None:
    """Which form to ship: networks of runs, dense and sparse, in fp32 and int8, by metric, milliseconds and bytes."""
    with_export_packages()
    from gossamer.choice.find import find_choices
    from gossamer.choice.written import Asked, rounds_of
    from gossamer.predict.calibration import find_calibration

    prices = find_calibration(calibration, threads) if predicted or calibration is not None else None
    asked = Asked(tuple(runs), rounds_of(rounds), data, task, max_drop)
    with _progress() as progress:
        found = find_choices(asked, threads=threads or 1, runs=turns, calibration=prices, progress=progress)
    _print_lines([f"{found.what}: {found.where}"])
    terminal = console()
    terminal.print(forms_table(found, terminal.width))
    _print_lines(forms_lines(found, max_drop))
    if json_file is not None:
        found.written(json_file)
        terminal.print(f"written to {json_file}; gossamer report RUN... --forms {json_file} draws it")


@bench.command()
def select(json_file: Json = None, runs: Runs = 5, device: Device = "cpu") -> None:
    """Global selection on ResNet-50's 25.5 M weights against torch.nn.utils.prune.global_unstructured."""
    from gossamer.bench import select as bench_select

    with _progress():
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
    """A training step of ResNet-20 with masks attached against the same step without (batch 128, CIFAR-10's shape)."""
    from gossamer.bench import enforce as bench_enforce

    with _progress():
        result = bench_enforce.run(runs)
    lines = [
        f"ResNet-20, batches of 128, {runs} steps in turn, medians ({result['machine']['processor']})",
        f"without masks  {result['plain_seconds'] * 1000:.1f} ms a step",
        f"with masks     {result['masked_seconds'] * 1000:.1f} ms a step",
        f"overhead       {result['overhead']:+.2%}  (the hooks alone: {result['hooks_share']:.2%} of a step)",
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

    with _progress():
        result = bench_train.run(task, data, passes=runs, steps=steps, device=device)
    step = result["step_seconds"]
    lines = [
        f"{result['what']}, {result['precision']}, {runs} runs of {result['steps']} steps "
        f"({result['machine']['processor']}, {result['threads']} threads, {device})",
        f"a step    {step['median'] * 1000:.1f} ms ({step['min'] * 1000:.1f} to {step['max'] * 1000:.1f})",
        f"an epoch  {result['epoch_seconds']:.1f} s ({result['epoch_steps']} steps)",
    ]
    _report(lines, result, json_file)


COMMANDS = tuple(sorted(command.callback.__name__ for command in bench.registered_commands if command.callback))


def _compare(
    network: "onnx.ModelProto",
    what: str,
    threads: int,
    against: str,
    runs: int,
    layers: bool,
    json_file: Path | None,
    sizes: Mapping[str, int] | None = None,
) -> None:
    from gossamer.bench.compare import compare
    from gossamer.bench.engines import engine_names

    names = engine_names(against)
    with _progress() as progress:
        found = compare(network, names, threads=threads, runs=runs, layers=layers, sizes=sizes, progress=progress)
    result = {"what": what, **found}
    head, *lines = engine_lines(result)
    terminal = console()
    _print_lines([head])
    terminal.print(engine_table(result, terminal.width))
    if layers:
        terminal.print(layer_table(result, terminal.width))
    _report(lines, result, json_file)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows what is being measured, on a terminal. It is drawn once a second, so that it disturbs nothing."""
    with console().status("measuring", refresh_per_second=1) as status:
        yield lambda text: status.update(Text(f"measuring: {text}"))


def _extra(result: dict[str, Any], key: str) -> str:
    return f"  {result[key]:8.1f} MiB beyond the masks" if key in result else ""


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        console().print(line)


def _report(lines: list[str], result: dict[str, Any], json_file: Path | None) -> None:
    _print_lines(lines)
    if json_file is not None:
        from gossamer.storage.files import write_text

        write_text(json_file, json.dumps(result, indent=2) + "\n")
        console().print(f"written to {json_file}")
