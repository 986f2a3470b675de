"""What bytes of a graph stand for: the scales and zero points that QuantizeLinear, DequantizeLinear and quantised ops
name."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.graph import STANDARD_DOMAINS, Graph, array_of, attributes_of, input_at, is_complete, is_standard

CONTRIBUTED = "com.microsoft"
"""The domain of ONNX Runtime's own ops."""
LEAST_SCALE, LARGEST_SCALE = 2.0**-126, 2.0**64
"""Scales outside cannot be told from 0 or from infinity by a product with a sum (docs/format.md)."""
SIGN = 128
"""What a value of int8 is less than the byte that sparse ops have for it."""
BYTE_TYPES = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
"""Types of quantised values."""
Numbers = NDArray[np.float32]
Integers = NDArray[np.int32]


class Unsuited(Exception):
    """Why a quantised op has no sparse form, for people."""


@dataclass(frozen=True)
class Quantisation:
    """A value is scale * (byte - zero point), the byte as uint8; those of int8 are less by 128."""

    scale: np.float32
    zero_point: int
    signed: bool

    def of(self, number: float) -> int:
        """The byte of a number, as QuantizeLinear rounds it."""
        if np.isinf(number):
            return 0 if number < 0 else 255
        return int(np.clip(np.rint(np.float32(number) / self.scale) + self.zero_point, 0, 255))


@dataclass(frozen=True)
class Bytes:
    """A value of a graph, of uint8 or int8, and what it stands for to one of its readers."""

    value: str
    quantisation: Quantisation


@dataclass(frozen=True)
class Constant:
    """A constant of whole numbers, less their zero points, and their scales."""

    numbers: Integers
    scales: Numbers
    """One, or one for each index of an axis."""
    axis: int
    name: str
    """Of what is stored."""

    def transposed(self, axes: list[int]) -> "Constant":
        axis = axes.index(self.axis) if self.scales.size > 1 else self.axis
        return Constant(self.numbers.transpose(axes), self.scales, axis, self.name)

    def as_weight(self, outputs: int) -> tuple[NDArray[np.int8], Numbers]:
        """As int8 without a zero point, and the scale of each output.

        Args:
            outputs: the axis of the output channels.

        Raises:
            Unsuited: it is no such weight.
        """
        low, high = self.numbers.min(), self.numbers.max()
        if low < -128 or high > 127:
            raise Unsuited(f"its weight, less its zero point, is {low} to {high}; sparse ops take -128 to 127")
        if self.scales.size > 1 and self.axis != outputs:
            raise Unsuited("its weight's scales are not those of its output channels")
        scales = np.broadcast_to(self.scales.reshape(-1), (self.numbers.shape[outputs],))
        return self.numbers.astype(np.int8), np.ascontiguousarray(scales, np.float32)


