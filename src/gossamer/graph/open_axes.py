"""Axes whose size is known only when the network runs."""

from collections.abc import Iterator

import onnx

from gossamer.graph.messages import copied


def with_open_axes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in which axes of negative sizes are open, and those of the size 0 where an input has such.

    Older exporters write -1 or 0 for a size that they do not know. ONNX Runtime takes -1 for an open axis, and with 0
    nothing but empty inputs; ONNX's own shape inference takes both for sizes, computes with them, and may end the
    process (a Slice along an axis of -1).
    """
    inputs = [axis for value in model.graph.input for axis in _axes_of(value.type)]
    smallest = 1 if any(_is_below(axis, 1) for axis in inputs) else 0
    if not any(_is_below(axis, smallest) for axis in axes_in(model)):
        return model
    result = copied(model)
    for axis in axes_in(result):
        if _is_below(axis, smallest):
            axis.ClearField("dim_value")
    return result


def _is_below(axis: onnx.TensorShapeProto.Dimension, smallest: int) -> bool:
    return axis.HasField("dim_value") and axis.dim_value < smallest


def axes_in(model: onnx.ModelProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """The axes of all values whose types a network says."""
    for graph in graphs_in(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield from _axes_of(value.type)


def _axes_of(kind: onnx.TypeProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """The axes of a tensor, or of the tensors in a sequence, an optional value or a map."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        yield from kind.tensor_type.shape.dim
    elif which in ("sequence_type", "optional_type"):
        yield from _axes_of(getattr(kind, which).elem_type)
    elif which == "map_type":
        yield from _axes_of(kind.map_type.value_type)


def graphs_in(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those inside of its nodes."""
    yield graph
    for node in graph.node:
        for inner in graphs_of(node):
            yield from graphs_in(inner)


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, a Loop or a Scan."""
    for entry in node.attribute:
        yield from entry.graphs
        if entry.HasField("g"):
            yield entry.g
