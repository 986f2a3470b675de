"""How long a network will take on this machine, layer by layer, before anything is exported."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gossamer.errors import ConfigurationError
from gossamer.predict.calibration import Calibration
from gossamer.predict.other import between, max_pool_terms, node_terms
from gossamer.predict.terms import conversion_terms, dense_terms, sparse_terms

if TYPE_CHECKING:
    import onnx

    from gossamer.export.graph import Graph
    from gossamer.export.layers import Layer, LayerShape

HALVINGS = 30


@dataclass(frozen=True)
class CalibratedCosts:
    """Estimates for one machine: `gossamer.export.costs.Costs` from a calibration."""

    calibration: Calibration

    def dense(self, shape: "LayerShape") -> float:
        return self.calibration.seconds(dense_terms(shape))

    def sparse(self, shape: "LayerShape", density: float) -> float:
        return self.calibration.seconds(sparse_terms(shape, density))

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return self.calibration.seconds(conversion_terms(channels, height, width, images))

    def stem(self, shape: "LayerShape") -> float:
        from gossamer.export.costs import MeasuredCosts

        # Not calibrated: what it takes where the rates were measured, in proportion to the dense layer's time here.
        there = MeasuredCosts()
        return there.stem(shape) * self.dense(shape) / there.dense(shape)

    def pool(self, shape: "LayerShape", *, panels: bool) -> float:
        from gossamer.export.costs import MeasuredCosts

        if not panels:
            return self.calibration.seconds(max_pool_terms(shape))
        there = MeasuredCosts()
        extents = shape.inputs, shape.height, shape.width, shape.images
        return there.pool(shape, panels=True) * self.conversion(*extents) / there.conversion(*extents)

    def break_even(self, shape: "LayerShape") -> float:
        """The density below which the layer is faster sparse, conversions left aside; 0: never, 1: always."""
        dense = self.dense(shape)
        low, high = 0.0, 1.0
        if self.sparse(shape, high) < dense:
            return high
        if self.sparse(shape, low) >= dense:
            return low
        # A layer's time grows with its density, so the crossing is found by halving.
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.sparse(shape, middle) < dense else (low, middle)
        return low


@dataclass(frozen=True)
class PredictedLayer:
    """A layer and its expected times, in seconds."""

    name: str
    shape: "LayerShape"
    density: float
    dense: float
    sparse: float
    """With sparse weights; of a stem, as `StemConv`."""
    break_even: float
    """Density below which it is faster sparse."""
    form: str
    """What the export will make of it: "sparse", "stem" or "dense"."""

    @property
    def expected(self) -> float:
        return self.dense if self.form == "dense" else self.sparse


@dataclass(frozen=True)
class Prediction:
    """A network's expected times, in seconds, for one image or sequence."""

    layers: tuple[PredictedLayer, ...]
    conversions: float
    """Of all changes between the layouts of sparse and other ops."""
    other: float
    """Of all nodes that are no layers, in the sparse network."""
    other_dense: float

    @property
    def expected(self) -> float:
        """Of the network as it would be exported."""
        return sum(layer.expected for layer in self.layers) + self.conversions + self.other

    @property
    def dense(self) -> float:
        """Of the network in ONNX Runtime without gossamer."""
        return sum(layer.dense for layer in self.layers) + self.other_dense


def predict(model: "onnx.ModelProto", calibration: Calibration, sizes: Mapping[str, int] | None = None) -> Prediction:
    """Expects times of a plain ONNX network with zeros, at batch size 1.

    Args:
        sizes: of its inputs, where they are open (`gossamer.bench.sizes`); the layers' forms are those that the export
            chooses for inputs of these sizes.

    Raises:
        ConfigurationError: a size is missing or unknown, or a layer has no output at these sizes.
        ExportError: a constant is damaged.
    """
    from gossamer.bench.sizes import with_sizes
    from gossamer.export.constants import prepared
    from gossamer.export.graph import Graph
    from gossamer.export.layers import find_layers
    from gossamer.export.pools import pool_at
    from gossamer.export.rewrite import rewrite

    fixed = with_sizes(model, sizes)
    costs = CalibratedCosts(calibration)
    graph = Graph(prepared(fixed))
    layers = find_layers(graph)
    _require_outputs(layers)
    rewritten = rewrite(fixed, costs=costs)
    forms = {layer.output: report.form for layer, report in zip(layers, rewritten.layers, strict=True)}
    values = {panel: value for value, (panel, _) in rewritten.panels.items()}
    made = {values[node.output[0]] for node in rewritten.model.graph.node if node.op_type == "PanelMaxPool"}
    pools = [pool for place in range(len(graph.nodes)) if (pool := pool_at(graph, place)) and pool.output in made]
    rest = between(graph, layers, rewritten)
    return Prediction(
        tuple(
            PredictedLayer(
                layer.name,
                layer.shape,
                layer.density,
                costs.dense(layer.shape),
                costs.stem(layer.shape) if forms[layer.output] == "stem" else costs.sparse(layer.shape, layer.density),
                costs.break_even(layer.shape),
                forms[layer.output],
            )
            for layer in layers
        ),
        _of_nodes(graph, rest.conversions, calibration),
        _of_nodes(graph, rest.other, calibration) + sum(costs.pool(pool.shape, panels=True) for pool in pools),
        _of_nodes(graph, rest.other_dense, calibration),
    )


def _require_outputs(layers: "Sequence[Layer]") -> None:
    from gossamer.bench.layers import shape_text

    for layer in layers:
        shape = layer.shape
        if min(shape.output_height, shape.output_width) < 1:
            raise ConfigurationError(
                f"layer {layer.name} ({shape_text(shape)}) has no output: its kernel is larger than its padded input; "
                f"expected larger inputs of the network"
            )


def _of_nodes(graph: "Graph", nodes: "Iterable[onnx.NodeProto]", calibration: Calibration) -> float:
    return sum(calibration.seconds(node_terms(graph, node)) for node in nodes)
