"""How long a network will take on this machine, layer by layer, before anything is exported."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from gossamer.errors import ConfigurationError
from gossamer.export.parts import stem_time
from gossamer.export.quantised_parts import dense_time
from gossamer.export.rewrite import rewrite
from gossamer.graph.axes import with_sizes
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph
from gossamer.graph.half_terms import can_multiply_in_half, half_terms
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.ops import OPS, OpWork
from gossamer.graph.quantised import find_quantised
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.stems import stem_of
from gossamer.graph.terms import Terms, conversion_terms, dense_terms, sparse_terms
from gossamer.predict.calibration import Calibration
from gossamer.predict.other import between, max_pool_terms, node_terms

HALVINGS = 30


@dataclass(frozen=True)
class CalibratedCosts:
    """Estimates for one machine: `gossamer.export.costs.Costs` from a calibration."""

    calibration: Calibration
    half_arithmetic: bool = False
    """Whether sparse layers may multiply in fp16, where the calibration has prices of that."""

    def dense(self, shape: LayerShape) -> float:
        return self.calibration.seconds(dense_terms(shape))

    def sparse(self, shape: LayerShape, density: float) -> float:
        in_floats = self._of("SparseMatMul" if shape.kind == "linear" else "SparseConv", OpWork(shape, density))
        return min(in_floats, self._half(shape, density)) if self.half_arithmetic else in_floats

    def in_half(self, shape: LayerShape, density: float) -> bool:
        if not self.calibration.prices_half:
            return True  # as far as the runtime has kernels
        return self._half(shape, density) < replace(self, half_arithmetic=False).sparse(shape, density)

    def _half(self, shape: LayerShape, density: float) -> float:
        """Infinite where there are no kernels, or no prices."""
        if not can_multiply_in_half(shape, density):
            return math.inf
        terms = half_terms(shape, density)
        return self.calibration.seconds(terms) if terms.kind in self.calibration.prices else math.inf

    def conversion(self, channels: int, height: int, width: int, images: int) -> float:
        return self.calibration.seconds(conversion_terms(channels, height, width, images))

    def stem(self, shape: LayerShape, *, pooled: bool) -> float:
        return self._of("StemConv", OpWork(shape, pooled=pooled))

    def pool(self, shape: LayerShape, *, panels: bool) -> float:
        return self._of("PanelMaxPool", OpWork(shape)) if panels else self.calibration.seconds(max_pool_terms(shape))

    def of_bytes(self, terms: Terms, *, panels: bool) -> float:
        return self.calibration.seconds(terms)

    def _of(self, op: str, work: OpWork) -> float:
        return self.calibration.seconds(OPS[op].terms(work))

    def break_even(self, shape: LayerShape) -> float:
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
class CostsOfBlocks(CalibratedCosts):
    """Those of a quantised network whose zeros would lie in blocks of four input channels, as many as it has."""

    densities: Mapping[tuple[LayerShape, float], float] = field(default_factory=dict)
    """Layer and the share of its quads that are kept -> the share of its weights."""

    def sparse(self, shape: LayerShape, density: float) -> float:
        return super().sparse(shape, self.densities.get((shape, density), density))


@dataclass(frozen=True)
class PredictedLayer:
    """A layer and its expected times, in seconds."""

    name: str
    shape: LayerShape
    density: float
    dense: float
    sparse: float
    """Seconds with sparse weights; of a stem, as `StemConv`."""
    break_even: float
    """Density below which it is faster sparse."""
    form: str
    """What the export will make of it: "sparse", "stem" or "dense"."""
    quantised: bool = False
    """Whether it computes with bytes; its break-even is a share of quads of input channels then, as its time is."""

    @property
    def expected(self) -> float:
        return self.dense if self.form == "dense" else self.sparse


@dataclass(frozen=True)
class Prediction:
    """A network's expected times, in seconds, for one image or sequence."""

    layers: tuple[PredictedLayer, ...]
    conversions: float
    """Seconds of all changes between the layouts of sparse and other ops."""
    other: float
    """Seconds of all nodes that are no layers, in the sparse network."""
    other_dense: float
    guessed: tuple[str, ...] = ()
    """Kinds of layers and ops whose times are guesses, because the calibration has no price of them."""

    @property
    def expected(self) -> float:
        """Seconds of the network as it would be exported."""
        return sum(layer.expected for layer in self.layers) + self.conversions + self.other

    @property
    def dense(self) -> float:
        """Seconds of the network in ONNX Runtime without gossamer."""
        return sum(layer.dense for layer in self.layers) + self.other_dense


