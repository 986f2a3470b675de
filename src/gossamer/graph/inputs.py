"""Random values for a network's inputs, and the sizes of them that its layers decide."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from gossamer.graph.axes import axis_name, inputs_to_give
from gossamer.graph.graph import Graph, attributes_of, is_standard
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
        axis.dim_value if (name := axis_name(given, index)) is None else sizes[name]
        for index, axis in enumerate(tensor_of(given.type).shape.dim)
    ]


def sizes_read(model: onnx.ModelProto) -> dict[str, int]:
    """Name of an open size -> the number without which a Conv, Gemm or MatMul with a constant weight does not run."""
    graph = Graph(model)
    found: dict[str, int] = {}
    for value in inputs_to_give(model):
        rank = len(value.type.tensor_type.shape.dim)
        for index in graph.readers.get(value.name, []):
            for axis, size in _needed(graph, index, value.name, rank).items():
                name = axis_name(value, axis) if axis < rank else None
                if name is not None:
                    found.setdefault(name, size)
    return found


def _needed(graph: Graph, index: int, value: str, rank: int) -> dict[int, int]:
    """Axis -> its size, for what a node reads first."""
    if index < 0 or not is_standard(graph.nodes[index], "Conv", "Gemm", "MatMul"):
        return {}
    node = graph.nodes[index]
    weight = graph.shapes.get(node.input[1], ()) if node.input[1] in graph.tensors else ()
    sizes = [size for size in weight if isinstance(size, int)]
    if node.input[0] != value or len(sizes) < 2 or rank < 2:
        return {}
    attributes = attributes_of(node)
    if node.op_type == "Conv":
        return {1: math.prod((sizes[1], int(str(attributes.get("group", 1)))))}
    rows = sizes[-1] if attributes.get("transB", 0) else sizes[-2]
    return {0 if attributes.get("transA", 0) else rank - 1: rows}
