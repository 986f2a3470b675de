"""Whether an exported file computes what the network computed: its outputs on real inputs, and every layer's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.errors import ExportError
from gossamer.export.agreement import compare, few_examples, how_wrong, refuse_random
from gossamer.export.dequantised_checks import compare_products
from gossamer.export.infinities import first_reader
from gossamer.export.layer_checks import first_wrong_layer, values_read
from gossamer.export.quantised_checks import compare_bytes
from gossamer.export.rewrite import Rewritten
from gossamer.export.rounding import Agreement, Rounding
from gossamer.export.source import Source
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph
from gossamer.graph.outputs import with_outputs
from gossamer.graph.quantisation import as_unsigned
from gossamer.graph.sessions import Feed, Opened, Remembering, Run, running, sparse_session

QUANTISED = 0.1
"""The share of an output's largest number that steps of one in quantised layers may change: a byte is one of 256."""
FLOAT_STEPS = 128
"""What the largest of floats that are made of bytes is taken as."""
FEW_STEPS, SPREAD = 0.5, 0.2
"""How far values of bytes may be apart on the whole, in steps and in their mean deviation. Values of another layer
would be as far apart as these values are from each other."""


def compare_with_source(source: Source, rounding: Rounding | None = None) -> Agreement:
    """The dense ONNX network against what it was made from, a torch network or an ONNX file: all outputs on all inputs.

    Args:
        rounding: of the dense network on the source's inputs, if it is there already.

    Raises:
        ExportError: they differ; names the first module whose output does.
    """
    runs = source.run, source.dense_run
    rounding = rounding or Rounding(source.dense, source.feeds, run=source.dense_run)
    agreement = compare(*runs, source.feeds, rounding)
    if runs[0] is runs[1] or not agreement.within:
        refuse_random(runs, source.feeds[0])
    if not agreement.within:
        if source.twin is None:
            raise _differs("ONNX", "that of the file, after its constants were computed", agreement, None)
        raise _differs("ONNX", "the torch network", agreement, source.twin.first_wrong(source.dense, source.feeds[0]))
    return agreement


def compare_with_dense(
    dense: onnx.ModelProto,
    file: Path,
    rewritten: Rewritten,
    feeds: Sequence[Feed],
    rounding: Rounding | None = None,
    *,
    run: Remembering | None = None,
    file_run: Run | None = None,
) -> Agreement:
    """The file with sparse ops against the dense network: all outputs on all inputs, and every layer on a few, by
    itself and in the network.

    A whole network's output may hide a layer's error (or hardly depend on its input), so that alone proves little.

    Args:
        rounding: of the dense network on these inputs, if it is there already.
        run: what runs the dense network, if it is open already.
        file_run: what runs the file, likewise.

    Raises:
        ExportError: they differ; names the first layer whose output does. Or the network draws random numbers.
    """
    dense = prepared(dense)
    run = run or Opened(dense).run
    runs = run, file_run or running(sparse_session(str(file)))
    few = few_examples(dense, feeds[0], run.fresh)
    rounding = rounding or Rounding(dense, feeds, run=run)
    refuse_random([run], few)
    inner = _Inner(dense, onnx.load(file), rewritten, few)
    of_bytes = compare_bytes(dense, inner.written, rewritten, few)
    wrong = first_wrong_layer(dense, inner.written, rewritten, few, inner.expected) or of_bytes.wrong
    of_floats = compare_products(dense, inner.written, few)
    wrong = wrong or of_floats.wrong
    share = QUANTISED if rewritten.of_bytes else 0.0
    agreement, value = compare(*runs, feeds, rounding, share=share), inner.first_wrong(nan=True)
    reader = None if agreement.within and value is None else first_reader(dense, rewritten, feeds)
    if reader is not None:
        agreement = compare(*runs, feeds, rounding, share=share, nan=False)
        value = inner.first_wrong(nan=False)
    if wrong is not None or value is not None or not agreement.within:
        raise _differs("sparse ONNX", "the dense one", agreement, wrong or value, reader)
    return replace(agreement, reader=reader, same_bytes=of_bytes.share, same_floats=of_floats.share)


