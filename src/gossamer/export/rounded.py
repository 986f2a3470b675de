"""A network whose layers' weights and biases are levels, and that has lost the units that died of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from gossamer.errors import ExportError
from gossamer.export.canonical import without_dead_units
from gossamer.export.coded import Steps, levels_of
from gossamer.export.levels import Levels
from gossamer.export.moments import Inputs
from gossamer.graph.graph import Graph
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.messages import copied
from gossamer.graph.sessions import Feed


@dataclass(frozen=True)
class Stored:
    """Where a layer's numbers are."""

    weight: str
    turned: bool
    """Whether the weight is transposed there."""
    bias: str | None
    """None: there is none, or it is not finite, not the layer's alone, or computed with."""


@dataclass
class Network:
    """What is rounded."""

    model: onnx.ModelProto

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.model)

    @cached_property
    def layers(self) -> list[Layer]:
        """One for each weight."""
        found = {stored_of(self.graph, layer).weight: layer for layer in find_layers(self.graph)}
        return list(found.values())

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """By the output of a layer."""
        return {layer.output: stored_of(self.graph, layer) for layer in find_layers(self.graph)}

    def readers_of(self, layer: Layer) -> int:
        """How many layers have its weight."""
        weight = self.stored[layer.output].weight
        return sum(stored.weight == weight for stored in self.stored.values())

    def rounded(self, chosen: Mapping[str, Levels], inputs: Mapping[str, Inputs], feed: Feed | None) -> onnx.ModelProto:
        """The network with these weights, by the output of their layer.

        Args:
            inputs: of the layers, by their output; biases make good what rounding changes in the mean.
            feed: inputs; None: dead units stay.
        """
        new: dict[str, NDArray[np.float32]] = {}
        for layer in self.layers:
            if layer.output not in chosen:
                continue
            stored, weight = self.stored[layer.output], chosen[layer.output].weight
            new[stored.weight] = weight.T if stored.turned else weight
            if stored.bias is not None and layer.output in inputs:
                new[stored.bias] = _made_good(self.graph, stored.bias, layer, weight, inputs[layer.output])
        result = _with(self.model, new)
        if feed is not None:
            result = without_dead_units(result, feed).model
        return _with_biases_in_levels(result, chosen)

    def steps(self, model: onnx.ModelProto, chosen: Mapping[str, Levels]) -> dict[str, Steps]:
        """What the numbers of a network that `rounded` made are multiples of, layer by layer."""
        graph = Graph(model)
        by_weight = {self.stored[output].weight: levels for output, levels in chosen.items()}
        found = {}
        for layer in find_layers(graph):
            stored = stored_of(graph, layer)
            levels = by_weight[stored.weight]
            found[layer.output] = Steps(levels.step, None if stored.bias is None else levels.bias_step)
        return found


def stored_of(graph: Graph, layer: Layer) -> Stored:
    """Where a layer's numbers are.

    Raises:
        ExportError: the weight is not stored as it is computed with.
    """
    for name in graph.nodes[layer.nodes[0]].input:
        stored = graph.constant(name)
        if stored is None or stored.size != layer.weight.size:
            continue
        if stored.shape == layer.weight.shape and np.array_equal(stored, layer.weight, equal_nan=True):
            return Stored(name, False, _bias_of(graph, layer, name))
        if stored.ndim == 2 and np.array_equal(stored.T, layer.weight, equal_nan=True):
            return Stored(name, True, _bias_of(graph, layer, name))
        if stored.ndim == 2 and layer.weight.ndim == 3 and np.array_equal(stored, layer.weight[:, :, 0]):
            return Stored(name, False, _bias_of(graph, layer, name))
    raise ExportError(f"the weight of layer {layer.name} is not stored as it is computed with")


def _bias_of(graph: Graph, layer: Layer, weight: str) -> str | None:
    if layer.bias is None or not np.isfinite(layer.bias).all() or len(graph.readers[weight]) != 1:
        return None
    for name in (name for index in layer.nodes for name in graph.nodes[index].input if name != weight):
        stored = graph.constant(name)
        if stored is None or len(graph.readers[name]) != 1 or stored.dtype != np.float32:
            continue
        if stored.size == len(layer.bias) and np.array_equal(stored.reshape(-1), layer.bias):
            return str(name)
    return None


def _made_good(
    graph: Graph, bias: str, layer: Layer, weight: NDArray[np.float32], inputs: Inputs
) -> NDArray[np.float32]:
    """The bias with what the rows lack in the mean."""
    shape = (len(inputs.means), -1, inputs.means.shape[1])
    wanted = inputs.wanted
    if wanted is None:
        wanted = np.einsum("gnk,gk->gn", layer.weight.astype(np.float64).reshape(shape), inputs.means)
    mean = (wanted - np.einsum("gnk,gk->gn", weight.astype(np.float64).reshape(shape), inputs.means)).reshape(-1)
    stored = np.asarray(graph.constant(bias))
    return np.asarray(stored + mean.reshape(stored.shape), np.float32)


def _with_biases_in_levels(model: onnx.ModelProto, chosen: Mapping[str, Levels]) -> onnx.ModelProto:
    graph, new = Graph(model), {}
    for layer in find_layers(graph):
        bias = stored_of(graph, layer).bias if layer.output in chosen else None
        if bias is not None:
            step = chosen[layer.output].bias_step
            new[bias] = levels_of(np.asarray(graph.constant(bias), np.float32), step) * np.float32(step)
    return _with(model, new)


def _with(model: onnx.ModelProto, new: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    result = copied(model)
    for tensor in result.graph.initializer:
        if tensor.name in new:
            array = np.ascontiguousarray(new[tensor.name], np.float32).reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return result
