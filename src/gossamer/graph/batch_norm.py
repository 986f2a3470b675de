"""Factors folded into weights: a Gemm's own, and the BatchNorm behind a convolution or linear layer."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from gossamer.graph.graph import Graph, attributes_of, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused

FoldedNode = tuple[onnx.NodeProto, list[onnx.TensorProto]]


def fold_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with every BatchNormalization folded whose input is a Conv or Gemm that nobody else reads, and
    the factor of every Gemm with a constant fp32 weight multiplied into that.

    y = s (W x + b - m) / sqrt(v + e) + o is (W s / sqrt(v + e)) x + (b - m) s / sqrt(v + e) + o, computed in double
    precision. A zero of a weight stays a zero.
    """
    model = _replaced(model, _without_factors(Graph(model)))
    graph = Graph(model)
    folded: dict[int, FoldedNode] = {}
    for index, node in enumerate(graph.nodes):
        if not is_standard(node, "BatchNormalization") or len(node.output) != 1 or len(node.input) != 5:
            continue
        before = graph.producers.get(node.input[0])
        if before is None or graph.only_reader(node.input[0]) != index:
            continue
        replacement = _fold(graph, before, node)
        if replacement is not None:
            folded[before] = replacement
            folded[index] = (onnx.NodeProto(), [])
    return _replaced(model, folded)


def _replaced(model: onnx.ModelProto, folded: Mapping[int, FoldedNode]) -> onnx.ModelProto:
    """The network with other nodes at these indices, or none where a node has no kind."""
    if not folded:
        return model
    result = copied(model)
    del result.graph.node[:]
    for index, node in enumerate(model.graph.node):
        new, tensors = folded.get(index, (node, []))
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
        replace_items(model.graph.node, nodes)
    if len(initializers) != len(model.graph.initializer):
        kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in initializers]
        replace_items(model.graph.initializer, kept)


def _without_factors(graph: Graph) -> dict[int, FoldedNode]:
    """Every Gemm alpha (W x) as (alpha W) x, so that what is rounded to fp16 later is the weight that is stored."""
    folded: dict[int, FoldedNode] = {}
    for index, node in enumerate(graph.nodes):
        alpha = np.float32(str(attributes_of(node).get("alpha", 1.0))) if is_standard(node, "Gemm") else np.float32(1)
        weight = None if alpha == 1 else graph.constant(node.input[1])
        if weight is None or weight.dtype != np.float32:
            continue
        scaled = np.asarray(weight, np.float64) * float(alpha)
        if not _fits(scaled):
            continue
        (name,) = _unused(graph, index, f"{node.input[1]}.scaled")
        new = copied(node)
        new.input[1] = name
        (factor,) = [entry for entry in new.attribute if entry.name == "alpha"]
        new.attribute.remove(factor)
        folded[index] = (new, [_tensor(scaled, name)])
    return folded


def _unused(graph: Graph, index: int, *names: str) -> list[str]:
    """Names for what is made of a node's weight; with the node's index, where others could need or have them."""
    taken = names_of_values(graph.model)
    if any(name in taken for name in names) or len(graph.readers[graph.nodes[index].input[1]]) > 1:
        return [unused(f"{name}.{index}", taken) for name in names]
    return list(names)


def _fold(graph: Graph, index: int, norm: onnx.NodeProto) -> FoldedNode | None:
    layer = graph.nodes[index]
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
    with np.errstate(all="ignore"):
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
    with np.errstate(all="ignore"):
        new_weight = np.asarray(weight, np.float64) * factor.reshape(shape)
        new_bias = (np.asarray(bias, np.float64) - mean) * factor + offset
    if not (_fits(new_weight) and _fits(new_bias)):
        return None
    names = _unused(graph, index, f"{layer.input[1]}.folded", f"{layer.input[1]}.folded_bias")
    node = copied(layer)
    del node.input[1:]
    node.input.extend(names)
    node.output[0] = norm.output[0]
    return node, [_tensor(new_weight, names[0]), _tensor(new_bias, names[1])]


def _fits(values: NDArray[np.float64]) -> bool:
    """Whether they are numbers of fp32: infinities take other ways through a network than the numbers they come of."""
    return bool((np.abs(values) <= np.finfo(np.float32).max).all())


def _tensor(values: NDArray[np.float64], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)
