"""Units: the outputs of a layer that other layers read, with nothing between them that mixes one with another.

Such units may be cut or put into another order: in every constant that has a number for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx

from gossamer.graph.graph import Graph, attributes_of, is_complete, is_standard, values_read

ELEMENTWISE = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "Sigmoid",
        "Tanh",
        "HardSigmoid",
        "HardSwish",
        "Softplus",
        "Softsign",
        "Mish",
        "Gelu",
        "Erf",
        "ThresholdedRelu",
        "Identity",
        "Neg",
        "Abs",
        "Clip",
        "Dropout",
    ]
)
"""Ops whose other inputs, if they have any, are the same for all units."""
BINARY = ("Add", "Sub", "Mul", "Div", "PRelu", "Max", "Min")
POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum")


@dataclass(frozen=True)
class Place:
    """An axis of a constant along which units lie."""

    constant: str
    axis: int
    block: int = 1
    """Neighbouring numbers along the axis that belong to one unit."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads units."""

    node: int
    value: str
    """What it reads."""
    axis: int
    """Of that value along which units lie."""
    weight: Place
    padded: bool
    """Whether zeros stand beside the value's numbers."""


@dataclass(frozen=True)
class Units:
    """Units of one layer, with all that has to change when they do."""

    node: int
    count: int
    weight: Place
    """Whose rows make them."""
    carried: tuple[Place, ...]
    """Biases and other constants with a number, or several, for each."""
    readers: tuple[Reader, ...]
    fixed: bool
    """Whether a node says how many they are."""

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.weight, *self.carried, *(reader.weight for reader in self.readers))


@dataclass(frozen=True)
class _Along:
    """How units lie in a value."""

    rank: int
    axis: int
    block: int = 1


def find_units(graph: Graph) -> list[Units]:
    """The units of all layers, in the graph's order, that are known to stay apart and are no outputs of the graph."""
    found = (_units_of(graph, index) for index in range(len(graph.nodes)))
    return [units for units in found if units is not None and units.readers and _are_own(graph, units)]


def _are_own(graph: Graph, units: Units) -> bool:
    """Whether each constant is an initializer that one node reads, once."""
    stored = {tensor.name for tensor in graph.model.graph.initializer}
    return all(
        place.constant in stored and place.constant in graph.tensors and len(graph.readers[place.constant]) == 1
        for place in units.places
    )


def _units_of(graph: Graph, index: int) -> Units | None:
    """The units that a node makes, if it is a layer."""
    node = graph.nodes[index]
    if not is_complete(node) or not is_standard(node, "Conv", "Gemm", "MatMul"):
        return None
    weight = graph.tensors.get(node.input[1])
    if weight is None or node.input[0] in graph.tensors:
        return None
    attributes = attributes_of(node)
    if node.op_type == "Conv":
        axis, along = 0, _Along(len(weight.dims), 1)
        if attributes.get("group", 1) != 1:
            return None
    elif len(weight.dims) != 2:
        return None
    elif node.op_type == "Gemm":
        axis, along = (0 if attributes.get("transB", 0) else 1), _Along(2, 1)
    else:
        shape = graph.shapes.get(node.output[0])
        if not shape:
            return None
        axis, along = 1, _Along(len(shape), len(shape) - 1)
    count = weight.dims[axis]
    units = Units(index, count, Place(node.input[1], axis), (), (), fixed=False)
    if len(node.input) > 2 and node.input[2]:
        bias = graph.tensors.get(node.input[2])
        if bias is None or (tuple(bias.dims) != (1,) * len(bias.dims) and bias.dims[-1] != count):
            return None
        if bias.dims and bias.dims[-1] == count > 1:
            units = replace(units, carried=(Place(node.input[2], len(bias.dims) - 1),))
    return _followed(graph, units, along)


def _followed(graph: Graph, units: Units, along: _Along) -> Units | None:
    """The units with everything behind them; None if something there is not understood."""
    lies = {graph.nodes[units.node].output[0]: along}
    returned = {value.name for value in graph.model.graph.output}
    if returned & lies.keys():
        return None
    for index in range(units.node + 1, len(graph.nodes)):
        node = graph.nodes[index]
        if not lies.keys() & set(values_read(node)):
            continue
        reader = _reader(graph, index, units.count, lies)
        if reader is not None:
            units = replace(units, readers=(*units.readers, reader))
            continue
        passed = _passed(graph, node, units, lies)
        outputs = [name for name in node.output if name]
        if passed is None or len(outputs) != 1 or outputs[0] in returned:
            return None
        units, lies[outputs[0]] = passed
    return units


def _reader(graph: Graph, index: int, count: int, lies: dict[str, _Along]) -> Reader | None:
    """The node as a layer that reads units."""
    node = graph.nodes[index]
    if not is_complete(node) or not is_standard(node, "Conv", "Gemm", "MatMul") or node.input[0] not in lies:
        return None
    weight, along = graph.tensors.get(node.input[1]), lies[node.input[0]]
    if weight is None or lies.keys() & set(node.input[1:]):
        return None
    attributes, padded = attributes_of(node), False
    if node.op_type == "Conv":
        axis = 1
        padded = attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or any(_numbers(attributes, "pads"))
        fits = attributes.get("group", 1) == 1 and along.axis == 1 and along.block == 1
    elif node.op_type == "Gemm":
        axis = 1 if attributes.get("transB", 0) else 0
        fits = not attributes.get("transA", 0) and along.axis == 1
    else:
        axis, fits = 0, len(weight.dims) == 2 and along.axis == along.rank - 1
    if not fits or len(weight.dims) <= axis or weight.dims[axis] != count * along.block:
        return None
    return Reader(index, node.input[0], along.axis, Place(node.input[1], axis, along.block), padded)


