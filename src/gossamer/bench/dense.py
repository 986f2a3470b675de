"""The reverse of exporting: plain ONNX with plain weights out of what `gossamer export` wrote, for other engines."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gossamer.errors import ConfigurationError

if TYPE_CHECKING:
    import onnx

DOMAIN = "gossamer"
GELU_OPSET = 20


def is_sparse(model: "onnx.ModelProto") -> bool:
    """Whether the model has nodes of gossamer's domain."""
    return any(node.domain == DOMAIN for node in model.graph.node)


def is_exported(model: "onnx.ModelProto") -> bool:
    """Whether it is a file of `gossamer export`: with gossamer's ops, or with weights stored without their zeros."""
    from gossamer.export.compress import is_compressed

    return is_sparse(model) or is_compressed(model)


def to_dense(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The same network in plain ONNX, its weights initializers, zeros included; their names are those of the packed
    ones.

    Raises:
        ConfigurationError: a node or a packed weight cannot be understood; the message names it.
        ExportError: a weight of another layer is damaged.
    """
    import onnx

    from gossamer.export.compress import unpack_weights

    model = unpack_weights(model)
    dense = onnx.ModelProto()
    dense.CopyFrom(model)
    unpacking = _Unpacking(dense)
    for node in model.graph.node:
        if node.domain != DOMAIN:
            unpacking.nodes.append(node)
        elif node.op_type in _UNPACKED:
            _UNPACKED[node.op_type](unpacking, node)
        else:
            raise ConfigurationError(
                f"node {node.name!r} is of type {DOMAIN}.{node.op_type}, which this version does not know; expected "
                f"{', '.join(_UNPACKED)}"
            )
    unpacking.finish()
    return dense


class _Unpacking:
    """A graph whose nodes are replaced."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        from gossamer.export.names import names_of_values

        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self._taken = names_of_values(model)
        self._node_names = {node.name for node in model.graph.node}
        self._packed = {tensor.name: tensor for tensor in model.graph.initializer}
        self._unpacked: dict[str, onnx.TensorProto] = {}
        self._transposed: dict[str, str] = {}
        """Packed weight -> the name of its dense form, transposed."""

    def new(self, name: str) -> str:
        """A name for a value that the model has not, as near to this one as can be."""
        from gossamer.export.names import unused

        return unused(name, self._taken)

    def weight(self, node: "onnx.NodeProto", name: str, *, transposed: bool = False) -> str:
        """Unpacks the weight `name`, of which `node` is a reader, and returns the dense one's name."""
        from gossamer_runtime import weights
        from onnx import numpy_helper

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
                self._transposed[name] = dense_name = self.new(f"{name}.transposed")
            stored = np.ascontiguousarray(weight.T) if transposed else weight
            self._unpacked[dense_name] = numpy_helper.from_array(stored, dense_name)
        return dense_name

    def add(self, kind: str, inputs: list[str], output: str, name: str = "", **attributes: Any) -> str:
        from onnx import helper

        if not name:
            # ONNX Runtime refuses a second node of a name, and a layer is often named as the value that it ends in.
            name = output
            while name in self._node_names:
                name += ".dense"
            self._node_names.add(name)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def scalar(self, value: float, name: str) -> str:
        from onnx import numpy_helper

        name = self.new(name)
        self._unpacked[name] = numpy_helper.from_array(np.array(value, np.float32), name)
        return name

    def finish_layer(self, node: "onnx.NodeProto", value: str, residual: str, attributes: dict[str, Any]) -> None:
        """Residual and activation, ending in the node's output."""
        steps: list[Callable[[str, str], str]] = []
        if residual:
            steps.append(lambda source, to: self.add("Add", [source, residual], to))
        steps += self._activation(node, attributes)
        if not steps:
            self.nodes[-1].output[0] = node.output[0]
            return
        for place, step in enumerate(steps):
            last = place + 1 == len(steps)
            value = step(value, node.output[0] if last else self.new(f"{node.output[0]}.step{place}"))

    def _activation(self, node: "onnx.NodeProto", attributes: dict[str, Any]) -> list[Callable[[str, str], str]]:
        name = attributes.get("activation", b"none").decode()
        if name == "none":
            return []
        if name == "clip":
            limits = [attributes.get("lower", -np.inf), attributes.get("upper", np.inf)]
            bounds = [self.scalar(limit, f"{node.output[0]}.limit{place}") for place, limit in enumerate(limits)]
            return [lambda source, to: self.add("Clip", [source, *bounds], to)]
        if name == "silu":
            sigmoid = self.new(f"{node.output[0]}.sigmoid")
            return [lambda source, to: self.add("Mul", [source, self.add("Sigmoid", [source], sigmoid)], to)]
        if name in ("relu", "hardswish", "gelu"):
            kind = {"relu": "Relu", "hardswish": "HardSwish", "gelu": "Gelu"}[name]
            if kind == "Gelu":
                self._need_opset(GELU_OPSET)
            return [lambda source, to: self.add(kind, [source], to)]
        raise ConfigurationError(f"node {node.name!r} has the activation {name!r}, which this version does not know")

    def _need_opset(self, version: int) -> None:
        for imported in self.model.opset_import:
            if imported.domain == "":
                imported.version = max(imported.version, version)

    def finish(self) -> None:
        """Puts the new nodes and weights into the model, and takes out what nothing reads any more."""
        from gossamer.export.graph import values_read

        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in values_read(node)} | {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in read and tensor.name not in self._unpacked]
        kept += [tensor for name, tensor in self._unpacked.items() if name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        # Shapes of panels are not shapes of images.
        del graph.value_info[:]
        others = [imported for imported in self.model.opset_import if imported.domain != DOMAIN]
        del self.model.opset_import[:]
        self.model.opset_import.extend(others)


def _attributes(node: "onnx.NodeProto") -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _input(node: "onnx.NodeProto", place: int) -> str:
    return node.input[place] if place < len(node.input) else ""


WINDOW = ("kernel_shape", "strides", "pads", "dilations")
STEM_POOL: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}


