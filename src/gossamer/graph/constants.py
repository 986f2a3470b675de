"""What a graph computes from constants alone, computed once: weights that are transposed, split, masked or stored
sparse."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from gossamer.errors import ExportError
from gossamer.graph.batch_norm import drop_unread, fold_batch_norm
from gossamer.graph.byte_movers import with_pairs
from gossamer.graph.graph import Graph, array_of, is_standard, renamed
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.open_axes import with_open_axes
from gossamer.graph.rectified_pools import rectify_before_pooling

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
"""Ops that move numbers: computed wherever their inputs are constants."""
_COMPARISONS = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Where", "Xor")
_ARITHMETIC = (
    "Abs",
    "Add",
    "Clip",
    "Div",
    "Exp",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Sign",
    "Sqrt",
    "Sub",
)
_CURVES = ("Log", "Relu", "Sigmoid", "Tanh")
_SPREADING = ("CastLike", "ConstantOfShape", "Expand", "Shape", "Tile")
_SUMS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")
COMPUTATIONS = (*_COMPARISONS, *_ARITHMETIC, *_CURVES, *_SPREADING, *_SUMS)
"""Ops of masks and other reparametrisations: computed where the result becomes a weight. Elsewhere, a mask of attention
say, the result would only be more to store than what it is computed from."""
WEIGHTED = ("BatchNormalization", "Conv", "Gemm", "MatMul")
"""Ops whose constant inputs are weights, those of `fold_batch_norm` and of layers."""

FREE_BYTES, TIMES_STORED = 2**28, 16
"""All these ops together may read and make so many bytes, and so many times those of the stored constants: several ops
on each weight. A few bytes of a file can ask for any amount."""
FEW = 64
"""Numbers of a constant that may be a shape, a count of repetitions or a bound."""


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its constants as initializers, computed ones included, BatchNorm folded, open axes that
    have no size, what only moves quantised numbers between bytes, and functions before max poolings.

    What asks for more memory than `FREE_BYTES` and `TIMES_STORED` grant, or cannot be computed, stays as it is.

    Raises:
        ExportError: a constant is damaged.
    """
    return with_pairs(rectify_before_pooling(fold_batch_norm(_folded(with_open_axes(model)))))


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    folding = _Folding(Graph(model))
    kept = [node for node in folding.graph.nodes if not folding.fold(node)]
    if not folding.made:
        return model
    result = copied(model)
    replace_items(result.graph.node, kept)
    read = Graph(result).readers
    result.graph.initializer.extend(tensor for name, tensor in folding.made.items() if name in read)
    del result.graph.sparse_initializer[:]
    stay = [tensor for tensor in model.graph.sparse_initializer if tensor.values.name not in folding.made]
    result.graph.sparse_initializer.extend(stay)
    drop_unread(result)
    return result


@dataclass
class _Folding:
    """The constants of a graph, and those made of them so far."""

    graph: Graph
    made: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors = dict(self.graph.tensors)
        self.sparse = dict(sparse_constants(self.graph.model))
        stored = [*self.tensors.values(), *(sparse.values for sparse in self.sparse.values())]
        self.bytes_left = FREE_BYTES + TIMES_STORED * sum(tensor.ByteSize() for tensor in stored)
        self.returned = {value.name for value in self.graph.model.graph.output}
        self.weights = self._become_weights()
        for tensor in self.graph.model.graph.sparse_initializer:
            self._store_dense(tensor.values.name)

    def fold(self, node: onnx.NodeProto) -> bool:
        """Makes constants of a node's results; False if it has to stay."""
        if self.returned.intersection(node.output):
            return False
        if is_standard(node, "Constant"):
            name = node.output[0]
            if name in self.tensors:
                self._store(name, self.tensors[name])
                return True
            return self._store_dense(name)
        if not is_standard(node, *REARRANGEMENTS) and not self.weights.intersection(node.output):
            return False
        if not _is_foldable(node) or not all(name in self.tensors for name in node.input if name):
            return False
        inputs = {name: self.tensors[name] for name in node.input if name}
        if self._widens(node, inputs):
            return False
        if not self._afford(_bytes_moved(node, inputs, self.graph.opset)):
            return False
        results = _computed(node, inputs, self.graph.opset)
        if results is None:
            return False
        for name, values in results.items():
            self._store(name, numpy_helper.from_array(values, name))
        return True

    def _widens(self, node: onnx.NodeProto, inputs: Mapping[str, onnx.TensorProto]) -> bool:
        """Whether a Cast makes larger numbers of many bytes, and not for a weight: an embedding of int8 would take four
        times the room."""
        if not is_standard(node, "Cast") or self.weights.intersection(node.output):
            return False
        (tensor,) = inputs.values()
        return tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and math.prod(tensor.dims) > FEW

    def _become_weights(self) -> set[str]:
        """Constants, and what is computed from constants, that in the end a layer reads."""
        constant = {*self.tensors, *self.sparse}
        for node in self.graph.nodes:
            if _is_foldable(node) and constant.issuperset(filter(None, node.input)):
                constant.update(node.output)
        weights: set[str] = set()
        for node in reversed(self.graph.nodes):
            if is_standard(node, *WEIGHTED) or (constant.issuperset(node.output) and weights.intersection(node.output)):
                weights.update(constant.intersection(node.input))
        return weights

    def _store_dense(self, name: str) -> bool:
        if name not in self.sparse or name not in self.weights or name in self.returned:
            return False
        sparse = self.sparse[name]
        if not self._afford(_bytes_of(sparse.values.data_type, sparse.dims)):
            return False
        self._store(name, numpy_helper.from_array(_dense(sparse, name), name))
        return True

    def _afford(self, size: int | None) -> bool:
        if size is None or size > self.bytes_left:
            return False
        self.bytes_left -= size
        return True

    def _store(self, name: str, tensor: onnx.TensorProto) -> None:
        if tensor.name != name:
            tensor = renamed(tensor, name)
        self.made[name] = self.tensors[name] = tensor


