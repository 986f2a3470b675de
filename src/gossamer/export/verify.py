"""Whether an exported file computes what the network computed: its outputs on real inputs, and every layer's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from gossamer.export.axes import axis_name, inputs_to_give, open_axes
from gossamer.export.calls import tensors_returned
from gossamer.export.errors import ExportError
from gossamer.export.feeds import Feed
from gossamer.export.graph import Graph
from gossamer.export.rewrite import DOMAIN, Rewritten
from gossamer.export.sessions import dense_session, sparse_session
from gossamer.export.source import Source
from gossamer.export.values import arrays_in

TOLERANCE = 1e-4
"""Of a value's largest number: what the order of fp32 additions may change in a deep network."""
LAYERWISE_EXAMPLES = 2

Run = Callable[[Feed], list[NDArray[np.generic]]]


@dataclass(frozen=True)
class Agreement:
    """How two networks compare on the same inputs."""

    difference: float
    """Largest absolute difference of an output."""
    largest: float
    """Largest absolute output of the first."""

    @property
    def within(self) -> bool:
        """Whether rounding explains the difference; not if one is NaN."""
        return self.difference <= TOLERANCE * max(self.largest, 1e-6)


def compare_with_source(source: Source) -> Agreement:
    """The dense ONNX network against what it was made from, a torch network or an ONNX file: all outputs on all inputs.

    Raises:
        ExportError: they differ; names the first module whose output does.
    """
    agreement = compare(runner(source), running(dense_session(source.dense)), source.feeds)
    if not agreement.within:
        if source.twin is None:
            raise _differs("ONNX", "that of the file, after its constants were computed", agreement, None)
        raise _differs("ONNX", "the torch network", agreement, _first_wrong_module(source, source.twin))
    return agreement


def compare_with_dense(dense: onnx.ModelProto, file: Path, rewritten: Rewritten, feeds: Sequence[Feed]) -> Agreement:
    """The file with sparse ops against the dense network: all outputs on all inputs, and every layer on a few.

    A whole network's output may hide a layer's error (or hardly depend on its input), so that alone proves little.

    Raises:
        ExportError: they differ; names the first layer whose output does.
    """
    wrong = _first_wrong_layer(dense, file, rewritten, feeds[0])
    agreement = compare(running(dense_session(dense)), running(sparse_session(str(file))), feeds)
    if wrong is not None or not agreement.within:
        raise _differs("sparse ONNX", "the dense one", agreement, wrong)
    return agreement


def runner(source: Source) -> Run:
    """What computes a source's outputs, as it was given."""
    if source.twin is not None:
        return partial(_run_twin, source.twin)
    return running(dense_session(source.dense if source.given is None else source.given))


@dataclass(frozen=True)
class Recorded:
    """A run that keeps the first output of each batch."""

    run: Run
    first: list[NDArray[np.generic]] = field(default_factory=list)

    def __call__(self, feed: Feed) -> list[NDArray[np.generic]]:
        outputs = self.run(feed)
        self.first.append(outputs[0])
        return outputs


def running(session: onnxruntime.InferenceSession) -> Run:
    """What computes a network's outputs, all of them."""
    return lambda feed: arrays_in(session.run(None, dict(feed)))


def _run_twin(twin: nn.Module, feed: Feed) -> list[NDArray[np.generic]]:
    """A torch network's outputs, in the order of the graph's."""
    with torch.no_grad():
        outputs = twin(*(torch.from_numpy(np.asarray(values)) for values in feed.values()))
    return [output.cpu().numpy() for output in tensors_returned(outputs)]


def compare_arrays(expected: NDArray[np.generic], got: NDArray[np.generic]) -> Agreement:
    """Another shape is an infinite difference."""
    if expected.shape != got.shape:
        return Agreement(float("inf"), 0.0)
    if not expected.size:
        return Agreement(0.0, 0.0)
    wide, other = np.asarray(expected, np.float64), np.asarray(got, np.float64)
    same = (wide == other) | (np.isnan(wide) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(wide - other))
    finite = np.abs(wide[np.isfinite(wide)])
    return Agreement(float(difference.max()), float(finite.max(initial=0.0)))


