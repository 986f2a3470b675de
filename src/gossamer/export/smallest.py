"""The smallest file: weights in few levels, as few as the metric allows (`--smallest`)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from gossamer.errors import ExportError
from gossamer.export.agreement import few_examples
from gossamer.export.compress import in_byte_levels
from gossamer.export.costs import MeasuredCosts
from gossamer.export.form import FileForm, allowed_drop
from gossamer.export.int8 import DECIDES, Scores, require_no_limit
from gossamer.export.levels import FINEST, LEVELS, WAYS, Levels, Way, in_levels
from gossamer.export.moments import Moments, moments_of
from gossamer.export.range_inputs import RangeInputs, read_range_inputs
from gossamer.export.source import Source
from gossamer.export.trials import FEW_EXAMPLES, Told, run_of, squared_error
from gossamer.graph.graph import Graph
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.messages import copied
from gossamer.loop.directions import is_within

PROBE = 4
"""Levels of one layer alone when it is found out what its errors do to the outputs."""
CHEAPEST, DEAREST = -14.0, -2.0
"""Powers of ten: what a bit costs in squared error of the outputs, as a share of them."""
HALVINGS = 9
"""Of the space between the two: networks whose metric is measured in each way to round."""
NEAR = 3
"""Numbers of levels of a layer that compensation is tried with."""
NEVER = 1e6
"""Seconds of a layer whose weight would be stored whole."""
UNMEASURED = 8
"""Levels where there is no metric to go by: a step of an eighth of the largest weight."""


@dataclass(frozen=True)
class Smallest:
    """A network whose layers' weights are levels, and what was found on the way."""

    model: onnx.ModelProto
    steps: Mapping[str, float]
    """Layer -> the step that its weights are multiples of."""
    words: str
    """How levels were chosen, for people."""
    scores: Mapping[str, Scores] = field(default_factory=dict)
    """Split -> the metric, where the source has one."""

    def facts(self) -> dict[str, str]:
        """What the file says of it, by keys of its metadata."""
        return {f"gossamer.{split}": f"{s.metric} {s.before:.6g} -> {s.after:.6g}" for split, s in self.scores.items()}


def smallest(source: Source, form: FileForm, progress: Told = lambda text: None) -> Smallest:
    """Chooses levels for the weights of every layer: by the metric on validation if there is one, else an eighth of the
    largest weight as the step.

    Raises:
        ExportError: even the finest levels lose more of the metric than is allowed, or there is no layer.
        ConfigurationError: a limit for a metric that the source does not have.
    """
    search = _Search(source, form, progress)
    if not search.layers:
        raise ExportError(
            "no layer was found whose weights could be coded (a Conv, Gemm or MatMul with a constant fp32 weight)"
        )
    for layer in search.layers:
        if not np.isfinite(layer.weight).all():
            raise ExportError(f"weights of the layer {layer.name} are infinite or NaN; no level is near them")
    if DECIDES not in source.splits:
        require_no_limit(source, form)
        chosen = search.uniform(UNMEASURED)
        return Smallest(
            search.model(chosen),
            search.steps(chosen),
            "a step of an eighth of each layer's largest weight; what that does to its accuracy was not measured",
        )
    found = search.best()
    measured = {DECIDES: (search.before, found.score)}
    for split in source.splits:
        if split not in measured:
            measured[split] = (search.score(split, source.dense), search.score(split, found.model))
    scores = {split: Scores(source.splits[split].name, *both) for split, both in measured.items()}
    return Smallest(found.model, search.steps(found.chosen), found.words, scores)


class SmallestCosts(MeasuredCosts):
    """For which every layer with zeros is sparse, whether that is faster or not."""

    def dense(self, shape: LayerShape) -> float:
        return NEVER

    def stem(self, shape: LayerShape, *, pooled: bool) -> float:
        return NEVER


@dataclass(frozen=True)
class _Found:
    """Levels of every layer within the allowed loss."""

    chosen: Mapping[str, Levels]
    """By the output of the layer."""
    model: onnx.ModelProto
    score: float
    """The metric on the split that decides."""
    words: str = ""

    @property
    def size(self) -> float:
        """Bytes of weights, about."""
        return sum(levels.bits for levels in self.chosen.values()) / 8