def sparse_constants(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.SparseTensorProto]]:
    """Constants that are stored as sparse tensors of ONNX, by the names of their values."""
    inputs = {value.name for value in model.graph.input}
    yield from ((t.values.name, t) for t in model.graph.sparse_initializer if t.values.name not in inputs)
    for node in model.graph.node:
        if is_standard(node, "Constant"):
            tensors = [entry.sparse_tensor for entry in node.attribute if entry.name == "sparse_value"]
            yield from ((node.output[0], tensor) for tensor in tensors)


def _is_foldable(node: onnx.NodeProto) -> bool:
    return is_standard(node, *REARRANGEMENTS, *COMPUTATIONS)


def _bytes_moved(node: onnx.NodeProto, inputs: Mapping[str, onnx.TensorProto], opset: int) -> int | None:
    """Bytes of all inputs and results of a node, as ONNX infers their shapes; None if they are not known before."""
    few = {name for name, tensor in inputs.items() if math.prod(tensor.dims) <= FEW}
    constants = [renamed(inputs[name], name) for name in inputs if name in few]
    values = [
        helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        for name, tensor in inputs.items()
        if name not in few
    ]
    try:
        inferred = onnx.shape_inference.infer_shapes(_alone(node, values, constants, opset), data_prop=True)
    except onnx.shape_inference.InferenceError:
        return None
    sizes = [_bytes_of(tensor.data_type, tensor.dims) for tensor in inputs.values()]
    for output in inferred.graph.output:
        kind = output.type.tensor_type
        known = kind.HasField("shape") and all(axis.HasField("dim_value") for axis in kind.shape.dim)
        sizes.append(_bytes_of(kind.elem_type, [axis.dim_value for axis in kind.shape.dim]) if known else None)
    return None if None in sizes else sum(filter(None, sizes))


def _bytes_of(kind: int, sizes: Iterable[int]) -> int | None:
    """Bytes of a tensor; None if no array holds such numbers, or a size is negative."""
    axes = tuple(sizes)
    try:
        itemsize = helper.tensor_dtype_to_np_dtype(kind).itemsize
    except KeyError:
        return None
    return math.prod(axes) * itemsize if min(axes, default=0) >= 0 else None


def _computed(
    node: onnx.NodeProto, inputs: Mapping[str, onnx.TensorProto], opset: int
) -> dict[str, NDArray[np.generic]] | None:
    values = [helper.make_tensor_value_info(name, 0, None) for name in inputs]
    arrays = {name: array_of(tensor) for name, tensor in inputs.items()}
    outputs = [name for name in node.output if name]
    try:
        # As everywhere in a network, 1 / 0 is infinite.
        with np.errstate(all="ignore"):
            computed = ReferenceEvaluator(_alone(node, values, [], opset)).run(None, arrays)
    except Exception:  # they have no common class; what it cannot compute, ONNX Runtime may, or says why not
        return None
    return {name: np.asarray(value) for name, value in zip(outputs, computed, strict=True)}


def _alone(
    node: onnx.NodeProto, inputs: list[onnx.ValueInfoProto], constants: list[onnx.TensorProto], opset: int
) -> onnx.ModelProto:
    results = [helper.make_tensor_value_info(name, 0, None) for name in node.output if name]
    graph = helper.make_graph([node], "constant", inputs, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _dense(sparse: onnx.SparseTensorProto, name: str) -> NDArray[np.generic]:
    """A sparse tensor of ONNX with its zeros: values at positions in the flat tensor, or at positions on every axis."""
    values, positions = array_of(sparse.values).reshape(-1), array_of(sparse.indices)
    shape = tuple(sparse.dims)
    try:
        flat = np.ravel_multi_index(tuple(positions.T), shape) if positions.ndim == 2 else positions.reshape(-1)
        result = np.zeros(int(np.prod(shape)), values.dtype)
        if len(flat) != len(values) or (len(flat) and flat.min() < 0):
            raise ValueError(f"{len(values)} values, {len(flat)} positions")
        result[flat] = values
    except (IndexError, ValueError, TypeError) as error:
        raise ExportError(f"the sparse constant {name} is damaged: {error}") from error
    return result.reshape(shape)
