"""Whether an exported file computes what the network computed: its outputs on real inputs, and every layer's."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from gossamer.export.constants import prepared
from gossamer.export.errors import ExportError, first_line
from gossamer.export.feeds import Feed
from gossamer.export.graph import Graph
from gossamer.export.infinities import first_reader
from gossamer.export.layer_checks import first_wrong_layer
from gossamer.export.rewrite import DOMAIN, Rewritten
from gossamer.export.rounding import WITHOUT, Rounding, Run
from gossamer.export.sessions import dense_session, sparse_session
from gossamer.export.source import Source
from gossamer.export.unvaried import Unvaried
from gossamer.export.values import arrays_in

LAYERWISE_EXAMPLES = 2


@dataclass(frozen=True)
class Agreement:
    """How two networks compare on the same inputs."""

    difference: float
    """Largest absolute difference of an output."""
    largest: float
    """Largest absolute output of the first."""
    allowed: float = 0.0
    """What rounding explains of the difference."""
    reader: str | None = None
    """The first sparse layer that reads infinite values or NaN, if outputs are therefore compared only where those of
    the dense network are not NaN (`gossamer.export.infinities`)."""

    @property
    def within(self) -> bool:
        """Whether rounding explains the difference; not if one is NaN."""
        return self.difference <= self.allowed


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
        raise _differs("ONNX", "the torch network", agreement, _first_wrong_module(source, source.twin))
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
    few = _few_examples(dense, feeds[0])
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
        return partial(_run_twin, source.twin)
    return running(dense_session(source.dense if source.given is None else source.given))


@dataclass
class Recorded:
    """A run that keeps the first output of each batch, and sees whether any output depends on the input."""

    run: Run
    first: list[NDArray[np.generic]] = field(default_factory=list)
    _outputs: list[Unvaried] = field(default_factory=list)

    def __call__(self, feed: Feed) -> list[NDArray[np.generic]]:
        outputs = self.run(feed)
        self.first.append(outputs[0])
        self._outputs = self._outputs or [Unvaried() for _ in outputs]
        for seen, output in zip(self._outputs, outputs, strict=True):
            seen.see(output)
        return outputs

    def unvaried(self) -> str | None:
        """What all outputs are, for people, if they are the same whatever the input; None if one is not."""
        found = [seen.value() for seen in self._outputs]
        return None if None in found else " and ".join(dict.fromkeys(filter(None, found)))


def running(session: onnxruntime.InferenceSession) -> Run:
    """What computes a network's outputs, all of them; an `ExportError` where ONNX Runtime fails."""

    def run(feed: Feed) -> list[NDArray[np.generic]]:
        try:
            return arrays_in(session.run(None, dict(feed)))
        except Exception as error:  # onnxruntime's errors have no common class
            raise ExportError(f"ONNX Runtime cannot run the network on this input: {first_line(error)}") from error

    return run


def refuse_random(runs: Iterable[Run], feed: Feed) -> None:
    """Refuses what cannot be compared with anything, not even with itself.

    Raises:
        ExportError: a network's outputs are others when it is run once more on the same input.
    """
    for run in runs:
        pairs = zip_longest(run(feed), run(feed), fillvalue=np.zeros(0))
        again = [compare_arrays(first, second) for first, second in pairs]
        if not all(found.difference <= WITHOUT * found.largest for found in again):
            raise ExportError(
                "the network's outputs are others in every run, on the same input too (it draws random numbers: "
                "dropout in training mode, RandomNormal), so nothing can be compared with them. Take the random "
                "numbers out, or make them an input"
            )


def _run_twin(twin: nn.Module, feed: Feed) -> list[NDArray[np.generic]]:
    """A torch network's outputs, in the order of the graph's."""
    with torch.no_grad():
        outputs = twin(*(torch.from_numpy(np.asarray(values)) for values in feed.values()))
    # ONNX has complex numbers as pairs of real ones.
    real = (torch.view_as_real(output) if output.is_complex() else output for output in tensors_returned(outputs))
    return [output.cpu().numpy() for output in real]


def compare_arrays(expected: NDArray[np.generic], got: NDArray[np.generic], *, nan: bool = True) -> Agreement:
    """Another shape is an infinite difference.

    Args:
        nan: compare what is expected to be NaN too.
    """
    if expected.shape != got.shape:
        return Agreement(float("inf"), 0.0)
    if not expected.size:
        return Agreement(0.0, 0.0)
    wide, other = np.asarray(expected, np.float64), np.asarray(got, np.float64)
    same = (wide == other) | (np.isnan(wide) & (np.isnan(other) | (not nan)))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(wide - other))
    finite = np.abs(wide[np.isfinite(wide)])
    return Agreement(float(difference.max()), float(finite.max(initial=0.0)))


