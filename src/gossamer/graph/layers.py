"""Layers with constant weights: convolutions and linear layers, with the bias, residual and activation behind them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.activations import Activation
from gossamer.graph.applied import activation_of
from gossamer.graph.graph import Graph, attributes_of, is_complete, is_standard
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.shapes import UNKNOWN_EXTENT, UNKNOWN_IMAGES, Size, known_size
from gossamer.graph.windows import shape_over, window_of

NO_ACTIVATION = Activation()

Kind = Literal["conv", "linear"]
Weight = NDArray[np.float32]

OTHER_BIAS = "what it adds is not one constant fp32 number for each output"


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer that could run sparse, with the nodes that it would replace."""

    name: str
    kind: Kind
    weight: Weight
    """[out, in / group, height, width], [out, in / group, length], or [out, in]."""
    bias: Weight | None
    shape: LayerShape
    source: str
    output: str
    nodes: tuple[int, ...]
    rank: int
    """The rank of its input: 3 for a convolution over sequences."""
    residual: str | None = None
    activation: Activation = NO_ACTIVATION

    @cached_property
    def kept(self) -> int:
        return int(np.count_nonzero(self.weight))

    @property
    def density(self) -> float:
        return self.kept / self.weight.size if self.weight.size else 1.0

    @property
    def share(self) -> float:
        """The share of what is kept or skipped by itself: single weights."""
        return self.density


AnyLayer = TypeVar("AnyLayer", bound=Layer)


def find_layers(graph: Graph, *, linear_residual: bool = True) -> list[Layer]:
    """All layers with constant fp32 weights, in the graph's order, each node in one of them.

    Args:
        linear_residual: whether a linear layer may take an addition with another value into itself.
    """
    candidates = [_layer_at(graph, index) for index in range(len(graph.nodes))]
    found = [layer for layer in candidates if isinstance(layer, Layer)]
    return with_following(graph, found, linear_residual=linear_residual)


def with_following(
    graph: Graph, layers: Sequence[AnyLayer], taken: Collection[int] = (), *, linear_residual: bool = True
) -> list[AnyLayer]:
    """The layers, each with a residual that is added to it and the activation behind it, no node in two of them.

    Args:
        layers: in the graph's order.
        taken: nodes that are others' already.
    """
    # From the end, so that where two layers are added the later one, which finds the other's result ready, adds.
    inside = {*taken, *(index for layer in layers for index in layer.nodes)}
    complete = []
    for layer in reversed(layers):
        extended = _with_following(graph, layer, inside, linear_residual)
        inside.update(extended.nodes)
        complete.append(extended)
    return complete[::-1]


def why_no_layer(graph: Graph, index: int) -> str | None:
    """Why a Conv, Gemm or MatMul with a weight is none of the layers; None for anything else."""
    found = _layer_at(graph, index)
    return None if isinstance(found, Layer) else found


def _layer_at(graph: Graph, index: int) -> Layer | str | None:
    """The layer; or why it is none, for people; None if the node has no weight."""
    node = graph.nodes[index]
    if not is_complete(node):
        return None
    if is_standard(node, "Conv"):
        return _convolution(graph, index, node)
    if is_standard(node, "Gemm"):
        return _gemm(graph, index, node)
    if is_standard(node, "MatMul"):
        return _matmul(graph, index, node) or _left_matmul(graph, index, node)
    return None


def _convolution(graph: Graph, index: int, node: onnx.NodeProto) -> Layer | str | None:
    weight = _weight(graph, node.input[1])
    if not isinstance(weight, np.ndarray):
        return weight
    if weight.ndim not in (3, 4):
        return f"a convolution over {weight.ndim - 2} axes has no sparse op"
    bias = _bias(graph, node.input[2] if len(node.input) > 2 else "", len(weight))
    if bias is None:
        return OTHER_BIAS
    attributes = attributes_of(node)
    group = int(str(attributes.get("group", 1)))
    sizes = graph.shapes.get(node.input[0], (None,) * weight.ndim)
    if len(sizes) != weight.ndim or group < 1 or weight.shape[0] % group:
        return "its input, weight and groups do not fit together"
    window = window_of(attributes, tuple(weight.shape[2:]), sizes[2:])
    if window is None:
        return "its padding depends on sizes that are not known before it runs"
    if min((*window.pads, *window.strides, *window.dilations)) < 0:
        return "a negative padding, stride or dilation has no sparse op"
    shape = shape_over("conv", sizes, window, inputs=weight.shape[1] * group, outputs=weight.shape[0], groups=group)
    name = layer_name(node, node.input[1])
    return Layer(name, "conv", weight, bias[0], shape, node.input[0], node.output[0], (index,), rank=weight.ndim)


