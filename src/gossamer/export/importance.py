"""What an error in one unit of a layer does to the outputs, against the same error in another one."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.graph import Graph
from gossamer.graph.layers import Layer
from gossamer.graph.outputs import with_outputs
from gossamer.graph.sessions import Feed, dense_session
from gossamer.graph.units import Reader, Units, find_units

LEAST = 1e-3
"""Of the mean of a layer."""


def importances(model: onnx.ModelProto, layers: Sequence[Layer], feed: Feed) -> dict[str, NDArray[np.float64]]:
    """By the output of a layer, a number for each of its rows, 1 in the mean: by how much its squared error counts.

    An error is passed on by the weights that read the unit, as often as the unit is not 0. What is read by other nodes
    counts 1.
    """
    graph = Graph(model)
    layer_at = {layer.nodes[0]: layer for layer in layers}
    found = {layer.output: np.ones(len(layer.weight)) for layer in layers}
    several = [units for units in find_units(graph) if units.node in layer_at]
    names = list(dict.fromkeys(reader.value for units in several for reader in units.readers))
    if not names:
        return found
    session = dense_session(with_outputs(model, names))
    values = dict(zip(names, session.run(names, dict(feed)), strict=True))
    for units in reversed(several):
        passed = np.zeros(units.count)
        for reader in units.readers:
            if reader.node in layer_at:
                passed += _passed_on(graph, units, reader, found[layer_at[reader.node].output], values)
        mean = passed.mean()
        if np.isfinite(mean) and mean > 0:
            found[layer_at[units.node].output] = np.maximum(passed / mean, LEAST)
    return found


def _passed_on(
    graph: Graph, units: Units, reader: Reader, further: NDArray[np.float64], values: dict[str, NDArray[np.generic]]
) -> NDArray[np.float64]:
    weight = np.moveaxis(np.asarray(graph.constant(reader.weight.constant), np.float64), reader.weight.axis, 0)
    # [numbers of units, outputs, ...]
    squares = weight.reshape(weight.shape[0], weight.shape[1], -1) ** 2
    by_number = np.einsum("uok,o->u", squares, further)
    value = np.moveaxis(np.asarray(values[reader.value]), reader.axis, 0).reshape(units.count, -1)
    active = np.mean(value != 0, axis=1)
    return np.asarray(by_number.reshape(units.count, -1).sum(axis=1) * active)
