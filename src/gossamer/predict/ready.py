"""A specimen built and rewritten once, to be timed as often as wanted, with the terms that its times are made of."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from gossamer.bench.engines import BothForms, open_runner
from gossamer.bench.layers import LayersOfBoth, MeasuredNetwork, layers_of, profiled
from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import Form, rewrite
from gossamer.graph.graph import Graph
from gossamer.graph.inputs import random_inputs
from gossamer.graph.layers import Layer
from gossamer.graph.ops import OPS, OpWork
from gossamer.graph.pools import Pool
from gossamer.graph.stems import stem_of
from gossamer.graph.terms import Terms, dense_terms, panel_pool_terms, sparse_terms
from gossamer.predict.other import Between, between, max_pool_terms, node_terms
from gossamer.predict.prices import Observation

WATCHED_FOR = 0.05
"""Seconds that a whole network is timed for, at least."""
WHOLE = 2.0
"""How much a whole network's time counts beside a node's, of which it has about 20."""
ENGINES = {"sparse": "gossamer", "dense": "dense"}


@dataclass(frozen=True)
class Times:
    """Times of one specimen, in seconds, by form."""

    nodes: Mapping[str, Mapping[str, float]]
    """Times by the names that the profiler has."""
    wholes: Mapping[str, float]
    """Times of runs that nobody watched."""

    def calmer(self, other: "Times") -> "Times":
        """The shorter ones of two measurements of the same."""
        return Times(
            {form: _shorter(times, other.nodes[form]) for form, times in self.nodes.items()},
            _shorter(self.wholes, other.wholes),
        )


@dataclass(frozen=True)
class ReadySpecimen:
    """A specimen at one density."""

    name: str
    subject: BothForms
    layers: LayersOfBoth
    of_layers: Mapping[str, tuple[Terms, ...]]
    """The terms of each of the layers, by form."""
    between: Between
    forms: tuple[str, ...]
    """The forms that are timed."""

    def times(self, runs: int) -> Times:
        """Times every node under the profiler, and each form by itself.

        Raises:
            EngineFailed: ONNX Runtime or gossamer-runtime is not installed.
        """
        nodes = profiled(self.subject, self.forms, runs)
        return Times(nodes, {form: whole_run(self.subject, form, runs) for form in self.forms})

    def nodes(self, times: Times) -> tuple[Observation, ...]:
        """Single nodes."""
        named = self._named(self.layers.measured(times.nodes))
        return tuple(Observation(terms, seconds, watched=len(terms)) for terms, seconds in named if seconds > 0)

    def wholes(self, times: Times) -> dict[str, Observation]:
        """The whole network, by form."""
        return {form: Observation(self._all(form), seconds, weight=WHOLE) for form, seconds in times.wholes.items()}

    def _all(self, form: str) -> tuple[Terms, ...]:
        rest, graph = self.between, self.layers.graph
        others = rest.other_dense if form == "dense" else (*rest.conversions, *rest.other)
        pools = [panel_pool_terms(pool.shape) for pool in rest.pools.values()] if form == "sparse" else []
        return (*self.of_layers[form], *(node_terms(graph, node) for node in others), *pools)

    def _named(self, measured: MeasuredNetwork) -> Iterator[tuple[tuple[Terms, ...], float]]:
        """The nodes that the profiler names. ONNX Runtime joins what is added to a linear layer's result with a node
        behind it, which no longer has the layer's name: only whole runs know what that takes."""
        graph, pools = measured.graph, self.between.pools
        for layer, entry, sparse, dense in zip(
            self.layers.layers, measured.layers, self.of_layers["sparse"], self.of_layers["dense"], strict=True
        ):
            if sparse != dense:
                yield (sparse,), entry.sparse
            if not (layer.kind == "linear" and layer.residual):
                pool = _taken_along(graph, layer) if sparse.kind == "stem" else None
                yield (dense, *([] if pool is None else [max_pool_terms(pool.shape)])), entry.dense
        for node, seconds in measured.other_sparse:
            pool = pools.get(node.output[0])
            yield (node_terms(graph, node) if pool is None else panel_pool_terms(pool.shape),), seconds


def make_ready(name: str, dense: onnx.ModelProto, forms: Sequence[str], threads: int, folder: Path) -> ReadySpecimen:
    """Writes every layer sparse that can be.

    Args:
        dense: the specimen.
        forms: which of `sparse` and `dense` are timed.
        folder: for its files; it is made, and the caller removes it.
    """
    rewritten = rewrite(dense, costs=EverythingSparse())
    folder.mkdir()
    subject = BothForms(dense, rewritten.model, random_inputs(dense), threads, folder)
    layers = layers_of(subject)
    of_layers = {
        "sparse": tuple(
            _terms(layers.graph, layer, report.form)
            for layer, report in zip(layers.layers, rewritten.of_floats, strict=True)
        ),
        "dense": tuple(dense_terms(layer.shape) for layer in layers.layers),
    }
    return ReadySpecimen(
        name, subject, layers, of_layers, between(layers.graph, layers.layers, rewritten), tuple(forms)
    )


def _terms(graph: Graph, layer: Layer, form: Form) -> Terms:
    if form == "dense":
        return dense_terms(layer.shape)
    if form == "stem":
        return OPS["StemConv"].terms(OpWork(layer.shape, pooled=_taken_along(graph, layer) is not None))
    return sparse_terms(layer.shape, layer.density)


def _taken_along(graph: Graph, layer: Layer) -> Pool | None:
    """The max pooling that a stem computes with it."""
    stem = stem_of(graph, layer)
    return None if stem is None else stem.pool


def whole_run(subject: BothForms, form: str, runs: int) -> float:
    """Seconds of a run that nobody watches, the median."""
    runner = open_runner(ENGINES[form], subject)
    try:
        first = [runner.seconds() for _ in range(runs)]
        # Small networks often, so that a short disturbance does not decide their time.
        again = max(runs, math.ceil(WATCHED_FOR / min(first)))
        return float(np.median([runner.seconds() for _ in range(again)]))
    finally:
        runner.close()


def _shorter(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: min(seconds, other[name]) for name, seconds in one.items()}
