"""Linear layers that read bytes and make floats: products whose results nobody quantises (QDQ), and those whose inputs
are quantised anew each time the network runs (`onnxruntime.quantization.quantize_dynamic`).

    MatMul, Gemm           of what DequantizeLinear makes of bytes
    MatMulInteger          with Cast and Mul behind it
    MatMulIntegerToFloat   of ONNX Runtime: all of that in one node
    DynamicQuantizeMatMul  of ONNX Runtime: with the quantisation of its input
"""

from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.graph import Graph, attributes_of, input_at, is_standard
from gossamer.graph.layers import Layer, layer_name, with_bias
from gossamer.graph.quantisation import (
    CONTRIBUTED,
    LARGEST_SCALE,
    LEAST_SCALE,
    Constant,
    Integers,
    Numbers,
    Quantisation,
    Unsuited,
    bytes_read,
    constant_read,
    maker_of,
)
from gossamer.graph.quantised_layers import check_sums, float_bias, linear_shape, name_of_floats, share_of_quads

ONE = Quantisation(np.float32(1), 0, False)


@dataclass(frozen=True, kw_only=True)
class DequantisedLayer(Layer):
    """A linear layer whose input is bytes, with the nodes that it would replace. Its weight is whole numbers that fit
    into int8, without a zero point."""

    weight_scales: Numbers
    """One for each output."""
    quantisation: Quantisation
    """Of its input; of nothing where that is a value, or found anew."""
    scale: str = ""
    """The value that holds its input's scale, if it is not in `quantisation`."""
    zero_point: str = ""
    """Likewise."""
    quantises: bool = False
    """Whether its input is floats, and their scale and zero point are found by the layer itself."""

    @property
    def share(self) -> float:
        """The share of its quads of inputs that have a weight other than zero: all that is skipped together."""
        return share_of_quads(self.weight)


class _Zero(TypedDict):
    scale: str
    zero_point: str


@dataclass(frozen=True)
class _Product:
    """What a product of bytes reads, and where it ends."""

    node: onnx.NodeProto
    source: str
    weight: Constant
    nodes: tuple[int, ...]
    output: str
    quantisation: Quantisation = ONE
    scale: str = ""
    zero_point: str = ""
    bias: Constant | Numbers | None = None
    quantises: bool = False


def dequantised_layer_at(graph: Graph, index: int) -> DequantisedLayer | None:
    """The layer that begins with a node, with its bias; None if none does.

    Raises:
        Unsuited: one begins there, but no sparse op computes it.
    """
    node = graph.nodes[index]
    product = None
    if is_standard(node, "MatMul", "Gemm"):
        product = _between_pairs(graph, index, node)
    elif is_standard(node, "MatMulInteger"):
        product = _integers(graph, index, node)
    elif node.domain == CONTRIBUTED and node.op_type == "MatMulIntegerToFloat":
        product = _to_floats(graph, index, node)
    elif node.domain == CONTRIBUTED and node.op_type == "DynamicQuantizeMatMul":
        product = _quantising(graph, index, node)
    return None if product is None else _layer(graph, product)


def _layer(graph: Graph, product: _Product) -> DequantisedLayer:
    node, stored = product.node, product.weight
    if stored.numbers.ndim != 2:
        raise Unsuited(f"a product with a weight of {stored.numbers.ndim} axes has no sparse op")
    if not attributes_of(node).get("transB", 0):
        stored = stored.transposed([1, 0])
    weight, scales = stored.as_weight(0)
    check_sums(weight, None)
    shape, rank = linear_shape(graph, product.source, weight)
    bias = None
    if product.bias is not None:
        numbers = product.bias if isinstance(product.bias, np.ndarray) else _floats(product.bias)
        if numbers.size not in (1, len(weight)):
            raise Unsuited("what it adds is not one constant number for each output")
        bias = np.ascontiguousarray(np.broadcast_to(numbers.reshape(-1), (len(weight),)))
    layer = DequantisedLayer(
        layer_name(node, name_of_floats(stored.name)),
        "linear",
        np.ascontiguousarray(weight, np.float32),
        bias,
        shape,
        product.source,
        product.output,
        product.nodes,
        rank,
        weight_scales=scales,
        quantisation=product.quantisation,
        scale=product.scale,
        zero_point=product.zero_point,
        quantises=product.quantises,
    )
    if bias is not None:
        return layer
    layer = with_bias(graph, layer, axis=-1)
    return layer if layer.bias is not None else _with_whole_bias(graph, layer)


