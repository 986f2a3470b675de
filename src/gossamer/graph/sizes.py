"""Sizes of a network's inputs that its file leaves open: the batch is one, and the others have to be said."""

from collections.abc import Mapping

import onnx

from gossamer.errors import ConfigurationError
from gossamer.graph.axes import check_sizes, open_axes

BATCH = 1
"""What the first axis of an input counts, where it is open."""


def with_sizes(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> onnx.ModelProto:
    """A copy whose inputs have sizes: the batch, which is an input's first axis, 1, the others that were open as given.

    Args:
        sizes: name of an open size in the file -> the number. One without a name is INPUT.AXIS, counted from 0.

    Raises:
        ConfigurationError: an open size is missing in `sizes`, or a name in it is none; the message names those that
            are open.
    """
    given = dict(sizes or {})
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
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
