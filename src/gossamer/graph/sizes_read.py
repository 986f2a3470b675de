"""Open sizes of inputs that the layers which read them decide: the channels of a convolution, the rows of a product."""

import math

import onnx

from gossamer.graph.axes import axis_name, inputs_to_give
from gossamer.graph.graph import Graph, attributes_of, is_standard


def sizes_read(model: onnx.ModelProto) -> dict[str, int]:
    """Name of an open size -> the number without which a Conv, Gemm or MatMul with a constant weight does not run."""
    graph = Graph(model)
    found: dict[str, int] = {}
    for value in inputs_to_give(model):
        rank = len(value.type.tensor_type.shape.dim)
        for place in graph.readers.get(value.name, []):
            for axis, size in _needed(graph, place, value.name, rank).items():
                name = axis_name(value, axis) if axis < rank else None
                if name is not None:
                    found.setdefault(name, size)
    return found


def _needed(graph: Graph, place: int, value: str, rank: int) -> dict[int, int]:
    """Axis -> its size, for what a node reads first."""
    if place < 0 or not is_standard(graph.nodes[place], "Conv", "Gemm", "MatMul"):
        return {}
    node = graph.nodes[place]
    weight = graph.shapes.get(node.input[1], ()) if node.input[1] in graph.tensors else ()
    sizes = [size for size in weight if isinstance(size, int)]
    if node.input[0] != value or len(sizes) < 2 or rank < 2:
        return {}
    attributes = attributes_of(node)
    if node.op_type == "Conv":
        return {1: math.prod((sizes[1], int(str(attributes.get("group", 1)))))}
    rows = sizes[-1] if attributes.get("transB", 0) else sizes[-2]
    return {0 if attributes.get("transA", 0) else rank - 1: rows}
