"""Quantised networks that gossamer did not write: pruned by this script, rewritten to sparse int8 ops by the command,
compared with ONNX Runtime and timed.

Command: python benchmarks/quantised_networks.py [NETWORK ...] > docs/results/quantised-networks.jsonl
n: 40 to 301 runs of each network, ONNX Runtime's and gossamer's in turn
Hardware: one thread of 2 cores of AMD Zen 5 (EPYC, family 26), quiet
Date: 2026-11-28

One network comes quantised in its package (QDQ, weights of each channel, by ONNX Runtime's quantize_static): its int8
weights are pruned as they are, each layer to its largest tenth. No package was found that has one as QOperator, so the
others are public networks in fp32, pruned and then quantised here by the tools named: ONNX Runtime's quantize_static as
QOperator, NNCF, and torchao (PT2E) through torch.onnx. Nothing is retrained, so what they answer means little; what
is compared is the same int8 file before and after it was rewritten.

Needs what public_networks.py needs, and the packages nncf (3.4.0) and torchao (0.18.0) for theirs.
"""

import json
import lzma
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static
from public_networks import KEPT, NETWORKS, Feed, Network, compared, exported, fetched, image, pruned
from safetensors.torch import load

from gossamer import keep_largest
from gossamer.tasks.cifar_resnet import CifarResNet

CALIBRATED_ON = 16
"""Inputs that ranges come from."""
RESULTS = Path(__file__).parent.parent / "docs" / "results"
SMART_TURN = Network(
    "pipecat-ai==1.14.0",
    "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
    image("input_features", 1, 80, 800),
)
RESNET_INPUT = image("input", 1, 3, 32, 32)


@dataclass(frozen=True)
class Quantised:
    """How a network becomes an int8 file with zeros in its weights."""

    by: str
    """Who quantised it, and in which form."""
    source: str
    inputs: Callable[[np.random.Generator], Feed]
    write: Callable[[Path, Path, list[Feed]], int]
    """(folder for what is needed on the way, the file to write, inputs for ranges) -> how many weights there are."""


def as_shipped(folder: Path, file: Path, feeds: list[Feed]) -> int:
    """The int8 weights of a QDQ file, each pruned to the largest tenth of what they stand for."""
    model = onnx.load(fetched(SMART_TURN, folder))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    total = 0
    for node in model.graph.node:
        read = makers.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if read is None or read.input[0] not in tensors:
            continue
        numbers, scales = (numpy_helper.to_array(tensors[name]) for name in read.input[:2])
        axis = next((attribute.i for attribute in read.attribute if attribute.name == "axis"), 1)
        along = [-1 if other == axis % numbers.ndim else 1 for other in range(numbers.ndim)]
        weight = torch.from_numpy(numbers * scales.reshape(along))
        mask = keep_largest({"": weight}, round(KEPT * weight.numel()))[""]
        tensors[read.input[0]].CopyFrom(numpy_helper.from_array(numbers * mask.numpy(), read.input[0]))
        total += weight.numel()
    onnx.save(model, file)
    return total


class Inputs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: list[Feed]) -> None:
        self._left: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._left, None)


def as_operators(name: str) -> Callable[[Path, Path, list[Feed]], int]:
    def write(folder: Path, file: Path, feeds: list[Feed]) -> int:
        model, total = pruned(onnx.load(fetched(NETWORKS[name], folder)), "layer")
        given, prepared = folder / "given.onnx", folder / "prepared.onnx"
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            file,
            Inputs(feeds),
            quant_format=QuantFormat.QOperator,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return total

    return write


def by_nncf(name: str) -> Callable[[Path, Path, list[Feed]], int]:
    def write(folder: Path, file: Path, feeds: list[Feed]) -> int:
        import nncf

        model, total = pruned(onnx.load(fetched(NETWORKS[name], folder)), "layer")
        with redirect_stdout(sys.stderr):
            onnx.save(nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds)), file)
        return total

    return write


