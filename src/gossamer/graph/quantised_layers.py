"""Quantised convolutions and linear layers with constant weights, in both forms that ONNX has for them: ops on floats
between DequantizeLinear and QuantizeLinear (QDQ), and ops of their own on bytes (QOperator)."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.graph import Graph, attributes_of, input_at, is_standard
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import Kind, layer_name, same_shape
from gossamer.graph.quantisation import (
    CONTRIBUTED,
    LARGEST_SCALE,
    LEAST_SCALE,
    Bytes,
    Constant,
    Integers,
    Numbers,
    Quantisation,
    Unsuited,
    bytes_read,
    constant,
    constant_read,
    quantisation_at,
)
from gossamer.graph.quantised_result import Result, result_of
from gossamer.graph.shapes import UNKNOWN_EXTENT, UNKNOWN_IMAGES, Size, known_size
from gossamer.graph.terms import QUAD
from gossamer.graph.windows import shape_over, window_of

LARGEST_SUM = 2**31
TOLERANCE = 1e-5
"""How much the scale of a bias may differ from input scale * weight scale and still be meant to be that."""


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer on bytes that could run sparse (docs/format.md, "The quantised ops"), with the nodes that it would
    replace."""

    name: str
    kind: Kind
    weight: NDArray[np.int8]
    """[out, in / group, height, width], [out, in / group, length], or [out, in]; without a zero point."""
    weight_scales: Numbers
    """One for each output."""
    bias: Integers | None
    """In units of input scale * weight scale."""
    shape: LayerShape
    source: Bytes
    output: Bytes
    nodes: tuple[int, ...]
    rank: int
    """The rank of its input: 3 for a convolution over sequences."""
    residual: Bytes | None = None
    added: NDArray[np.uint8] | None = None
    """The residual, where it is a constant: one number for each output."""
    sums: Result | None = None
    """The bytes that sums become before the residual is added; None: they are added as they are."""
    lower: int = 0
    upper: int = 255
    table: NDArray[np.uint8] | None = None
    """What becomes of each byte in the end."""
    before_table: Quantisation | None = None
    """Of those bytes; None without a table."""
    has_weight: bool = True
    """False: each channel is only multiplied by one, for an addition or a table."""

    @cached_property
    def kept(self) -> int:
        return int(np.count_nonzero(self.weight))

    @property
    def density(self) -> float:
        return self.kept / self.weight.size

    @cached_property
    def share(self) -> float:
        """The share of its quads of input channels that have a weight other than zero: all that is skipped together."""
        return share_of_quads(self.weight)

    @property
    def made(self) -> Quantisation:
        """Of what sums become first."""
        return self.output.quantisation if self.before_table is None else self.before_table

    @property
    def scales(self) -> Numbers:
        """What a sum is multiplied by, of each output: in fp32, as ONNX Runtime computes it."""
        step = self.made.scale if self.sums is None else self.sums.output.quantisation.scale
        return np.asarray(self.source.quantisation.scale * self.weight_scales / step, np.float32)

    @property
    def sum_step(self) -> np.float32:
        """The scale of what sums become before the residual is added, over the output's; 0: nothing."""
        return np.float32(0 if self.sums is None else self.sums.output.quantisation.scale / self.made.scale)

    @property
    def residual_scale(self) -> np.float32:
        return np.float32(0 if self.residual is None else self.residual.quantisation.scale / self.made.scale)

    def require_numbers(self) -> None:
        """Requires what docs/format.md does of the op's numbers.

        Raises:
            Unsuited: it is not so.
        """
        scales = [
            *self.scales,
            *([self.residual_scale] if self.residual else []),
            *([self.sum_step] if self.sums else []),
        ]
        if not all(LEAST_SCALE <= scale <= LARGEST_SCALE for scale in scales):
            raise Unsuited("the product of its scales is not within 2^-126 and 2^64")
        if self.lower > self.upper:
            raise Unsuited("its activation function leaves no number of those that its output's bytes stand for")
        check_sums(self.weight, self.bias)


