"""The reverse of exporting: plain ONNX with plain weights out of what `gossamer export` wrote, for other engines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gossamer.errors import ConfigurationError
from gossamer.export.compress import is_compressed, unpack_weights
from gossamer.export.quantised_dense import OF_BYTES, write_dense
from gossamer.graph.activations import FUNCTIONS
from gossamer.graph.graph import STANDARD_DOMAINS, attributes_of, input_at, values_read
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused
from gossamer.graph.ops import DOMAIN, OPS, Op, is_sparse, op_of

STEM_POOL: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}


def is_exported(model: onnx.ModelProto) -> bool:
    """Whether it is a file of `gossamer export`: with gossamer's ops, or with weights stored without their zeros."""
    return is_sparse(model) or is_compressed(model)


def to_dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in plain ONNX, its weights initializers, zeros included; their names are those of the packed
    ones.

    Raises:
        ConfigurationError: a node or a packed weight cannot be understood; the message names it.
        ExportError: a weight of another layer is damaged.
    """
    model = unpack_weights(model)
    dense = copied(model)
    unpacking = _DenseNodes(dense)
    for node in model.graph.node:
        op = op_of(node)
        if op is not None:
            unpacking.replace(node, op)
        elif node.domain != DOMAIN:
            unpacking.nodes.append(node)
        else:
            raise ConfigurationError(
                f"node {node.name!r} is of type {DOMAIN}.{node.op_type}, which this version does not know; expected "
                f"{', '.join(OPS)}"
            )
    unpacking.finish()
    return dense


class _DenseNodes:
    """A graph whose nodes are replaced."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self._taken = names_of_values(model)
        self._node_names = {node.name for node in model.graph.node}
        self._packed = {tensor.name: tensor for tensor in model.graph.initializer}
        self._unpacked: dict[str, onnx.TensorProto] = {}
        given = (*model.graph.input, *model.graph.value_info)
        self._described = {value.name: value.type.tensor_type for value in given}
        self._transposed: dict[str, str] = {}
        """Packed weight -> the name of its dense form, transposed."""
        self._biases: dict[str, str] = {}

    def replace(self, node: onnx.NodeProto, op: Op) -> None:
        """Adds what computes the same on planes."""
        attributes = attributes_of(node)
        if node.op_type in OF_BYTES:
            write_dense(self, node, attributes)
            return
        carried = {name: attributes[name] for name in op.carried if name in attributes}
        if not op.has_weight:
            # Left out, it is [1, 1]; ONNX's MaxPool has to be given one.
            window = {"kernel_shape": [1, 1]} if "kernel_shape" in op.carried else {}
            self._add(op.dense, [node.input[0]], node.output[0], node.name, {**window, **carried})
            return
        end = node.output[0]
        pooled = bool(attributes.get("max_pool", 0))
        if pooled:
            end = self.value(f"{node.output[0]}.unpooled")
        source, weight, bias, residual = (input_at(node, index) for index in range(4))
        if op.inputs[1].lies == "packed":
            packed, weight = weight, self._weight(node, weight, transposed=op.dense == "MatMul")
            bias = bias or self._bias(packed)
        added = [bias] if bias and op.dense != "MatMul" else []
        sums = self.value(f"{node.output[0]}.sums")
        value = self._add(op.dense, [source, weight, *added], sums, node.name, carried)
        if bias and not added:
            value = self.node("Add", [value, bias], self.value(f"{node.output[0]}.biased"))
        self.finish_layer(node, value, residual, attributes, end)
        if pooled:
            self._add("MaxPool", [end], node.output[0], "", STEM_POOL)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: float) -> str:
        return self._add(kind, inputs, output, "", attributes)

    def _add(self, kind: str, inputs: list[str], output: str, name: str, attributes: Mapping[str, Any]) -> str:
        # ONNX Runtime refuses a second node of a name, and a layer is often named as the value that it ends in.
        name = name or unused(output, self._node_names)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def add(self, kind: str, inputs: list[str], output: str, attributes: Mapping[str, Any]) -> str:
        return self._add(kind, inputs, output, "", attributes)

    def scalar(self, value: float, name: str) -> str:
        return self.constant(np.array(value, np.float32), name)

    def constant(self, values: NDArray[np.generic], name: str) -> str:
        name = self.value(name)
        self._unpacked[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        return name

    def stored(self, name: str) -> NDArray[np.generic]:
        if name not in self._packed:
            raise ConfigurationError(f"the file has no constant {name!r}, which one of its nodes reads")
        return numpy_helper.to_array(self._packed[name])

    def description(self, value: str) -> tuple[int, int]:
        kind = self._described.get(value, onnx.TypeProto.Tensor())
        return kind.elem_type, len(kind.shape.dim)

    def value(self, name: str) -> str:
        return unused(name, self._taken)

    def need_opset(self, version: int) -> None:
        for imported in self.model.opset_import:
            if imported.domain in STANDARD_DOMAINS:
                imported.version = max(imported.version, version)

    def _weight(self, node: onnx.NodeProto, name: str, *, transposed: bool) -> str:
        """Unpacks the weight `name`, of which `node` is a reader, and returns the dense one's name."""
        if name not in self._packed:
            raise ConfigurationError(f"node {node.name!r} has no constant packed weight {name!r}")
        dense_name = self._transposed.get(name, "") if transposed else name
        if dense_name not in self._unpacked:
            try:
                weight = weights.decode(numpy_helper.to_array(self._packed[name]).tobytes())
            except weights.DamagedWeight as error:
                raise ConfigurationError(f"the weight {name!r} of node {node.name!r} is damaged: {error}") from error
            if transposed and weight.ndim != 2:
                raise ConfigurationError(
                    f"the weight {name!r} of node {node.name!r} has {weight.ndim} axes, expected 2"
                )
            if transposed:
                self._transposed[name] = dense_name = self.value(f"{name}.transposed")
            stored = np.ascontiguousarray(weight.T) if transposed else weight
            self._unpacked[dense_name] = numpy_helper.from_array(stored, dense_name)
        return dense_name

    def _bias(self, packed: str) -> str:
        """The name of the bias that a packed weight holds; empty if it holds none."""
        if packed not in self._biases:
            bias = weights.bias_of(numpy_helper.to_array(self._packed[packed]).tobytes())
            self._biases[packed] = "" if bias is None else self.constant(bias, f"{packed}.bias")
        return self._biases[packed]

    def finish_layer(
        self, node: onnx.NodeProto, value: str, residual: str, attributes: Mapping[str, Any], end: str
    ) -> None:
        """Residual and activation, ending in the value `end`."""
        name = attributes.get("activation", b"none").decode()
        if name not in FUNCTIONS:
            raise ConfigurationError(
                f"node {node.name!r} has the activation {name!r}, which this version does not know"
            )
        if residual:
            last = name == "none"
            value = self.node("Add", [value, residual], end if last else self.value(f"{end}.step0"))
        if name != "none":
            numbers = {number: attributes[number] for number in FUNCTIONS[name].numbers if number in attributes}
            FUNCTIONS[name].write(self, value, end, numbers)
        elif not residual:
            self.nodes[-1].output[0] = end

    def finish(self) -> None:
        """Puts the new nodes and weights into the model, and takes out what nothing reads any more."""
        graph = self.model.graph
        replace_items(graph.node, self.nodes)
        read = {name for node in self.nodes for name in values_read(node)}
        read.update(value.name for value in graph.output)
        kept = [tensor for tensor in graph.initializer if tensor.name in read and tensor.name not in self._unpacked]
        kept += [tensor for name, tensor in self._unpacked.items() if name in read]
        replace_items(graph.initializer, kept)
        # Shapes of panels are not shapes of images.
        del graph.value_info[:]
        others = [imported for imported in self.model.opset_import if imported.domain != DOMAIN]
        replace_items(self.model.opset_import, others)