def _with_whole_bias(graph: Graph, layer: DequantisedLayer) -> DequantisedLayer:
    """A product with the addition of a bias that stands behind it as whole numbers."""
    following = _reader_of_kind(graph, layer.output, "Add")
    others = [] if following is None else [n for n in graph.nodes[following].input if n != layer.output]
    stored = constant_read(graph, others[0]) if len(others) == 1 else None
    if following is None or stored is None or stored.numbers.shape != (layer.shape.outputs,):
        return layer
    name = name_of_floats(stored.name)
    return replace(
        layer,
        name=name.removesuffix(".bias") if name.endswith(".bias") else layer.name,
        bias=_floats(stored),
        output=graph.nodes[following].output[0],
        nodes=(*layer.nodes, following),
    )


def _floats(numbers: Constant) -> Numbers:
    return np.asarray(numbers.numbers.reshape(-1) * numbers.scales.astype(np.float64), np.float32)


def _between_pairs(graph: Graph, index: int, node: onnx.NodeProto) -> _Product | None:
    if any(name in graph.tensors for name in node.input[:2]):
        return None
    attributes = attributes_of(node)
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    weight, source = constant_read(graph, node.input[1]), bytes_read(graph, node.input[0])
    if weight is None or source is None:
        return None
    bias = float_bias(graph, node, 2)
    return _Product(node, source.value, weight, (index,), node.output[0], quantisation=source.quantisation, bias=bias)


def _integers(graph: Graph, index: int, node: onnx.NodeProto) -> _Product | None:
    """MatMulInteger, Cast, and Mul with the product of both scales."""
    numbers = _without_zero_point(graph, node, 1, 3)
    if numbers is None:
        return None
    cast, product = _following(graph, index, "Cast"), None
    if cast is not None and attributes_of(graph.nodes[cast]).get("to") == onnx.TensorProto.FLOAT:
        product = _following(graph, cast, "Mul")
    if cast is None or product is None:
        raise Unsuited(
            "its input is quantised anew for each input, and its sums do not become fp32 by one Cast and one Mul"
        )
    by = [name for name in graph.nodes[product].input if name != graph.nodes[cast].output[0]]
    scale, scales, multiplied = _scales(graph, by[0] if len(by) == 1 else "")
    return _Product(
        node,
        node.input[0],
        _scaled(numbers, scales, node.input[1]),
        tuple(sorted({index, cast, product, *multiplied})),
        graph.nodes[product].output[0],
        **_zero_point(graph, node, 2, scale),
    )


def _to_floats(graph: Graph, index: int, node: onnx.NodeProto) -> _Product | None:
    numbers, scales = _without_zero_point(graph, node, 1, 5), graph.constant(node.input[3])
    if numbers is None:
        return None
    weight = _scaled(numbers, scales, node.input[1])
    bias = _bias(graph, node, 6)
    zero_point = _zero_point(graph, node, 4, node.input[2])
    return _Product(node, node.input[0], weight, (index,), node.output[0], bias=bias, **zero_point)


def _quantising(graph: Graph, index: int, node: onnx.NodeProto) -> _Product | None:
    numbers, scales = _without_zero_point(graph, node, 1, 3), graph.constant(node.input[2])
    if numbers is None:
        return None
    weight = _scaled(numbers, scales, node.input[1])
    bias = _bias(graph, node, 4)
    return _Product(node, node.input[0], weight, (index,), node.output[0], bias=bias, quantises=True)


