"""Networks that run: sessions of ONNX Runtime, with and without gossamer's ops, and what computes outputs."""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from gossamer.errors import ExportError, first_line
from gossamer.graph.exact_sums import JOINS_NOTHING, saturates, with_exact_sums
from gossamer.graph.messages import without_contents
from gossamer.graph.values import Value, arrays_in

Feed = Mapping[str, Value]
"""Name of an input -> its value."""
Run = Callable[[Feed], list[NDArray[np.generic]]]

CANNOT_RUN = "ONNX Runtime cannot run the network on this input: "
REMEMBERED = 2**28
"""Bytes of outputs."""
FATAL = 4
"""The highest of ONNX Runtime's levels of messages. Errors are raised; they need not be printed as well."""
RAISES: dict[str, Any] = {"enable_fallback": 0}
"""For a session that raises its error at once, and does not print it and try again the same way."""
HANDED_OVER = 2**16
"""Bytes of a constant from which on a session is given it beside the model."""


def dense_session(model: onnx.ModelProto, threads: int = 0) -> onnxruntime.InferenceSession:
    """ONNX Runtime alone, which knows no op of gossamer; the sums of its layers in int8 are exact on every processor.

    Args:
        threads: 0 is as many as it takes by itself.
    """
    light, large = _without_large(with_exact_sums(model))
    content = light.SerializeToString()

    def opened(options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        options.intra_op_num_threads = threads
        if large:
            options.add_external_initializers(list(large), list(large.values()))
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], **RAISES)

    session = _opened(opened)
    session.handed_over = large  # it reads them where they are
    return session


def sparse_session(model: bytes | str) -> onnxruntime.InferenceSession:
    """ONNX Runtime with gossamer's ops, for a model's bytes or a file's path; all sums of products of bytes are exact.

    Raises:
        ExportError: the native part of gossamer-runtime is not there.
    """
    if isinstance(model, str) and (saturates() or model != model.encode("utf-8", "replace").decode()):
        # ONNX Runtime opens only what is called in UTF-8.
        model = Path(model).read_bytes()
    if saturates():
        read = onnx.load_from_string(model)
        exact = with_exact_sums(read)
        model = model if exact is read else exact.SerializeToString()
    try:
        return _opened(lambda options: gossamer_runtime.Session(model, options, **RAISES))
    except gossamer_runtime.NativeLibraryMissing as error:
        raise ExportError(f"a file with sparse ops cannot be verified here, so none is written: {error}") from error
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(
            f"ONNX Runtime does not open the network with sparse ops: {first_line(error)}. Nothing was written. "
            f"This is a defect of gossamer: please report it with the network."
        ) from error


def _opened(
    open_with: Callable[[onnxruntime.SessionOptions], onnxruntime.InferenceSession],
) -> onnxruntime.InferenceSession:
    """A session with all of ONNX Runtime's optimisations, or with fewer where it fails at them.

    ONNX Runtime 1.32 joins a convolution, an addition and an activation even if the network returns what the
    convolution alone computes, which it then finds nowhere.
    """
    try:
        return open_with(_options())
    except RuntimeError:
        options = _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        return open_with(options)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    if saturates():
        options.add_session_config_entry(*JOINS_NOTHING)
    return options


def _without_large(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnxruntime.OrtValue]]:
    """The model, and its large constants to be handed over beside it: writing and parsing ResNet-50's 100 MB takes
    0.3 s, opening it without that 0.2 s."""
    inputs = {value.name for value in model.graph.input}
    found: dict[str, onnxruntime.OrtValue] = {}

    def hands_over(tensor: onnx.TensorProto) -> bool:
        size = 4 * math.prod(tensor.dims)
        if size < HANDED_OVER or tensor.data_type != onnx.TensorProto.FLOAT or tensor.name in {*inputs, *found}:
            return False
        content = tensor.raw_data
        if len(content) != size:
            return False
        values = np.frombuffer(content, np.float32).reshape(tuple(tensor.dims))
        found[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(values)
        return True

    light = without_contents(model, hands_over)
    for tensor in light.graph.initializer:
        if tensor.name in found and not tensor.HasField("raw_data"):
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="handed over")
    return light, found


def running(session: onnxruntime.InferenceSession) -> Run:
    """What computes a network's outputs, all of them; an `ExportError` where ONNX Runtime fails."""

    def run(feed: Feed) -> list[NDArray[np.generic]]:
        try:
            return arrays_in(session.run(None, dict(feed)))
        except Exception as error:  # onnxruntime's errors have no common class
            raise ExportError(f"{CANNOT_RUN}{first_line(error)}") from error

    return run


class Remembering:
    """A run whose outputs are computed once for each input, as far as memory allows."""

    def __init__(self, fresh: Run) -> None:
        self.fresh = fresh
        """The run itself, which computes them again."""
        self._outputs: list[tuple[Feed, list[NDArray[np.generic]]]] = []
        self._left = REMEMBERED

    def __call__(self, feed: Feed) -> list[NDArray[np.generic]]:
        for known, outputs in self._outputs:
            if known is feed:
                return outputs
        outputs = self.fresh(feed)
        size = sum(output.nbytes for output in outputs)
        if size <= self._left:
            self._left -= size
            self._outputs.append((feed, outputs))
        return outputs


class Opened:
    """A network of ONNX's own ops, opened in ONNX Runtime when it is first run, and once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        return dense_session(self.model)

    @cached_property
    def run(self) -> Remembering:
        return Remembering(running(self.session))

    def values(self, feed: Feed) -> dict[str, Value]:
        """What the network returns, by name, and what it was given."""
        names = [value.name for value in self.session.get_outputs()]
        return {**feed, **dict(zip(names, self.session.run(names, dict(feed)), strict=True))}
