"""`gossamer predict`: will it be faster here?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gossamer.cli.console import console
from gossamer.cli.export import with_export_packages
from gossamer.cli.fitted import Column, fitted
from gossamer.cli.outputs import output
from gossamer.cli.prices import Device, prices_of
from gossamer.cli.repeated import DataFolder, OwnTask
from gossamer.cli.sizes import Size, sizes_of
from gossamer.errors import ConfigurationError

if TYPE_CHECKING:
    from gossamer.predict.calibration import Calibration
    from gossamer.predict.network import Prediction


def predict(
    source: Annotated[
        str,
        typer.Argument(
            help="A run's folder, an .onnx file that holds zeros, path/file.py:function, a task, or one of the "
            "networks of `gossamer bench shapes`."
        ),
    ],
    round: Annotated[
        int | None, typer.Option(help="Which round of a run; the recommended one by default, -1 is the last.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the calibration; 1 by default.", min=1)] = None,
    density: Annotated[
        float | None, typer.Option(help="Only for a network of `gossamer bench shapes`.", min=0.0, max=1.0)
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="The file of `gossamer bench calibrate`; its usual place by default.")
    ] = None,
    device: Device = None,
    size: Size = None,
    data: DataFolder = None,
    task: OwnTask = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=output, help="Write everything to this file.")
    ] = None,
) -> None:
    """How long each layer would take on this machine, dense and sparse, and the whole network, before exporting it."""
    with_export_packages()
    from gossamer.predict.calibration import find_calibration
    from gossamer.predict.network import predict as predict_network

    given = None if device is None else prices_of(calibration, device)

    terminal = console()
    sizes = sizes_of(size)
    with terminal.status("reading the network"):
        network = _network(source, round, density, data, task)
        prices = given or find_calibration(calibration, threads)
        prediction = predict_network(network, prices, sizes)
        forms = {} if device is None else _forms(network, prices, sizes)
    terminal.print(_table(prediction, terminal.width))
    for line in _summary(prediction, prices):
        terminal.print(line)
    for name, seconds in forms.items():
        terminal.print(f"{name}: {1e3 * seconds:.2f} ms")
    if json_file is not None:
        from gossamer.storage.files import write_text

        write_text(json_file, json.dumps(facts(prediction, prices, sizes, forms), indent=2) + "\n")
        console().print(f"written to {json_file}")


def _network(source: str, round: int | None, density: float | None, data: Path | None, task: str | None) -> Any:
    from gossamer.bench.network import build, find_network, known_networks

    if density is not None:
        return build(find_network(source), density)
    if Path(source).suffix.lower() == ".onnx":
        from gossamer.export.dense import is_exported, to_dense
        from gossamer.graph.reading import read_onnx

        model = read_onnx(Path(source))
        return to_dense(model) if is_exported(model) else model
    from gossamer.export.source import open_source
    from gossamer.tasks.built_in import BUILT_IN

    if source in known_networks() and source not in BUILT_IN and not Path(source).exists():
        raise ConfigurationError(
            f"{source!r} is nothing to export, but a network of `gossamer bench shapes` with random weights; say which "
            f"share of them is kept, such as --density 0.1"
        )
    return open_source(source, round_number=round, data_folder=data, task=task).dense


def _forms(network: Any, prices: "Calibration", sizes: Mapping[str, int]) -> dict[str, float]:
    """Name of a form -> its seconds, of a network of floats; nothing of one that is quantised already."""
    import numpy as np

    from gossamer.export.quantisable import is_quantised
    from gossamer.export.quantise import quantised_by_minmax
    from gossamer.graph.axes import with_sizes
    from gossamer.graph.inputs import random_inputs
    from gossamer.predict.forms import expected_forms
    from gossamer.predict.network import predict as predict_network

    if is_quantised(network):
        return {}
    fixed = with_sizes(network, sizes)
    inputs = {name: value for name, value in random_inputs(fixed).items() if isinstance(value, np.ndarray)}
    quantised = quantised_by_minmax(fixed, [inputs])
    forms = expected_forms(fixed, quantised, prices)
    in_half = {}
    if prices.prices_half:
        in_half = {"sparse fp16": predict_network(fixed, prices, half_arithmetic=True).expected}
    return {
        "dense fp32": forms.dense_fp32,
        "sparse fp32": forms.sparse_fp32,
        **in_half,
        "dense int8": forms.dense_int8,
        "sparse int8": forms.sparse_int8,
        "sparse int8, were its zeros in blocks of 1x4": predict_network(quantised, prices, blocks=True).expected,
    }


def facts(
    prediction: "Prediction",
    calibration: "Calibration",
    sizes: Mapping[str, int],
    forms: Mapping[str, float],
) -> dict[str, Any]:
    """Everything expected, in milliseconds.

    Args:
        forms: name -> seconds, of the network in other forms.
    """
    return {
        "threads": calibration.threads,
        "sizes": dict(sizes),
        "machine": dict(calibration.machine),
        "milliseconds": 1e3 * prediction.expected,
        "dense_milliseconds": 1e3 * prediction.dense,
        "conversions_milliseconds": 1e3 * prediction.conversions,
        "other_milliseconds": 1e3 * prediction.other,
        "guessed": list(prediction.guessed),
        "modelled": calibration.modelled,
        "forms_milliseconds": {name: 1e3 * seconds for name, seconds in forms.items()},
        "layers": [
            {
                "name": layer.name,
                "shape": layer.shape.text,
                "density": layer.density,
                "dense_milliseconds": 1e3 * layer.dense,
                "sparse_milliseconds": 1e3 * layer.sparse,
                "break_even_density": layer.break_even,
                "runs": layer.form,
            }
            for layer in prediction.layers
        ],
    }


def _table(prediction: "Prediction", width: int) -> Table:
    columns = [
        Column("layer", words=True),
        Column("shape", words=True, spare=True),
        *map(Column, ("kept", "dense ms", "sparse ms", "wins below", "runs")),
    ]
    rows = [
        (
            layer.name,
            layer.shape.text,
            f"{layer.density:.1%}",
            f"{1e3 * layer.dense:.3f}",
            f"{1e3 * layer.sparse:.3f}",
            f"{layer.break_even:.0%}",
            layer.form,
        )
        for layer in prediction.layers
    ]
    return fitted(columns, rows, width)


def _summary(prediction: "Prediction", calibration: "Calibration") -> list[str]:
    threads = f"{calibration.threads} thread{'s' if calibration.threads > 1 else ''}"
    return [
        f"expected: {1e3 * prediction.expected:.2f} ms, dense {1e3 * prediction.dense:.2f} ms "
        f"({prediction.dense / prediction.expected:.2f} times faster), one input, {threads}",
        f"of it {1e3 * prediction.conversions:.2f} ms for changes of layout, {1e3 * prediction.other:.2f} ms for what "
        f"is no layer",
        *(
            [f"guessed, because the calibration has no price of them: {', '.join(prediction.guessed)}"]
            if prediction.guessed
            else []
        ),
        f"by the calibration of {calibration.machine.get('processor', 'an unknown processor')}"
        + ("" if calibration.modelled is None else f": modelled, not measured ({calibration.modelled})"),
        *filter(None, [calibration.warning]),
    ]
