"""The detector of `shapes-detector`: mean average precision and time, dense and at 80% and 90%.

Command: nice -n 15 gossamer compress shapes-detector --target-sparsity 0.9 --per-round 0.4152 --out RUN;
    then, on a quiet machine, python benchmarks/detector.py RUN
n: 31 runs of each session, in turn, on one thread, after 3 that are not counted; 256 images
Hardware: 2 cores of AMD Zen 5
Date: 2026-11-28

Images have 320 pixels on a side and up to six shapes each, drawn from a seed that no training used; the networks were
trained on 96. Boxes are decoded in the file; non-maximum suppression is outside of it and not timed. "ours" is
gossamer-runtime with the exported file, in which a dense network's layers are ONNX Runtime's. Prints the table, and
before it how far each file's outputs are from those of its dense one. Of each sparsity the
nearest round that the run has, which need not be finished.
"""

import sys
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from gossamer_runtime import Session
from interleaved import Sessions, largest_error, require_small, timed
from torch import Tensor

from gossamer import load_round
from gossamer.export.exporting import Exported, export
from gossamer.export.form import FileForm
from gossamer.export.from_torch import to_onnx
from gossamer.export.source import Source
from gossamer.export.twin import Twin
from gossamer.loop.finished import read_finished
from gossamer.loop.record import RoundRecord
from gossamer.tasks.detection.average_precision import MeanAveragePrecision
from gossamer.tasks.detection.shapes import shapes
from gossamer.tasks.shapes_detector import scaled, shapes_detector

SIDE, IMAGES, SEED, BATCH = 320, 256, 20, 16
RUNS = 31
ROWS = {"dense": 0.0, "80%": 0.8, "gossamer": 0.9}
"""Name of a session of gossamer-runtime's, as `interleaved` has it for the last one -> the sparsity of its round."""


def average_precision(session: onnxruntime.InferenceSession, images: Tensor, targets: Tensor) -> dict[str, float]:
    """Of a session, over all images."""
    metric = MeanAveragePrecision()
    name = session.get_inputs()[0].name
    for some, wanted in zip(images.split(BATCH), targets.split(BATCH), strict=True):
        metric.update(torch.from_numpy(session.run(None, {name: scaled(some).numpy()})[0]), wanted)
    return metric.compute()


def written(run: Path, record: RoundRecord, images: Tensor, folder: Path) -> tuple[Exported, Exported]:
    """A round as a dense file and as gossamer exports it."""
    model = shapes_detector().eval()
    load_round(run, record.round, model)
    traced = to_onnx(model, [images])
    source = Source("detector", traced.model, ({"images": images.numpy()},), "images", Twin(model, traced.modules))
    dense = export(source, folder / f"dense-{record.round}.onnx", form=FileForm(dense=True))
    return dense, export(source, folder / f"sparse-{record.round}.onnx")


def standard(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main(run: Path) -> None:
    images, targets = shapes(IMAGES, SIDE, SEED)
    feed = {"images": scaled(images[:1]).numpy()}
    records = read_finished(run).records
    sessions: Sessions = {}
    found: dict[str, tuple[RoundRecord, Exported, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, sparsity in ROWS.items():
            record = min(records, key=lambda one: abs(one.sparsity - sparsity))
            place = Path(folder) / name
            place.mkdir()
            dense, ours = written(run, record, scaled(images[:2]), place)
            start = time.perf_counter()
            session = Session(str(ours.path), threads=1)
            ready = 1e3 * (time.perf_counter() - start)
            plain = standard(dense.path)
            require_small(f"round {record.round}", largest_error(plain, session, feed))
            found[name] = record, ours, average_precision(session, images, targets)
            if name == "dense":
                sessions |= {"dense": plain, "ours, dense": session}
            else:
                sessions[name] = session
        medians = timed("detector", sessions, feed, RUNS, ready, ours.file_bytes)["medians"]
    assert isinstance(medians, dict)
    print("| sparsity | mAP | mAP 50-95 | sparse layers | MB | ms, ONNX Runtime dense | ms, ours | times |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (record, exported, precision) in found.items():
        mine = medians["ours, dense" if name == "dense" else name]
        sparse = sum(layer.form == "sparse" for layer in exported.layers)
        print(
            f"| {record.sparsity:.1%} | {precision['mAP']:.3f} | {precision['mAP_50_95']:.3f} "
            f"| {sparse} of {len(exported.layers)} | {exported.file_bytes / 1e6:.2f} | {medians['dense']:.2f} "
            f"| {mine:.2f} | {medians['dense'] / mine:.2f} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