def _gemm(graph: Graph, index: int, node: onnx.NodeProto) -> Layer | str | None:
    weight = _weight(graph, node.input[1])
    if not isinstance(weight, np.ndarray):
        return weight
    attributes = attributes_of(node)
    if attributes.get("transA", 0):
        return "a Gemm that transposes its input has no sparse op"
    if attributes.get("alpha", 1.0) != 1.0:
        return "its factor is not yet multiplied into its weight"
    if weight.ndim != 2:
        return f"a weight of {weight.ndim} axes has no sparse op"
    if not attributes.get("transB", 0):
        weight = weight.T
    beta = np.float32(str(attributes.get("beta", 1.0)))
    # What is taken zero times is not read, NaN and infinities included.
    bias = _bias(graph, node.input[2] if len(node.input) > 2 and beta else "", len(weight))
    if bias is None:
        return OTHER_BIAS
    scaled = None if bias[0] is None else bias[0] * beta
    sizes = graph.shapes.get(node.input[0], (None, None))
    return _linear(graph, index, node, weight, scaled, sizes)


def _matmul(graph: Graph, index: int, node: onnx.NodeProto) -> Layer | str | None:
    weight = _weight(graph, node.input[1])
    if not isinstance(weight, np.ndarray):
        return weight
    sizes = graph.shapes.get(node.input[0])
    if weight.ndim != 2:
        return f"a product with a weight of {weight.ndim} axes has no sparse op"
    if not sizes:
        return "the number of axes of its input is not known before it runs"
    layer = _linear(graph, index, node, weight.T, None, sizes)
    return with_bias(graph, layer, axis=-1)


def _left_matmul(graph: Graph, index: int, node: onnx.NodeProto) -> Layer | str | None:
    """W X with X [n, k, tokens] is a 1 x 1 convolution over sequences of tokens."""
    weight = _weight(graph, node.input[0])
    if not isinstance(weight, np.ndarray):
        return weight
    sizes = graph.shapes.get(node.input[1], ())
    if weight.ndim != 2 or len(sizes) != 3:
        return "a weight on the left of a product has a sparse op only as [m, k] before [n, k, tokens]"
    outputs, inputs = weight.shape
    shape = LayerShape(
        "conv",
        inputs=inputs,
        outputs=outputs,
        width=known_size(sizes[2]),
        images=known_size(sizes[0], UNKNOWN_IMAGES),
    )
    name = layer_name(node, node.input[0])
    layer = Layer(name, "conv", weight[:, :, None], None, shape, node.input[1], node.output[0], (index,), rank=3)
    return with_bias(graph, layer, axis=-2)


def with_bias(graph: Graph, layer: AnyLayer, axis: int) -> AnyLayer:
    """A product with the addition of a bias that stands behind it, along the axis of its outputs."""
    following = graph.only_reader(layer.output)
    if following is None or not is_standard(graph.nodes[following], "Add"):
        return layer
    others = [name for name in graph.nodes[following].input if name != layer.output]
    bias = _bias(graph, others[0], layer.shape.outputs, layer.rank, axis) if len(others) == 1 else None
    if bias is None:
        return layer
    # Exporters transpose a linear layer's weight, and its name is lost; the bias has kept its own, unless it stands for
    # those of several layers because they are alike.
    own = others[0].endswith(".bias") and len(graph.readers.get(others[0], [])) == 1
    name = others[0].removesuffix(".bias") if own else layer.name
    output = graph.nodes[following].output[0]
    return replace(layer, name=name, bias=bias[0], output=output, nodes=(*layer.nodes, following))


