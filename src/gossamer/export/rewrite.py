"""A network with zeros in its weights -> the same network with ops of the domain `gossamer` where they are faster."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import onnx

from gossamer.export.coded import Steps
from gossamer.export.costs import Costs, MeasuredCosts
from gossamer.export.left import MANY, LeftWeight, left_weights
from gossamer.export.parts import Part, find_parts, indices_of
from gossamer.export.quantised_parts import dense_time
from gossamer.export.writer import Writer
from gossamer.graph.constants import prepared
from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.graph import Graph
from gossamer.graph.layers import Kind, Layer, find_layers
from gossamer.graph.layout import choose_panels
from gossamer.graph.outputs import Panel
from gossamer.graph.quantisation import Bytes
from gossamer.graph.quantised import find_quantised
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.stems import Stem

Form = Literal["sparse", "stem", "dense"]
"""A stem keeps its dense weights and runs as `StemConv`."""


@dataclass(frozen=True)
class LayerReport:
    """What became of a layer."""

    name: str
    kind: Kind
    weight_shape: tuple[int, ...]
    kept: int
    form: Form
    reason: str
    """Why it is dense or a stem; empty for a sparse one."""
    output: str
    """The value of the dense network that it computes: its residual and activation included, a stem's pooling too."""
    dense_time: float
    sparse_time: float
    """Seconds, as estimated, with sparse weights."""
    quantised: bool = False
    """Whether it computes with bytes."""
    in_half: bool = False
    """Whether it is to multiply in fp16, if the file asks for that."""

    @property
    def density(self) -> float:
        return self.kept / max(1, math.prod(self.weight_shape))


@dataclass(frozen=True)
class Rewritten:
    """A network with sparse ops, and what was done to get it."""

    model: onnx.ModelProto
    layers: tuple[LayerReport, ...]
    """Those of floats, those of bytes, and those that make floats of bytes, each in the graph's order."""
    panels: dict[str, Panel] = field(default_factory=dict)
    """Value of the dense network -> its panel in the sparse one, where it has one."""
    left: tuple[LeftWeight, ...] = ()
    """Weights with many zeros that belong to none of the layers."""

    @property
    def of_floats(self) -> tuple[LayerReport, ...]:
        """What became of the layers of `gossamer.graph.layers`."""
        return tuple(layer for layer in self.layers if not layer.quantised)

    @property
    def of_bytes(self) -> tuple[LayerReport, ...]:
        """What became of the layers of `gossamer.graph.quantised`."""
        return tuple(layer for layer in self.layers if layer.quantised)


def to_sparse(model: onnx.ModelProto, *, costs: Costs | None = None, half: bool = False) -> onnx.ModelProto:
    """The same network with sparse ops where those are faster; `rewrite` says besides what became of every layer.

    Args:
        costs: estimates of times; None: rates measured when gossamer was made.
        half: store weights as fp16.

    Raises:
        ExportError: a constant is damaged, or `half` and a weight is beyond fp16's range.
    """
    return rewrite(model, costs=costs, half=half).model


def rewrite(
    model: onnx.ModelProto,
    *,
    costs: Costs | None = None,
    half: bool = False,
    steps: Mapping[str, Steps] | None = None,
    unrounded: Collection[str] = (),
) -> Rewritten:
    """Folds BatchNorm, finds the layers with constant weights, chooses where each runs, and writes the new graph.

    `model` stays as it is. Nodes that are not understood are taken over unchanged. QuantisedGraph layers, in either of
    ONNX's forms, become ops on bytes.

    Args:
        steps: output of a layer -> what its numbers are multiples of; they are coded as levels of it.
        unrounded: outputs of quantised layers whose sums are not to become bytes before something is added to them.
    """
    costs = costs or MeasuredCosts()
    graph = Graph(prepared(model))
    layers = find_layers(graph)
    quantised = find_quantised(graph)
    parts = find_parts(graph, layers, costs, quantised=quantised)
    chosen = choose_panels(parts.units, parts.read_as_planes, parts.conversion_times)
    every: list[Layer | QuantisedLayer] = [*layers, *quantised.layers, *quantised.dequantised]
    linear = [
        layer
        for layer in every
        if layer.kind == "linear" and costs.sparse(layer.shape, layer.share) < _dense_time(graph, layer, costs)
    ]
    writer = Writer(graph, half, steps or {})
    on_panels: list[Part] = [part for index, part in enumerate(parts.parts) if index in chosen]
    for chosen_part in (*on_panels, *linear):
        part = _adding_sums(chosen_part, unrounded)
        writer.replaced[max(indices_of(part))] = part
        writer.dropped.update(indices_of(part))
        if not (isinstance(part, Layer | QuantisedLayer) and part.kind == "linear"):
            writer.read_panels.update(indices_of(part))
    written = writer.write()
    became = {(part.layer if isinstance(part, Stem) else part).output: part for part in writer.layers()}
    return Rewritten(
        written,
        tuple(_report(graph, layer, became.get(layer.output), costs) for layer in every),
        writer.reported_panels(),
        # In the fewest bytes a weight is to be coded whether it has zeros or not.
        left_weights(graph, layers, quantised, least=MANY if steps is None else 0.0),
    )


def _adding_sums(part: Part, unrounded: Collection[str]) -> Part:
    """The part without the bytes that its sums become before an addition, if it is one of these."""
    if isinstance(part, QuantisedLayer) and part.output.value in unrounded:
        return replace(part, sums=None)
    return part


def _dense_time(graph: Graph, layer: Layer | QuantisedLayer, costs: Costs) -> float:
    if isinstance(layer, QuantisedLayer | DequantisedLayer):
        return dense_time(graph, layer, costs)
    return costs.dense(layer.shape)


def _report(
    graph: Graph, layer: Layer | QuantisedLayer, became: Layer | Stem | QuantisedLayer | None, costs: Costs
) -> LayerReport:
    dense, sparse = _dense_time(graph, layer, costs), costs.sparse(layer.shape, layer.share)
    form: Form = "dense" if became is None else "stem" if isinstance(became, Stem) else "sparse"
    if form == "sparse":
        reason = ""
    elif form == "stem":
        reason = "dense weights, from the image straight into the layout of sparse layers"
    elif layer.kept == layer.weight.size:
        reason = "no zeros"
    elif sparse >= dense:
        reason = "too dense to be faster"
    else:
        reason = "changing the layout around it would cost more than it saves"
    return LayerReport(
        layer.name,
        layer.kind,
        layer.weight.shape,
        layer.kept,
        form,
        reason,
        _name_of(layer.output if became is None else became.output),
        dense,
        sparse,
        isinstance(layer, QuantisedLayer | DequantisedLayer),
        form == "sparse" and costs.in_half(layer.shape, layer.share),
    )


def _name_of(output: str | Bytes) -> str:
    return output if isinstance(output, str) else output.value
