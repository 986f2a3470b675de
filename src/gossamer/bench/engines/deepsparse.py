"""DeepSparse 1.8.0, the last release: it needs Python 3.11 and older versions of onnx and numpy than gossamer."""

import onnx

from gossamer.bench.engines.engine import BothForms
from gossamer.bench.engines.environment import Environment
from gossamer.bench.engines.older_ops import NEWEST_IR, NEWEST_OPSET, in_opset
from gossamer.bench.engines.quantised import quantised
from gossamer.bench.engines.worker_process import WorkerRunner, open_worker

NEEDS = Environment("DeepSparse", ((3, 11),), "downloads about 100 MB, takes 350 MB")


def open_deepsparse(subject: BothForms) -> WorkerRunner:
    """The dense form in DeepSparse, which finds the zeros by itself.

    Raises:
        EngineFailed: there is no Python 3.11, the environment cannot be made, or DeepSparse cannot run the network.
    """
    model = subject.folder / "deepsparse.onnx"
    onnx.save(in_opset(subject.dense, NEWEST_OPSET, NEWEST_IR), model)
    return open_worker(NEEDS, subject, model, own_only=False)


def open_deepsparse_int8(subject: BothForms) -> WorkerRunner:
    """The dense form quantised as DeepSparse takes it for sparse int8 (form "deepsparse-int8" of `quantised`).

    Raises:
        EngineFailed: as `open_deepsparse`; or it would leave most of the network to its own ONNX Runtime.
    """
    return open_worker(NEEDS, subject, quantised(subject, "deepsparse-int8"), own_only=True)