def share_of_quads(weight: NDArray[np.generic]) -> float:
    """The share of a weight's quads of input channels that have a number other than zero."""
    rows = weight.reshape(*weight.shape[:2], -1) != 0
    filled = np.pad(rows, ((0, 0), (0, -rows.shape[1] % QUAD), (0, 0)))
    return float(filled.reshape(len(rows), -1, QUAD, rows.shape[2]).any(2).mean())


def check_sums(weight: NDArray[np.int8], bias: Integers | None) -> None:
    """Checks that no sum can leave 32 bits.

    Raises:
        Unsuited: one could.
    """
    weights = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(1)
    biases = np.zeros(1, np.int64) if bias is None else np.abs(bias.astype(np.int64))
    if (255 * weights + biases).max() >= LARGEST_SUM:
        raise Unsuited("its sums could leave 32 bits")


@dataclass(frozen=True)
class _Operands:
    """What a layer's first node reads."""

    node: onnx.NodeProto
    source: Bytes
    weight: Constant
    bias: Constant | Numbers | None
    made: Quantisation | None
    """Of its result, if that is bytes."""
    left: bool = False
    """Whether the weight is on the left of a product."""


def quantised_layer_at(graph: Graph, index: int) -> QuantisedLayer | None:
    """The layer that begins with a node; None if none does.

    Raises:
        Unsuited: a quantised layer begins there, but no sparse op computes it.
    """
    operands = _operands(graph, graph.nodes[index])
    if operands is None:
        return None
    if operands.left:
        layer = _left_product(graph, index, operands)
    else:
        is_convolution = operands.node.op_type in ("Conv", "QLinearConv")
        layer = _convolution(graph, index, operands) if is_convolution else _linear(graph, index, operands)
    if operands.made is None:
        layer = _with_result(graph, layer)
    layer.require_numbers()
    return layer


def _operands(graph: Graph, node: onnx.NodeProto) -> _Operands | None:
    if is_standard(node, "Conv", "Gemm", "MatMul"):
        if any(name in graph.tensors for name in node.input[:2]):
            return None
        weight = constant_read(graph, node.input[1])
        left = weight is None and node.op_type == "MatMul"
        weight = constant_read(graph, node.input[0]) if left else weight
        if weight is None:
            return None
        source = bytes_read(graph, node.input[1 if left else 0])
        if source is None:
            raise Unsuited("its weight is quantised, its input is not")
        return _Operands(node, source, weight, float_bias(graph, node, 2), None, left)
    layouts = {
        "QLinearConv": ((0, 1, 2), (3, 4, 5), (6, 7), 8),
        "QLinearMatMul": ((0, 1, 2), (3, 4, 5), (6, 7), 99),
        "QGemm": ((0, 1, 2), (3, 4, 5), (7, 8), 6),
    }
    if node.op_type not in layouts or not (is_standard(node, node.op_type) or node.domain == CONTRIBUTED):
        return None
    of_input, of_weight, of_output, of_bias = layouts[node.op_type]
    axis = 0 if node.op_type == "QLinearConv" or attributes_of(node).get("transB", 0) else 1
    stored = constant(graph, node, of_weight, axis)
    if stored is None:
        return None
    if len(node.input) <= of_output[0] or not node.input[of_output[0]]:
        raise Unsuited("its result is not quantised")
    source = Bytes(node.input[0], quantisation_at(graph, node, *of_input[1:]))
    made = quantisation_at(graph, node, *of_output)
    bias = None
    if len(node.input) > of_bias and node.input[of_bias]:
        numbers = graph.constant(node.input[of_bias])
        if numbers is None or numbers.dtype != np.int32:
            raise Unsuited("its bias is no constant of int32")
        scales = source.quantisation.scale * stored.scales
        bias = Constant(np.asarray(numbers.reshape(-1), np.int32), scales, 0, node.input[of_bias])
    return _Operands(node, source, stored, bias, made)


def float_bias(graph: Graph, node: onnx.NodeProto, index: int) -> Constant | Numbers | None:
    """A bias of floats, or of whole numbers behind DequantizeLinear."""
    name = input_at(node, index)
    if not name:
        return None
    values = graph.constant(name)
    if values is not None:
        return np.asarray(values, np.float32)
    found = constant_read(graph, name)
    if found is None:
        raise Unsuited("its bias is no constant")
    return found


