"""Random values for a network's inputs."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from gossamer.graph.axes import axis_name, inputs_to_give
from gossamer.graph.values import Value, draw, tensor_of


def random_inputs(model: onnx.ModelProto, seed: int = 1) -> dict[str, Value]:
    """A value for each input of a network whose sizes are all known; the same seed gives the same numbers."""
    return drawn(inputs_to_give(model), {}, np.random.default_rng(seed))


def drawn(
    inputs: Iterable[onnx.ValueInfoProto], sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, Value]:
    """Normal numbers, and 0 and 1 for whole numbers, truth values and texts.

    Args:
        sizes: of open axes, by the names of `gossamer.graph.axes`.
    """
    return {given.name: draw(given.type, shape_with(given, sizes), rng) for given in inputs}


def shape_with(given: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> list[int]:
    """The shape of an input, or of the tensors in it."""
    return [
        axis.dim_value if (name := axis_name(given, place)) is None else sizes[name]
        for place, axis in enumerate(tensor_of(given.type).shape.dim)
    ]
