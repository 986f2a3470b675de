"""The reverse of exporting for ops on bytes: the same integers in ONNX's own ops, between QuantizeLinear and
DequantizeLinear.

A file holds ratios of scales only, so values of bytes stand for their own numbers here: their scale is 1.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import TensorProto

from gossamer.errors import ConfigurationError
from gossamer.graph.activations import DenseNodes
from gossamer.graph.quantisation import SIGN

PER_CHANNEL = 13
"""The opset from which on DequantizeLinear takes a scale for each channel."""
FULL = 255
LEAST_TOKEN = 4e-37
"""A token without a larger magnitude is zeros (runtime/native/kernels/quantised_token-inl.h)."""


class Nodes(DenseNodes, Protocol):
    """A graph of ONNX's own ops under construction, that also holds constants of the file."""

    def constant(self, values: NDArray[np.generic], name: str) -> str:
        """Adds a constant, under a name as near to this one as can be."""

    def stored(self, name: str) -> NDArray[np.generic]:
        """The content of one of the file's constants."""

    def add(self, kind: str, inputs: list[str], output: str, attributes: Mapping[str, Any]) -> str:
        """Adds a node; its output's name."""

    def finish_layer(
        self, node: onnx.NodeProto, value: str, residual: str, attributes: Mapping[str, Any], end: str
    ) -> None:
        """Adds a residual and an activation function, ending in the value `end`."""

    def description(self, value: str) -> tuple[int, int]:
        """The type of a value, and its number of axes, as the file describes them; 0 where it does not."""


