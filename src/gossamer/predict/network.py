"""How long a network will take on this machine, layer by layer, before anything is exported."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gossamer.predict.calibration import Calibration
from gossamer.predict.other import CONVERSIONS, node_terms
from gossamer.predict.terms import conversion_terms, dense_terms, sparse_terms

if TYPE_CHECKING:
    import onnx

    from gossamer.export.graph import Graph
    from gossamer.export.layers import LayerShape

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
    break_even: float
    """Density below which it is faster sparse."""
    form: str
    """What the export will make of it: "sparse" or "dense"."""

    @property
    def expected(self) -> float:
        return self.sparse if self.form == "sparse" else self.dense


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


def predict(model: "onnx.ModelProto", calibration: Calibration) -> Prediction:
    """Expects times of a plain ONNX network with zeros, at batch size 1.

    Raises:
        ExportError: a constant is damaged.
    """
    from gossamer.bench.compare import at_batch_one
    from gossamer.export.constants import prepared
    from gossamer.export.graph import Graph
    from gossamer.export.layers import find_layers
    from gossamer.export.rewrite import rewrite

    fixed = at_batch_one(model)
    costs = CalibratedCosts(calibration)
    rewritten = rewrite(fixed, costs=costs)
    graph = Graph(prepared(fixed))
    layers = find_layers(graph)
    forms = {report.output: report.form for report in rewritten.layers}
    inside = {place for layer in layers for place in layer.nodes}
    own = {name for place in inside for name in graph.nodes[place].output}
    sparse_nodes = list(rewritten.model.graph.node)
    return Prediction(
        tuple(
            PredictedLayer(
                layer.name,
                layer.shape,
                layer.density,
                costs.dense(layer.shape),
                costs.sparse(layer.shape, layer.density),
                costs.break_even(layer.shape),
                forms[layer.output],
            )
            for layer in layers
        ),
        _of_nodes(graph, (node for node in sparse_nodes if node.op_type in CONVERSIONS), calibration),
        _of_nodes(graph, (node for node in sparse_nodes if not node.domain and not own & {*node.output}), calibration),
        _of_nodes(graph, (node for place, node in enumerate(graph.nodes) if place not in inside), calibration),
    )


def _of_nodes(graph: "Graph", nodes: "Iterable[onnx.NodeProto]", calibration: Calibration) -> float:
    return sum(calibration.seconds(node_terms(graph, node)) for node in nodes)
