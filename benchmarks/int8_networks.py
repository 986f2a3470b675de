"""Whole networks in every form that could be shipped: is int8, as exported, ever slower than ONNX Runtime's own forms?

Command: taskset -c 0 python benchmarks/int8_networks.py [NETWORK ...] > docs/results/int8-networks.jsonl
n: all forms in turn for SECONDS, 15 turns at least
Hardware: one thread of 2 cores of AMD Zen 5 (quiet)
Date: 2026-11-28

Needs torchvision beside gossamer's own packages. Weights are random, of every layer the smallest are zero, but for
first and depthwise layers; ranges are those of random inputs. What runs sparse is chosen by the prices that come with
gossamer. A line of JSON for each network and share of zeros; `table FILE` makes the table of docs/results.md.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gossamer_runtime
import numpy as np
import onnx
import torch
from torch import nn

from gossamer.bench.engines import BothForms
from gossamer.bench.engines.quantised import quantised
from gossamer.bench.measure import machine
from gossamer.bench.network import build, find_network
from gossamer.export.from_torch import to_onnx
from gossamer.export.rounded_once import written_rounding_once
from gossamer.export.written import as_written
from gossamer.graph.axes import with_sizes
from gossamer.graph.inputs import random_inputs
from gossamer.predict.forms import expected_forms
from gossamer.tasks.built_in import BUILT_IN

DENSITIES = (0.2, 0.1)
SECONDS, TURNS = 3.0, 15
FEW_CHANNELS = 4
TORCHVISION_OPS = ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
DENSE = ("dense fp32", "QDQ", "QOperator", "exported dense int8")
"""The forms that ONNX Runtime runs by itself."""


@cache
def torchvision_models() -> ModuleType:
    # A wheel for another build of torch lacks its own ops; classifiers need none of them.
    for op in TORCHVISION_OPS:
        if not hasattr(torch.ops.torchvision, op):
            torch.library.define(f"torchvision::{op}", "(Tensor x) -> Tensor")
    return import_module("torchvision.models")


def of_torchvision(name: str) -> Callable[[float], onnx.ModelProto]:
    def make(density: float) -> onnx.ModelProto:
        return traced(getattr(torchvision_models(), name)(weights=None), (1, 3, 224, 224), density)

    return make


def of_task(name: str, *shape: int) -> Callable[[float], onnx.ModelProto]:
    def make(density: float) -> onnx.ModelProto:
        return traced(import_module(BUILT_IN[name].module).TASK.model(), shape, density)

    return make


def of_shapes(name: str) -> Callable[[float], onnx.ModelProto]:
    return lambda density: build(find_network(name), density)


def tiny(density: float) -> onnx.ModelProto:
    layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    return traced(layers, (1, 16), density)


def traced(model: nn.Module, shape: tuple[int, ...], density: float) -> onnx.ModelProto:
    """The network with zeros, and statistics that keep activations in range, as ONNX."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, nn.Conv2d | nn.Linear):
                prune(module, density)
    return with_sizes(to_onnx(model.eval(), [torch.randn(*shape)]).model)


def prune(module: nn.Conv2d | nn.Linear, density: float) -> None:
    if isinstance(module, nn.Conv2d) and (module.groups > 1 or module.in_channels <= FEW_CHANNELS):
        return
    weight = module.weight
    kept = max(1, round(density * weight.numel()))
    weight.mul_(weight.abs() >= weight.abs().flatten().kthvalue(weight.numel() - kept + 1).values)


NETWORKS: Mapping[str, Callable[[float], onnx.ModelProto]] = {
    "tiny-mlp": tiny,
    "digits": of_task("digits", 1, 1, 8, 8),
    "lenet-300-100": of_task("lenet-300-100", 1, 1, 28, 28),
    "lenet-5": of_task("lenet-5", 1, 1, 28, 28),
    "resnet-20": of_task("resnet-20", 1, 3, 32, 32),
    "mobilenet-v1": of_shapes("mobilenet-v1"),
    "bert-base-block": of_shapes("bert-base-block"),
    "resnet-50": of_shapes("resnet-50"),
    **{
        name: of_torchvision(name)
        for name in (
            *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0"),
            *("resnet18", "shufflenet_v2_x1_0", "squeezenet1_1"),
        )
    },
}


def measured(name: str, density: float, folder: Path) -> dict[str, Any]:
    """Milliseconds of each form, medians, and what was expected."""
    model = NETWORKS[name](density)
    sparse = as_written(model).model
    subject = BothForms(model, sparse, random_inputs(model), 1, folder)
    exported = onnx.load(quantised(subject, "export"))
    ours = written_rounding_once(exported)[1]
    files = {
        "dense fp32": folder / "dense.onnx",
        "gossamer fp32": folder / "sparse.onnx",
        "gossamer int8": folder / "b",
    }
    for path, content in zip(files.values(), (model, sparse, ours.model), strict=True):
        onnx.save(content, path)
    for form, kind in (("QDQ", "qdq"), ("QOperator", "qoperator"), ("exported dense int8", "export")):
        files[form] = quantised(subject, kind)
    runs = {form: gossamer_runtime.Session(str(path), threads=1).run for form, path in files.items()}
    times: dict[str, list[float]] = {form: [] for form in runs}
    ends = time.perf_counter() + SECONDS
    while time.perf_counter() < ends or len(times["QDQ"]) < TURNS:
        for form, run in runs.items():
            run(None, subject.inputs)
            started = time.perf_counter()
            run(None, subject.inputs)
            times[form].append(1e3 * (time.perf_counter() - started))
    medians = {form: statistics.median(values) for form, values in times.items()}
    expected = expected_forms(model, exported)
    return {
        "network": name,
        "zeros": 1 - density,
        "turns": len(times["QDQ"]),
        "milliseconds": medians,
        "ratio": min(medians[form] for form in DENSE) / medians["gossamer int8"],
        "ratio_of_better": min(medians[form] for form in DENSE)
        / min(medians["gossamer int8"], medians["gossamer fp32"]),
        "expected": {
            "dense fp32": 1e3 * expected.dense_fp32,
            "dense int8": 1e3 * expected.dense_int8,
            "gossamer fp32": 1e3 * expected.sparse_fp32,
            "gossamer int8": 1e3 * expected.sparse_int8,
        },
        "fp32_named": expected.fp32_is_faster(dense=False),
        "sparse_layers": sum(layer.form == "sparse" for layer in ours.layers),
        "layers": len(ours.layers),
        "machine": machine(),
    }


def table(path: Path) -> Iterator[str]:
    """The table of docs/results.md."""
    yield "| network | zeros | fp32 | int8, fastest form | gossamer fp32 | gossamer int8 | over the faster | expected |"
    yield "|---|---|---|---|---|---|---|---|"
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        took = row["milliseconds"]
        times = (took["dense fp32"], min(took[f] for f in DENSE[1:]), took["gossamer fp32"], took["gossamer int8"])
        cells = " | ".join(f"{value:.3g}" if value < 10 else f"{value:.1f}" for value in times)
        named = "fp32" if row["fp32_named"] else "int8"
        yield f"| {row['network']} | {row['zeros']:.0%} | {cells} | {row['ratio']:.2f} | {named} |"


def main() -> None:
    if sys.argv[1:2] == ["table"]:
        print("\n".join(table(Path(sys.argv[2]))))
        return
    names = sys.argv[1:] or [*NETWORKS]
    for name in names:
        for density in DENSITIES:
            np.random.seed(0)
            with tempfile.TemporaryDirectory(prefix="gossamer-int8-networks-") as folder:
                print(json.dumps(measured(name, density, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