def _passed(graph: Graph, node: onnx.NodeProto, units: Units, lies: dict[str, _Along]) -> tuple[Units, _Along] | None:
    """What the node makes of units if it keeps them apart, and how they lie then."""
    others = [name for name in values_read(node) if name not in lies]
    if any(name not in graph.tensors for name in others) or set(values_read(node)) - set(node.input):
        return None
    ways = {lies[name] for name in node.input if name in lies}
    if len(ways) != 1:
        return None
    (along,) = ways
    if is_standard(node, *ELEMENTWISE):
        return (units, along) if all(not graph.tensors[name].dims for name in others) else None
    if is_standard(node, *BINARY):
        return _with_constants(graph, others, units, along)
    if is_standard(node, "BatchNormalization") and node.input[0] in lies and along.axis == 1 and along.block == 1:
        carried = tuple(Place(name, 0) for name in node.input[1:])
        return (replace(units, carried=(*units.carried, *carried)), along) if len(set(others)) == 4 else None
    if is_standard(node, *POOLS):
        return (units, along) if along.axis == 1 and along.block == 1 and along.rank > 2 else None
    if is_standard(node, "Conv"):
        return _depthwise(graph, node, units, along)
    return _rearranged(graph, node, units, along)


def _with_constants(graph: Graph, names: list[str], units: Units, along: _Along) -> tuple[Units, _Along] | None:
    """Numbers that are added to units, multiplied with them, ..., as constants broadcast from the last axis on."""
    for name in names:
        dims = graph.tensors[name].dims
        axis = along.axis - along.rank + len(dims)
        if len(dims) > along.rank:
            return None
        if axis < 0 or dims[axis] == 1:
            continue
        if dims[axis] != units.count * along.block:
            return None
        units = replace(units, carried=(*units.carried, Place(name, axis, along.block)))
    return units, along


def _depthwise(graph: Graph, node: onnx.NodeProto, units: Units, along: _Along) -> tuple[Units, _Along] | None:
    """A kernel for each unit: it says how many they are."""
    weight = graph.tensors.get(node.input[1])
    if weight is None or attributes_of(node).get("group", 1) != units.count or along.axis != 1 or along.block != 1:
        return None
    if weight.dims[0] != units.count or units.count < 2:
        return None
    carried = tuple(Place(name, 0) for name in node.input[1:] if name)
    return replace(units, carried=(*units.carried, *carried), fixed=True), along


def _rearranged(graph: Graph, node: onnx.NodeProto, units: Units, along: _Along) -> tuple[Units, _Along] | None:
    """Units on other axes, or several numbers of each side by side."""
    before, after = graph.shapes.get(node.input[0]), graph.shapes.get(node.output[0])
    attributes = attributes_of(node)
    if is_standard(node, "Transpose"):
        turned = _numbers(attributes, "perm") or list(range(along.rank))[::-1]
        return units, replace(along, axis=turned.index(along.axis))
    if is_standard(node, *REDUCTIONS):
        axes = _axes(graph, node, along.rank)
        if not axes or along.axis in axes or attributes.get("noop_with_empty_axes", 0):
            return None
        if attributes.get("keepdims", 1):
            return units, along
        return units, replace(
            along, rank=along.rank - len(axes), axis=along.axis - sum(axis < along.axis for axis in axes)
        )
    if is_standard(node, "Squeeze"):
        axes = _axes(graph, node, along.rank)
        return (units, replace(along, rank=along.rank - len(axes))) if axes and min(axes) > along.axis else None
    if not is_standard(node, "Flatten", "Reshape") or not before or not after or len(after) != 2 or along.axis != 1:
        return None
    if is_standard(node, "Flatten") and attributes.get("axis", 1) != 1:
        return None
    numbers, width = [*before[1:]], 1
    for number in numbers:
        if not isinstance(number, int):
            return None
        width *= number
    if after[1] != width or width != units.count * along.block * (width // (units.count * along.block)):
        return None
    fixed = units.fixed
    if is_standard(node, "Reshape"):
        shape = graph.constant(node.input[1])
        fixed = fixed or shape is None or shape.reshape(-1)[-1] != -1
        # [-1, width] keeps the examples apart only if they are as many before.
        if before[0] != after[0] and shape is not None and shape.reshape(-1)[0] not in (0, -1):
            return None
    return replace(units, fixed=fixed), _Along(2, 1, width // units.count)


def _axes(graph: Graph, node: onnx.NodeProto, rank: int) -> list[int]:
    """Those of a reduction or Squeeze, counted from the first; none if they are not known."""
    attributes = attributes_of(node)
    if len(node.input) > 1:
        stored = graph.constant(node.input[1])
        axes = [] if stored is None else [int(axis) for axis in stored.reshape(-1)]
    else:
        axes = _numbers(attributes, "axes")
    return [axis % rank for axis in axes]


def _numbers(attributes: dict[str, object], name: str) -> list[int]:
    given = attributes.get(name)
    return list(_integers(given)) if isinstance(given, list | tuple) else []


def _integers(given: list[object] | tuple[object, ...]) -> Iterator[int]:
    yield from (number for number in given if isinstance(number, int))
