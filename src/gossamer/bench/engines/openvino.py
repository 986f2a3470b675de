"""OpenVINO, in 32-bit floats and in bfloat16."""

import time
from typing import Any

import numpy as np

from gossamer.bench.engines.engine import BothForms, EngineFailed


class OpenVinoRunner:
    """A request of a compiled model."""

    def __init__(self, request: Any, inputs: dict[str, np.ndarray[Any, Any]], outputs: int, version: str) -> None:
        self.version = version
        self._request, self._inputs, self._outputs = request, inputs, outputs

    def run(self) -> list[np.ndarray[Any, Any]]:
        self._request.infer(self._inputs, share_inputs=True)
        return [np.array(self._request.get_output_tensor(index).data) for index in range(self._outputs)]

    def seconds(self) -> float:
        started = time.perf_counter()
        self._request.infer(self._inputs, share_inputs=True)
        return time.perf_counter() - started

    def close(self) -> None:
        self._request = None


def open_float32(subject: BothForms) -> OpenVinoRunner:
    """The dense form; bfloat16, which OpenVINO would choose by itself where the processor has it, is turned off."""
    return _open(subject, "f32")


def open_bfloat16(subject: BothForms) -> OpenVinoRunner:
    """The dense form in bfloat16."""
    return _open(subject, "bf16")


def _open(subject: BothForms, precision: str) -> OpenVinoRunner:
    try:
        import openvino
    except ImportError as error:
        raise EngineFailed("OpenVINO is not installed: pip install openvino") from error
    try:
        core = openvino.Core()
        model = core.read_model(subject.dense.SerializeToString())
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": subject.threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": precision,
            },
        )
        request = compiled.create_infer_request()
    except Exception as error:
        raise EngineFailed(f"OpenVINO cannot run this network: {error}") from error
    version = f"OpenVINO {openvino.get_version().partition('-')[0]}"
    return OpenVinoRunner(request, subject.inputs, len(compiled.outputs), version)
