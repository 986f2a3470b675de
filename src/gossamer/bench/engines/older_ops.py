"""Networks in older versions of ONNX, for engines that know no newer ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gossamer.graph.messages import copied, replace_items

NEWEST_OPSET = 18
"""The newest of which DeepSparse has every op. It reads 19 too, but lacks some ops in that version, such as a Reshape
that it leaves to its own ONNX Runtime."""
NEWEST_IR = 9


def in_opset(model: onnx.ModelProto, opset: int, ir_version: int) -> onnx.ModelProto:
    """The same network in an older opset.

    Gelu and LayerNormalization, where that has none, become their parts. Every other op is taken over as it is; whether
    it meant the same then is for the caller to check, by running it.
    """
    old = copied(model)
    old.ir_version = min(old.ir_version, ir_version)
    for imported in old.opset_import:
        if imported.domain == "":
            imported.version = min(imported.version, opset)
    parts = _Parts(opset)
    nodes: list[onnx.NodeProto] = []
    for node in old.graph.node:
        replace = parts.of(node)
        nodes += [node] if replace is None else replace(node)
    old.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in parts.constants.items())
    replace_items(old.graph.node, nodes)
    return old


class _Parts:
    """Ops by older ones, and the constants that these need."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.constants: dict[str, np.ndarray[Any, Any]] = {}

    def of(self, node: onnx.NodeProto) -> Callable[[onnx.NodeProto], list[onnx.NodeProto]] | None:
        """What replaces it, if anything."""
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Gelu" and attributes.get("approximate", b"none") == b"none" and self.opset < 20:
            return self.gelu
        if node.op_type == "LayerNormalization" and attributes.get("axis", -1) == -1 and self.opset < 17:
            return self.layer_normalisation
        return None

    def constant(self, value: float) -> str:
        name = f"gossamer.bench.{value}"
        self.constants[name] = np.array(value, np.float32)
        return name

    def gelu(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        x, y = node.input[0], node.output[0]
        return [
            helper.make_node("Div", [x, self.constant(float(np.sqrt(2.0)))], [f"{y}.scaled"]),
            helper.make_node("Erf", [f"{y}.scaled"], [f"{y}.erf"]),
            helper.make_node("Add", [f"{y}.erf", self.constant(1.0)], [f"{y}.shifted"]),
            helper.make_node("Mul", [x, f"{y}.shifted"], [f"{y}.doubled"]),
            helper.make_node("Mul", [f"{y}.doubled", self.constant(0.5)], [y]),
        ]

    def layer_normalisation(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        x, scale, *shift = node.input
        y = node.output[0]
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
        ends = f"{y}.scaled" if shift else y
        nodes = [
            helper.make_node("ReduceMean", [x], [f"{y}.mean"], axes=[-1], keepdims=1),
            helper.make_node("Sub", [x, f"{y}.mean"], [f"{y}.centred"]),
            helper.make_node("Mul", [f"{y}.centred", f"{y}.centred"], [f"{y}.squares"]),
            helper.make_node("ReduceMean", [f"{y}.squares"], [f"{y}.variance"], axes=[-1], keepdims=1),
            helper.make_node("Add", [f"{y}.variance", self.constant(epsilon)], [f"{y}.positive"]),
            helper.make_node("Sqrt", [f"{y}.positive"], [f"{y}.deviation"]),
            helper.make_node("Div", [f"{y}.centred", f"{y}.deviation"], [f"{y}.normal"]),
            helper.make_node("Mul", [f"{y}.normal", scale], [ends]),
        ]
        return [*nodes, helper.make_node("Add", [ends, shift[0]], [y])] if shift else nodes
