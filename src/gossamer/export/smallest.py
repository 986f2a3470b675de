"""The smallest file: weights in few levels, as few as the metric allows (`--smallest`)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.errors import ExportError
from gossamer.export.agreement import few_examples
from gossamer.export.canonical import ORDERS, in_order
from gossamer.export.coded import Steps, coded, short_step
from gossamer.export.costs import MeasuredCosts
from gossamer.export.form import FileForm, allowed_drop
from gossamer.export.importance import importances
from gossamer.export.int8 import DECIDES, Scores, require_no_limit
from gossamer.export.left import left_weights, why_left
from gossamer.export.levels import FINEST, LEVELS, WAYS, Levels, Way, in_levels, own_levels
from gossamer.export.moments import Inputs, inputs_of
from gossamer.export.price_search import PriceSearch, Tried
from gossamer.export.provenance import PRODUCER
from gossamer.export.range_inputs import RangeInputs, read_range_inputs
from gossamer.export.rounded import Network
from gossamer.export.sequential import Beside, fitted
from gossamer.export.source import Source
from gossamer.export.trials import FEW_EXAMPLES, Told, run_of, squared_error
from gossamer.graph.graph import Graph
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import Layer, find_layers
from gossamer.loop.directions import is_within
from gossamer.wording import value_text

PROBE = 4
"""Levels of one layer alone when it is found out what its errors do to the outputs."""
CHEAPEST, DEAREST = -14.0, -2.0
"""Powers of ten: what a bit costs in squared error of the outputs, as a share of them."""
NEAR_PRICES = (-0.5, 1.0)
"""How many of them what a bit costs is looked for around what was found without looking at earlier layers."""
FINEST_PRICE, FINEST_SEQUENTIAL = 0.025, 0.1
"""Powers of ten to which it is found; layer after layer takes longer."""
NEAR = 3
"""Numbers of levels of a layer that compensation is tried with."""
ERROR_EXAMPLES = 512
"""Examples on which the error of the outputs is measured."""
BIAS_LEVELS = 32
"""Levels of a bias then, at least."""
FINE_BIAS = 2.0**-20
"""The step of a bias that is as it was, nearly."""
SMALL = 2**20
"""Weights of a network up to which layers are rounded one after the other, and several orders of units are coded, to
see which is the smallest."""
NEVER = 1e6
"""Seconds of a layer whose weight would be stored whole."""
UNMEASURED = 8
"""Levels where there is no metric to go by: a step of an eighth of the largest weight."""


@dataclass(frozen=True)
class Smallest:
    """A network whose layers' weights are levels, and what was found on the way."""

    model: onnx.ModelProto
    steps: Mapping[str, Steps]
    """Layer -> what its numbers are multiples of."""
    words: str
    """How levels were chosen, for people."""
    scores: Mapping[str, Scores] = field(default_factory=dict)
    """Split -> the metric, where the source has one."""

    def facts(self) -> dict[str, str]:
        """What the file says of it, by keys of its metadata: one line, if there is anything to say."""
        told: dict[str, list[str]] = {}
        for split, s in self.scores.items():
            told.setdefault(s.metric, []).append(f"{split} {s.before:.6g} -> {s.after:.6g}")
        words = [f"{metric}: {', '.join(splits)}" for metric, splits in told.items()]
        return {PRODUCER: "; ".join(words)} if words else {}


