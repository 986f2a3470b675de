"""Sessions that know gossamer's ops."""

import os
import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import onnxruntime

from gossamer_runtime.library import library_path

THREADS_ENTRY = "gossamer.threads"
# ONNX Runtime joins an addition and the layer normalisation behind it to one op, which takes six times as long as the
# two (128 x 768 on one core of AMD Zen 5, ONNX Runtime 1.32: 390 us against 60). Off, unless an entry is there.
DISABLED_ENTRY = "optimization.disable_specified_optimizers"
SLOWER = "SkipLayerNormFusion"
# What ONNX Runtime says of ops that one options object holds twice. It says so only when a session is created.
REGISTERED_TWICE = "Domain already set in registry"

# The options that hold gossamer's ops, and for how many threads. ONNX Runtime cannot be asked, and a config entry would
# not do: InferenceSession.get_session_options() returns a copy that has the entries and not the ops.
_registered: WeakKeyDictionary[onnxruntime.SessionOptions, int] = WeakKeyDictionary()
_registering = threading.Lock()


def session_options(options: onnxruntime.SessionOptions | None = None) -> onnxruntime.SessionOptions:
    """``options`` (or new ones) with gossamer's ops registered and told the number of threads.

    The same object is returned, changed: it holds the ops and the entry ``gossamer.threads``. Given again, it is left
    as it is, so one object serves any number of sessions. ONNX Runtime does not tell custom ops how many threads a
    session has, and the ops keep the number that they were registered with: set ``intra_op_num_threads`` before.
    Unless there is an entry ``optimization.disable_specified_optimizers``, it becomes ``SkipLayerNormFusion``, which
    makes networks slower.

    Raises:
        NativeLibraryMissing: gossamer-runtime was installed without its native part; ``options`` are unchanged.
        ValueError: ``intra_op_num_threads`` was changed after the ops were registered.
    """
    if options is None:
        options = onnxruntime.SessionOptions()
    library = library_path()
    threads = options.intra_op_num_threads
    with _registering:
        registered = _registered.get(options)
        if registered is None:
            options.add_session_config_entry(THREADS_ENTRY, str(threads))
            if not _has_entry(options, DISABLED_ENTRY):
                options.add_session_config_entry(DISABLED_ENTRY, SLOWER)
            options.register_custom_ops_library(library)
            _registered[options] = threads
        elif registered != threads:
            raise ValueError(
                f"these options hold gossamer's ops for intra_op_num_threads={registered}, which they keep, "
                f"got {threads}: make new SessionOptions for another number of threads"
            )
    return options


def Session(  # named for the class that it returns
    model: str | os.PathLike[str] | bytes | bytearray | memoryview,
    options: onnxruntime.SessionOptions | None = None,
    *,
    threads: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    **session_arguments: Any,
) -> onnxruntime.InferenceSession:
    """A ready ``onnxruntime.InferenceSession`` for a model with sparse ops (or without).

    Args:
        model: a file's path, or a file's bytes.
        options: go through ``session_options``: they may come from there, and may serve many sessions. Options that
            ``register_custom_ops_library`` was called on by hand are for ``onnxruntime.InferenceSession``.
        threads: of a session without ``options``, which have ``intra_op_num_threads`` for that; 0 or nothing leaves the
            choice to ONNX Runtime.

    Raises:
        NativeLibraryMissing: gossamer-runtime was installed without its native part.
        ValueError: ``threads`` is negative or beside ``options``, or the options hold the ops for another number of
            threads or a second time.
    """
    if threads is not None:
        if threads < 0:
            raise ValueError(f"threads must be 0 or more, got {threads}")
        if options is not None:
            raise ValueError(
                f"expected options or threads, got both: set intra_op_num_threads={threads} on the options instead"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
    # ONNX Runtime takes bytes as a model and all else as a path.
    source = bytes(model) if isinstance(model, bytes | bytearray | memoryview) else os.fspath(model)
    options = session_options(options)
    try:
        return onnxruntime.InferenceSession(source, options, providers=list(providers), **session_arguments)
    except Exception as error:
        if REGISTERED_TWICE not in str(error):
            raise
        raise ValueError(
            "these options held gossamer's ops already, and now hold them twice: make new ones, and leave registering "
            "to gossamer_runtime or give the options to onnxruntime.InferenceSession"
        ) from error


def _has_entry(options: onnxruntime.SessionOptions, name: str) -> bool:
    try:
        options.get_session_config_entry(name)
    except RuntimeError:  # ONNX Runtime has no other way to say so
        return False
    return True
