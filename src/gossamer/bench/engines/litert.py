"""LiteRT (TensorFlow Lite) with XNNPACK, in an environment of its own: the package, onnx2tf, which converts ONNX, and
LiteRT's own quantiser."""

from pathlib import Path

import numpy as np
import onnx

from gossamer.bench.engines.engine import BothForms
from gossamer.bench.engines.environment import Environment
from gossamer.bench.engines.quantised import examples
from gossamer.bench.engines.worker_process import WorkerRunner, open_worker

NEEDS = Environment("LiteRT", ((3, 12), (3, 13)), "downloads about 110 MB, takes 430 MB")


def open_litert(subject: BothForms) -> WorkerRunner:
    """The dense form in LiteRT, in 32-bit floats.

    Raises:
        EngineFailed: the environment cannot be made, or LiteRT cannot run the network.
    """
    return open_worker(NEEDS, subject, _saved(subject, "litert"), examples=None)


def open_litert_int8(subject: BothForms) -> WorkerRunner:
    """The dense form quantised by LiteRT's own tool: weights for each output channel, ranges of seeded inputs.

    Raises:
        EngineFailed: as `open_litert`.
    """
    path = subject.folder / "examples.npz"
    drawn = list(examples(subject))
    stacked = {name: np.stack([example[name] for example in drawn]) for name in subject.inputs}
    np.savez(path, **stacked)  # type: ignore[arg-type]
    return open_worker(NEEDS, subject, _saved(subject, "litert-int8"), examples=str(path))


def _saved(subject: BothForms, name: str) -> Path:
    model = subject.folder / f"{name}.onnx"
    onnx.save(subject.dense, model)
    return model