def compare(expected: Run, got: Run, feeds: Iterable[Feed]) -> Agreement:
    """The worst of all outputs on all inputs."""
    worst: dict[int, Agreement] = {}
    for feed in feeds:
        # Sequences may come out longer or shorter.
        pairs = zip_longest(expected(feed), got(feed), fillvalue=np.zeros(0))
        for place, (e, g) in enumerate(pairs):
            found, before = compare_arrays(e, g), worst.get(place, Agreement(0.0, 0.0))
            # The order of the arguments lets a NaN through.
            worst[place] = Agreement(
                float(np.maximum(before.difference, found.difference)), max(before.largest, found.largest)
            )
    return max(worst.values(), key=lambda agreement: (not agreement.within, agreement.difference))


def _first_wrong_layer(dense: onnx.ModelProto, file: Path, rewritten: Rewritten, feed: Feed) -> str | None:
    """The first layer, in the graph's order, whose output differs on the first examples."""
    few = _few_examples(dense, feed)
    written = onnx.load(file)
    made = set(Graph(written).producers)
    layers = [layer for layer in rewritten.layers if layer.output in rewritten.panels or layer.output in made]
    sparse = with_outputs(written, [layer.output for layer in layers], rewritten.panels)
    expected = _named_outputs(dense_session(with_outputs(dense, [layer.output for layer in layers], {})), few)
    got = _named_outputs(sparse_session(sparse.SerializeToString()), few)
    for layer in layers:
        agreement = compare_arrays(expected[layer.output], got[layer.output])
        if not agreement.within:
            return f"{layer.name} (differs by {agreement.difference:.3g}, values up to {agreement.largest:.3g})"
    return None


def with_outputs(
    model: onnx.ModelProto, values: Sequence[str], panels: Mapping[str, tuple[str, int]]
) -> onnx.ModelProto:
    """The network with further outputs; those that lie in panels come as planes."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    made = {name for node in model.graph.node for name in node.output}
    returned = {value.name for value in model.graph.output}
    for value in dict.fromkeys(values):
        if value not in made:
            panel, channels = panels[value]
            wider.graph.node.append(helper.make_node("FromPanel", [panel], [value], domain=DOMAIN, channels=channels))
        if value not in returned:
            wider.graph.output.append(onnx.ValueInfoProto(name=value))
    return wider


def _few_examples(model: onnx.ModelProto, feed: Feed) -> Feed:
    """The first examples of a batch, on whatever axes count them; all of it where the network fixes their number."""
    values = {value.name: value for value in inputs_to_give(model)}
    batches = {axis.name for axis in open_axes(model) if axis.first}
    few = {}
    for name, value in feed.items():
        axes = range(len(values[name].type.tensor_type.shape.dim))
        counted = [axis_name(values[name], place) in batches for place in axes]
        cut = tuple(slice(LAYERWISE_EXAMPLES if counts else None) for counts in counted)
        few[name] = np.asarray(value[cut]) if isinstance(value, np.ndarray) else value
    return few


def _named_outputs(session: onnxruntime.InferenceSession, feed: Feed) -> dict[str, Any]:
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def _first_wrong_module(source: Source, twin: nn.Module) -> str | None:
    """The first module without modules of its own, in the order in which they run, whose output differs from that of
    its ONNX nodes."""
    outputs: dict[str, NDArray[np.generic]] = {}

    def record(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[path] = output.detach().cpu().numpy().copy()

        return hook

    leaves = {path: module for path, module in twin.named_modules() if path and not list(module.children())}
    handles = [module.register_forward_hook(record(path)) for path, module in leaves.items()]
    feed = _few_examples(source.dense, source.feeds[0])
    try:
        _run_twin(twin, feed)
    finally:
        for handle in handles:
            handle.remove()
    made = {name for node in source.dense.graph.node for name in node.output}
    values = {path: value for value, path in source.modules.items() if value in made}
    wider = with_outputs(source.dense, [values[path] for path in outputs if path in values], {})
    got = _named_outputs(dense_session(wider), feed)
    for path, expected in outputs.items():
        if path in values and expected.shape == got[values[path]].shape:
            agreement = compare_arrays(expected, got[values[path]])
            if not agreement.within:
                return f"{path} (differs by {agreement.difference:.3g}, values up to {agreement.largest:.3g})"
    return None


def _differs(what: str, other: str, agreement: Agreement, layer: str | None) -> ExportError:
    where = "no single layer differs by itself" if layer is None else f"the first layer that differs is {layer}"
    return ExportError(
        f"the {what} network computes something else than {other}: outputs differ by {agreement.difference:.3g} "
        f"(outputs up to {agreement.largest:.3g}; expected at most {TOLERANCE:g} of that); {where}. Nothing was "
        f"written. This is a defect of gossamer or of the exporter: please report it with the network."
    )
