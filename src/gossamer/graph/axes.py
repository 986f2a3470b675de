"""The inputs that somebody has to give a network, and their sizes that its file leaves open."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from gossamer.errors import ConfigurationError
from gossamer.graph.values import tensor_of

LARGEST = 2**24
"""Of a size that is said."""


@dataclass(frozen=True)
class OpenAxis:
    """A size of an input that is known only when the network runs: open, zero or negative in the file."""

    name: str
    """In the file; INPUT.AXIS, counted from 0, where it has none there."""
    first: bool
    """Whether it is its input's first axis, which counts the examples of a batch."""
    axis: onnx.TensorShapeProto.Dimension


def inputs_to_give(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The network's inputs without those that have a value in the file."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def axis_name(value: onnx.ValueInfoProto, place: int) -> str | None:
    """What the size on an axis of an input, or of the tensors in it, is called; None if it is a number."""
    axis = tensor_of(value.type).shape.dim[place]
    return None if axis.dim_value >= 1 else axis.dim_param or f"{value.name}.{place}"


def open_axes(model: onnx.ModelProto) -> Iterator[OpenAxis]:
    """All of them, an entry for each input and axis."""
    for value in inputs_to_give(model):
        for place, axis in enumerate(tensor_of(value.type).shape.dim):
            name = axis_name(value, place)
            if name is not None:
                yield OpenAxis(name, place == 0, axis)


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
