"""The expected time of a network as a function of its weights' densities: `predict`, without a network for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product

import onnx

from gossamer.export.parts import find_parts, stem_pays
from gossamer.graph.axes import with_sizes
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.pools import Pool
from gossamer.graph.stems import MOSTLY_KEPT, Stem
from gossamer.predict.calibration import Calibration
from gossamer.predict.network import CalibratedCosts
from gossamer.predict.other import node_terms
from gossamer.predict.variable_elimination import Times, VariableElimination

REMEMBERED = 10_000
"""Densities of a layer whose times are remembered."""

Shares = Callable[["Layer"], Mapping[str, float]]
"""Layer of the ONNX network -> the weights that it is made of, by name, and how much of it each of them is. Empty for a
layer whose density is not asked about."""

Choice = tuple[bool, float]
"""Whether a first layer is a stem, and its density if it is not."""


class ExpectedTime:
    """Density of each weight by name -> seconds of one inference, of the network as `gossamer export --calibration`
    would write it.

    It is what `predict` expects, and it never falls when more is kept. Prices are not negative, so a sparse layer's
    time grows with its density, and with it the least time of all layouts, which is what the export chooses. There is
    one exception: a first layer that keeps nine tenths may become a stem, which can be faster than with fewer weights.
    The time is then the upper envelope, the highest of all lower densities of that layer, so that what is predicted in
    the end is never more than this.
    """

    def __init__(self, model: onnx.ModelProto, calibration: Calibration, shares: Shares) -> None:
        """
        Args:
            model: plain ONNX, with weights other than zero where `shares` names any.

        Raises:
            ConfigurationError: the network branches too widely (`VariableElimination`).
            ExportError: a constant is damaged.
        """
        self._costs = costs = CalibratedCosts(calibration)
        self._graph = Graph(prepared(with_sizes(model)))
        self._layers = find_layers(self._graph)
        made_of = ((layer.output, tuple(shares(layer).items())) for layer in self._layers)
        self._made_of = {output: weights for output, weights in made_of if weights}
        self._sparse = {layer.output: _remembering(costs, layer) for layer in self._layers if self._varies(layer)}
        linear = [layer for layer in self._layers if layer.kind == "linear"]
        self._linear = [(layer.output, costs.dense(layer.shape)) for layer in linear if self._varies(layer)]
        self._always = sum(
            min(costs.dense(layer.shape), costs.sparse(layer.shape, layer.density))
            for layer in linear
            if not self._varies(layer)
        )
        parts = find_parts(self._graph, self._layers, costs).parts
        self._stems = [part for part in parts if isinstance(part, Stem) and self._varies(part.layer)]
        self._layouts: dict[tuple[bool, ...], _Layouts] = {}

    def __call__(self, densities: Mapping[str, float]) -> float:
        """Seconds.

        Args:
            densities: of every weight that `shares` named; others are ignored.
        """
        of = {output: _density(weights, densities) for output, weights in self._made_of.items()}
        linear = sum(min(dense, self._sparse[output](of[output])) for output, dense in self._linear)
        choices = product(*(list(self._choices(stem, of[stem.layer.output])) for stem in self._stems))
        return self._always + linear + max(self._of_convolutions(of, choice) for choice in choices)

    def _varies(self, layer: Layer) -> bool:
        return layer.output in self._made_of

    def _choices(self, stem: Stem, density: float) -> Iterator[Choice]:
        """What the export makes of a first layer of this density and of lower ones: where any of them is dearest."""
        if density >= MOSTLY_KEPT and stem_pays(self._graph, stem, density, self._costs):
            yield True, density
            density = MOSTLY_KEPT
        yield False, density

    def _of_convolutions(self, densities: Mapping[str, float], choices: Sequence[Choice]) -> float:
        forms = tuple(is_stem for is_stem, _ in choices)
        if forms not in self._layouts:
            self._layouts[forms] = self._layouts_with(forms)
        plain = {
            stem.layer.output: density
            for stem, (is_stem, density) in zip(self._stems, choices, strict=True)
            if not is_stem
        }
        return self._layouts[forms]({**densities, **plain})

    def _layouts_with(self, forms: Sequence[bool]) -> "_Layouts":
        plain = {stem.layer.output for stem, is_stem in zip(self._stems, forms, strict=True) if not is_stem}
        return _Layouts(self._graph, self._layers, self._costs, plain, self._sparse)


class _Layouts:
    """Density of each convolution by its output -> seconds of all that is no linear layer, in the cheapest layout, if
    certain first layers are stems and the others are not."""

    def __init__(
        self,
        graph: Graph,
        layers: Sequence[Layer],
        costs: CalibratedCosts,
        no_stems: set[str],
        sparse: Mapping[str, Callable[[float], float]],
    ) -> None:
        found = find_parts(graph, layers, costs, no_stems=no_stems)
        self._elimination = VariableElimination(found.units, found.read_as_planes, found.conversion_times)
        self._times: list[Times] = [(unit.plane_time, unit.panel_time) for unit in found.units]
        self._varying = [
            (index, part.output, sparse[part.output])
            for index, part in enumerate(found.parts)
            if isinstance(part, Layer) and part.output in sparse
        ]
        pools = [part.pool if isinstance(part, Stem) else part for part in found.parts if isinstance(part, Stem | Pool)]
        counted = {pool.output for pool in pools if pool is not None}
        inside = {index for layer in layers for index in layer.nodes}
        self._others = sum(
            costs.calibration.seconds(node_terms(graph, node))
            for index, node in enumerate(graph.nodes)
            if index not in inside and node.output[0] not in counted
        )

    def __call__(self, densities: Mapping[str, float]) -> float:
        times = list(self._times)
        for index, output, sparse in self._varying:
            times[index] = times[index][0], sparse(densities[output])
        return self._others + self._elimination(times)


def _density(weights: Sequence[tuple[str, float]], densities: Mapping[str, float]) -> float:
    """The density of a layer; whatever else it is made of counts as kept."""
    others = max(0.0, 1 - sum(share for _, share in weights))
    return others + sum(share * densities[name] for name, share in weights)


def _remembering(costs: CalibratedCosts, layer: Layer) -> Callable[[float], float]:
    """Density -> seconds of the layer's sparse op. Searches change one layer at a time and come back to most others."""
    return lru_cache(REMEMBERED)(lambda density: costs.sparse(layer.shape, density))