def _kept(attributes: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: attributes[name] for name in names if name in attributes}


def _unpack_convolution(unpacking: _Unpacking, node: "onnx.NodeProto") -> None:
    attributes = _attributes(node)
    inputs = [_input(node, 0), unpacking.weight(node, _input(node, 1)), _input(node, 2)]
    kept = _kept(attributes, *WINDOW, "group")
    sums = unpacking.new(f"{node.output[0]}.sums")
    value = unpacking.add("Conv", inputs if inputs[2] else inputs[:2], sums, node.name, **kept)
    unpacking.finish_layer(node, value, _input(node, 3), attributes)


def _unpack_stem(unpacking: _Unpacking, node: "onnx.NodeProto") -> None:
    import onnx

    attributes = _attributes(node)
    convolution = onnx.NodeProto()
    convolution.CopyFrom(node)
    pooled = bool(attributes.get("max_pool", 0))
    if pooled:
        convolution.output[0] = unpacking.new(f"{node.output[0]}.unpooled")
    inputs = [name for name in node.input if name]
    sums = unpacking.new(f"{node.output[0]}.sums")
    value = unpacking.add("Conv", inputs, sums, node.name, **_kept(attributes, *WINDOW))
    unpacking.finish_layer(convolution, value, "", attributes)
    if pooled:
        unpacking.add("MaxPool", [convolution.output[0]], node.output[0], **STEM_POOL)


def _unpack_pool(unpacking: _Unpacking, node: "onnx.NodeProto") -> None:
    kept = {"kernel_shape": [1, 1], **_kept(_attributes(node), *WINDOW)}
    unpacking.add("MaxPool", [node.input[0]], node.output[0], node.name, **kept)


def _unpack_product(unpacking: _Unpacking, node: "onnx.NodeProto") -> None:
    sums = unpacking.new(f"{node.output[0]}.sums")
    weight = unpacking.weight(node, _input(node, 1), transposed=True)
    value = unpacking.add("MatMul", [_input(node, 0), weight], sums, node.name)
    if _input(node, 2):
        value = unpacking.add("Add", [value, _input(node, 2)], unpacking.new(f"{node.output[0]}.biased"))
    unpacking.finish_layer(node, value, _input(node, 3), _attributes(node))


def _pass_on(unpacking: _Unpacking, node: "onnx.NodeProto") -> None:
    unpacking.add("Identity", [node.input[0]], node.output[0], node.name)


_UNPACKED: dict[str, Callable[[_Unpacking, "onnx.NodeProto"], None]] = {
    "SparseConv": _unpack_convolution,
    "StemConv": _unpack_stem,
    "PanelMaxPool": _unpack_pool,
    "SparseMatMul": _unpack_product,
    "ToPanel": _pass_on,
    "FromPanel": _pass_on,
}
