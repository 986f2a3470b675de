"""ONNX Runtime sessions, with and without gossamer's ops."""

from pathlib import Path

import gossamer_runtime
import onnx
import onnxruntime

from gossamer.errors import ExportError

FATAL = 4
"""Of ONNX Runtime's levels of messages. Errors are raised; they need not be printed as well."""


def dense_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime alone, which knows no op of gossamer."""
    return onnxruntime.InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"])


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
