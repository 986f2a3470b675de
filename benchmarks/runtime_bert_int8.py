"""A block of BERT-base in int8 with random zeros: as ONNX Runtime's tools quantise it, with constant scales and anew
for each input, and the same with gossamer's ops.

Command: taskset -c 0 python benchmarks/runtime_bert_int8.py --density 0.1 --runs 15 [--structure 1x4]
n: 15 runs of each, in turn
Hardware: one thread of 2 cores of AMD Zen 5
Date: 2026-11-28

`QDQ` and `QOperator` are `quantize_static` with a scale for each output channel, `static` is what `gossamer export
--int8` writes; `anew` is `quantize_dynamic` in ONNX Runtime, `dynamic` the same file with gossamer's ops. A line before
tells how far outputs are from those of the network in fp32 (root mean square).
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from interleaved import in_turn
from onnxruntime.quantization import QuantType, quantize_dynamic
from runtime_resnet_50 import dense_session, sparse_session

from gossamer.bench.engines.engine import BothForms
from gossamer.bench.engines.quantised import quantised
from gossamer.bench.network import BLOCKS, build, find_network
from gossamer.export.verify import compare_with_dense
from gossamer.export.written import as_written

OURS = {"static": "export", "dynamic": "anew"}
"""Session with gossamer's ops -> the plain file that it is made of."""


def written(subject: BothForms, form: str) -> Path:
    """The file of a form of the network in plain ONNX."""
    if form != "anew":
        return quantised(subject, form)
    floats, path = subject.folder / "floats.onnx", subject.folder / "anew.onnx"
    onnx.save(subject.dense, floats)
    quantize_dynamic(floats, path, weight_type=QuantType.QInt8, per_channel=True)
    return path


def sessions_of(subject: BothForms) -> dict[str, onnxruntime.InferenceSession]:
    """All sessions; the files of those with gossamer's ops are compared with the plain ones, layer by layer."""
    plain = {"QDQ": "qdq", "QOperator": "qoperator", "anew": "anew"}
    found = {name: dense_session(written(subject, form).read_bytes(), 1) for name, form in plain.items()}
    for name, form in OURS.items():
        model = onnx.load(written(subject, form))
        rewritten = as_written(model)
        path = subject.folder / f"{name}.onnx"
        onnx.save(rewritten.model, path)
        compare_with_dense(model, path, rewritten, [subject.inputs])
        found[name] = sparse_session(path.read_bytes(), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--density", type=float, nargs="+", default=[0.2, 0.1, 0.05])
    parser.add_argument("--structure", choices=sorted(BLOCKS), default="unstructured")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    feed = {"tokens": np.random.default_rng(0).standard_normal((1, 128, 768)).astype(np.float32)}
    results = []
    for density in options.density:
        dense = build(find_network("bert-base-block"), density, structure=options.structure)
        with tempfile.TemporaryDirectory() as folder:
            sessions = sessions_of(BothForms(dense, dense, feed, 1, Path(folder)))
            (expected,) = dense_session(dense.SerializeToString(), 1).run(None, feed)
            errors = {
                name: float(np.linalg.norm(session.run(None, feed)[0] - expected) / np.linalg.norm(expected))
                for name, session in sessions.items()
            }
            what = f"density {density} ({options.structure})"
            print(f"{what}: from fp32 " + ", ".join(f"{name} {error:.2%}" for name, error in errors.items()))
            medians, spreads = in_turn(sessions, feed, options.runs)
        print(
            f"{what}: "
            + ", ".join(
                f"{name} {medians[name]:.2f} ms ({low:.2f} .. {high:.2f})" for name, (low, high) in spreads.items()
            )
            + f": static {min(medians['QDQ'], medians['QOperator']) / medians['static']:.2f} times, dynamic "
            f"{medians['anew'] / medians['dynamic']:.2f} times"
        )
        facts = {"density": density, "structure": options.structure, "errors": errors}
        results.append({**facts, "medians": medians, "spreads": spreads})
    if options.json:
        options.json.write_text(json.dumps({"runs": options.runs, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