def _following(graph: Graph, index: int, kind: str) -> int | None:
    return _reader_of_kind(graph, graph.nodes[index].output[0], kind)


def _reader_of_kind(graph: Graph, value: str, kind: str) -> int | None:
    """The node that alone reads a value, if it is of a kind."""
    following = graph.only_reader(value)
    return following if following is not None and is_standard(graph.nodes[following], kind) else None


def _without_zero_point(graph: Graph, node: onnx.NodeProto, index: int, zero_point: int) -> Integers | None:
    """A constant weight [inputs, outputs], less its zero point; None if it is no constant."""
    stored = graph.constant(node.input[index])
    if stored is None:
        return None
    name = input_at(node, zero_point)
    zero = graph.constant(name) if name else np.zeros((), stored.dtype)
    if zero is None or stored.dtype not in (np.int8, np.uint8) or stored.size == 0:
        raise Unsuited("its weight is none of 8 bits, or its zero point no constant")
    if zero.size not in (1, stored.shape[-1]):
        raise Unsuited("its weight and its zero points do not fit together")
    return np.asarray(stored, np.int32) - np.asarray(zero, np.int32).reshape(-1)


def _scaled(numbers: Integers, scales: NDArray[np.generic] | None, name: str) -> Constant:
    if scales is None or scales.dtype != np.float32:
        raise Unsuited("the scales of its weight are no constants of fp32")
    steps = np.asarray(scales, np.float32).reshape(-1)
    if steps.size not in (1, numbers.shape[-1]) or not ((steps >= LEAST_SCALE) & (steps <= LARGEST_SCALE)).all():
        raise Unsuited("its weight and its scales do not fit together, or a scale is not within 2^-126 and 2^64")
    return Constant(numbers, steps, numbers.ndim - 1, name)


def _scales(graph: Graph, name: str) -> tuple[str, NDArray[np.generic] | None, tuple[int, ...]]:
    """A product of scales, taken apart: the value with that of the input, the constants of the weight, and the node
    that multiplies them, if nobody else reads it."""
    index = graph.producers.get(name)
    if index is None or not is_standard(graph.nodes[index], "Mul") or len(graph.nodes[index].input) != 2:
        raise Unsuited("its scales are no product of one of its input and those of its weight")
    for scale, other in (tuple(graph.nodes[index].input), tuple(graph.nodes[index].input)[::-1]):
        if other in graph.tensors and scale not in graph.tensors:
            return scale, graph.constant(other), (index,) if graph.only_reader(name) is not None else ()
    raise Unsuited("its scales are no product of one of its input and those of its weight")


def _zero_point(graph: Graph, node: onnx.NodeProto, index: int, scale: str) -> _Zero:
    """The scale and zero point of an input of uint8, as arguments of a product."""
    name = input_at(node, index)
    maker = maker_of(graph, name)
    known = graph.constant(name) if name else None
    anew = maker is not None and is_standard(maker, "DynamicQuantizeLinear")
    if not anew and (known is None or known.dtype != np.uint8 or known.size != 1):
        raise Unsuited("its input's zero point is none of uint8")
    if not _is_one_number(graph, scale):
        raise Unsuited("its input has not one scale")
    return {"scale": scale, "zero_point": name}


def _is_one_number(graph: Graph, name: str) -> bool:
    if name in graph.tensors:
        values = graph.constant(name)
        return values is not None and values.size == 1 and values.dtype == np.float32
    maker = maker_of(graph, name)
    return maker is not None and is_standard(maker, "DynamicQuantizeLinear")


def _bias(graph: Graph, node: onnx.NodeProto, index: int) -> Numbers | None:
    name = input_at(node, index)
    if not name:
        return None
    values = graph.constant(name)
    if values is None or values.dtype != np.float32:
        raise Unsuited("its bias is no constant of fp32")
    return np.asarray(values, np.float32)
