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
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph
from gossamer.graph.inputs import random_inputs
from gossamer.graph.ops import op_of
from gossamer.graph.quantised import find_quantised
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.terms import Terms, dense_terms, sparse_terms
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
    layers: tuple[QuantisedLayer, ...]
    of_layers: Mapping[str, tuple[Terms, ...]]
    """The terms of each of the layers, by form."""
    between: Between
    forms: tuple[str, ...]

    def times(self, runs: int) -> Times:
        """Times every node under the profiler, and each form by itself."""
        nodes = profiled(self.subject, self.forms, runs)
        return Times(nodes, {form: whole_run(self.subject, form, runs) for form in self.forms})

    def nodes(self, times: Times) -> tuple[Observation, ...]:
        """The layers whose nodes the profiler names."""
        return tuple(Observation((terms,), seconds, watched=1) for terms, seconds in self._named(times) if seconds > 0)

    def wholes(self, times: Times) -> dict[str, Observation]:
        """The whole network, by form."""
        return {form: Observation(self._all(form), seconds, weight=WHOLE) for form, seconds in times.wholes.items()}

    def _named(self, times: Times) -> Iterator[tuple[Terms, float]]:
        sparse_nodes = self.subject.sparse.graph.node
        sparse = time_by_node(times.nodes.get("sparse", {}), sparse_nodes)
        by_name = {sparse_nodes[index].name: seconds for index, seconds in sparse.items() if op_of(sparse_nodes[index])}
        dense = time_by_node(times.nodes.get("dense", {}), self.graph.nodes)
        for layer, ours, theirs in zip(self.layers, self.of_layers["sparse"], self.of_layers["dense"], strict=True):
            yield ours, by_name.get(layer.name, 0.0)
            yield theirs, sum(dense.get(index, 0.0) for index in layer.nodes)

    def _all(self, form: str) -> tuple[Terms, ...]:
        rest = self.between
        others = rest.other_dense if form == "dense" else (*rest.conversions, *rest.other)
        of_bytes = rest.of_bytes_dense if form == "dense" else rest.of_bytes
        return (*self.of_layers[form], *(node_terms(self.graph, node) for node in others), *of_bytes)


def make_ready_int8(name: str, dense: onnx.ModelProto, forms: Sequence[str], threads: int, folder: Path) -> ReadyInt8:
    """Quantises a specimen, with the ranges of its random inputs, and writes every layer sparse that can be.

    Args:
        dense: the specimen, in fp32.
        forms: which of `sparse` and `dense` are timed.
        folder: for its files; it is made, and the caller removes it.
    """
    inputs = random_inputs(dense)
    arrays = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
    model = quantised_by_minmax(dense, [arrays])
    rewritten = rewrite(model, costs=EverythingSparse())
    folder.mkdir()
    graph = Graph(prepared(model))
    layers = find_quantised(graph).layers
    ours = tuple(
        dense_terms(layer.shape) if report.form == "dense" else sparse_terms(layer.shape, layer.share)
        for layer, report in zip(layers, rewritten.of_bytes, strict=True)
    )
    return ReadyInt8(
        name,
        BothForms(model, rewritten.model, inputs, threads, folder),
        graph,
        layers,
        {"sparse": ours, "dense": tuple(dense_terms(layer.shape) for layer in layers)},
        between(graph, (), rewritten),
        tuple(forms),
    )
