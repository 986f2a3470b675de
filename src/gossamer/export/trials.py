"""A network quantised in several ways with the same ranges: what each costs, and which layers cost most."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from gossamer.errors import ConfigurationError, ExportError, first_line
from gossamer.export.agreement import compare, few_examples
from gossamer.export.form import FileForm
from gossamer.export.quantisable import Quantisable
from gossamer.export.quantise import quantisable, quantised
from gossamer.export.range_inputs import RangeInputs, read_range_inputs
from gossamer.export.ranges import Ranges, observed_ranges
from gossamer.export.rounding import Rounding
from gossamer.export.source import Source
from gossamer.graph.graph import Graph
from gossamer.graph.layers import Layer
from gossamer.graph.sessions import Feed, Run, dense_session, running

FEW_EXAMPLES = 32
"""Examples that layers are compared on: each is left in float once, and the network run on them."""

Told = Callable[[str], object]


@dataclass(frozen=True)
class LayerCost:
    """What a layer in int8 costs."""

    layer: Layer
    share: float
    """Of the squared error of the network's outputs, what is gone if this layer alone is left in float; below 0 if the
    error is larger then."""


@dataclass
class Trials:
    """A source in fp32 and what becomes of it in int8.

    Raises:
        ConfigurationError: there are no examples that ranges could come from.
        ExportError: it cannot be quantised at all.
    """

    source: Source
    form: FileForm
    progress: Told
    _before: dict[str, float] = field(default_factory=dict)

    @cached_property
    def network(self) -> Quantisable:
        """The network as it is quantised."""
        source = self.source
        found = quantisable(source.dense)
        if found.graph.opset == Graph(source.dense).opset:
            return found
        rounding = Rounding(source.dense, source.feeds, run=source.dense_run)
        converted = run_of(found.graph.model)
        agreement = compare(source.dense_run, converted, source.feeds, rounding)
        if not agreement.within:
            raise ExportError(
                f"in opset {found.graph.opset}, which int8 needs, the network computes something else (outputs differ "
                f"by {agreement.difference:.3g}); export it again in a newer opset"
            )
        return found

    @cached_property
    def inputs(self) -> RangeInputs:
        """The examples that ranges come from."""
        if self.form.ranges_from is not None:
            return read_range_inputs(self.source.dense, self.form.ranges_from)
        if self.source.range_inputs is None:
            raise ConfigurationError(
                f"--int8 needs examples of what {self.source.name} will be given, to find the ranges of its values: "
                f"give some hundred with --ranges-from FILE.npz, an array for each input, as numpy.savez writes it"
            )
        return self.source.range_inputs()

    @cached_property
    def trained(self) -> Mapping[str, tuple[float, float]]:
        """Layer -> the range of its inputs that it was trained with, unless others were asked for."""
        own = self.source.trained_ranges if self.form.ranges_from is None else {}
        return {layer.name: own[layer.name] for layer in self.network.layers if layer.name in own}

    @cached_property
    def ranges(self) -> Ranges:
        """Of all values that may become bytes."""
        inputs = self.inputs
        self.progress(f"finding the ranges of values on {inputs.words}")
        values = self.network.values(self.network.layers)
        found = dict(observed_ranges(self.network.graph.model, values, inputs.feeds, self.form.ranges_by))
        for layer in self.network.layers:
            if layer.name in self.trained:
                shared = dict.fromkeys(self.network.with_range_of(layer.source), self.trained[layer.name])
                found.update((name, ends) for name, ends in shared.items() if name in found)
        return found

    @property
    def words(self) -> str:
        """How ranges are found and on what: "minmax of 512 training examples"."""
        trained = f", inputs of {len(self.trained)} layers as trained" if self.trained else ""
        return f"{self.form.ranges_by} of {self.inputs.words}{trained}"

    def of(self, layers: Sequence[Layer]) -> onnx.ModelProto:
        """The network with these layers in int8."""
        return quantised(self.network, layers, self.ranges, self.form.activations)

    def before(self, split: str) -> float:
        """The metric of the network in fp32."""
        if split not in self._before:
            self._before[split] = self.score(split, self.source.dense)
        return self._before[split]

    def score(self, split: str, model: onnx.ModelProto) -> float:
        """The metric of a network."""
        metric = self.source.splits[split]
        self.progress(f"measuring the {metric.name} on {split}")
        return metric.of(run_of(model))

    def costs(self, layers: Sequence[Layer]) -> list[LayerCost]:
        """What each of these layers costs, the most expensive first: the error of outputs with all of them in int8,
        against that with all but one."""
        run = run_of(self.network.graph.model)
        feed = few_examples(self.network.graph.model, self.source.feeds[0], run, FEW_EXAMPLES)

        def error(others: Sequence[Layer]) -> float:
            return squared_error(run, run_of(self.of(others)), [feed])

        whole, found = error(layers), []
        for number, layer in enumerate(layers, 1):
            self.progress(f"what int8 costs in layer {number} of {len(layers)}")
            others = [other for other in layers if other is not layer]
            without = error(others) if others else 0.0
            found.append(LayerCost(layer, 1 - without / whole if whole else 0.0))
        return sorted(found, key=lambda cost: -cost.share)


def run_of(model: onnx.ModelProto) -> Run:
    """What computes the outputs of a network that was made here.

    Raises:
        ExportError: ONNX Runtime does not open it.
    """
    try:
        return running(dense_session(model))
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(
            f"ONNX Runtime does not open the network that it quantised ({first_line(error)}). Nothing was written. "
            f"Please report it with the network; --keep-float NAME may help"
        ) from error


def squared_error(expected: Run, got: Run, feeds: Iterable[Feed]) -> float:
    """The squared difference of outputs, as a share of their squares, added up over the outputs; what is no floating
    number, mostly the positions of others, is left out."""
    squares: dict[int, tuple[float, float]] = {}
    for feed in feeds:
        for index, (first, second) in enumerate(zip(expected(feed), got(feed), strict=True)):
            if first.dtype.kind == "f" and first.shape == second.shape:
                a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
                # Infinities and NaN are those of the network itself.
                there = np.isfinite(a)
                error, size = squares.get(index, (0.0, 0.0))
                squares[index] = error + float(np.sum((a - b)[there] ** 2)), size + float(np.sum(a[there] ** 2))
    return sum(error / size if size else math.sqrt(error) for error, size in squares.values())
