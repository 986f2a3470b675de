"""A network with zeros in its weights -> the same network with ops of the domain `gossamer` where they are faster."""

import math
from dataclasses import dataclass, field
from typing import Literal

import onnx

from gossamer.export.costs import Costs, MeasuredCosts
from gossamer.export.left import LeftWeight, left_weights
from gossamer.export.parts import find_parts, indices_of
from gossamer.export.writer import Writer
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph
from gossamer.graph.layers import Kind, Layer, find_layers
from gossamer.graph.layout import choose_panels
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

    @property
    def density(self) -> float:
        return self.kept / max(1, math.prod(self.weight_shape))


@dataclass(frozen=True)
class Rewritten:
    """A network with sparse ops, and what was done to get it."""

    model: onnx.ModelProto
    layers: tuple[LayerReport, ...]
    panels: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Value of the dense network -> its panel in the sparse one and the number of channels, where it has one."""
    left: tuple[LeftWeight, ...] = ()
    """Weights with many zeros that belong to none of the layers."""


def to_sparse(model: onnx.ModelProto, *, costs: Costs | None = None, half: bool = False) -> onnx.ModelProto:
    """The same network with sparse ops where those are faster; `rewrite` says besides what became of every layer.

    Args:
        costs: estimates of times; None: rates measured when gossamer was made.
        half: store weights as fp16.

    Raises:
        ExportError: a constant is damaged, or `half` and a weight is beyond fp16's range.
    """
    return rewrite(model, costs=costs, half=half).model


def rewrite(model: onnx.ModelProto, *, costs: Costs | None = None, half: bool = False) -> Rewritten:
    """Folds BatchNorm, finds the layers with constant weights, chooses where each runs, and writes the new graph.

    `model` stays as it is. Nodes that are not understood, quantised layers among them, are taken over unchanged.
    """
    costs = costs or MeasuredCosts()
    graph = Graph(prepared(model))
    layers = find_layers(graph)
    parts = find_parts(graph, layers, costs)
    chosen = choose_panels(parts.units, parts.read_as_planes, parts.conversion_times)
    linear = [
        layer
        for layer in layers
        if layer.kind == "linear" and costs.sparse(layer.shape, layer.density) < costs.dense(layer.shape)
    ]
    writer = Writer(graph, half)
    for part in (*(part for index, part in enumerate(parts.parts) if index in chosen), *linear):
        writer.replaced[max(indices_of(part))] = part
        writer.dropped.update(indices_of(part))
        if not (isinstance(part, Layer) and part.kind == "linear"):
            writer.read_panels.update(indices_of(part))
    written = writer.write()
    became = {(part.layer if isinstance(part, Stem) else part).output: part for part in writer.layers()}
    return Rewritten(
        written,
        tuple(_report(layer, became.get(layer.output), costs) for layer in layers),
        writer.reported_panels(),
        left_weights(graph, layers),
    )


def _report(layer: Layer, became: Layer | Stem | None, costs: Costs) -> LayerReport:
    dense_time, sparse_time = costs.dense(layer.shape), costs.sparse(layer.shape, layer.density)
    form: Form = "dense" if became is None else "stem" if isinstance(became, Stem) else "sparse"
    if form == "sparse":
        reason = ""
    elif form == "stem":
        reason = "dense weights, from the image straight into the layout of sparse layers"
    elif layer.kept == layer.weight.size:
        reason = "no zeros"
    elif sparse_time >= dense_time:
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
        layer.output if became is None else became.output,
        dense_time,
        sparse_time,
    )