def as_unsigned(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Bytes as uint8; those of int8 are more by 128 then."""
    return np.asarray(values.astype(np.int16) + (SIGN if values.dtype == np.int8 else 0), np.uint8)


def maker_of(graph: Graph, value: str) -> onnx.NodeProto | None:
    """The node that makes a value; None if none does, or one that lacks inputs."""
    index = graph.producers.get(value)
    return graph.nodes[index] if index is not None and is_complete(graph.nodes[index]) else None


def is_constant(graph: Graph, value: str) -> bool:
    """Whether it is a constant, or what QuantizeLinear makes of one."""
    node = maker_of(graph, value)
    return value in graph.tensors or (node is not None and is_quantise(node) and node.input[0] in graph.tensors)


def is_quantise(node: onnx.NodeProto) -> bool:
    known = node.op_type == "QuantizeLinear" and node.domain in (*STANDARD_DOMAINS, CONTRIBUTED)
    return known and is_complete(node)


def is_dequantise(node: onnx.NodeProto) -> bool:
    known = node.op_type == "DequantizeLinear" and node.domain in (*STANDARD_DOMAINS, CONTRIBUTED)
    return known and is_complete(node)


def quantisation_at(graph: Graph, node: onnx.NodeProto, scale: int, zero_point: int) -> Quantisation:
    """The one quantisation of a whole value.

    Args:
        scale: the index of the scale among the node's inputs.
        zero_point: likewise; it may be left out.

    Raises:
        Unsuited: it is another one, or computed only when the network runs.
    """
    if attributes_of(node).get("block_size", 0):
        raise Unsuited("values are quantised in blocks; sparse ops take one scale for all of them")
    scales = graph.constant(node.input[scale])
    name = input_at(node, zero_point)
    made = np.int8 if attributes_of(node).get("output_dtype") == onnx.TensorProto.INT8 else np.uint8
    zero_points = graph.constant(name) if name else np.zeros((), made)
    if scales is None or zero_points is None:
        raise Unsuited("it is quantised anew for each input; sparse ops take constant scales and zero points")
    if scales.dtype != np.float32 or zero_points.dtype not in (np.uint8, np.int8):
        raise Unsuited(
            f"values are quantised as {zero_points.dtype} by scales of {scales.dtype}; expected 8 bits, fp32"
        )
    if scales.size != 1 or zero_points.size != 1:
        raise Unsuited("values are quantised by channel; sparse ops take one scale for all of them")
    number = np.float32(scales.reshape(-1)[0])
    if not LEAST_SCALE <= number <= LARGEST_SCALE:
        raise Unsuited(f"a scale is {number:g}; expected a number within 2^-126 and 2^64")
    signed = zero_points.dtype == np.int8
    return Quantisation(number, int(zero_points.reshape(-1)[0]) + (SIGN if signed else 0), signed)


def bytes_read(graph: Graph, value: str) -> Bytes | None:
    """What a DequantizeLinear reads that makes the value; None if none does, or it reads a constant.

    Raises:
        Unsuited: no sparse op takes such bytes.
    """
    node = maker_of(graph, value)
    if node is None or not is_dequantise(node) or is_constant(graph, node.input[0]):
        return None
    found = quantisation_at(graph, node, 1, 2)
    if len(node.input) < 3 or not node.input[2]:
        maker = maker_of(graph, node.input[0])
        kind = quantisation_at(graph, maker, 1, 2).signed if maker is not None and is_quantise(maker) else None
        if kind is None:
            raise Unsuited("the type of its input is not known")
        found = Quantisation(found.scale, SIGN if kind else 0, kind)
    return Bytes(node.input[0], found)


def constant_bytes(graph: Graph, value: str) -> Bytes | None:
    """A constant that a DequantizeLinear makes the value of, if it is of 8 bits.

    Raises:
        Unsuited: it has several scales.
    """
    node = maker_of(graph, value)
    if node is None or not is_dequantise(node) or node.input[0] not in graph.tensors:
        return None
    if graph.tensors[node.input[0]].data_type not in BYTE_TYPES or len(node.input) < 3 or not node.input[2]:
        return None
    return Bytes(node.input[0], quantisation_at(graph, node, 1, 2))


def constant_read(graph: Graph, value: str) -> Constant | None:
    """What a DequantizeLinear makes of a constant, transposed perhaps; None if the value is nothing of the kind.

    Raises:
        Unsuited: it is of a type or in blocks that no sparse op takes.
    """
    node = maker_of(graph, value)
    if node is None:
        return None
    if is_standard(node, "Transpose"):
        found = constant_read(graph, node.input[0])
        axes = attributes_of(node).get("perm")
        if found is None:
            return None
        order = [int(axis) for axis in axes] if isinstance(axes, list) else list(range(found.numbers.ndim))[::-1]
        return found.transposed(order)
    if not is_dequantise(node):
        return None
    numbers = _whole_numbers(graph, node.input[0])
    if numbers is None:
        return None
    if attributes_of(node).get("block_size", 0):
        raise Unsuited("its weight is quantised in blocks; sparse ops take a scale for each output channel")
    axis = int(str(attributes_of(node).get("axis", 1)))
    return constant(graph, node, (0, 1, 2), axis if axis >= 0 else axis + numbers.ndim, numbers)


def constant(
    graph: Graph,
    node: onnx.NodeProto,
    inputs: tuple[int, int, int],
    axis: int,
    numbers: NDArray[np.generic] | None = None,
) -> Constant | None:
    """A constant input of a node with its scales and zero points; None if it is no constant.

    Args:
        inputs: the indices of the numbers, their scales and their zero points among the node's inputs.
        axis: of the scales, if there are several.
        numbers: the constant, if it is known already.

    Raises:
        Unsuited: it is of a type that no sparse op takes, or its scales are none.
    """
    of_numbers, of_scales, of_zero_points = inputs
    name = node.input[of_numbers]
    numbers = _whole_numbers(graph, name) if numbers is None else numbers
    if numbers is None:
        return None
    scales = graph.constant(node.input[of_scales])
    zero_name = input_at(node, of_zero_points)
    zero_points = graph.constant(zero_name) if zero_name else np.zeros((), np.int32)
    if scales is None or zero_points is None:
        raise Unsuited("the scales of its weight are computed only when the network runs")
    if numbers.dtype not in (np.int8, np.uint8, np.int32) or scales.dtype != np.float32:
        raise Unsuited(f"its weight is of type {numbers.dtype}, its scales are of {scales.dtype}; expected int8, fp32")
    steps: Numbers = np.asarray(scales, np.float32).reshape(-1)
    sizes = {steps.size, zero_points.size} - {1}
    if (sizes and (not 0 <= axis < numbers.ndim or sizes != {numbers.shape[axis]})) or numbers.size == 0:
        raise Unsuited("its weight and its scales or zero points do not fit together")
    if not ((steps >= LEAST_SCALE) & (steps <= LARGEST_SCALE)).all():
        raise Unsuited("a scale of its weight is not within 2^-126 and 2^64")
    along = [1] * numbers.ndim
    if zero_points.size > 1:
        along[axis] = zero_points.size
    less = numbers.astype(np.int64) - zero_points.astype(np.int64).reshape(along)
    return Constant(less.astype(np.int32), steps, axis, name)


def _whole_numbers(graph: Graph, name: str) -> NDArray[np.generic] | None:
    """A constant, or what QuantizeLinear makes of one."""
    tensor = graph.tensors.get(name)
    if tensor is not None:
        if tensor.data_type not in (*BYTE_TYPES, onnx.TensorProto.INT32):
            kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            raise Unsuited(f"its weight is of type {kind}; sparse ops take 8 bits")
        return array_of(tensor)
    node = maker_of(graph, name)
    if node is None or not is_quantise(node) or node.input[0] not in graph.tensors:
        return None
    numbers, scales = graph.constant(node.input[0]), graph.constant(node.input[1])
    zero_name = input_at(node, 2)
    zero_points = graph.constant(zero_name) if zero_name else np.zeros((), np.uint8)
    if numbers is None or scales is None or zero_points is None or numbers.dtype != np.float32:
        raise Unsuited("its weight is quantised only when the network runs")
    if zero_points.dtype not in (np.int8, np.uint8) or attributes_of(node).get("block_size", 0):
        raise Unsuited(f"its weight is quantised as {zero_points.dtype} or in blocks; sparse ops take 8 bits")
    axis = int(str(attributes_of(node).get("axis", 1)))
    axis += numbers.ndim if axis < 0 else 0
    along = [1] * numbers.ndim
    if scales.size > 1:
        fit = 0 <= axis < numbers.ndim and numbers.shape[axis] == scales.size
        if not fit or zero_points.size not in (1, scales.size):
            raise Unsuited("its weight and its scales do not fit together")
        along[axis] = scales.size
    limits = np.iinfo(np.int8 if zero_points.dtype == np.int8 else np.uint8)
    with np.errstate(all="ignore"):
        steps = np.rint(np.asarray(numbers, np.float32) / np.asarray(scales, np.float32).reshape(along))
        moved = steps + np.asarray(zero_points, np.float32).reshape(
            along if zero_points.size > 1 else [1] * numbers.ndim
        )
        whole: NDArray[np.generic] = np.nan_to_num(np.clip(moved, limits.min, limits.max)).astype(zero_points.dtype)
        return whole