def _convolution(graph: Graph, index: int, operands: _Operands) -> QuantisedLayer:
    weight, scales = operands.weight.as_weight(0)
    if weight.ndim not in (3, 4):
        raise Unsuited(f"a convolution over {weight.ndim - 2} axes has no sparse op")
    attributes = attributes_of(operands.node)
    group = int(str(attributes.get("group", 1)))
    sizes = graph.shapes.get(operands.source.value, (None,) * weight.ndim)
    if len(sizes) != weight.ndim or group < 1 or weight.shape[0] % group:
        raise Unsuited("its input, weight and groups do not fit together")
    window = window_of(attributes, tuple(weight.shape[2:]), sizes[2:])
    if window is None:
        raise Unsuited("its padding depends on sizes that are not known before it runs")
    if min((*window.pads, *window.strides, *window.dilations)) < 0:
        raise Unsuited("a negative padding, stride or dilation has no sparse op")
    shape = shape_over("conv", sizes, window, inputs=weight.shape[1] * group, outputs=weight.shape[0], groups=group)
    return _layer(index, operands, "conv", weight, scales, replace(shape, quantised=True), weight.ndim)


def _linear(graph: Graph, index: int, operands: _Operands) -> QuantisedLayer:
    attributes = attributes_of(operands.node)
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise Unsuited("a quantised Gemm with factors, or that transposes its input, has no sparse op")
    stored = operands.weight
    if stored.numbers.ndim != 2:
        raise Unsuited(f"a product with a weight of {stored.numbers.ndim} axes has no sparse op")
    if not attributes.get("transB", 0):
        stored = stored.transposed([1, 0])
    weight, scales = stored.as_weight(0)
    shape, rank = linear_shape(graph, operands.source.value, weight)
    return _layer(index, operands, "linear", np.ascontiguousarray(weight), scales, shape, rank)


def _left_product(graph: Graph, index: int, operands: _Operands) -> QuantisedLayer:
    """W X with X [n, k, tokens] is a 1 x 1 convolution over sequences of tokens."""
    sizes = graph.shapes.get(operands.source.value, ())
    if operands.weight.numbers.ndim != 2 or len(sizes) != 3:
        raise Unsuited("a weight on the left of a product has a sparse op only as [m, k] before [n, k, tokens]")
    weight, scales = operands.weight.as_weight(0)
    shape = LayerShape(
        "conv",
        inputs=weight.shape[1],
        outputs=weight.shape[0],
        width=known_size(sizes[2]),
        images=known_size(sizes[0], UNKNOWN_IMAGES),
        quantised=True,
    )
    return _layer(index, operands, "conv", weight[:, :, None], scales, shape, 3)


def linear_shape(graph: Graph, source: str, weight: NDArray[np.int8]) -> tuple[LayerShape, int]:
    """The shape of a linear layer, and the rank of its input. The op takes any; behind ONNX Runtime's own ops, whose
    shapes ONNX does not know, it is taken as that of a batch.
    """
    sizes: tuple[Size, ...] = graph.shapes.get(source) or (None, None)
    rows = 1
    for axis, size in enumerate(sizes[:-1]):
        rows *= known_size(size, UNKNOWN_IMAGES if axis == 0 else UNKNOWN_EXTENT)
    shape = LayerShape("linear", inputs=weight.shape[1], outputs=weight.shape[0], width=rows, quantised=True)
    return shape, len(sizes)


def _layer(
    index: int, operands: _Operands, kind: Kind, weight: NDArray[np.int8], scales: Numbers, shape: LayerShape, rank: int
) -> QuantisedLayer:
    node, source = operands.node, operands.source
    stored = name_of_floats(operands.weight.name)
    # Until its result is found in QDQ form, its output is a value of floats.
    made = operands.made or source.quantisation
    bias = _bias(operands.bias, source.quantisation.scale * scales)
    output = Bytes(node.output[0], made)
    return QuantisedLayer(layer_name(node, stored), kind, weight, scales, bias, shape, source, output, (index,), rank)


