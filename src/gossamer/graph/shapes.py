"""Shapes of a graph's values, as far as they are known before it runs."""

import math

import onnx

from gossamer.graph.messages import copied, replace_items, without_contents

Size = int | str | None
"""The size of an axis: a number, the name of a number that is not known before the network runs, or nothing known."""
Shapes = dict[str, tuple[Size, ...]]

SHAPE_NUMBERS = 1024
"""A constant of more numbers is no shape, no axes, no scales: its content says nothing about other shapes."""
UNKNOWN_IMAGES = 1
"""Images, where the number is known only when the network runs: a device mostly sees one."""
UNKNOWN_EXTENT = 28
"""Likewise height, width and tokens."""
TRIALS = ((3, 224, 224), (5, 211, 307), (2, 306, 190))
"""First axis and two alternating others, for axes that the inputs leave open: even and odd, square and not, multiples
of 32 and not, so that what rounds differently comes out different."""


_CONTRIBUTED: dict[str, tuple[str, tuple[int, ...]]] = {
    "DequantizeLinear": ("DequantizeLinear", (0, 1, 2)),
    "QGemm": ("Gemm", (0, 3)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearConcat": ("Concat", ()),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QuantizeLinear": ("QuantizeLinear", (0, 1, 2)),
}
"""Ops of ONNX Runtime's own -> the op of ONNX whose output has the same shape, and the indices of what that reads."""


def known_size(size: Size, otherwise: int = UNKNOWN_EXTENT) -> int:
    """The size, or a usual number where it is not known."""
    return size if isinstance(size, int) and size > 0 else otherwise


def numbers_of(shape: tuple[Size, ...]) -> int:
    """Numbers in a value; sizes that are not known are the usual ones."""
    return math.prod(known_size(size, UNKNOWN_EXTENT if axis else UNKNOWN_IMAGES) for axis, size in enumerate(shape))


def infer_shapes(model: onnx.ModelProto) -> Shapes:
    """Infers the shapes of the values whose rank is known.

    ONNX's inference follows a name like "height" through layers that keep it, and gives up where it is halved. Such an
    axis is named here by its sizes under a few sizes of the inputs: two axes with one name had the same size in every
    trial. If they should ever differ after all, adding them would fail in the original network too.
    """
    model = _without_weights(model)
    shapes = _inferred(model)
    if not any(None in shape for shape in shapes.values()):
        return shapes
    trials = [_inferred(_with_sizes(model, sizes)) for sizes in TRIALS]
    return {value: _named(shape, [trial.get(value, ()) for trial in trials]) for value, shape in shapes.items()}


def values_described(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Types and shapes of values, by their names, with the model's own names of axes only: what a file may say."""
    light = _without_weights(model)
    names = _axis_names(light)
    described = {}
    for value in _values(_inferred_model(light)):
        if value.type.tensor_type.HasField("shape"):
            info = onnx.ValueInfoProto(name=value.name, type=value.type)
            for axis in info.type.tensor_type.shape.dim:
                if axis.HasField("dim_param") and axis.dim_param not in names:
                    axis.ClearField("dim_param")
            described[value.name] = info
    return described


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the contents of small constants only, which may be shapes: inference copies all that it is given,
    twice, and refuses what is larger than a protobuf message may be."""
    light = without_contents(model, lambda tensor: math.prod(tensor.dims) > SHAPE_NUMBERS)
    for node in light.graph.node:
        if node.domain == "com.microsoft" and node.op_type in _CONTRIBUTED:
            _make_standard(node)
    return light


def _make_standard(node: onnx.NodeProto) -> None:
    """Makes one of ONNX's own ops, whose output has the same shape, of one of ONNX Runtime's."""
    node.op_type, indices = _CONTRIBUTED[node.op_type]
    node.domain = ""
    indices = indices or tuple(range(2, len(node.input), 3))
    replace_items(node.input, [node.input[index] for index in indices if index < len(node.input)])
    replace_items(node.attribute, [entry for entry in node.attribute if entry.name != "channels_last"])


def _named(shape: tuple[Size, ...], trials: list[tuple[Size, ...]]) -> tuple[Size, ...]:
    if any(len(trial) != len(shape) for trial in trials):
        return shape
    return tuple(size if size is not None else _name([t[axis] for t in trials]) for axis, size in enumerate(shape))


def _name(sizes: list[Size]) -> Size:
    # An axis of 1 could be stretched to another's size where two values are added.
    if not all(isinstance(size, int) and size > 1 for size in sizes):
        return None
    return f"sizes {sizes}"


def _with_sizes(model: onnx.ModelProto, sizes: tuple[int, int, int]) -> onnx.ModelProto:
    first, *others = sizes
    fixed = copied(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in fixed.graph.input:
        for index, axis in enumerate(value.type.tensor_type.shape.dim):
            if not axis.HasField("dim_value"):
                axis.dim_value = first if index == 0 else others[index % 2]
    return fixed


def _inferred(model: onnx.ModelProto) -> Shapes:
    names = _axis_names(model)
    return {
        value.name: tuple(_size(axis, names) for axis in value.type.tensor_type.shape.dim)
        for value in _values(_inferred_model(model))
        if value.type.tensor_type.HasField("shape")
    }


def _inferred_model(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (ValueError, onnx.shape_inference.InferenceError):
        # More than a protobuf message may hold, or what ONNX Runtime takes and ONNX does not: a network that names no
        # version of ONNX's own ops.
        return model


def _axis_names(model: onnx.ModelProto) -> set[str]:
    """What is not known gets a name of its own; only the model's own names mean something."""
    return {axis.dim_param for value in _values(model) for axis in value.type.tensor_type.shape.dim if axis.dim_param}


def _values(model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, ...]:
    return (*model.graph.value_info, *model.graph.input, *model.graph.output)


def _size(axis: onnx.TensorShapeProto.Dimension, names: set[str]) -> Size:
    if axis.HasField("dim_value"):
        return int(axis.dim_value)
    return axis.dim_param if axis.dim_param and axis.dim_param in names else None
