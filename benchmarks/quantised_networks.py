"""Quantised networks that gossamer did not write: pruned by this script, rewritten to sparse int8 ops by the command,
compared with ONNX Runtime and timed.

Command: python benchmarks/quantised_networks.py [NETWORK ...] > docs/results/quantised-networks.jsonl
n: 40 to 301 runs of each network, ONNX Runtime's and gossamer's in turn
Hardware: one thread of 2 cores of AMD Zen 5 (EPYC, family 26), quiet
Date: 2026-11-28

Command: python benchmarks/quantised_networks.py shipped > docs/results/quantised-networks-shipped.jsonl
n: 64 to 301 runs of each network, likewise; outputs of 16 inputs
Hardware: one thread of 2 cores of an Intel Xeon with AVX-512 VNNI and AMX (quiet)
Date: 2026-11-30

Some networks come quantised in their packages: Smart Turn and EfficientWord-Net as QDQ, by ONNX Runtime's
quantize_static; a titler of two networks (T5) as QOperator, by its quantize_dynamic. Their int8 weights are pruned as
they are, each layer to its largest tenth. No package was found that has QLinearConv, so the others are public networks
in fp32, pruned and then quantised here by the tools named: ONNX Runtime's quantize_static as QOperator, NNCF, and
torchao (PT2E) through torch.onnx. Nothing is retrained, so what they answer means little; what is compared is the same
int8 file before and after it was rewritten.

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
from public_networks import KEPT, NETWORKS, Array, Feed, Network, compared, exported, fetched, image, pruned, sound
from safetensors.torch import load

from gossamer import keep_largest
from gossamer.tasks.cifar_resnet import CifarResNet

CALIBRATED_ON, COMPARED_ON = 16, 16
"""Inputs that ranges come from, and those that outputs are compared on."""
RESULTS = Path(__file__).parent.parent / "docs" / "results"
SMART_TURN = Network(
    "pipecat-ai==1.14.0",
    "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
    image("input_features", 1, 80, 800),
)
HOTWORDS = Network(
    "efficientword-net==1.0.5",
    "eff_word_net/models/resnet_50_arc/slim_93%_accuracy_72.7390%_qint8.onnx",
    lambda rng: {"input": filterbank(sound(rng, 24000)[0])[None, None]},
)
TITLER = "traceforge-title-model==0.2.0"
TITLER_DATA = "traceforge_title_model/data/span"
PIECES = 32100
"""Of the titler's vocabulary; the first three are no text."""


