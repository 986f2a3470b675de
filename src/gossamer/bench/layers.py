"""The time of every layer, sparse and dense, beside the work that it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from gossamer.bench.engines import BothForms
from gossamer.bench.engines.onnx_runtime import open_dense, open_gossamer
from gossamer.bench.peak import multiply_adds_per_second
from gossamer.bench.profile import node_times, time_by_node
from gossamer.export.quantisable import is_quantised
from gossamer.export.writer import values_held
from gossamer.graph.batch_norm import fold_batch_norm
from gossamer.graph.constants import prepared
from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.graph import Graph
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.ops import op_of
from gossamer.graph.quantised import find_quantised
from gossamer.graph.quantised_layers import QuantisedLayer

FLOPS = 2
"""A multiply-add counts as two operations."""


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer and its times within both networks, in seconds; 0 where the profiler did not name it."""

    layer: Layer | QuantisedLayer
    sparse: float
    dense: float


@dataclass(frozen=True)
class MeasuredNetwork:
    """Times of all nodes of both forms."""

    graph: Graph
    """The graph of the dense form, batch normalisation folded."""
    layers: tuple[MeasuredLayer, ...]
    """Those of floats."""
    of_bytes: tuple[MeasuredLayer, ...]
    other_sparse: tuple[tuple[onnx.NodeProto, float], ...]
    """What is no layer in the sparse form, conversions between layouts included, with seconds."""
    other_dense: tuple[tuple[onnx.NodeProto, float], ...]


def measure_layers(subject: BothForms, runs: int, warmups: int = 3) -> MeasuredNetwork:
    """Runs both forms in turn under ONNX Runtime's profiler, whose clock ticks in microseconds."""
    return layers_of(subject).measured(profiled(subject, ("sparse", "dense"), runs, warmups))


def profiled(subject: BothForms, forms: Sequence[str], runs: int, warmups: int = 3) -> dict[str, dict[str, float]]:
    """Form -> seconds by the names that the profiler has; the forms take turns."""
    openings = {
        "sparse": lambda path: open_gossamer(subject, path),
        "dense": lambda path: open_dense(subject, path),
    }
    return node_times({form: openings[form] for form in forms}, subject.folder, runs, warmups)


@dataclass(frozen=True)
class LayersOfBoth:
    """The layers of a network in both forms: what takes the profiler's times apart."""

    graph: Graph
    """The graph of the dense form, batch normalisation folded."""
    layers: tuple[Layer, ...]
    of_bytes: tuple[QuantisedLayer | DequantisedLayer, ...]
    sparse_nodes: tuple[onnx.NodeProto, ...]

    def measured(self, times: Mapping[str, Mapping[str, float]]) -> MeasuredNetwork:
        """Gives each time to the layer or node that took it; a form without times took 0 throughout.

        Args:
            times: of `profiled`.
        """
        dense = time_by_node(times.get("dense", {}), self.graph.nodes)
        sparse = time_by_node(times.get("sparse", {}), self.sparse_nodes)
        indices: dict[str, list[int]] = {}
        for index in sparse:
            for value in values_held(self.sparse_nodes[index]):
                indices.setdefault(value, []).append(index)
        measured = []
        for layer in (*self.layers, *self.of_bytes):
            # A layer that became sparse ends in a panel; one that did not is made of the same nodes as before.
            pooling = _pooling_taken_along(self.graph, layer, self.sparse_nodes) if isinstance(layer, Layer) else ()
            nodes = (*layer.nodes, *pooling)
            values = {self.graph.nodes[index].output[0] for index in nodes}
            its_indices = {index for value in values for index in indices.get(value, [])}
            its_sparse = sum(sparse.pop(index) for index in its_indices if not self._converts(index))
            measured.append(MeasuredLayer(layer, its_sparse, sum(dense.pop(index, 0.0) for index in nodes)))
        return MeasuredNetwork(
            self.graph,
            tuple(measured[: len(self.layers)]),
            tuple(measured[len(self.layers) :]),
            tuple((self.sparse_nodes[index], seconds) for index, seconds in sparse.items()),
            tuple((self.graph.nodes[index], seconds) for index, seconds in dense.items()),
        )

    def _converts(self, index: int) -> bool:
        """Whether a node of the sparse form makes a layer's planes from its panel: not part of the layer."""
        op = op_of(self.sparse_nodes[index])
        return op is not None and op.converts and not op.makes_panels


def layers_of(subject: BothForms) -> LayersOfBoth:
    """Finds the layers of a network that is to be measured."""
    graph = Graph(prepared(subject.dense) if is_quantised(subject.dense) else fold_batch_norm(subject.dense))
    sparse_nodes = tuple(subject.sparse.graph.node)
    layers = find_layers(graph, linear_residual=_takes_linear_residual(sparse_nodes))
    return LayersOfBoth(graph, tuple(layers), find_quantised(graph).with_weights, sparse_nodes)


def _pooling_taken_along(graph: Graph, layer: Layer, nodes: Sequence[onnx.NodeProto]) -> tuple[int, ...]:
    """The max pooling behind a stem that its sparse form computes with it."""
    following = graph.only_reader(layer.output)
    if following is None:
        return ()
    made = graph.nodes[following].output[0]
    return (following,) if any(n.op_type == "StemConv" and made in values_held(n) for n in nodes) else ()


def _takes_linear_residual(nodes: Sequence[onnx.NodeProto]) -> bool:
    return any(node.op_type == "SparseMatMul" and len(node.input) > 3 for node in nodes)


def layer_times(subject: BothForms, runs: int) -> dict[str, Any]:
    """Measures every layer of both forms.

    Returns:
        `layers`: for each `name`, `shape`, `density`, `milliseconds` and `dense_milliseconds`, `gflops` of its
        nonzeros, `dense_gflops` (as if no weight were zero), both at the sparse time, and `peak_share`, that of the
        nonzeros' rate in the peak of floats, None of layers of bytes; `other_milliseconds` and
        `other_dense_milliseconds` of all nodes that are no layers; `peak_gflops` of all threads.
    """
    measured = measure_layers(subject, runs)
    peak = multiply_adds_per_second(subject.threads)
    return {
        "layers": [_facts(layer, peak) for layer in (*measured.layers, *measured.of_bytes)],
        "other_milliseconds": 1e3 * sum(seconds for _, seconds in measured.other_sparse),
        "other_dense_milliseconds": 1e3 * sum(seconds for _, seconds in measured.other_dense),
        "peak_gflops": FLOPS * peak / 1e9,
    }


def _facts(measured: MeasuredLayer, peak: float) -> Mapping[str, Any]:
    layer, seconds = measured.layer, measured.sparse
    of_bytes = isinstance(layer, QuantisedLayer | DequantisedLayer)
    multiply_adds = layer.shape.multiply_adds
    return {
        "name": layer.name,
        "quantised": of_bytes,
        "shape": layer.shape.text,
        "density": layer.density,
        "milliseconds": 1e3 * seconds,
        "dense_milliseconds": 1e3 * measured.dense,
        "gflops": FLOPS * multiply_adds * layer.density / seconds / 1e9 if seconds else None,
        "dense_gflops": FLOPS * multiply_adds / seconds / 1e9 if seconds else None,
        "peak_share": None if of_bytes or not seconds else multiply_adds * layer.density / seconds / peak,
    }
