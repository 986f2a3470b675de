"""Sessions that know gossamer's ops."""

import os
from collections.abc import Sequence
from typing import Any

import onnxruntime

from gossamer_runtime.library import library_path

THREADS_ENTRY = "gossamer.threads"


def session_options(options: onnxruntime.SessionOptions | None = None) -> onnxruntime.SessionOptions:
    """``options`` (or new ones) with gossamer's ops registered and told the number of threads.

    ONNX Runtime does not tell custom ops how many threads a session has, so set ``intra_op_num_threads`` before.
    """
    if options is None:
        options = onnxruntime.SessionOptions()
    options.add_session_config_entry(THREADS_ENTRY, str(options.intra_op_num_threads))
    options.register_custom_ops_library(library_path())
    return options


def Session(  # named for the class that it returns
    model: str | os.PathLike[str] | bytes,
    options: onnxruntime.SessionOptions | None = None,
    *,
    threads: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    **session_arguments: Any,
) -> onnxruntime.InferenceSession:
    """A ready ``onnxruntime.InferenceSession`` for a model with sparse ops (or without).

    ``threads`` is short for ``options.intra_op_num_threads``; 0 or nothing leaves the choice to ONNX Runtime.
    """
    if options is None:
        options = onnxruntime.SessionOptions()
    if threads is not None:
        if threads < 0:
            raise ValueError(f"threads must be 0 or more, got {threads}")
        options.intra_op_num_threads = threads
    source = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(
        source, session_options(options), providers=list(providers), **session_arguments
    )
