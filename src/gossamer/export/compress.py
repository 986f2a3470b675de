"""Dense weights with zeros, stored without them in ONNX's own ops.

A layer that stays a standard op needs its weight dense. What the file holds instead is the weight's positions and
values, and a few standard nodes that put them together. Their inputs are constants, so a runtime computes them once,
when the session is created (constant folding), and the layer runs as if its weight had been stored. Other programs take
such a layer for a product of two computed values; `unpack_weights` gives them its weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.graph import STANDARD_DOMAINS, Graph, array_of, is_standard, values_read
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused
from gossamer.graph.ops import op_of
from gossamer.graph.sessions import dense_session

SMALL = 1024
"""Weights with fewer elements are not worth the nodes."""
WORTHWHILE = 0.95
"""The share of its bytes that a weight may be stored in at most."""
OLDEST_OPSET = 13
ENDING = ".unpacked"
"""The ending of the name of a node that puts a weight together, behind the name of its value."""
OPS = (
    "Add",
    "BitShift",
    "Cast",
    "ConstantOfShape",
    "CumSum",
    "Gather",
    "Less",
    "Mod",
    "Reshape",
    "ScatterElements",
    "Slice",
    "Sub",
    "Where",
)
"""Kinds of those nodes."""


def compress_weights(model: onnx.ModelProto, *, half: bool = False) -> onnx.ModelProto:
    """The same network with its fp32 initializers of two and more axes stored without their zeros, those of StemConv
    apart.

    Args:
        half: store values as fp16, of weights without zeros too.
    """
    graph = Graph(model)
    if graph.opset < OLDEST_OPSET:
        return model
    result = copied(model)
    writer = _WeightNodes(half, names_of_values(model))
    del result.graph.initializer[:]
    # Its op takes constants only, and a session may be told not to fold what would become one.
    of_ops = [(node, op) for node in graph.nodes if (op := op_of(node)) is not None and op.has_weight]
    plain = {node.input[1] for node, op in of_ops if op.inputs[1].lies == "constant"}
    for tensor in model.graph.initializer:
        if not (
            tensor.name not in plain and tensor.name in graph.tensors and _is_weight(tensor) and writer.store(tensor)
        ):
            result.graph.initializer.append(tensor)
    if not writer.nodes:
        return model
    result.graph.initializer.extend(writer.initializers)
    read = {tensor.name for tensor in result.graph.initializer}
    result.graph.value_info.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name not in read
    )
    nodes = list(result.graph.node)
    # Those that put weights together are known by their names (`unpack_weights`); others may be called anything.
    node_names = {node.name for node in (*writer.nodes, *nodes)}
    reserved = {node.name for node in writer.nodes}
    for node in nodes:
        if node.name in reserved:
            node.name = unused(node.name, node_names)
    replace_items(result.graph.node, [*writer.nodes, *nodes])
    drop_unread(result)
    return result


def is_compressed(model: onnx.ModelProto) -> bool:
    """Whether the model has weights that are stored as `compress_weights` stores them."""
    return bool(_unpacking_nodes(model))


def unpack_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The reverse of `compress_weights`: the same network with those weights as initializers, zeros and all.

    Raises:
        ExportError: what is stored of a weight is damaged.
    """
    unpacking = _unpacking_nodes(model)
    if not unpacking:
        return model
    made = {node.output[0] for node in unpacking}
    others = [node for node in model.graph.node if not made.intersection(node.output)]
    read = {name for node in others for name in values_read(node)} | {value.name for value in model.graph.output}
    names = [node.output[0] for node in unpacking if node.output[0] in read]
    result = copied(model)
    replace_items(result.graph.node, others)
    for name, weight in zip(names, _unpacked(model, unpacking, names), strict=True):
        result.graph.initializer.append(numpy_helper.from_array(np.asarray(weight), name))
    drop_unread(result)
    return result


def _unpacking_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that unpack weights, by their names.

    Should another exporter have named a node so: what it makes of constants is constant as well.
    """
    constants = set(_stored(model))
    found = []
    for node in model.graph.node:
        named = len(node.output) == 1 and node.name == f"{node.output[0]}{ENDING}"
        if named and is_standard(node, *OPS) and constants.issuperset(node.input):
            found.append(node)
            constants.add(node.output[0])
    return found


def _unpacked(
    model: onnx.ModelProto, unpacking: Sequence[onnx.NodeProto], names: Sequence[str]
) -> list[NDArray[np.generic]]:
    """Computed by ONNX Runtime, as when the file is loaded."""
    alone = onnx.ModelProto()
    alone.ir_version = model.ir_version
    alone.opset_import.extend(entry for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)
    read = {name for node in unpacking for name in node.input}
    tensors = [tensor for name, tensor in _stored(model).items() if name in read]
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    alone.graph.CopyFrom(helper.make_graph(unpacking, "weights", [], outputs, tensors))
    try:
        return list(dense_session(alone).run(list(names), {}))
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(
            f"the weights that are stored without their zeros ({', '.join(names)}) are damaged: {str(error).strip()}"
        ) from error


def _stored(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The initializers that no caller can replace."""
    inputs = {value.name for value in model.graph.input}
    return {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in inputs}


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2 and int(np.prod(tensor.dims)) >= SMALL