class _Inner:
    """Inner values of both networks on a few examples."""

    def __init__(self, dense: onnx.ModelProto, written: onnx.ModelProto, rewritten: Rewritten, feed: Feed) -> None:
        """
        Args:
            written: the sparse network, as it was read back.
        """
        self.written = written
        made = set(Graph(written).producers)
        self._layers = [layer for layer in rewritten.layers if layer.output in rewritten.panels or layer.output in made]
        self._names = list(dict.fromkeys(layer.output for layer in self._layers))
        wider = Opened(with_outputs(dense, [*self._names, *values_read(Graph(dense))]))
        self.expected = wider.values(feed)
        """Values of the dense network, by name: what its layers read and return."""
        session = sparse_session(with_outputs(written, self._names, rewritten.panels).SerializeToString())
        # Asked for no name, it returns all.
        got = session.run(self._names, dict(feed)) if self._names else []
        self._got = dict(zip(self._names, got, strict=True))
        self._rounding = Rounding(wider.model, [feed], self._names, run=self._of_names)

    def _of_names(self, feed: Feed) -> list[NDArray[np.generic]]:
        return [self.expected[name] for name in self._names]

    def first_wrong(self, *, nan: bool) -> str | None:
        """The first layer, in the graph's order, whose output differs in the network."""
        for layer in self._layers:
            index = self._names.index(layer.output)
            expected, got = self.expected[layer.output], self._got[layer.output]
            if layer.quantised:
                wrong = _wrong_steps(*_in_steps(expected, got))
            else:
                wrong = how_wrong(expected, got, self._rounding, index, nan=nan)
            if wrong is not None:
                return f"{layer.name} ({wrong})"
        return None


def _in_steps(expected: NDArray[np.generic], got: NDArray[np.generic]) -> tuple[NDArray[np.float64], ...]:
    """Bytes as numbers; floats in steps of which the largest that is expected has `FLOAT_STEPS`."""
    if expected.dtype.kind != "f":
        return as_unsigned(expected).astype(np.float64), as_unsigned(got).astype(np.float64)
    numbers = [np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0) for values in (expected, got)]
    step = max(float(np.abs(numbers[0]).max(initial=0.0)), float(np.finfo(np.float32).tiny)) / FLOAT_STEPS
    return numbers[0] / step, numbers[1] / step


def _wrong_steps(expected: NDArray[np.float64], got: NDArray[np.float64]) -> str | None:
    """How a value in the network differs, on the whole; None if it does by steps that earlier layers differ in."""
    if expected.shape != got.shape:
        return f"its shape is {got.shape}, expected {expected.shape}"
    difference = float(np.abs(expected - got).mean()) if got.size else 0.0
    spread = float(np.abs(expected - expected.mean()).mean()) if got.size else 0.0
    if difference <= FEW_STEPS + SPREAD * spread:
        return None
    return f"differs by {difference:.3g} steps on average, its values by {spread:.3g}"


def _differs(what: str, other: str, agreement: Agreement, layer: str | None, reader: str | None = None) -> ExportError:
    where = "no single layer differs by itself" if layer is None else f"the first layer that differs is {layer}"
    if reader is not None:
        where += (
            f". The layer {reader} reads values that are infinite or NaN, of which a dense layer's zeros make NaN and "
            f"a sparse one's do not: compare on inputs that lead to numbers (of an .onnx file: --input NAME=FILE.npy)"
        )
    return ExportError(
        f"the {what} network computes something else than {other}: outputs differ by {agreement.difference:.3g} "
        f"(outputs up to {agreement.largest:.3g}; rounding explains {agreement.allowed:.3g}); {where}. Nothing was "
        f"written. This is a defect of gossamer or of the exporter: please report it with the network."
    )