def smallest(source: Source, form: FileForm, progress: Told = lambda text: None) -> Smallest:
    """Chooses levels for the weights of every layer: by the metric on validation if there is one, else an eighth of the
    largest weight as the step.

    Raises:
        ExportError: even the finest levels lose more of the metric than is allowed, or there is no layer.
        ConfigurationError: a limit for a metric that the source does not have.
    """
    search = _Search(source, form, progress)
    if not search.layers:
        none = "no layer was found whose weights could be coded (a Conv, Gemm or MatMul with a constant fp32 weight)"
        raise ExportError("; ".join([none, *why_left(left_weights(search.network.graph, (), least=0.0))]))
    for layer in search.layers:
        if not np.isfinite(layer.weight).all():
            raise ExportError(f"weights of the layer {layer.name} are infinite or NaN; no level is near them")
    if DECIDES not in source.splits:
        require_no_limit(source, form)
        chosen = search.uniform(UNMEASURED)
        chosen |= {output: replace(own, bias_step=chosen[output].bias_step) for output, own in search.own.items()}
        words = "a step of an eighth of each layer's largest weight; what that does to its accuracy was not measured"
        if search.own:
            own = f"{len(search.own)} of {len(search.layers)} layers are in levels already, and keep them"
            words = own if len(search.own) == len(search.layers) else f"{own}; the others: {words}"
        return Smallest(*search.ordered(search.model(chosen), chosen), words)
    found = search.best()
    model, steps = search.ordered(found.model, found.chosen)
    measured = {DECIDES: (search.before, found.score)}
    for split in source.splits:
        if split not in measured:
            measured[split] = (search.score(split, source.dense), search.score(split, model))
    scores = {split: Scores(source.splits[split].name, *both) for split, both in measured.items()}
    return Smallest(model, steps, found.words, scores)


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
    words: str
    """How they were chosen, for people."""