def by_torchao(folder: Path, file: Path, feeds: list[Feed]) -> int:
    """The ResNet-20 with 10.7% of its weights that is among the results."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    weights = load(lzma.decompress((RESULTS / "resnet-20-10.7-percent.safetensors.xz").read_bytes()))
    network = CifarResNet(depth=20)
    network.load_state_dict(weights)
    inputs = [torch.from_numpy(np.asarray(feed["input"])) for feed in feeds]
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    observed = prepare_pt2e(torch.export.export(network.eval(), (inputs[0],)).module(), quantizer)
    for values in inputs:
        observed(values)
    program = torch.onnx.export(convert_pt2e(observed), (inputs[0],), dynamo=True, input_names=["input"], verbose=False)
    assert program is not None
    program.save(str(file))
    return sum(weight.numel() for weight in weights.values() if weight.dim() > 1)


QUANTISED = {
    "smart-turn": Quantised("as shipped: QDQ", SMART_TURN.package, SMART_TURN.inputs, as_shipped),
    "nudenet": Quantised(
        "here: ONNX Runtime, QOperator",
        NETWORKS["nudenet"].package,
        NETWORKS["nudenet"].inputs,
        as_operators("nudenet"),
    ),
    "ddddocr det": Quantised(
        "here: ONNX Runtime, QOperator",
        NETWORKS["ddddocr det"].package,
        NETWORKS["ddddocr det"].inputs,
        as_operators("ddddocr det"),
    ),
    "swift_f0": Quantised(
        "here: NNCF, QDQ", NETWORKS["swift_f0"].package, NETWORKS["swift_f0"].inputs, by_nncf("swift_f0")
    ),
    "resnet-20": Quantised("here: torchao, QDQ", "docs/results", RESNET_INPUT, by_torchao),
}
SAME = re.compile(r"of what quantised ops make, ([\d.]+)% are the same bytes")
RUN_SPARSE = re.compile(r"(\d+) of (\d+) layers run sparse")


def measured(name: str, network: Quantised, folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    dense, sparse = folder / "quantised.onnx", folder / "sparse.onnx"
    total = network.write(folder, dense, [network.inputs(rng) for _ in range(CALIBRATED_ON)])
    feeds = [network.inputs(rng) for _ in range(4)]
    sparse.unlink(missing_ok=True)
    code, printed = exported(dense, sparse, feeds[0])
    row: dict[str, Any] = {"network": name, "from": network.source, "quantised": network.by, "weights": total}
    if code != 0:
        return row | {"export": code, "printed": printed.strip().splitlines()[-12:]}
    same, run = SAME.search(printed), RUN_SPARSE.search(printed)
    return row | {
        "export": code,
        "sparse layers": [int(number) for number in run.groups()] if run else None,
        "equal bytes, %": float(same.group(1)) if same else None,
        "left": [line for line in printed.splitlines() if line.startswith("left as they are")],
        **compared(dense, sparse, feeds),
    }


def table(lines: list[dict[str, Any]]) -> str:
    columns = "network|quantised|weights|sparse layers|equal bytes|ONNX Runtime|gossamer|speed|file|outputs differ by"
    rows = [columns.split("|"), ["---"] * (columns.count("|") + 1)]
    for line in lines:
        run, low_high = line["sparse layers"], line["speed quartiles"]
        rows.append(
            [
                line["network"],
                line["quantised"],
                f"{line['weights']:,}",
                f"{run[0]} of {run[1]}",
                f"{line['equal bytes, %']:.3f}%",
                f"{line['dense ms']:.3g} ms",
                f"{line['sparse ms']:.3g} ms",
                f"{line['speed']:.2f} ({low_high[0]:.2f} to {low_high[1]:.2f})",
                f"{line['dense bytes'] / line['sparse bytes']:.2f}x smaller",
                f"{line['difference']:.1g} of {line['largest output']:.2g}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names or QUANTISED:
            print(json.dumps(measured(name, QUANTISED[name], Path(folder))), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["table"]:
        print(table([json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]))
    else:
        main(sys.argv[1:])
