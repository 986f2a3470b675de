"""ONNX Runtime: dense, quantised to int8, and with gossamer's ops."""

import time
from pathlib import Path
from typing import Any

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime

from gossamer.bench.engines.engine import BothForms, EngineFailed
from gossamer.bench.engines.quantised import quantised
from gossamer.export.rounded_once import written_rounding_once
from gossamer.graph.ops import is_sparse
from gossamer.graph.sessions import FATAL


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
    return _open_ours(_in_a_file(subject.sparse, subject, "sparse"), subject, profile)


def open_gossamer_int8(subject: BothForms) -> SessionRunner:
    """The network as `gossamer export --int8` writes it: quantised, and sparse where that is faster.

    Raises:
        EngineFailed: it cannot be quantised, or no layer is faster on sparse int8.
    """
    return _open_ours(sparse_int8(subject), subject, None)


def sparse_int8(subject: BothForms) -> Path:
    """The file of `gossamer export --int8`, written once.

    Raises:
        EngineFailed: it cannot be quantised, or no layer is faster on sparse int8.
    """
    path = subject.folder / "sparse-int8.onnx"
    if not path.exists():
        model = written_rounding_once(onnx.load(quantised(subject, "export")))[1].model
        if not is_sparse(model):
            raise EngineFailed("no layer of this network is faster on sparse int8")
        onnx.save(model, path)
    return path


def _open_ours(path: Path, subject: BothForms, profile: Path | None) -> SessionRunner:
    options = _options(subject.threads, profile)
    try:
        session = gossamer_runtime.Session(path, options)
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
    """The dense form, quantised, with pairs of nodes around each op that say where (QDQ)."""
    return _open(quantised(subject, "qdq"), subject, None)


def open_int8_qoperator(subject: BothForms) -> SessionRunner:
    """The dense form, quantised, with ops of its own for int8 (QOperator)."""
    return _open(quantised(subject, "qoperator"), subject, None)


def run_quantised(subject: BothForms, form: str) -> list[np.ndarray[Any, Any]]:
    """What ONNX Runtime computes of a quantised form (`quantised`)."""
    runner = _open(quantised(subject, form), subject, None)
    try:
        return runner.run()
    finally:
        runner.close()


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