def write_dense(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Adds what computes the same as an op on bytes.

    Raises:
        ConfigurationError: it cannot be understood.
    """
    _WRITERS[node.op_type](nodes, node, attributes)


def _to_panel(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    kind, _ = nodes.description(node.input[0])
    if kind == TensorProto.UINT8:
        nodes.node("Identity", [node.input[0]], node.output[0])
    elif kind == TensorProto.INT8:
        wide = nodes.add("Cast", [node.input[0]], nodes.value(f"{node.output[0]}.wide"), {"to": TensorProto.INT32})
        sign = nodes.constant(np.asarray(SIGN, np.int32), "sign")
        moved = nodes.node("Add", [wide, sign], nodes.value(f"{node.output[0]}.moved"))
        nodes.add("Cast", [moved], node.output[0], {"to": TensorProto.UINT8})
    else:
        numbers = attributes.get("scale", 1.0), attributes.get("zero_point", 0)
        _quantise(nodes, node.input[0], node.output[0], *numbers)


def _same(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    nodes.node("Identity", [node.input[0]], node.output[0])


def _to_floats(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    _floats(nodes, node.input[0], node.output[0], attributes.get("scale", 1.0), attributes.get("zero_point", 0))


def _layer(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    given = [*node.input, *[""] * 6]
    source, packed, scales, bias, residual, table = given[:6]
    end = node.output[0]
    steps = np.asarray(nodes.stored(scales), np.float32)
    convolves = node.op_type == "QuantisedConv"
    read = _floats(nodes, source, nodes.value(f"{end}.read"), 1.0, attributes.get("input_zero_point", 0))
    weight = _weight(nodes, packed, steps, transposed=not convolves)
    names = ("kernel_shape", "strides", "dilations", "pads", "group")
    carried = {name: attributes[name] for name in names if name in attributes and convolves}
    inputs = [read, weight]
    added = ""
    if bias:
        numbers = nodes.constant(np.asarray(nodes.stored(bias)), f"{bias}.numbers")
        added = _by_channel(nodes, numbers, nodes.value(f"{bias}.floats"), steps, 0)
    if bias and convolves:
        inputs.append(added)
    value = nodes.add("Conv" if convolves else "MatMul", inputs, nodes.value(f"{end}.sums"), carried)
    if bias and not convolves:
        value = nodes.node("Add", [value, added], nodes.value(f"{end}.biased"))
    if residual:
        value = _added(nodes, value, residual, attributes, end)
    zero = attributes.get("output_zero_point", 0)
    lower, upper = attributes.get("lower", 0), attributes.get("upper", FULL)
    if (lower, upper) != (0, FULL):
        bounds = [nodes.scalar(float(bound - zero), f"{end}.bound") for bound in (lower, upper)]
        value = nodes.node("Clip", [value, *bounds], nodes.value(f"{end}.bounded"))
    made = _quantise(nodes, value, nodes.value(f"{end}.index") if table else end, 1.0, zero)
    if table:
        index = nodes.add("Cast", [made], nodes.value(f"{end}.place"), {"to": TensorProto.INT32})
        entries = nodes.constant(np.asarray(nodes.stored(table), np.uint8).reshape(-1), f"{table}.entries")
        nodes.node("Gather", [entries, index], end)


def _added(nodes: Nodes, value: str, residual: str, attributes: Mapping[str, Any], end: str) -> str:
    """A layer's sums, as bytes of their own perhaps, with the residual."""
    step = attributes.get("sum_step", 0.0)
    if step:
        lower, upper = attributes.get("sum_lower", -255.0), attributes.get("sum_upper", 255.0)
        zero = int(np.clip(np.rint(-lower), 0, FULL))
        if (lower, upper) != (-zero, FULL - zero):
            bounds = [nodes.scalar(bound, f"{end}.bound") for bound in (lower, upper)]
            value = nodes.node("Clip", [value, *bounds], nodes.value(f"{end}.within"))
        value = _quantise(nodes, value, nodes.value(f"{end}.steps"), 1.0, zero)
        value = _floats(nodes, value, nodes.value(f"{end}.rounded"), step, zero)
    scale, zero_point = attributes.get("residual_scale", 1.0), attributes.get("residual_zero_point", 0)
    other = _floats(nodes, residual, nodes.value(f"{end}.residual"), scale, zero_point)
    return nodes.node("Add", [value, other], nodes.value(f"{end}.added"))


def _weight(nodes: Nodes, packed: str, scales: NDArray[np.float32], *, transposed: bool) -> str:
    """A packed weight as floats, each output times its scale."""
    numbers = _numbers(nodes, packed, scales, transposed=transposed)
    name = nodes.constant(numbers, f"{packed}.numbers")
    return _by_channel(nodes, name, nodes.value(f"{packed}.floats"), scales, int(transposed))


def _numbers(nodes: Nodes, packed: str, scales: NDArray[np.float32], *, transposed: bool) -> NDArray[np.int8]:
    """A packed weight, one row for each scale; transposed then perhaps."""
    try:
        weight = weights.decode(nodes.stored(packed).tobytes())
    except weights.DamagedWeight as error:
        raise ConfigurationError(f"the weight {packed!r} is damaged: {error}") from error
    if weight.dtype != np.int8 or (transposed and weight.ndim != 2) or len(weight) != scales.size:
        raise ConfigurationError(
            f"the weight {packed!r} is {weight.dtype} {weight.shape}; expected one of int8, scaled"
        )
    return np.ascontiguousarray(weight.T) if transposed else weight


def _dequantised(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """The integers' product, times the scales of both."""
    given = [*node.input, *[""] * 7]
    source, packed, scales, scale, zero_point, bias, residual = given[:7]
    end = node.output[0]
    weight = nodes.constant(
        _numbers(nodes, packed, np.asarray(nodes.stored(scales)), transposed=True), f"{packed}.numbers"
    )
    sums = nodes.node("MatMulInteger", [source, weight, zero_point], nodes.value(f"{end}.integers"))
    floats = nodes.add("Cast", [sums], nodes.value(f"{end}.sums"), {"to": TensorProto.FLOAT})
    both = nodes.node("Mul", [scale, scales], nodes.value(f"{end}.scales"))
    value = nodes.node("Mul", [floats, both], nodes.value(f"{end}.product"))
    _finish(nodes, node, value, bias, residual, attributes)


def _dynamic(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Each token times 127 over its largest magnitude, rounded, as whole numbers around 128."""
    source, packed, scales, bias, residual = [*node.input, *[""] * 5][:5]
    end = node.output[0]
    weight = nodes.constant(
        _numbers(nodes, packed, np.asarray(nodes.stored(scales)), transposed=True), f"{packed}.numbers"
    )
    sizes = nodes.node("Abs", [source], nodes.value(f"{end}.sizes"))
    nodes.need_opset(18)
    last = nodes.constant(np.asarray([-1]), f"{end}.axis")
    most = nodes.add("ReduceMax", [sizes, last], nodes.value(f"{end}.most"), {"keepdims": 1})
    limit = nodes.scalar(127.0, f"{end}.limit")
    some = nodes.node("Greater", [most, nodes.scalar(LEAST_TOKEN, f"{end}.least")], nodes.value(f"{end}.some"))
    factor = nodes.node("Div", [limit, most], nodes.value(f"{end}.factor"))
    step = nodes.node("Div", [most, limit], nodes.value(f"{end}.step"))
    factor = nodes.node("Where", [some, factor, nodes.scalar(0.0, f"{end}.zero")], nodes.value(f"{end}.factors"))
    step = nodes.node("Where", [some, step, nodes.scalar(1.0, f"{end}.one")], nodes.value(f"{end}.step_or_one"))
    scaled = nodes.node("Mul", [source, factor], nodes.value(f"{end}.scaled"))
    whole = _quantise(nodes, scaled, nodes.value(f"{end}.whole"), 1.0, SIGN)
    sums = nodes.node("MatMulInteger", [whole, weight, _zero_point(nodes, SIGN)], nodes.value(f"{end}.integers"))
    floats = nodes.add("Cast", [sums], nodes.value(f"{end}.sums"), {"to": TensorProto.FLOAT})
    weighted = nodes.node("Mul", [floats, scales], nodes.value(f"{end}.weighted"))
    value = nodes.node("Mul", [weighted, step], nodes.value(f"{end}.product"))
    _finish(nodes, node, value, bias, residual, attributes)


def _max_pool(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    nodes.add("MaxPool", [node.input[0]], node.output[0], _window(attributes))


def _average_pool(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    end = node.output[0]
    numbers = [attributes.get(f"{side}_{what}", 0) for side in ("input", "output") for what in ("scale", "zero_point")]
    read = _floats(nodes, node.input[0], nodes.value(f"{end}.read"), *numbers[:2])
    window = {**_window(attributes), "count_include_pad": attributes.get("count_include_pad", 0)}
    if all(dilation == 1 for dilation in window.get("dilations", [])):
        window.pop("dilations", None)
    else:
        nodes.need_opset(19)
    mean = nodes.add("AveragePool", [read], nodes.value(f"{end}.mean"), window)
    _quantise(nodes, mean, end, *numbers[2:])


def _window(attributes: Mapping[str, Any]) -> dict[str, Any]:
    names = ("kernel_shape", "strides", "dilations", "pads")
    return {"kernel_shape": [1, 1], **{name: attributes[name] for name in names if name in attributes}}


def _concat(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    end = node.output[0]
    zero_points = attributes.get("input_zero_points", [0] * len(node.input))
    numbers = zip(node.input, attributes.get("input_scales", []), zero_points, strict=True)
    read = [_floats(nodes, value, nodes.value(f"{end}.read"), scale, zero) for value, scale, zero in numbers]
    joined = nodes.add("Concat", read, nodes.value(f"{end}.joined"), {"axis": 1})
    _quantise(nodes, joined, end, attributes.get("output_scale", 1.0), attributes.get("output_zero_point", 0))


def _resize(nodes: Nodes, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    _, axes = nodes.description(node.input[0])
    factors = [attributes.get("rows", 1), attributes.get("columns", 1)]
    scales = np.asarray([1, 1, *(factors[1:] if axes == 3 else factors)], np.float32)
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes.add("Resize", [node.input[0], "", nodes.constant(scales, f"{node.output[0]}.scales")], node.output[0], how)


def _quantise(nodes: Nodes, value: str, to: str, scale: float, zero_point: int) -> str:
    inputs = [value, nodes.scalar(scale, f"{to}.scale"), _zero_point(nodes, zero_point)]
    return nodes.node("QuantizeLinear", inputs, to)


def _floats(nodes: Nodes, value: str, to: str, scale: float, zero_point: int) -> str:
    inputs = [value, nodes.scalar(scale, f"{to}.scale"), _zero_point(nodes, zero_point)]
    return nodes.node("DequantizeLinear", inputs, to)


def _finish(
    nodes: Nodes, node: onnx.NodeProto, value: str, bias: str, residual: str, attributes: Mapping[str, Any]
) -> None:
    """Bias, residual and activation function of a product of floats."""
    if bias:
        value = nodes.node("Add", [value, bias], nodes.value(f"{node.output[0]}.biased"))
    nodes.finish_layer(node, value, residual, attributes, node.output[0])


def _zero_point(nodes: Nodes, zero_point: int) -> str:
    return nodes.constant(np.asarray(zero_point, np.uint8), "zero_point")


def _by_channel(nodes: Nodes, numbers: str, to: str, scales: NDArray[np.float32], axis: int) -> str:
    if (scales == scales[0]).all():
        return nodes.node("DequantizeLinear", [numbers, nodes.scalar(float(scales[0]), f"{to}.scale")], to)
    nodes.need_opset(PER_CHANNEL)
    return nodes.add("DequantizeLinear", [numbers, nodes.constant(scales, f"{to}.scales")], to, {"axis": axis})


_WRITERS: dict[str, Callable[[Nodes, onnx.NodeProto, Mapping[str, Any]], None]] = {
    "QuantisedToPanel": _to_panel,
    "QuantisedFromPanel": _same,
    "DequantisedFromPanel": _to_floats,
    "QuantisedConv": _layer,
    "QuantisedMatMul": _layer,
    "DynamicMatMul": _dynamic,
    "DequantisedMatMul": _dequantised,
    "QuantisedMaxPool": _max_pool,
    "QuantisedAveragePool": _average_pool,
    "QuantisedConcat": _concat,
    "QuantisedResize": _resize,
}
OF_BYTES = frozenset(_WRITERS)
"""The ops that `write_dense` knows."""