@dataclass
class _WeightNodes:
    """The nodes that make dense weights of what is stored."""

    half: bool
    taken: set[str]
    """Names of all values of the network, and of those that are made here."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    stored_as: dict[str, str] = field(default_factory=dict)
    """Name that was wanted for a constant -> its name."""

    def store(self, tensor: onnx.TensorProto) -> bool:
        """Stores a weight in the fewest bytes; False if that is as it is."""
        weight = np.asarray(array_of(tensor), np.float32)
        kept = int(np.count_nonzero(weight))
        width = 2 if self.half else 4
        mask, gaps = weights.bitmask(weight), weights.gaps(weight)
        sizes = {"dense": width * weight.size, "mask": width * kept + len(mask), "gaps": width * kept + len(gaps)}
        best = min(sizes, key=lambda way: sizes[way])
        if sizes[best] > WORTHWHILE * weight.nbytes:
            return False
        if best == "dense":
            self._cast(tensor.name, weight)
        elif best == "mask":
            self._from_mask(tensor.name, weight, mask)
        else:
            self._from_gaps(tensor.name, weight, gaps)
        return True

    def _cast(self, name: str, weight: NDArray[np.float32]) -> None:
        self._weight("Cast", self._half(name, weight), name, to=TensorProto.FLOAT)

    def _half(self, name: str, values: NDArray[np.float32]) -> list[str]:
        return [self._constant(f"{name}.half", values.astype(np.float16))]

    def _values(self, name: str, values: NDArray[np.float32]) -> str:
        if not self.half:
            return self._constant(f"{name}.values", values)
        return self._node("Cast", self._half(f"{name}.values", values), f"{name}.values", to=TensorProto.FLOAT)

    def _from_mask(self, name: str, weight: NDArray[np.float32], mask: bytes) -> None:
        """Bit by bit: is the weight kept, how many are kept up to it, and which of the values is that."""
        bytes_ = self._constant(f"{name}.mask", np.frombuffer(mask, np.uint8).reshape(-1, 1))
        shifts = self._constant("gossamer.bits", np.arange(8, dtype=np.uint8).reshape(1, 8))
        two = self._constant("gossamer.two", np.asarray(2, np.uint8))
        shifted = self._node("BitShift", [bytes_, shifts], f"{name}.shifted", direction="RIGHT")
        bits = self._node("Mod", [shifted, two], f"{name}.bits")
        flat = self._node("Reshape", [bits, self._constant("gossamer.flat", np.asarray([-1]))], f"{name}.flat")
        size = self._constant(f"{name}.size", np.asarray([weight.size]))
        start = self._constant("gossamer.start", np.asarray([0]))
        exact = self._node("Slice", [flat, start, size], f"{name}.exact")
        kept = self._node("Cast", [exact], f"{name}.kept", to=TensorProto.BOOL)
        numbers = self._node("Cast", [exact], f"{name}.numbers", to=TensorProto.INT32)
        axis = self._constant("gossamer.axis", np.asarray(0))
        counted = self._node("CumSum", [numbers, axis], f"{name}.counted")
        self._shaped(name, weight, self._spread(name, weight, kept, counted))

    def _from_gaps(self, name: str, weight: NDArray[np.float32], gaps: bytes) -> None:
        """Gap by gap: where the next kept weight is. A gap of 255 is followed by no weight (docs/format.md); its last
        zero is written as such, because ONNX Runtime folds no op whose output's size depends on values."""
        codes = self._constant(f"{name}.gaps", np.frombuffer(gaps, np.uint8))
        wide = self._node("Cast", [codes], f"{name}.wide", to=TensorProto.INT64)
        long = self._constant("gossamer.long_gap", np.asarray(weights.LONG_GAP))
        kept = self._node("Less", [wide, long], f"{name}.kept")
        ones = self._node("Cast", [kept], f"{name}.ones", to=TensorProto.INT64)
        steps = self._node("Add", [wide, ones], f"{name}.steps")
        axis = self._constant("gossamer.axis", np.asarray(0))
        after = self._node("CumSum", [steps, axis], f"{name}.after")
        places = self._node("Sub", [after, self._constant("gossamer.one", np.asarray(1))], f"{name}.places")
        counted = self._node("CumSum", [ones, axis], f"{name}.counted")
        size = self._constant(f"{name}.size", np.asarray([weight.size]))
        zeros = self._node("ConstantOfShape", [size], f"{name}.zeros")
        spread = self._spread(name, weight, kept, counted)
        self._shaped(name, weight, self._node("ScatterElements", [zeros, places, spread], f"{name}.dense"))

    def _spread(self, name: str, weight: NDArray[np.float32], kept: str, counted: str) -> str:
        """The values where weights are kept, zeros between them. `counted`: how many are kept up to each place."""
        # In front of the values stands a zero: that of the places before the first kept weight.
        values = self._values(name, np.concatenate([np.zeros(1, np.float32), weight[weight != 0]]))
        spread = self._node("Gather", [values, counted], f"{name}.spread")
        zero = self._constant("gossamer.zero", np.asarray(0, np.float32))
        return self._node("Where", [kept, spread, zero], f"{name}.spaced")

    def _shaped(self, name: str, weight: NDArray[np.float32], flat: str) -> None:
        self._weight("Reshape", [flat, self._constant(f"{name}.shape", np.asarray(weight.shape))], name)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: int | str) -> str:
        output = unused(output, self.taken)
        self._weight(kind, inputs, output, **attributes)
        return output

    def _weight(self, kind: str, inputs: list[str], output: str, **attributes: int | str) -> None:
        """The last node of a weight, which has the name that its readers know."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}{ENDING}", **attributes))  # type: ignore[arg-type]

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        if name not in self.stored_as:
            self.stored_as[name] = unused(name, self.taken)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), self.stored_as[name]))
        return self.stored_as[name]
