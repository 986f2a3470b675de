"""ONNX Runtime: dense, quantised to int8, and with gossamer's ops."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

from gossamer.bench.engines.engine import BothForms, EngineFailed
from gossamer.graph.sessions import FATAL

CALIBRATION_EXAMPLES = 8


class SessionRunner:
    """A session and its inputs."""

    def __init__(self, session: onnxruntime.InferenceSession, subject: BothForms, version: str) -> None:
        self.session = session
        self.version = version
        self._inputs = subject.inputs

    def run(self) -> list[np.ndarray[Any, Any]]:
        try:
            outputs: list[np.ndarray[Any, Any]] = self.session.run(None, self._inputs)
        except Exception as error:  # onnxruntime's errors have no common class
            raise EngineFailed(f"ONNX Runtime cannot run this network: {error}") from error
        return outputs

    def seconds(self) -> float:
        started = time.perf_counter()
        self.session.run(None, self._inputs)
        return time.perf_counter() - started

    def close(self) -> None:
        del self.session


def open_gossamer(subject: BothForms, profile: Path | None = None) -> SessionRunner:
    """The sparse form in ONNX Runtime with gossamer's ops.

    Args:
        profile: where ONNX Runtime writes the time of every node, if anywhere.
    """
    options = _options(subject.threads, profile)
    try:
        session = gossamer_runtime.Session(_in_a_file(subject.sparse, subject, "sparse"), options)
    except gossamer_runtime.NativeLibraryMissing as error:
        raise EngineFailed(str(error)) from error
    except Exception as error:
        raise EngineFailed(f"gossamer cannot run this network: {error}") from error
    version = f"gossamer-runtime {gossamer_runtime.__version__}, ONNX Runtime {onnxruntime.__version__}"
    return SessionRunner(session, subject, version)


def open_dense(subject: BothForms, profile: Path | None = None) -> SessionRunner:
    """The dense form in ONNX Runtime."""
    return _open(_in_a_file(subject.dense, subject, "dense"), subject, profile)


def open_int8(subject: BothForms) -> SessionRunner:
    """The dense form, quantised: 8-bit weights for each output channel, 8-bit activations, ranges of seeded inputs."""

    class Examples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._examples = _examples(subject)

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return next(self._examples, None)

    given, quantised = _in_a_file(subject.dense, subject, "dense"), subject.folder / "int8.onnx"
    # It recommends a preparation that would not change these networks, once for every call.
    logging.getLogger().addFilter(_is_no_advice)
    try:
        quantization.quantize_static(
            given,
            quantised,
            Examples(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
    except Exception as error:
        raise EngineFailed(f"ONNX Runtime cannot quantise this network: {error}") from error
    finally:
        logging.getLogger().removeFilter(_is_no_advice)
    return _open(quantised, subject, None)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


def _examples(subject: BothForms) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The measured inputs, and others drawn like them."""
    yield subject.inputs
    rng = np.random.default_rng(1)
    for _ in range(CALIBRATION_EXAMPLES - 1):
        yield {
            name: rng.standard_normal(value.shape).astype(value.dtype) if value.dtype.kind == "f" else value
            for name, value in subject.inputs.items()
        }


def _open(model: Path, subject: BothForms, profile: Path | None) -> SessionRunner:
    try:
        session = onnxruntime.InferenceSession(
            model, _options(subject.threads, profile), providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise EngineFailed(f"ONNX Runtime cannot run this network: {error}") from error
    return SessionRunner(session, subject, f"ONNX Runtime {onnxruntime.__version__}")


def _options(threads: int, profile: Path | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait for this session's next run would take a core from the engine whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Errors are raised; they need not be printed as well.
    options.log_severity_level = FATAL
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return options


def _in_a_file(model: onnx.ModelProto, subject: BothForms, name: str) -> Path:
    path = subject.folder / f"{name}.onnx"
    if not path.exists():
        onnx.save(model, path)
    return path
