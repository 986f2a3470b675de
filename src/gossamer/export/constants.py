"""What a graph computes from constants alone, computed once: weights that an exporter transposes or splits."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from gossamer.export.batch_norm import drop_unread, fold_batch_norm
from gossamer.export.graph import Graph, array_of, is_standard

REARRANGEMENTS = (
    "Cast",
    "Concat",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Ops that give no more numbers than they take."""


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its constants as initializers, rearranged ones included, and BatchNorm folded."""
    return fold_batch_norm(_folded(model))


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = Graph(model)
    tensors = dict(graph.tensors)
    kept: list[onnx.NodeProto] = []
    returned = {value.name for value in model.graph.output}
    made: dict[str, onnx.TensorProto] = {}
    for node in graph.nodes:
        constant = all(name in tensors for name in node.input if name)
        if is_standard(node, "Constant") and node.output[0] in tensors and node.output[0] not in returned:
            made[node.output[0]] = _named(tensors[node.output[0]], node.output[0])
        elif is_standard(node, *REARRANGEMENTS) and constant and not returned.intersection(node.output):
            results = _computed(node, {name: array_of(tensors[name]) for name in node.input if name}, graph)
            made |= {name: numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in results.items()}
        else:
            kept.append(node)
            continue
        tensors |= made
    if not made:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(kept)
    result.graph.initializer.extend(made.values())
    drop_unread(result)
    return result


def _computed(
    node: onnx.NodeProto, inputs: dict[str, NDArray[np.generic]], graph: Graph
) -> dict[str, NDArray[np.generic]]:
    values = [onnx.helper.make_tensor_value_info(name, 0, None) for name in inputs]
    outputs = [name for name in node.output if name]
    results = [onnx.helper.make_tensor_value_info(name, 0, None) for name in outputs]
    opset = [onnx.helper.make_opsetid("", graph.opset)]
    alone = onnx.helper.make_model(onnx.helper.make_graph([node], "constant", values, results), opset_imports=opset)
    computed = ReferenceEvaluator(alone).run(None, inputs)
    return {name: np.asarray(value) for name, value in zip(outputs, computed, strict=True)}


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    result = onnx.TensorProto()
    result.CopyFrom(tensor)
    result.name = name
    return result
