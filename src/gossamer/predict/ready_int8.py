"""A quantised specimen, dense in ONNX Runtime's own int8 and with gossamer's ops on bytes, ready to be timed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from gossamer.bench.engines import BothForms
from gossamer.bench.layers import profiled
from gossamer.bench.profile import time_by_node
from gossamer.export.costs import EverythingSparse
from gossamer.export.quantise import quantised_by_minmax
from gossamer.export.rewrite import rewrite
from gossamer.export.rounded_once import before_additions
from gossamer.graph.byte_terms import on_panels, on_planes
from gossamer.graph.constants import prepared
from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.graph import Graph
from gossamer.graph.inputs import random_inputs
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.ops import op_of
from gossamer.graph.quantised import find_quantised
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.quantised_steps import BytePool
from gossamer.graph.terms import Terms, sparse_terms, without_transposing
from gossamer.predict.of_bytes import converted_terms
from gossamer.predict.other import Between, between, node_terms
from gossamer.predict.prices import Observation
from gossamer.predict.ready import WHOLE, Times, whole_run


@dataclass(frozen=True)
class ReadyInt8:
    """A quantised specimen at one density."""

    name: str
    subject: BothForms
    graph: Graph
    """The dense form's."""
    layers: tuple[QuantisedLayer | DequantisedLayer, ...]
    of_layers: Mapping[str, tuple[tuple[Terms, ...], ...]]
    """The terms of each of the layers, what it takes in included, by form."""
    between: Between
    value_of: Mapping[str, str]
    """Panel of the sparse form -> the value of the dense one that it holds."""
    pools: Mapping[str, BytePool]
    """The poolings, by the values that they make."""
    forms: tuple[str, ...]

    def times(self, runs: int) -> Times:
        """Times every node under the profiler, and each form by itself."""
        nodes = profiled(self.subject, self.forms, runs)
        return Times(nodes, {form: whole_run(self.subject, form, runs) for form in self.forms})

    def nodes(self, times: Times) -> tuple[Observation, ...]:
        """The layers whose nodes the profiler names."""
        named = self._named(times)
        return tuple(Observation(terms, seconds, watched=len(terms)) for terms, seconds in named if seconds > 0)

    def wholes(self, times: Times) -> dict[str, Observation]:
        """The whole network, by form."""
        return {form: Observation(self._all(form), seconds, weight=WHOLE) for form, seconds in times.wholes.items()}

    def _named(self, times: Times) -> Iterator[tuple[tuple[Terms, ...], float]]:
        sparse_nodes = self.subject.sparse.graph.node
        sparse = time_by_node(times.nodes.get("sparse", {}), sparse_nodes)
        by_name = {sparse_nodes[index].name: seconds for index, seconds in sparse.items() if op_of(sparse_nodes[index])}
        dense = time_by_node(times.nodes.get("dense", {}), self.graph.nodes)
        for layer, ours, theirs in zip(self.layers, self.of_layers["sparse"], self.of_layers["dense"], strict=True):
            if ours != theirs:
                yield ours, by_name.get(layer.name, 0.0)
            yield theirs, sum(dense.get(index, 0.0) for index in on_planes(self.graph, layer).nodes)
        for index, seconds in sparse.items():
            node = sparse_nodes[index]
            op = op_of(node)
            if op is not None and op.converts:
                yield (without_transposing(converted_terms(self.graph, node, self.value_of)),), seconds
            elif op is not None and (pool := self.pools.get(self.value_of.get(node.output[0], ""))) is not None:
                yield (on_panels(self.graph, pool),), seconds
        for node in self.between.other_dense:
            seconds = dense.get(self.graph.producers[node.output[0]], 0.0)
            yield (without_transposing(node_terms(self.graph, node)),), seconds

    def _all(self, form: str) -> tuple[Terms, ...]:
        rest = self.between
        others = rest.other_dense if form == "dense" else (*rest.conversions, *rest.other)
        of_bytes = rest.of_bytes_dense if form == "dense" else rest.of_bytes
        of_layers = (terms for layer in self.of_layers[form] for terms in layer)
        return (*of_layers, *(node_terms(self.graph, node) for node in others), *of_bytes)


@dataclass(frozen=True)
class SomeSparse(EverythingSparse):
    """Makes layers of some shapes sparse, and leaves the others to ONNX Runtime."""

    shapes: frozenset[LayerShape]

    def sparse(self, shape: LayerShape, density: float) -> float:
        return super().sparse(shape, density) if shape in self.shapes else 2.0


def make_ready_int8(
    name: str, dense: onnx.ModelProto, forms: Sequence[str], threads: int, folder: Path, *, mixed: bool = False
) -> ReadyInt8:
    """Quantises a specimen, with the ranges of its random inputs, and writes layers sparse.

    Args:
        dense: the specimen, in fp32.
        forms: which of `sparse` and `dense` are timed.
        folder: for its files; it is made, and the caller removes it.
        mixed: every second layer only, so that layouts change between them; else all that can be.
    """
    inputs = random_inputs(dense)
    arrays = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
    model = quantised_by_minmax(dense, [arrays])
    graph = Graph(prepared(model))
    quantised = find_quantised(graph)
    layers = quantised.with_weights
    some = SomeSparse(frozenset(layer.shape for layer in layers[::2]))
    costs = some if mixed else EverythingSparse()
    rewritten = rewrite(model, costs=costs, unrounded=before_additions(model))
    folder.mkdir()
    theirs = tuple(on_planes(graph, layer).terms for layer in layers)
    ours = tuple(
        dense if report.form == "dense" else (sparse_terms(layer.shape, layer.share),)
        for layer, dense, report in zip(layers, theirs, rewritten.of_bytes, strict=True)
    )
    return ReadyInt8(
        name,
        BothForms(model, rewritten.model, inputs, threads, folder),
        graph,
        layers,
        {"sparse": ours, "dense": theirs},
        between(graph, (), rewritten),
        {panel.name: value for value, panel in rewritten.panels.items()},
        {mover.output.value: mover for mover in quantised.movers if isinstance(mover, BytePool)},
        tuple(forms),
    )