def predict(
    model: onnx.ModelProto,
    calibration: Calibration,
    sizes: Mapping[str, int] | None = None,
    *,
    half_arithmetic: bool = False,
    blocks: bool = False,
) -> Prediction:
    """Expects times of a plain ONNX network with zeros, at batch size 1.

    Args:
        sizes: of its inputs, where they are open (`gossamer.graph.axes`); the layers' forms are those that the export
            chooses for inputs of these sizes.
        half_arithmetic: whether sparse layers may multiply in fp16.
        blocks: whether the zeros of quantised layers are taken to lie in blocks of four input channels, as many as
            there are.

    Raises:
        ConfigurationError: a size is missing or unknown, or a layer has no output at these sizes.
        ExportError: a constant is damaged.
    """
    fixed = with_sizes(model, sizes)
    graph = Graph(prepared(fixed))
    layers, of_bytes = find_layers(graph), find_quantised(graph).with_weights
    costs = CalibratedCosts(calibration, half_arithmetic)
    if blocks:
        densities = {(layer.shape, layer.share): layer.density for layer in of_bytes}
        costs = CostsOfBlocks(calibration, half_arithmetic, densities)
    _require_outputs((*layers, *of_bytes))
    rewritten = rewrite(fixed, costs=costs)
    forms = {layer.output: report.form for layer, report in zip(layers, rewritten.of_floats, strict=True)}
    rest = between(graph, layers, rewritten)

    poolings = sum(costs.pool(pool.shape, panels=True) for pool in rest.pools.values())

    def by_our_op(layer: Layer) -> float:
        stem = stem_of(graph, layer) if forms[layer.output] == "stem" else None
        return costs.sparse(layer.shape, layer.density) if stem is None else stem_time(stem, costs)

    quantised = tuple(
        PredictedLayer(
            layer.name,
            layer.shape,
            layer.density,
            dense_time(graph, layer, costs),
            costs.sparse(layer.shape, layer.share),
            costs.break_even(layer.shape),
            report.form,
            quantised=True,
        )
        for layer, report in zip(of_bytes, rewritten.of_bytes, strict=True)
    )
    return Prediction(
        tuple(
            PredictedLayer(
                layer.name,
                layer.shape,
                layer.density,
                costs.dense(layer.shape),
                by_our_op(layer),
                costs.break_even(layer.shape),
                forms[layer.output],
            )
            for layer in layers
        )
        + quantised,
        _of_nodes(graph, rest.conversions, calibration),
        _of_nodes(graph, rest.other, calibration) + poolings + sum(map(calibration.seconds, rest.of_bytes)),
        _of_nodes(graph, rest.other_dense, calibration) + sum(map(calibration.seconds, rest.of_bytes_dense)),
        _guessed(graph, (*layers, *of_bytes), (*rest.conversions, *rest.other, *rest.other_dense), calibration),
    )


def _guessed(
    graph: Graph, layers: Sequence[Layer | QuantisedLayer], nodes: Sequence[onnx.NodeProto], calibration: Calibration
) -> tuple[str, ...]:
    ops = {node.op_type for node in nodes if node_terms(graph, node).kind not in calibration.prices}
    of_layers = {
        terms.kind
        for layer in layers
        for terms in (dense_terms(layer.shape), sparse_terms(layer.shape, layer.share))
        if terms.kind not in calibration.prices
    }
    return (*sorted(of_layers), *sorted(ops))


def _require_outputs(layers: Sequence[Layer | QuantisedLayer]) -> None:
    for layer in layers:
        shape = layer.shape
        if min(shape.output_height, shape.output_width) < 1:
            raise ConfigurationError(
                f"layer {layer.name} ({shape.text}) has no output: its kernel is larger than its padded input; "
                f"expected larger inputs of the network"
            )


def _of_nodes(graph: Graph, nodes: Iterable[onnx.NodeProto], calibration: Calibration) -> float:
    return sum(calibration.seconds(node_terms(graph, node)) for node in nodes)