@dataclass
class _Search:
    source: Source
    form: FileForm
    progress: Told

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.source.dense)

    @cached_property
    def layers(self) -> list[Layer]:
        """One for each weight."""
        found = {self._constant(layer)[0]: layer for layer in find_layers(self.graph)}
        return list(found.values())

    @cached_property
    def examples(self) -> RangeInputs:
        if self.form.ranges_from is not None:
            return read_range_inputs(self.source.dense, self.form.ranges_from)
        if self.source.range_inputs is None:
            return RangeInputs(tuple(self.source.feeds), self.source.inputs)
        return self.source.range_inputs()

    @cached_property
    def moments(self) -> dict[str, Moments]:
        self.progress(f"looking at what layers read on {self.examples.words}")
        return moments_of(self.source.dense, self.layers, self.examples.feeds)

    @cached_property
    def sensitivity(self) -> dict[str, float]:
        """Layer's output -> the squared error of the network's outputs for each unit of its own."""
        run = run_of(self.source.dense)
        feed = few_examples(self.source.dense, self.examples.feeds[0], run, FEW_EXAMPLES)
        found = {}
        for number, layer in enumerate(self.layers, 1):
            self.progress(f"what rounding costs in layer {number} of {len(self.layers)}")
            coarse = in_levels(layer.weight, self.moments[layer.output], PROBE, 0.0, "nearest")
            error = squared_error(run, run_of(self.model({layer.output: coarse})), [feed])
            found[layer.output] = error / coarse.error if coarse.error > 0 and math.isfinite(error) else 0.0
        return found

    def uniform(self, count: int) -> dict[str, Levels]:
        """Every layer in so many levels, each weight rounded to the nearest."""
        blind = {layer.output: np.ones((1, layer.weight[:1].size)) for layer in self.layers}
        return {
            layer.output: in_levels(layer.weight, blind[layer.output], count, 0.0, "nearest") for layer in self.layers
        }

    def best(self) -> _Found:
        """The smallest of what the ways to round find.

        Raises:
            ExportError: nothing fits.
        """
        found: dict[Way, _Found] = {}
        for way in WAYS:
            self.progress(f"choosing levels ({way})")
            fits = self._within(way)
            if fits is not None:
                found[way] = fits
        if not found:
            finest = self.model(self.uniform(FINEST))
            metric = self.source.splits[DECIDES]
            text = Scores(metric.name, self.before, self.score(DECIDES, finest)).text()
            raise ExportError(
                f"with {FINEST} levels on either side of zero the {metric.name} on {DECIDES} goes from {text}, and may "
                f"get worse by {self.allowed:g} (--max-drop). Nothing was written. Allow more, or leave --smallest out"
            )
        best = min(found.values(), key=lambda one: one.size)
        sizes = ", ".join(f"{way} {one.size:,.0f}" for way, one in found.items())
        return replace(best, words=f"bytes of weights by the way to round, as estimated: {sizes}")

    @cached_property
    def before(self) -> float:
        return self.score(DECIDES, self.source.dense)

    @property
    def allowed(self) -> float:
        return allowed_drop(self.form, self.before)

    def _within(self, way: Way) -> _Found | None:
        """The coarsest levels whose metric is within the allowed loss, by what a bit costs."""
        low, high = CHEAPEST, DEAREST
        best: _Found | None = None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            chosen = {layer.output: self._chosen(layer, 10**middle, way) for layer in self.layers}
            model = self.model(chosen)
            found = _Found(chosen, model, self.score(DECIDES, model))
            if is_within(self.allowed, self.before, found.score, self.source.splits[DECIDES].better):
                low = middle
                best = found if best is None or found.size < best.size else best
            else:
                high = middle
        return best

    def _chosen(self, layer: Layer, price: float, way: Way) -> Levels:
        """The levels of a layer that cost least, error and bits."""
        weight = self.sensitivity[layer.output]
        own_price = price / weight if weight > 0 else math.inf
        if math.isinf(own_price):
            return in_levels(layer.weight, self.moments[layer.output], FINEST, 0.0, "nearest")

        def cost(levels: Levels) -> float:
            return levels.error + own_price * levels.bits

        def tried(counts: Iterable[int], way: Way) -> dict[int, Levels]:
            return {
                count: in_levels(layer.weight, self.moments[layer.output], count, own_price, way) for count in counts
            }

        # Making errors good takes long, so only numbers of levels that are good without it are tried.
        near = LEVELS
        if way == "compensated":
            alone = tried(LEVELS, "rate")
            near = tuple(sorted(alone, key=lambda count: cost(alone[count]))[:NEAR])
        return min(tried(near, way).values(), key=cost)

    def score(self, split: str, model: onnx.ModelProto) -> float:
        return self.source.splits[split].of(run_of(model))

    def steps(self, chosen: Mapping[str, Levels]) -> dict[str, float]:
        """Layer -> step, of all that share a weight."""
        by_constant = {self._constant(layer)[0]: chosen[layer.output].step for layer in self.layers}
        return {layer.output: by_constant[self._constant(layer)[0]] for layer in find_layers(self.graph)}

    def model(self, chosen: Mapping[str, Levels]) -> onnx.ModelProto:
        """The network with these weights."""
        new = {}
        for layer in self.layers:
            if layer.output in chosen:
                name, turned = self._constant(layer)
                weight = chosen[layer.output].weight
                new[name] = weight.T if turned else weight
                new.update(self._biases(layer, name))
        result = copied(self.source.dense)
        for tensor in result.graph.initializer:
            if tensor.name in new:
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new[tensor.name]), tensor.name))
        return result

    def _biases(self, layer: Layer, weight: str) -> dict[str, NDArray[np.float32]]:
        """What else a layer's own nodes read of its outputs' number, in the levels of a byte."""
        read = {name for index in layer.nodes for name in self.graph.nodes[index].input if name != weight}
        stored = {name: self.graph.constant(name) for name in read}
        biases = {name: one for name, one in stored.items() if one is not None and one.dtype == np.float32}
        return {name: in_byte_levels(one) for name, one in biases.items() if one.size == layer.shape.outputs > 1}

    def _constant(self, layer: Layer) -> tuple[str, bool]:
        """The initializer that holds a layer's weight, and whether it is transposed there."""
        return self._constants[layer.output]

    @cached_property
    def _constants(self) -> dict[str, tuple[str, bool]]:
        """By the output of the layer."""
        return {layer.output: _constant_of(self.graph, layer) for layer in find_layers(self.graph)}


def _constant_of(graph: Graph, layer: Layer) -> tuple[str, bool]:
    for name in graph.nodes[layer.nodes[0]].input:
        stored = graph.constant(name)
        if stored is None or stored.size != layer.weight.size:
            continue
        if stored.shape == layer.weight.shape and np.array_equal(stored, layer.weight, equal_nan=True):
            return name, False
        if stored.ndim == 2 and np.array_equal(stored.T, layer.weight, equal_nan=True):
            return name, True
    raise ExportError(f"the weight of layer {layer.name} is not stored as it is computed with")
