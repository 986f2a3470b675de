"""Prices of terms from measured times."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from gossamer.graph.terms import Terms

REFITS = 5
USUAL = 0.1
"""A relative error that says nothing against a measurement."""


@dataclass(frozen=True)
class Observation:
    """A time that was measured, and all that it is made of."""

    terms: tuple[Terms, ...]
    """The terms of one node, or of every node of a network."""
    seconds: float
    watched: int = 0
    """Nodes that ONNX Runtime's profiler watched meanwhile: each took a little longer for it."""
    weight: float = 1.0
    """How much its relative error counts."""


def fit_beyond(
    prices: Mapping[str, Mapping[str, float]], observations: Sequence[Observation]
) -> dict[str, dict[str, float]]:
    """Prices of the classes that have none yet; the others stay as they are, and what they come to is taken off."""
    left = []
    for found in observations:
        unknown = tuple(terms for terms in found.terms if terms.kind not in prices)
        known = [terms for terms in found.terms if terms.kind in prices]
        seconds = found.seconds - sum(
            prices[terms.kind].get(name, 0.0) * amount for terms in known for name, amount in terms.amounts.items()
        )
        if unknown and seconds > 0:
            # What is left counts as it does in the whole.
            left.append(Observation(unknown, seconds, found.watched, found.weight * seconds / found.seconds))
    return {**{kind: dict(own) for kind, own in prices.items()}, **(fit(left) if left else {})}


def fit(observations: Sequence[Observation]) -> dict[str, dict[str, float]]:
    """Prices, none negative, that make the *relative* errors of the times least in the mean square.

    Relative, because the smallest layers matter as much as the largest in a network of small ones. All classes are
    fitted at once, so that times of whole networks, which nobody watched, say what single nodes that were watched
    cannot: what the watching costs, and what ONNX Runtime does between the nodes that it reports. On a machine that
    others use, some times are far too long; a time that misses by more than `USUAL` counts less, in proportion
    (Huber's weights).

    Returns:
        Class of a layer -> term -> seconds for each unit.
    """
    columns = sorted({(terms.kind, name) for found in observations for terms in found.terms for name in terms.amounts})
    index = {column: number for number, column in enumerate(columns)}
    watching = len(columns)
    matrix = np.zeros((len(observations), len(columns) + 1))
    for row, found in zip(matrix, observations, strict=True):
        for terms in found.terms:
            for name, amount in terms.amounts.items():
                row[index[terms.kind, name]] += amount
        row[watching] = found.watched
        row *= found.weight / found.seconds
    scale = np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    weights = np.array([found.weight for found in observations])
    trust = np.ones(len(observations))
    for _ in range(REFITS):
        solution, _ = nnls(matrix / scale * trust[:, None], weights * trust)
        misses = np.abs((matrix / scale) @ solution / weights - 1)
        trust = np.sqrt(np.minimum(1.0, USUAL / np.maximum(misses, 1e-12)))
    prices = solution / scale
    by_kind: dict[str, dict[str, float]] = defaultdict(dict)
    for (kind, name), price in zip(columns, prices[:watching], strict=True):
        by_kind[kind][name] = float(price)
    return dict(by_kind)