def name_of_floats(stored: str) -> str:
    """What a quantised weight was called before a tool quantised it."""
    for ending in ("_quantized", ".quantized", "_DequantizeLinear"):
        stored = stored.removesuffix(ending)
    return stored


def _bias(bias: Constant | Numbers | None, units: Numbers) -> Integers | None:
    """The bias of each output as so many of these units."""
    if bias is None:
        return None
    numbers = bias.numbers.reshape(-1) if isinstance(bias, Constant) else bias.reshape(-1)
    if numbers.size not in (1, len(units)):
        raise Unsuited("what it adds is not one constant number for each output")
    if isinstance(bias, Constant):
        same = np.broadcast_to(bias.scales, units.shape) if bias.scales.size in (1, len(units)) else None
        if same is not None and np.allclose(same, units, rtol=TOLERANCE, atol=0):
            return np.ascontiguousarray(np.broadcast_to(bias.numbers.reshape(-1), units.shape))
        numbers = bias.numbers.reshape(-1) * bias.scales.astype(np.float64)
    whole = np.rint(np.broadcast_to(numbers.astype(np.float64), units.shape) / units)
    if not (np.abs(whole) < LARGEST_SUM).all():
        raise Unsuited("its bias does not fit into 32 bits")
    return whole.astype(np.int32)


def _with_result(graph: Graph, layer: QuantisedLayer) -> QuantisedLayer:
    """A layer of floats with what follows up to QuantizeLinear: a constant and another value that are added to it, and
    its activation function."""
    following = graph.only_reader(layer.output.value)
    if following is not None and is_standard(graph.nodes[following], "Add"):
        layer = _with_constant(graph, layer, following) or layer
        following = graph.only_reader(layer.output.value)
    if following is not None and is_standard(graph.nodes[following], "Add") and following not in layer.nodes:
        layer = _with_residual(graph, layer, following)
    result = result_of(graph, layer.output.value)
    return with_output(layer, result)


def _with_constant(graph: Graph, layer: QuantisedLayer, following: int) -> QuantisedLayer | None:
    """The layer with the bias that stands behind it; None if that is something else."""
    node = graph.nodes[following]
    (name,) = [name for name in node.input if name != layer.output.value] or [""]
    is_left = layer.kind == "conv" and is_standard(graph.nodes[layer.nodes[0]], "MatMul")
    if not name or (layer.kind == "conv" and not is_left):
        return None
    values = graph.constant(name)
    bias = np.asarray(values, np.float32) if values is not None else constant_read(graph, name)
    if bias is None:
        return None
    sizes = (bias.numbers if isinstance(bias, Constant) else bias).shape
    if len(sizes) > 1 and not (is_left and sizes[-2:] == (layer.shape.outputs, 1) and set(sizes[:-2]) <= {1}):
        raise Unsuited("what it adds is not one constant number for each output")
    if is_left and len(sizes) == 1 and sizes != (1,):
        raise Unsuited("what it adds is not one constant number for each output")
    added = _bias(bias, layer.source.quantisation.scale * layer.weight_scales)
    total = added if layer.bias is None or added is None else layer.bias + added
    return replace(
        layer, bias=total, output=replace(layer.output, value=node.output[0]), nodes=(*layer.nodes, following)
    )


def _with_residual(graph: Graph, layer: QuantisedLayer, following: int) -> QuantisedLayer:
    node = graph.nodes[following]
    others = [name for name in node.input if name != layer.output.value]
    residual = bytes_read(graph, others[0]) if len(others) == 1 else None
    if residual is None or not same_shape(graph, others[0], layer.output.value):
        raise Unsuited("what is added to it is not quantised, or of another shape")
    return replace(
        layer,
        residual=residual,
        output=replace(layer.output, value=node.output[0]),
        nodes=(*layer.nodes, following),
        shape=replace(layer.shape, residual=True),
    )


def with_output(layer: QuantisedLayer, result: Result) -> QuantisedLayer:
    """The layer as it ends in other bytes."""
    return replace(
        layer, output=result.output, nodes=(*layer.nodes, *result.nodes), lower=result.lower, upper=result.upper
    )
