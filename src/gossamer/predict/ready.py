"""A specimen built and rewritten once, to be timed as often as wanted, with the terms that its times are made of."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gossamer.bench.compare import random_inputs
from gossamer.bench.engines import Subject, open_runner
from gossamer.bench.layers import LayersOfBoth, MeasuredNetwork, layers_of, profiled
from gossamer.predict.other import between, node_terms
from gossamer.predict.prices import Observation
from gossamer.predict.terms import Terms, dense_terms, sparse_terms

if TYPE_CHECKING:
    import onnx

    from gossamer.export.rewrite import Rewritten

WATCHED_FOR = 0.05
"""Seconds that a whole network is timed for, at least."""
WHOLE = 2.0
"""How much a whole network's time counts beside a node's, of which it has about 20."""
ENGINES = {"sparse": "gossamer", "dense": "dense"}


@dataclass(frozen=True)
class Times:
    """Of one specimen, in seconds, by form."""

    nodes: Mapping[str, Mapping[str, float]]
    """By the names that the profiler has."""
    wholes: Mapping[str, float]
    """Of runs that nobody watched."""

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
    subject: Subject
    layers: LayersOfBoth
    sparse: frozenset[str]
    """The outputs of the layers that run sparse in the sparse form."""
    terms: Mapping[str, tuple[Terms, ...]]
    """By form, those that are timed, of the whole network."""

    def times(self, runs: int) -> Times:
        """Times every node under the profiler, and each form by itself.

        Raises:
            EngineFailed: ONNX Runtime or gossamer-runtime is not installed.
        """
        nodes = profiled(self.subject, tuple(self.terms), runs)
        return Times(nodes, {form: _whole_run(self.subject, form, runs) for form in self.terms})

    def nodes(self, times: Times) -> tuple[Observation, ...]:
        """Single nodes, each with the one term list that it is made of."""
        return tuple(
            Observation((terms,), seconds, watched=1)
            for terms, seconds in self._named(self.layers.measured(times.nodes))
        )

    def wholes(self, times: Times) -> dict[str, Observation]:
        """The whole network, by form."""
        return {form: Observation(self.terms[form], seconds, weight=WHOLE) for form, seconds in times.wholes.items()}

    def _named(self, measured: MeasuredNetwork) -> Iterator[tuple[Terms, float]]:
        """The nodes that the profiler names. ONNX Runtime joins what is added to a linear layer's result with a node
        behind it, which no longer has the layer's name: only whole runs know what that takes."""
        for entry in measured.layers:
            shape = entry.layer.shape
            if entry.layer.output in self.sparse:
                yield sparse_terms(shape, entry.layer.density), entry.sparse
            if not (shape.kind == "linear" and shape.residual):
                yield dense_terms(shape), entry.dense
        for node, seconds in measured.other_sparse:
            yield node_terms(measured.graph, node), seconds


def make_ready(name: str, dense: "onnx.ModelProto", forms: Sequence[str], threads: int, folder: Path) -> ReadySpecimen:
    """Writes every layer sparse that can be.

    Args:
        dense: the specimen.
        forms: which of `sparse` and `dense` are timed.
        folder: for its files; it is made, and the caller removes it.
    """
    from gossamer.export.costs import EverythingSparse
    from gossamer.export.rewrite import rewrite

    rewritten = rewrite(dense, costs=EverythingSparse())
    folder.mkdir()
    subject = Subject(dense, rewritten.model, random_inputs(dense), threads, folder)
    layers = layers_of(subject)
    sparse = frozenset(layer.output for layer in rewritten.layers if layer.form == "sparse")
    terms = _terms(layers, rewritten, sparse)
    return ReadySpecimen(name, subject, layers, sparse, {form: terms[form] for form in forms})


def _terms(layers: LayersOfBoth, rewritten: "Rewritten", sparse: frozenset[str]) -> dict[str, tuple[Terms, ...]]:
    dense_layers = [dense_terms(layer.shape) for layer in layers.layers]
    sparse_layers = [
        sparse_terms(layer.shape, layer.density) if layer.output in sparse else dense
        for layer, dense in zip(layers.layers, dense_layers, strict=True)
    ]
    rest = between(layers.graph, layers.layers, rewritten)
    others = {"sparse": (*rest.conversions, *rest.other), "dense": rest.other_dense}
    of_layers = {"sparse": sparse_layers, "dense": dense_layers}
    return {form: (*of_layers[form], *(node_terms(layers.graph, node) for node in others[form])) for form in of_layers}


def _whole_run(subject: Subject, form: str, runs: int) -> float:
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
