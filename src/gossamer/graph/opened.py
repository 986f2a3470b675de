"""Networks that run: what computes their outputs, in ONNX Runtime or elsewhere."""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from gossamer.errors import ExportError, first_line
from gossamer.graph.sessions import dense_session
from gossamer.graph.values import Value, arrays_in

Feed = Mapping[str, Value]
"""Name of an input -> its value."""
Run = Callable[[Feed], list[NDArray[np.generic]]]

CANNOT_RUN = "ONNX Runtime cannot run the network on this input: "
REMEMBERED = 2**28
"""Bytes of outputs."""


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