@dataclass
class _Search:
    source: Source
    form: FileForm
    progress: Told

    @cached_property
    def network(self) -> Network:
        return Network(self.source.dense)

    @property
    def layers(self) -> list[Layer]:
        return self.network.layers

    @cached_property
    def examples(self) -> RangeInputs:
        if self.form.ranges_from is not None:
            return read_range_inputs(self.source.dense, self.form.ranges_from)
        if self.source.range_inputs is None:
            return RangeInputs(tuple(self.source.feeds), self.source.inputs)
        return self.source.range_inputs()

    @cached_property
    def inputs(self) -> dict[str, Inputs]:
        self.progress(f"looking at what layers read on {self.examples.words}")
        return inputs_of(self.source.dense, self.layers, self.examples.feeds)

    @cached_property
    def beside(self) -> Beside:
        return Beside(self.source.dense, self.examples.feeds)

    @cached_property
    def importance(self) -> dict[str, NDArray[np.float64]]:
        return importances(self.source.dense, self.layers, self.examples.feeds[0])

    def levels(self, layer: Layer, count: int, price: float, way: Way, inputs: Inputs | None = None) -> Levels:
        """A layer in this many levels on either side of zero.

        Args:
            price: what a bit costs, in units of the layer's error.
            inputs: what it reads; None: in the dense network.
        """
        inputs = inputs or self.inputs[layer.output]
        moments = inputs.moments if self.network.stored[layer.output].bias is None else inputs.centred
        found = in_levels(layer.weight, moments, count, price, way, self.importance[layer.output])
        return replace(found, bias_step=self.bias_step(layer, price))

    def bias_step(self, layer: Layer, price: float) -> float:
        """The step of a layer's bias that is worth its bits."""
        finest = 0.0 if layer.bias is None else float(np.abs(layer.bias).max(initial=0.0)) / FINEST
        # A step s costs s^2 / 12 in error and -log2 s in bits: s^2 / 6 is price / ln 2 where both are least.
        wanted = math.sqrt(6 * price / math.log(2)) if math.isfinite(price) else finest
        return short_step(max(wanted, finest))

    @cached_property
    def sensitivity(self) -> dict[str, float]:
        """Layer's output -> the squared error of the network's outputs for each unit of its own."""
        run = run_of(self.source.dense)
        feed = few_examples(self.source.dense, self.examples.feeds[0], run, FEW_EXAMPLES)
        found = {}
        for number, layer in enumerate(self.layers, 1):
            self.progress(f"what rounding costs in layer {number} of {len(self.layers)}")
            coarse = replace(self.levels(layer, PROBE, 0.0, "nearest"), bias_step=FINE_BIAS)
            model = self.network.rounded({layer.output: coarse}, self.inputs, None)
            error = squared_error(run, run_of(model), [feed])
            found[layer.output] = error / coarse.error if coarse.error > 0 and math.isfinite(error) else 0.0
        return found

    def uniform(self, count: int) -> dict[str, Levels]:
        """Every layer in so many levels, each weight rounded to the nearest."""
        found = {}
        for layer in self.layers:
            levels = in_levels(layer.weight, np.ones((1, layer.weight[:1].size)), count, 0.0, "nearest")
            largest = 0.0 if layer.bias is None else float(np.abs(layer.bias).max(initial=0.0))
            found[layer.output] = replace(levels, bias_step=short_step(largest / max(count, BIAS_LEVELS)))
        return found

    def best(self) -> _Found:
        """The smallest of what the ways to round find.

        Raises:
            ExportError: nothing fits.
        """
        search, highest = self.search(), dict[Way, float | None]()
        for way in self.ways:
            self.progress(f"choosing levels ({way})")
            near = highest["compensated"] if way == "sequential" else None
            low, high = (CHEAPEST, DEAREST) if near is None else (near + one for one in NEAR_PRICES)
            distance = FINEST_SEQUENTIAL if way == "sequential" else FINEST_PRICE
            highest[way] = search.halve(way, low, high, distance)
        self.progress("looking at the neighbours of the smallest")
        search.look_around()
        best = search.smallest()
        if best is None:
            finest = self.model(self.uniform(FINEST))
            metric = self.source.splits[DECIDES]
            text = Scores(metric.name, self.counted_from, self.score(DECIDES, finest)).text()
            of_float = self.source.in_float
            where = "" if of_float is None else f", counted from round {of_float.round}, the last one in float"
            raise ExportError(
                f"with {FINEST} levels on either side of zero the {metric.name} on {DECIDES} goes from {text}{where}, "
                f"and may get worse by {self.allowed:g} (--max-drop). Nothing was written. Allow more, or leave "
                f"--smallest out"
            )
        # Smaller ones of other ways are within the limit by themselves only.
        found = [one for one in map(search.smallest, self.ways) if one is not None and one.size >= best.size]
        sizes = ", ".join(f"{one.way} {one.size:,.0f}" for one in found)
        words = f"bytes of weights by the way to round, as estimated: {sizes}"
        if self.source.in_float is not None:
            told = value_text(self.source.splits[DECIDES].name, self.counted_from)
            words += f"; --max-drop counts from round {self.source.in_float.round}, the last one in float: {told}"
        return _Found(*self._at(10**best.price, best.way), best.score, words)

    @property
    def ways(self) -> tuple[Way, ...]:
        """The ways to round that are tried."""
        small = sum(layer.weight.size for layer in self.layers) < SMALL
        ways = tuple(way for way in WAYS if small or way != "sequential")
        return (*ways, "trained") if self.own else ways

    @cached_property
    def before(self) -> float:
        return self.score(DECIDES, self.source.dense)

    @property
    def counted_from(self) -> float:
        """The metric that may get worse by `allowed`: of a round in levels that of the last one before it in float."""
        return self.before if self.source.in_float is None else self.source.in_float.score

    @property
    def allowed(self) -> float:
        return allowed_drop(self.form, self.counted_from)

    @cached_property
    def own(self) -> dict[str, Levels]:
        """The layers, by their outputs, whose weights are in levels already."""
        found = {layer.output: own_levels(layer.weight) for layer in self.layers}
        return {output: levels for output, levels in found.items() if levels is not None}

    def search(self) -> PriceSearch:
        """The search for the way to round and for what a bit may cost."""
        better = self.source.splits[DECIDES].better
        feeds = self.examples.first(ERROR_EXAMPLES).feeds

        def at(way: Way, power: float) -> Tried:
            chosen, model = self._at(10**power, way)
            error = squared_error(self.source.dense_run, run_of(model), feeds)
            size = sum(levels.bits for levels in chosen.values()) / 8
            return Tried(way, power, self.score(DECIDES, model), error, size)

        return PriceSearch(at, lambda score: is_within(self.allowed, self.counted_from, score, better), better)

    def _at(self, price: float, way: Way) -> tuple[dict[str, Levels], onnx.ModelProto]:
        """The levels of all layers at so much a bit, and the network with them."""
        if way != "sequential":
            chosen = {layer.output: self._chosen(layer, price, way) for layer in self.layers}
            return chosen, self.model(chosen)
        chosen, inputs = {}, dict(self.inputs)
        for layer in self.layers:
            has_bias = self.network.stored[layer.output].bias is not None
            if self._makes_good(layer):
                before = self.network.rounded(chosen, inputs, None)
                change = self.beside.changed(before, layer)
                inputs[layer.output] = change.inputs
                follower = replace(layer, weight=fitted(layer, change, has_bias))
                chosen[layer.output] = self._chosen(follower, price, "compensated", change.inputs)
            else:
                chosen[layer.output] = self._chosen(layer, price, "compensated")
        return chosen, self.network.rounded(chosen, inputs, self.source.feeds[0])

    def _makes_good(self, layer: Layer) -> bool:
        """Whether a layer can be fitted to what it reads: no other has its weight, and its moments are there."""
        return self.inputs[layer.output].moments.ndim == 3 and self.network.readers_of(layer) == 1

    def _chosen(self, layer: Layer, price: float, way: Way, inputs: Inputs | None = None) -> Levels:
        """The levels of a layer that cost least, error and bits.

        Args:
            inputs: what it reads; None: in the dense network.
        """
        weight = self.sensitivity[layer.output]
        own_price = price / weight if weight > 0 else math.inf
        if math.isinf(own_price):
            return self.levels(layer, FINEST, 0.0, "nearest", inputs)
        if way == "trained":
            own = self.own.get(layer.output)
            if own is not None:
                return replace(own, bias_step=self.bias_step(layer, own_price))
            way = "rate"

        def cost(levels: Levels) -> float:
            return levels.error + own_price * levels.bits

        def tried(counts: Iterable[int], way: Way) -> dict[int, Levels]:
            return {count: self.levels(layer, count, own_price, way, inputs) for count in counts}

        # Making errors good takes long, so only numbers of levels that are good without it are tried.
        near = LEVELS
        if way == "compensated":
            alone = tried(LEVELS, "rate")
            near = tuple(sorted(alone, key=lambda count: cost(alone[count]))[:NEAR])
        return min(tried(near, way).values(), key=cost)

    def ordered(self, model: onnx.ModelProto, chosen: Mapping[str, Levels]) -> tuple[onnx.ModelProto, dict[str, Steps]]:
        """The network with its units in the order that takes the fewest bytes, and the steps of its layers."""
        steps = self.network.steps(model, chosen)

        def size(one: onnx.ModelProto) -> int:
            layers = find_layers(Graph(one))
            return sum(len(coded(layer, steps[layer.output])) for layer in layers)

        orders = ORDERS if sum(layer.weight.size for layer in self.layers) < SMALL else ORDERS[:1]
        self.progress("putting units in order")
        found = [in_order(model, order) for order in orders]
        return (min((model, *found), key=size) if len(found) > 1 else found[0]), steps

    def score(self, split: str, model: onnx.ModelProto) -> float:
        return self.source.splits[split].of(run_of(model))

    def model(self, chosen: Mapping[str, Levels]) -> onnx.ModelProto:
        """The network with these levels."""
        known = self.inputs if DECIDES in self.source.splits else {}
        return self.network.rounded(chosen, known, self.source.feeds[0])
