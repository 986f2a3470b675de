"""ncnn, what its users run on small devices: its package and pnnx, which converts ONNX, in an environment of their own.

Its int8 is not measured: the programs that quantise (ncnn2table, ncnn2int8) are in no package.
"""

import onnx

from gossamer.bench.engines.engine import BothForms
from gossamer.bench.engines.environment import Environment
from gossamer.bench.engines.worker_process import WorkerRunner, open_worker

NEEDS = Environment("ncnn", ((3, 11), (3, 12), (3, 13)), "downloads about 60 MB, takes 210 MB")


def open_ncnn(subject: BothForms) -> WorkerRunner:
    """The dense form in ncnn, in 32-bit floats throughout.

    Raises:
        EngineFailed: the environment cannot be made, or ncnn cannot run the network.
    """
    model = subject.folder / "ncnn.onnx"
    onnx.save(subject.dense, model)
    return open_worker(NEEDS, subject, model, input_names=[value.name for value in subject.dense.graph.input])
