"""Whether an exported file computes what the network computed: its outputs on real inputs, and every layer's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from gossamer.errors import ExportError
from gossamer.export.agreement import (
    Agreement,
    compare,
    few_examples,
    how_wrong,
    outputs_by_name,
    refuse_random,
    running,
)
from gossamer.export.feeds import Feed
from gossamer.export.infinities import first_reader
from gossamer.export.layer_checks import first_wrong_layer
from gossamer.export.rewrite import Rewritten
from gossamer.export.rounding import Rounding, Run
from gossamer.export.source import Source
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph
from gossamer.graph.outputs import with_outputs
from gossamer.graph.sessions import dense_session, sparse_session


def compare_with_source(source: Source, rounding: Rounding | None = None) -> Agreement:
    """The dense ONNX network against what it was made from, a torch network or an ONNX file: all outputs on all inputs.

    Args:
        rounding: of the dense network on the source's inputs, if it is there already.

    Raises:
        ExportError: they differ; names the first module whose output does.
    """
    rounding = rounding or Rounding(source.dense, source.feeds)
    runs = runner(source), running(dense_session(source.dense))
    agreement = compare(*runs, source.feeds, rounding)
    if not agreement.within:
        refuse_random(runs, source.feeds[0])
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
) -> Agreement:
    """The file with sparse ops against the dense network: all outputs on all inputs, and every layer on a few, by
    itself and in the network.

    A whole network's output may hide a layer's error (or hardly depend on its input), so that alone proves little.

    Args:
        rounding: of the dense network on these inputs, if it is there already.

    Raises:
        ExportError: they differ; names the first layer whose output does. Or the network draws random numbers.
    """
    dense = prepared(dense)
    few = few_examples(dense, feeds[0])
    rounding = rounding or Rounding(dense, feeds)
    runs = running(dense_session(dense)), running(sparse_session(str(file)))
    refuse_random(runs[:1], few)

    def judged(*, nan: bool) -> tuple[Agreement, str | None]:
        return compare(*runs, feeds, rounding, nan=nan), _first_wrong_value(dense, file, rewritten, few, nan=nan)

    wrong = first_wrong_layer(dense, file, rewritten, few)
    agreement, value = judged(nan=True)
    reader = None if agreement.within and value is None else first_reader(dense, rewritten, feeds)
    if reader is not None:
        agreement, value = judged(nan=False)
    if wrong is not None or value is not None or not agreement.within:
        raise _differs("sparse ONNX", "the dense one", agreement, wrong or value, reader)
    return replace(agreement, reader=reader)


def runner(source: Source) -> Run:
    """What computes a source's outputs, as it was given."""
    if source.twin is not None:
        return source.twin.run
    return running(dense_session(source.dense if source.given is None else source.given))


def _first_wrong_value(
    dense: onnx.ModelProto, file: Path, rewritten: Rewritten, feed: Feed, *, nan: bool
) -> str | None:
    """The first layer, in the graph's order, whose output differs in the network."""
    written = onnx.load(file)
    made = set(Graph(written).producers)
    layers = [layer for layer in rewritten.layers if layer.output in rewritten.panels or layer.output in made]
    sparse = with_outputs(written, [layer.output for layer in layers], rewritten.panels)
    names = list(dict.fromkeys(layer.output for layer in layers))
    wider = with_outputs(dense, names)
    rounding = Rounding(wider, [feed], names)
    expected = outputs_by_name(dense_session(wider), feed)
    got = outputs_by_name(sparse_session(sparse.SerializeToString()), feed)
    for layer in layers:
        place = names.index(layer.output)
        wrong = how_wrong(expected[layer.output], got[layer.output], rounding, place, nan=nan)
        if wrong is not None:
            return f"{layer.name} ({wrong})"
    return None


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
