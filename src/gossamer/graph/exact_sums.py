"""Sums of products of bytes as they are on every processor that adds them in 32 bits.

On x86-64 without VNNI, ONNX Runtime adds pairs of products of its layers in int8 in 16 bits, where they may not fit. As
a reference it is of no use there. Its products of floats are: between DequantizeLinear and QuantizeLinear if it is told
not to join them to ops on bytes, and instead of ops that are on bytes in the file.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.graph.graph import Graph, attributes_of, input_at, is_complete, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused
from gossamer.graph.quantisation import CONTRIBUTED, Constant, Unsuited, constant

JOINS_NOTHING = ("session.disable_quant_qdq", "1")
"""The entry with which a session computes what is between DequantizeLinear and QuantizeLinear in floats."""
LAYERS = {
    "QLinearConv": ("Conv", (3, 4, 5), (6, 7), 8),
    "QLinearMatMul": ("MatMul", (3, 4, 5), (6, 7), None),
    "QGemm": ("Gemm", (3, 4, 5), (7, 8), 6),
}
"""Op on bytes -> the op on floats, where its weight, its result's scale and zero point and its bias stand."""
OF_INTEGERS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
"""Op on bytes whose result is its sums -> the op on floats."""
TO_FLOATS = {"DynamicQuantizeMatMul": (1, 2, 3, 4), "MatMulIntegerToFloat": (1, 3, 5, 6)}
"""ONNX Runtime's products of bytes that end in floats -> where weight, its scale, its zero point and bias stand."""
PRODUCTS = (*LAYERS, *OF_INTEGERS, *TO_FLOATS)


@cache
def saturates() -> bool:
    """Whether ONNX Runtime's sums of products of bytes are wrong on this processor."""
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, [8, 64])
    made = helper.make_tensor_value_info("y", TensorProto.INT32, [8, 16])
    weight = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")
    graph = helper.make_graph([node], "sums", [given], [made], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"x": np.full((8, 64), 255, np.uint8)})
    return bool((sums != 64 * 255 * 127).any())


