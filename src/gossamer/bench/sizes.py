"""Sizes of a network's inputs that its file leaves open: the batch is one, and the others have to be said."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from gossamer.errors import ConfigurationError

if TYPE_CHECKING:
    import onnx

BATCH = 1
"""What the first axis of an input counts, where it is open."""
LARGEST = 2**24


def with_sizes(model: "onnx.ModelProto", sizes: Mapping[str, int] | None = None) -> "onnx.ModelProto":
    """A copy whose inputs have sizes: the batch, which is an input's first axis, 1, the others that were open as given.

    Args:
        sizes: name of an open size in the file -> the number. One without a name is INPUT.AXIS, counted from 0.

    Raises:
        ConfigurationError: an open size is missing in `sizes`, or a name in it is none; the message names those that
            are open.
    """
    import onnx

    given = dict(sizes or {})
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    axes = list(_open_axes(fixed))
    batches = {name for name, first, _ in axes if first}
    names = list(dict.fromkeys(name for name, _, _ in axes if name not in batches))
    _check(given, names, batches)
    for name, _, axis in axes:
        axis.Clear()
        axis.dim_value = given.get(name, BATCH)
    if axes:
        # What was said of other tensors names the open sizes.
        del fixed.graph.value_info[:]
        for output in fixed.graph.output:
            output.type.tensor_type.ClearField("shape")
    return fixed


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Such as "height=224, width=160"."""
    return ", ".join(f"{name}={number}" for name, number in sizes.items())


def _open_axes(model: "onnx.ModelProto") -> "Iterator[tuple[str, bool, onnx.TensorShapeProto.Dimension]]":
    """Name, whether it is an input's first axis, and the axis itself."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in constants:
            for place, axis in enumerate(value.type.tensor_type.shape.dim):
                if axis.dim_value < 1:
                    yield axis.dim_param or f"{value.name}.{place}", place == 0, axis


def _check(given: Mapping[str, int], names: list[str], batches: set[str]) -> None:
    options = " ".join(f"--size {name}=NUMBER" for name in names)
    unknown = [name for name in given if name not in names]
    if unknown:
        there = f"open are {', '.join(names)}: {options}" if names else "it leaves none open"
        batch = f"; {', '.join(sorted(batches))} is the batch, which is 1" if batches else ""
        raise ConfigurationError(f"the network has no open size {', '.join(map(repr, unknown))}; {there}{batch}")
    missing = [name for name in names if name not in given]
    if missing:
        raise ConfigurationError(
            f"the network's inputs leave sizes open, and its time depends on them: {', '.join(missing)}; say them with "
            f"{options}"
        )
    for name, number in given.items():
        if not 1 <= number <= LARGEST:
            raise ConfigurationError(f"got {number} for the size {name}; expected a whole number from 1 to {LARGEST}")
