"""ONNX Runtime sessions, with and without gossamer's ops."""

import math
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime

from gossamer.errors import ExportError

FATAL = 4
"""Of ONNX Runtime's levels of messages. Errors are raised; they need not be printed as well."""
HANDED_OVER = 2**16
"""Bytes of a constant from which on a session is given it beside the model."""


def dense_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime alone, which knows no op of gossamer."""
    light, large = _without_large(model)
    options = _options()
    if large:
        options.add_external_initializers(list(large), list(large.values()))
    session = onnxruntime.InferenceSession(light.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.handed_over = large  # it reads them where they are
    return session


def sparse_session(model: bytes | str) -> onnxruntime.InferenceSession:
    """ONNX Runtime with gossamer's ops, for a model's bytes or a file's path.

    Raises:
        ExportError: the native part of gossamer-runtime is not there.
    """
    if isinstance(model, str) and model != model.encode("utf-8", "replace").decode():
        # ONNX Runtime opens only what is called in UTF-8.
        model = Path(model).read_bytes()
    try:
        return gossamer_runtime.Session(model, _options())
    except gossamer_runtime.NativeLibraryMissing as error:
        raise ExportError(f"a file with sparse ops cannot be verified here, so none is written: {error}") from error


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    return options


def _without_large(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnxruntime.OrtValue]]:
    """The model, and its large constants to be handed over beside it: writing and parsing ResNet-50's 100 MB takes
    0.3 s, opening it without that 0.2 s."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    found: dict[str, onnxruntime.OrtValue] = {}
    for tensor in light.graph.initializer:
        large = len(tensor.raw_data) >= HANDED_OVER and tensor.data_type == onnx.TensorProto.FLOAT
        fits = len(tensor.raw_data) == 4 * math.prod(tensor.dims)
        if large and fits and tensor.name not in inputs and tensor.name not in found:
            values = np.frombuffer(tensor.raw_data, np.float32).reshape(tuple(tensor.dims))
            found[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(values)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="handed over")
    return light, found
