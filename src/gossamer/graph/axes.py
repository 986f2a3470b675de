"""The inputs that somebody has to give a network, and their sizes that its file leaves open: the batch, which is one
where times are asked for, and others, which have to be said."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from gossamer.errors import ConfigurationError
from gossamer.graph.messages import copied
from gossamer.graph.values import tensor_of

LARGEST = 2**24
"""The largest size that is said."""
BATCH = 1
"""What the first axis of an input counts, where it is open."""


@dataclass(frozen=True)
class OpenAxis:
    """A size of an input that is known only when the network runs: open, zero or negative in the file."""

    name: str
    """The name in the file; INPUT.AXIS, counted from 0, where it has none there."""
    first: bool
    """Whether it is its input's first axis, which counts the examples of a batch."""
    axis: onnx.TensorShapeProto.Dimension


def inputs_to_give(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The network's inputs without those that have a value in the file."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def axis_name(value: onnx.ValueInfoProto, index: int) -> str | None:
    """What the size on an axis of an input, or of the tensors in it, is called; None if it is a number."""
    axis = tensor_of(value.type).shape.dim[index]
    return None if axis.dim_value >= 1 else axis.dim_param or f"{value.name}.{index}"


def open_axes(model: onnx.ModelProto) -> Iterator[OpenAxis]:
    """All of them, an entry for each input and axis."""
    for value in inputs_to_give(model):
        for index, axis in enumerate(tensor_of(value.type).shape.dim):
            name = axis_name(value, index)
            if name is not None:
                yield OpenAxis(name, index == 0, axis)


def check_sizes(sizes: Mapping[str, int], names: Sequence[str], batches: Collection[str] = ()) -> None:
    """
    Args:
        sizes: what is said.
        names: of the sizes that may be said.
        batches: of those that are open and may not, because they count the examples, of which there is one.

    Raises:
        ConfigurationError: a name is none of those, or a number is no size.
    """
    unknown = [name for name in sizes if name not in names]
    if unknown:
        options = " ".join(f"--size {name}=NUMBER" for name in names)
        there = f"open are {', '.join(names)}: {options}" if names else "it leaves none open"
        batch = f"; {', '.join(sorted(batches))} is the batch, which is 1" if batches else ""
        raise ConfigurationError(f"the network has no open size {', '.join(map(repr, unknown))}; {there}{batch}")
    for name, number in sizes.items():
        if not 1 <= number <= LARGEST:
            raise ConfigurationError(f"got {number} for the size {name}; expected a whole number from 1 to {LARGEST}")


def with_sizes(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> onnx.ModelProto:
    """A copy whose inputs have sizes: the batch, which is an input's first axis, 1, the others that were open as given.

    Args:
        sizes: name of an open size in the file -> the number. One without a name is INPUT.AXIS, counted from 0.

    Raises:
        ConfigurationError: an open size is missing in `sizes`, or a name in it is none; the message names those that
            are open.
    """
    given = dict(sizes or {})
    fixed = copied(model)
    axes = list(open_axes(fixed))
    batches = {found.name for found in axes if found.first}
    names = list(dict.fromkeys(found.name for found in axes if found.name not in batches))
    check_sizes(given, names, batches)
    missing = [name for name in names if name not in given]
    if missing:
        options = " ".join(f"--size {name}=NUMBER" for name in names)
        raise ConfigurationError(
            f"the network's inputs leave sizes open, and its time depends on them: {', '.join(missing)}; say them with "
            f"{options}"
        )
    for found in axes:
        found.axis.Clear()
        found.axis.dim_value = given.get(found.name, BATCH)
    if axes:
        # What was said of other tensors names the open sizes.
        del fixed.graph.value_info[:]
        for output in fixed.graph.output:
            output.type.tensor_type.ClearField("shape")
    return fixed


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Such as "height=224, width=160"."""
    return ", ".join(f"{name}={number}" for name, number in sizes.items())
