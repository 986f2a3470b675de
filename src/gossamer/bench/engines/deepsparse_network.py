"""A network in DeepSparse, in DeepSparse's own environment (`worker`)."""

import os
from typing import Any

# It would report its use to its maker otherwise.
os.environ["NM_DISABLE_ANALYTICS"] = "True"

import deepsparse
import numpy as np

LEAST_OWN = 0.5
"""The least share of the operations that its own kernels take, where it is told to refuse anything else."""


class Network:
    """An engine and its inputs."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.version = "DeepSparse " + deepsparse.__version__
        self.engine = deepsparse.Engine(model=request["model"], batch_size=1, num_cores=request["threads"])
        own = self.engine.fraction_of_supported_ops
        if request["own_only"] and own < LEAST_OWN:
            # It says nothing of that, and its ONNX Runtime's time would pass for its own.
            raise RuntimeError(f"its own kernels take {own:.1%} of this network; the rest is left to ONNX Runtime")
        with np.load(request["inputs"], allow_pickle=False) as arrays:
            self.inputs = [np.ascontiguousarray(arrays[name]) for name in self.engine.input_names]

    def outputs(self) -> list[np.ndarray[Any, Any]]:
        found: list[np.ndarray[Any, Any]] = self.engine.run(self.inputs)
        return found

    def once(self) -> None:
        # The inputs were checked by the first run; the check would be counted otherwise.
        self.engine.run(self.inputs, val_inp=False)


open_network = Network