def with_exact_sums(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with products of floats in the place of layers on bytes with constant weights, for a session
    with the entry `JOINS_NOTHING`; itself if it has no such layer, or the processor computes them exactly."""
    if not (any(node.op_type in PRODUCTS for node in model.graph.node) and saturates()):
        return model
    writer = _Writer(model)
    nodes = [made for node in model.graph.node for made in writer.written(node)]
    result = copied(model)
    replace_items(result.graph.node, nodes)
    result.graph.initializer.extend(writer.constants)
    return result


class _Writer:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = Graph(model)
        self.taken = names_of_values(model)
        self.constants: list[onnx.TensorProto] = []

    def written(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The node, or those in its place."""
        try:
            yield from self._in_place(node)
        except Unsuited:
            yield node

    def _in_place(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        if is_complete(node) and (is_standard(node, *PRODUCTS) or node.domain == CONTRIBUTED):
            if node.op_type in LAYERS:
                return self._layer(node)
            if node.op_type in OF_INTEGERS:
                return self._integers(node)
            if node.op_type in TO_FLOATS:
                return self._product(node)
        return [node]

    def _layer(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        kind, of_weight, of_output, of_bias = LAYERS[node.op_type]
        is_transposed = bool(attributes_of(node).get("transB", 0))
        axis = 0 if kind == "Conv" or is_transposed else 1
        weight = _constant(self.graph, node, of_weight, axis)
        read = helper.make_node("DequantizeLinear", list(node.input[:3]), [self._name(node, "read")])
        inputs = [read.output[0], self._stored(_floats(weight), node, "weight")]
        bias = "" if of_bias is None else input_at(node, of_bias)
        if bias:
            numbers, scale = self.graph.constant(bias), self.graph.constant(node.input[1])
            if numbers is None or scale is None:
                raise Unsuited("its bias is no constant")
            floats = numbers.astype(np.float64) * np.asarray(scale, np.float64).reshape(-1) * weight.scales
            inputs.append(self._stored(floats.astype(np.float32), node, "bias"))
        if not input_at(node, of_output[0]):
            return [read, _made(kind, node, inputs, node.output[0])]
        result = self._name(node, "result")
        made = [result, *(node.input[index] for index in of_output if input_at(node, index))]
        quantise = helper.make_node("QuantizeLinear", made, list(node.output))
        return [read, _made(kind, node, inputs, result), quantise]

    def _integers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        weight = self.graph.constant(node.input[1])
        points = self.graph.constant(node.input[3]) if input_at(node, 3) else np.zeros((), np.int32)
        if weight is None or points is None:
            raise Unsuited("its weight is no constant")
        kind = OF_INTEGERS[node.op_type]
        if kind == "Conv" and points.size > 1:
            points = points.reshape(-1, *[1] * (weight.ndim - 1))
        numbers = weight.astype(np.int64) - points.astype(np.int64)
        sums = self._name(node, "sums")
        nodes = self._sums(node, kind, node.input[0], input_at(node, 2), numbers, sums)
        return [*nodes, helper.make_node("Cast", [sums], list(node.output), to=TensorProto.INT32)]

    def _product(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        *of_weight, of_bias = TO_FLOATS[node.op_type]
        weight = _constant(self.graph, node, (of_weight[0], of_weight[1], of_weight[2]), 1)
        source, nodes = [node.input[0], input_at(node, 2), input_at(node, 4)], []
        if node.op_type == "DynamicQuantizeMatMul":
            source = [self._name(node, what) for what in ("bytes", "scale", "zero_point")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [node.input[0]], source))
        sums, floats, scales, product = (self._name(node, what) for what in ("sums", "floats", "scales", "product"))
        nodes += self._sums(node, "MatMul", source[0], source[2], weight.numbers, sums)
        bias = input_at(node, of_bias)
        steps = self._stored(weight.scales, node, "steps")
        nodes += [
            helper.make_node("Cast", [sums], [floats], to=TensorProto.FLOAT),
            helper.make_node("Mul", [source[1], steps], [scales]),
            helper.make_node("Mul", [floats, scales], [product if bias else node.output[0]]),
        ]
        return [*nodes, helper.make_node("Add", [product, bias], list(node.output))] if bias else nodes

    def _sums(
        self, node: onnx.NodeProto, kind: str, source: str, zero_point: str, weight: NDArray[Any], sums: str
    ) -> list[onnx.NodeProto]:
        """Products of matrices are exact in double precision; ONNX Runtime has no such convolutions."""
        to = TensorProto.FLOAT if kind == "Conv" else TensorProto.DOUBLE
        value = self._name(node, "read")
        nodes = [helper.make_node("Cast", [source], [value], to=to)]
        if zero_point:
            point, less = self._name(node, "point"), self._name(node, "less")
            nodes.append(helper.make_node("Cast", [zero_point], [point], to=to))
            nodes.append(helper.make_node("Sub", [value, point], [less]))
            value = less
        numbers = self._stored(weight.astype(helper.tensor_dtype_to_np_dtype(to)), node, "weight")
        return [*nodes, _made(kind, node, [value, numbers], sums)]

    def _name(self, node: onnx.NodeProto, what: str) -> str:
        return unused(f"{node.output[0]}.{what}", self.taken)

    def _stored(self, numbers: NDArray[Any], node: onnx.NodeProto, what: str) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(numbers), self._name(node, what)))
        return self.constants[-1].name


def _constant(graph: Graph, node: onnx.NodeProto, inputs: tuple[int, int, int], axis: int) -> Constant:
    found = constant(graph, node, inputs, axis)
    if found is None:
        raise Unsuited("its weight is no constant")
    return found


def _floats(weight: Constant) -> NDArray[np.float32]:
    along = [1] * weight.numbers.ndim
    if weight.scales.size > 1:
        along[weight.axis] = weight.scales.size
    return np.asarray(weight.numbers.astype(np.float32) * weight.scales.reshape(along), np.float32)


def _made(kind: str, node: onnx.NodeProto, inputs: list[str], output: str) -> onnx.NodeProto:
    attributes: Mapping[str, Any] = attributes_of(node)
    return helper.make_node(kind, inputs, [output], **attributes)
