"""An ONNX graph, looked at: who makes a value, who reads it, what is constant, which shapes are known."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from gossamer.errors import ExportError
from gossamer.graph.messages import copied
from gossamer.graph.open_axes import graphs_of
from gossamer.graph.shapes import Shapes, infer_shapes

GRAPH = -1
"""The index of a reader that is no node: the value is an output of the graph."""

STANDARD_DOMAINS = ("", "ai.onnx")
FEWEST_INPUTS = {
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean", "Resize", "Transpose"), 1),
    **dict.fromkeys(("Add", "Conv", "DequantizeLinear", "Gemm", "MatMul", "QuantizeLinear"), 2),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSigmoid"), 4),
    **{"Cast": 1, "Mul": 2, "MatMulInteger": 2, "DynamicQuantizeMatMul": 3, "MatMulIntegerToFloat": 4},
    **{"QLinearConcat": 5, "QGemm": 6, "QLinearAdd": 7, "QLinearConv": 8, "QLinearMatMul": 8, "QLinearMul": 7},
}
"""Of the ops whose inputs are read here."""


@dataclass(frozen=True)
class Graph:
    """The top level of a model's graph. Nodes are named by their index in it, values by their name."""

    model: onnx.ModelProto

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.model.graph.node)

    @cached_property
    def opset(self) -> int:
        """The version of ONNX's own ops."""
        return max((entry.version for entry in self.model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """The constants: initializers that no caller can replace, and the outputs of Constant nodes."""
        return constants_of(self.model.graph)

    @cached_property
    def producers(self) -> dict[str, int]:
        """Value -> the node that makes it. Inputs and initializers have none."""
        return {name: index for index, node in enumerate(self.model.graph.node) for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Value -> the nodes that read it, in order, one entry for each time; GRAPH for an output of the graph."""
        found: dict[str, list[int]] = {}
        for index, node in enumerate(self.model.graph.node):
            for name in values_read(node):
                found.setdefault(name, []).append(index)
        for value in self.model.graph.output:
            found.setdefault(value.name, []).append(GRAPH)
        return found

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of the values whose rank is known, constants included."""
        return infer_shapes(self.model) | {name: tuple(tensor.dims) for name, tensor in self.tensors.items()}

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """The value, if it is a constant."""
        tensor = self.tensors.get(name)
        return None if tensor is None else array_of(tensor)

    def only_reader(self, name: str) -> int | None:
        """The node that alone reads a value, once; None if there are more readers or the graph returns it."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0] != GRAPH else None


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers that no caller can replace, and the outputs of Constant nodes."""
    inputs = {value.name for value in graph.input}
    found = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
    for node in graph.node:
        if is_standard(node, "Constant"):
            found.update((node.output[0], tensor) for entry in node.attribute if (tensor := _constant_of(entry)))
    return found


def is_standard(node: onnx.NodeProto, *kinds: str) -> bool:
    """Whether a node is one of these ops of ONNX itself."""
    return node.domain in STANDARD_DOMAINS and node.op_type in kinds


def is_complete(node: onnx.NodeProto) -> bool:
    """Whether a node has an output, and as many inputs as its op has at least."""
    return len(node.output) > 0 and len(node.input) >= FEWEST_INPUTS.get(node.op_type, 0)


def input_at(node: onnx.NodeProto, index: int) -> str:
    """The value that a node reads in a place; empty if it leaves that out."""
    return node.input[index] if index < len(node.input) else ""


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """The node's attributes as Python values; texts stay bytes, as ONNX has them."""
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def array_of(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """A constant's content.

    Raises:
        ExportError: it lies in another file, or is damaged.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ExportError(f"the constant {tensor.name} lies in another file; onnx.load reads such files too")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ExportError(f"the constant {tensor.name} is damaged: {error}") from error


def renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """The same tensor under another name; a Constant node's has none of its own."""
    result = copied(tensor)
    result.name = name
    return result


def values_read(node: onnx.NodeProto) -> Iterator[str]:
    """Everything a node reads, what its subgraphs take from around them included."""
    yield from (name for name in node.input if name)
    for graph in graphs_of(node):
        own = {name for inner in graph.node for name in inner.output}
        own.update(value.name for value in graph.input)
        own.update(tensor.name for tensor in graph.initializer)
        read = [name for inner in graph.node for name in values_read(inner)]
        yield from (name for name in (*read, *(value.name for value in graph.output)) if name not in own)


def _constant_of(entry: onnx.AttributeProto) -> onnx.TensorProto | None:
    if entry.name == "value":
        return entry.t
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if entry.name not in types:
        return None
    return numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(entry), types[entry.name]), entry.name)