def _linear(
    graph: Graph, index: int, node: onnx.NodeProto, weight: Weight, bias: Weight | None, sizes: tuple[Size, ...]
) -> Layer:
    rows = 1
    for axis, size in enumerate(sizes[:-1]):
        rows *= known_size(size, UNKNOWN_IMAGES if axis == 0 else UNKNOWN_EXTENT)
    shape = LayerShape("linear", inputs=weight.shape[1], outputs=weight.shape[0], width=rows)
    name = layer_name(node, node.input[1])
    return Layer(name, "linear", weight, bias, shape, node.input[0], node.output[0], (index,), rank=len(sizes))


def _with_following(graph: Graph, layer: AnyLayer, taken: set[int], linear_residual: bool) -> AnyLayer:
    """The layer with a residual that is added to it and an activation behind it, as far as no other layer has them."""
    if layer.kind == "conv" or linear_residual:
        layer = _with_residual(graph, layer, taken)
    applied = activation_of(graph, layer.output)
    if applied is None or taken.intersection(applied.nodes):
        return layer
    return replace(
        layer,
        activation=applied.activation,
        nodes=(*layer.nodes, *applied.nodes),
        output=applied.output,
        shape=replace(layer.shape, curved=applied.activation.curved),
    )


def _with_residual(graph: Graph, layer: AnyLayer, taken: set[int]) -> AnyLayer:
    following = graph.only_reader(layer.output)
    if following is None or following in taken or not is_standard(graph.nodes[following], "Add"):
        return layer
    others = [name for name in graph.nodes[following].input if name != layer.output]
    if len(others) != 1 or others[0] in graph.tensors:
        return layer
    if not same_shape(graph, others[0], layer.output):
        return layer
    return replace(
        layer,
        residual=others[0],
        nodes=(*layer.nodes, following),
        output=graph.nodes[following].output[0],
        shape=replace(layer.shape, residual=True),
    )


def same_shape(graph: Graph, first: str, second: str) -> bool:
    """Whether two values are known to have the same shape, whatever the inputs."""
    shapes = graph.shapes.get(first), graph.shapes.get(second)
    return shapes[0] is not None and shapes[0] == shapes[1] and None not in shapes[0]


def layer_name(node: onnx.NodeProto, weight: str) -> str:
    """What people call the layer: its weight's name without `.weight`, else the node's name."""
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    return str(node.name) or weight


def _weight(graph: Graph, name: str) -> Weight | str | None:
    """A constant in fp32; or why it is no weight of a layer, for people; None if it is no constant at all."""
    tensor = graph.tensors.get(name)
    if tensor is None:
        return None
    if tensor.data_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        return f"its weight is of type {kind}; sparse ops compute in fp32"
    if 0 in tensor.dims:
        return "its weight is empty"
    return np.asarray(graph.constant(name), np.float32)


def _bias(graph: Graph, name: str, outputs: int, rank: int = 2, axis: int = -1) -> tuple[Weight | None] | None:
    """(one number an output channel,), (None,) if there is no bias, None if there is one that cannot be taken in.

    Args:
        axis: of the outputs, counted from the last one, -1.
    """
    if not name:
        return (None,)
    values = _weight(graph, name)
    if not isinstance(values, np.ndarray) or values.ndim > rank:
        return None
    if any(size != 1 for index, size in enumerate(values.shape) if index - values.ndim != axis):
        return None
    if values.size != 1 and values.size != outputs:
        return None
    return (np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (outputs,))),)


def extents(graph: Graph, value: str) -> tuple[int, int, int, int]:
    """Channels, height, width and images of an activation, with usual numbers for those that are not known."""
    shape: tuple[Size, ...] = graph.shapes.get(value, ())
    if len(shape) == 3:
        shape = (shape[0], shape[1], 1, shape[2])
    if len(shape) != 4:  # not known, or not what the file says
        shape = (None, None, None, None)
    images, channels, height, width = shape
    return known_size(channels), known_size(height), known_size(width), known_size(images, UNKNOWN_IMAGES)
