"""BatchNorm folded into the convolution or linear layer before it."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from gossamer.export.graph import Graph, attributes_of, is_standard

FoldedNode = tuple[onnx.NodeProto, list[onnx.TensorProto]]


def fold_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with every BatchNormalization folded whose input is a Conv or Gemm that nobody else reads.

    y = s (W x + b - m) / sqrt(v + e) + o is (W s / sqrt(v + e)) x + (b - m) s / sqrt(v + e) + o, computed in double
    precision. A zero of a weight stays a zero.
    """
    graph = Graph(model)
    folded: dict[int, FoldedNode] = {}
    for place, node in enumerate(graph.nodes):
        if not is_standard(node, "BatchNormalization") or len(node.output) != 1 or len(node.input) != 5:
            continue
        before = graph.producers.get(node.input[0])
        if before is None or graph.only_reader(node.input[0]) != place:
            continue
        replacement = _fold(graph, graph.nodes[before], node, f"{before}")
        if replacement is not None:
            folded[before] = replacement
            folded[place] = (onnx.NodeProto(), [])
    if not folded:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for place, node in enumerate(graph.nodes):
        new, tensors = folded.get(place, (node, []))
        if new.op_type:
            result.graph.node.append(new)
        result.graph.initializer.extend(tensors)
    drop_unread(result)
    return result


def drop_unread(model: onnx.ModelProto) -> None:
    """Takes out initializers and Constant nodes that nobody reads, in place."""
    readers = Graph(model).readers
    nodes = [n for n in model.graph.node if not is_standard(n, "Constant") or any(name in readers for name in n.output)]
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in readers]
    inputs = {value.name for value in model.graph.input}
    initializers += [t for t in model.graph.initializer if t.name not in readers and t.name in inputs]
    if len(nodes) != len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    if len(initializers) != len(model.graph.initializer):
        kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in initializers]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def _fold(graph: Graph, layer: onnx.NodeProto, norm: onnx.NodeProto, tag: str) -> FoldedNode | None:
    if attributes_of(norm).get("training_mode", 0) != 0 or not is_standard(layer, "Conv", "Gemm"):
        return None
    statistics = [graph.constant(name) for name in norm.input[1:]]
    weight = graph.constant(layer.input[1])
    bias = graph.constant(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else np.zeros(1, np.float32)
    if weight is None or bias is None or any(values is None for values in statistics):
        return None
    if weight.dtype != np.float32:
        return None
    scale, offset, mean, variance = (np.asarray(values, np.float64) for values in statistics)
    epsilon = float(str(attributes_of(norm).get("epsilon", 1e-5)))
    factor = scale / np.sqrt(variance + epsilon)
    attributes = attributes_of(layer)
    if layer.op_type == "Gemm":
        if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or bias.ndim > 1:
            return None
        axis = 0 if attributes.get("transB", 0) else 1
    else:
        axis = 0
    if factor.shape != (weight.shape[axis],):
        return None
    shape = [1] * weight.ndim
    shape[axis] = -1
    new_weight = np.asarray(weight, np.float64) * factor.reshape(shape)
    new_bias = (np.asarray(bias, np.float64) - mean) * factor + offset
    names = [f"{layer.input[1]}.folded", f"{layer.input[1]}.folded_bias"]
    taken = set(graph.producers) | set(graph.shapes) | set(graph.readers)
    if any(name in taken for name in names) or len(graph.readers[layer.input[1]]) > 1:
        names = [f"{name}.{tag}" for name in names]
    node = onnx.NodeProto()
    node.CopyFrom(layer)
    del node.input[1:]
    node.input.extend(names)
    node.output[0] = norm.output[0]
    return node, [_tensor(new_weight, names[0]), _tensor(new_bias, names[1])]


def _tensor(values: NDArray[np.float64], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)