def compare(
    expected: Run,
    got: Run,
    feeds: Iterable[Feed],
    rounding: Rounding | None = None,
    *,
    share: float = 0.0,
    nan: bool = True,
) -> Agreement:
    """The worst of all outputs on all inputs.

    Args:
        rounding: on the same inputs, says what is allowed; None: `WITHOUT` of the largest number.
        share: of an output's largest number that is allowed besides. Whole numbers, which are mostly the places of
            others, may then be any.
        nan: compare what is expected to be NaN too.
    """
    worst: dict[int, Agreement] = {}
    kinds: dict[int, np.dtype[Any]] = {}
    for feed in feeds:
        # Sequences may come out longer or shorter.
        pairs = zip_longest(expected(feed), got(feed), fillvalue=np.zeros(0))
        for place, (e, g) in enumerate(pairs):
            found, before = compare_arrays(e, g, nan=nan), worst.get(place, Agreement(0.0, 0.0))
            # The order of the arguments lets a NaN through.
            worst[place] = Agreement(
                float(np.maximum(before.difference, found.difference)), max(before.largest, found.largest)
            )
            kinds[place] = e.dtype
    for place, agreement in worst.items():
        if rounding is None:
            allowed = WITHOUT * agreement.largest
        elif share and not np.issubdtype(kinds[place], np.floating):
            allowed = math.inf
        else:
            allowed = rounding.allowed(place, agreement.largest, kinds[place]) + share * agreement.largest
        worst[place] = replace(agreement, allowed=allowed)
    return max(worst.values(), key=lambda agreement: (not agreement.within, agreement.difference))


def _first_wrong_value(
    dense: onnx.ModelProto, file: Path, rewritten: Rewritten, feed: Feed, *, nan: bool
) -> str | None:
    """The first layer, in the graph's order, whose output differs in the network."""
    written = onnx.load(file)
    made = set(Graph(written).producers)
    layers = [layer for layer in rewritten.layers if layer.output in rewritten.panels or layer.output in made]
    sparse = with_outputs(written, [layer.output for layer in layers], rewritten.panels)
    names = list(dict.fromkeys(layer.output for layer in layers))
    wider = with_outputs(dense, names, {})
    rounding = Rounding(wider, [feed], names)
    expected = _named_outputs(dense_session(wider), feed)
    got = _named_outputs(sparse_session(sparse.SerializeToString()), feed)
    for layer in layers:
        place = names.index(layer.output)
        wrong = _how_wrong(expected[layer.output], got[layer.output], rounding, place, nan=nan)
        if wrong is not None:
            return f"{layer.name} ({wrong})"
    return None


def _how_wrong(
    expected: NDArray[np.generic], got: NDArray[np.generic], rounding: Rounding, place: int, *, nan: bool = True
) -> str | None:
    agreement = compare_arrays(expected, got, nan=nan)
    agreement = replace(agreement, allowed=rounding.allowed(place, agreement.largest, expected.dtype))
    if agreement.within:
        return None
    return (
        f"differs by {agreement.difference:.3g}, values up to {agreement.largest:.3g}; rounding explains "
        f"{agreement.allowed:.3g}"
    )


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
    """The first examples of a batch, on whatever axes count them; all of it where the network does not run with
    fewer: their number is fixed, or an open first axis counts something else."""
    values = {value.name: value for value in inputs_to_give(model)}
    batches = {axis.name for axis in open_axes(model) if axis.first}
    few = {}
    for name, value in feed.items():
        axes = range(len(values[name].type.tensor_type.shape.dim))
        counted = [axis_name(values[name], place) in batches for place in axes]
        cut = tuple(slice(LAYERWISE_EXAMPLES if counts else None) for counts in counted)
        few[name] = np.asarray(value[cut]) if isinstance(value, np.ndarray) else value
    try:
        dense_session(model).run(None, few)
    except Exception:  # onnxruntime's errors have no common class
        return feed
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
    names = [values[path] for path in outputs if path in values]
    wider = with_outputs(source.dense, names, {})
    rounding = Rounding(wider, [feed], names)
    got = _named_outputs(dense_session(wider), feed)
    for path, expected in outputs.items():
        if path in values and expected.shape == got[values[path]].shape:
            wrong = _how_wrong(expected, got[values[path]], rounding, names.index(values[path]))
            if wrong is not None:
                return f"{path} ({wrong})"
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