def filterbank(samples: Array, filters: int = 64, size: int = 512) -> Array:
    """Logarithms of the energies in bands of the mel scale, of frames of 25 ms every 10 ms, at 16 kHz."""
    padded = np.append(samples, np.zeros(-(len(samples) - 400) % 160, samples.dtype))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    energies = np.abs(np.fft.rfft(frames, size)) ** 2 / size
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), filters + 2)
    edges = (size + 1) * 700 * (10 ** (mels / 2595) - 1) / 16000
    places = np.arange(size // 2 + 1)[:, None]
    rising, falling = (places - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - places) / np.diff(edges)[1:]
    bands = energies @ np.clip(np.minimum(rising, falling), 0, None)
    return np.asarray(np.log(np.maximum(bands, np.finfo(np.float32).eps)), np.float32)


def tokens(rng: np.random.Generator, count: int) -> Array:
    return rng.integers(3, PIECES, (1, count))


def text(rng: np.random.Generator) -> Feed:
    """What the titler's encoder reads: 128 pieces, drawn at random."""
    return {"input_ids": tokens(rng, 128), "attention_mask": np.ones((1, 128), np.int64)}


def title(rng: np.random.Generator) -> Feed:
    """What its decoder reads: the beginning of a title, and what the encoder made of 128 pieces, about as large."""
    return {
        "input_ids": tokens(rng, 16),
        "encoder_hidden_states": np.asarray(0.2 * rng.standard_normal((1, 128, 512)), np.float32),
        "encoder_attention_mask": np.ones((1, 128), np.int64),
    }


ENCODER = Network(TITLER, f"{TITLER_DATA}/encoder.onnx", text)
DECODER = Network(TITLER, f"{TITLER_DATA}/decoder.onnx", title)
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


def weights_of(model: onnx.ModelProto) -> dict[str, tuple[str, str, int]]:
    """Bytes that are weights of a QDQ or QOperator file -> their scales (none: one for all) and zero points, and the
    axis that has one of them each."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        read = makers.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if read is not None and read.op_type == "DequantizeLinear":
            axis = next((attribute.i for attribute in read.attribute if attribute.name == "axis"), 1)
            found[read.input[0]] = (read.input[1], read.input[2] if len(read.input) > 2 else "", axis)
        elif node.op_type in ("QLinearConv", "QLinearMatMul", "QGemm"):
            found[node.input[3]] = (node.input[4], node.input[5], 0 if node.op_type == "QLinearConv" else 1)
        elif node.op_type == "MatMulInteger":
            found[node.input[1]] = ("", node.input[3] if len(node.input) > 3 else "", 1)
    return found


def as_shipped(network: Network) -> Callable[[Path, Path, list[Feed]], int]:
    """The int8 weights of a file, each pruned to the largest tenth of what they stand for: the others become their zero
    point."""

    def write(folder: Path, file: Path, feeds: list[Feed]) -> int:
        model = onnx.load(fetched(network, folder))
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        total = 0
        for name, (scale, zero, axis) in weights_of(model).items():
            if name not in tensors:
                continue
            numbers = numpy_helper.to_array(tensors[name])
            along = [-1 if other == axis % numbers.ndim else 1 for other in range(numbers.ndim)]
            zeros = numpy_helper.to_array(tensors[zero]) if zero else np.zeros((), numbers.dtype)
            scales = numpy_helper.to_array(tensors[scale]) if scale else np.ones((), np.float32)
            zeros, scales = (each.reshape(along if each.size > 1 else [1] * numbers.ndim) for each in (zeros, scales))
            weight = torch.from_numpy((numbers.astype(np.int32) - zeros) * scales.astype(np.float32))
            mask = keep_largest({"": weight}, round(KEPT * weight.numel()))[""]
            kept = np.where(mask.numpy(), numbers, zeros.astype(numbers.dtype))
            tensors[name].CopyFrom(numpy_helper.from_array(kept, name))
            total += weight.numel()
        onnx.save(model, file)
        return total

    return write


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
    "smart-turn": Quantised("as shipped: QDQ", SMART_TURN.package, SMART_TURN.inputs, as_shipped(SMART_TURN)),
    "efficientword-net": Quantised("as shipped: QDQ", HOTWORDS.package, HOTWORDS.inputs, as_shipped(HOTWORDS)),
    "titler, encoder": Quantised("as shipped: QOperator", TITLER, ENCODER.inputs, as_shipped(ENCODER)),
    "titler, decoder": Quantised("as shipped: QOperator", TITLER, DECODER.inputs, as_shipped(DECODER)),
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
SHIPPED = [name for name, network in QUANTISED.items() if network.by.startswith("as shipped")]
SAME = re.compile(r"of (?:what|the floats that) quantised ops make, ([\d.]+)% are (?:the same bytes|ONNX Runtime's)")
RUN_SPARSE = re.compile(r"(\d+) of (\d+) layers run sparse")


def measured(name: str, network: Quantised, folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    dense, sparse = folder / "quantised.onnx", folder / "sparse.onnx"
    total = network.write(folder, dense, [network.inputs(rng) for _ in range(CALIBRATED_ON)])
    feeds = [network.inputs(rng) for _ in range(COMPARED_ON)]
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
        for name in SHIPPED if names == ["shipped"] else names or QUANTISED:
            print(json.dumps(measured(name, QUANTISED[name], Path(folder))), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["table"]:
        print(table([json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]))
    else:
        main(sys.argv[1:])
