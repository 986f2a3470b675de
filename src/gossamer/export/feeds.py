"""Inputs that networks are compared on: those of files, and random ones for the others."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.errors import ConfigurationError, ExportError, first_line
from gossamer.graph.axes import axis_name, check_sizes, inputs_to_give, open_axes
from gossamer.graph.inputs import drawn, shape_with, sizes_read
from gossamer.graph.sessions import CANNOT_RUN, Feed, Opened
from gossamer.graph.values import tensor_of, type_text
from gossamer.storage.files import regular

RANDOM_BATCHES = 4
EXAMPLES = (2, 1)
"""How many a random batch has, where their number is open; one where the network does not run with two."""
FREE_EXTENTS = (32, 64, 128, 224, 256, 512)
"""Tried in turn for the other axes that an ONNX file leaves open, if no layer decides them."""
MOST, MOST_SAID = 2**27, 2**30
"""Numbers that are drawn for an input whose sizes are tried, and for one whose sizes are said."""


def read_inputs(model: onnx.ModelProto, files: Mapping[str, Path]) -> Feed:
    """The values of inputs, of NumPy's files.

    Numbers of another width are converted (NumPy's own are of 64 bits), if their values stay what they are; fp64 is
    rounded to what the input takes.

    Args:
        files: name of an input -> a file that `numpy.save` wrote, with all axes of the input.

    Raises:
        ConfigurationError: there is no such input or file, or the values do not fit the input.
    """
    values = {value.name: value for value in inputs_to_give(model)}
    unknown = [name for name in files if name not in values]
    if unknown:
        there = ", ".join(map(described, values.values()))
        raise ConfigurationError(f"the network has no input {', '.join(map(repr, unknown))}; it has {there}")
    return {name: fitting(values[name], loaded(path), path) for name, path in files.items()}


def feeds_of(opened: Opened, given: Feed, sizes: Mapping[str, int]) -> Iterator[Feed]:
    """What is given, with seeded random values for the other inputs: normal numbers, 0 and 1 for whole numbers and
    truth values; several times, if any of them is random.

    Args:
        given: of some inputs, or all.
        sizes: by the names of `open_axes`. Others are taken from what is given, or tried until the network runs.

    Raises:
        ConfigurationError: a size is unknown, or contradicts what is given.
        ExportError: the network does not run.
    """
    model = opened.model
    known = _sizes_of(model, given, sizes)
    others = [value for value in inputs_to_give(model) if value.name not in given]
    if not others:
        error = _error(opened, given)
        if error is not None:
            raise ExportError(
                f"ONNX Runtime does not run the network on the given inputs ({_shapes(given)}): {error}"
                + _unequal(model, given)
            )
        yield given
        return
    rng = np.random.default_rng(0)
    for attempt in _attempts(model, known):
        _require_possible(others, attempt)
        feed = {**given, **drawn(others, attempt, rng)}
        error = _error(opened, feed)
        if error is None:
            yield feed
            yield from ({**given, **drawn(others, attempt, rng)} for _ in range(RANDOM_BATCHES - 1))
            return
    raise ExportError(
        f"the network does not run in ONNX Runtime on random inputs ({_shapes(feed)}): {error}. Give inputs that it "
        f"accepts, each with --input NAME=FILE.npy (numpy.save writes such files): {', '.join(map(described, others))}"
        + _unequal(model, given)
        + _said(name for value in others for name in _open_names(value) if name not in known)
    )


def loaded(path: Path) -> NDArray[np.generic]:
    """The array of a file that `numpy.save` wrote.

    Raises:
        ConfigurationError: there is none, or it holds something else.
    """
    try:
        values = np.load(regular(path, links=True), allow_pickle=False)
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no file {path}; expected one that numpy.save wrote") from error
    except Exception as error:  # a damaged header ends in whatever Python's tokenizer or NumPy's memory raise
        raise ConfigurationError(
            f"{path} cannot be read ({first_line(error)}); expected an array of numbers, as numpy.save writes it"
        ) from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise ConfigurationError(f"{path} holds several arrays; expected one, as numpy.save writes it")
    return values


def fitting(value: onnx.ValueInfoProto, array: NDArray[np.generic], path: Path) -> NDArray[np.generic]:
    """The values as the input takes them.

    Args:
        path: where they come from, for messages.

    Raises:
        ConfigurationError: their shape or type is another, or a number is out of range.
    """
    if value.type.WhichOneof("value") != "tensor_type":
        raise ConfigurationError(f"{path} holds an array, which is no value of {described(value)}; leave it out")
    axes = value.type.tensor_type.shape.dim
    ranked = value.type.tensor_type.HasField("shape")
    if ranked and (
        array.ndim != len(axes) or any(0 < axis.dim_value != size for axis, size in zip(axes, array.shape, strict=True))
    ):
        raise ConfigurationError(f"{path} has the shape {list(array.shape)}; expected that of {described(value)}")
    wanted = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    with np.errstate(all="ignore"):
        converted = array.astype(wanted) if np.can_cast(array.dtype, wanted, "same_kind") else None
    if converted is None or (array.dtype.kind in "iu" and not np.array_equal(converted, array)):
        raise ConfigurationError(f"{path} is of type {array.dtype}; expected values of {described(value)}")
    if array.dtype.kind == "f" and (np.isfinite(array) != np.isfinite(converted)).any():
        raise ConfigurationError(f"{path} holds numbers beyond the range of {wanted}; expected {described(value)}")
    return converted


def _sizes_of(model: onnx.ModelProto, given: Feed, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that are said, and those that the given values have, the first of several."""
    check_sizes(sizes, list(dict.fromkeys(axis.name for axis in open_axes(model))))
    known = dict(sizes)
    for name, size, value in _given_sizes(model, given):
        if sizes.get(name, size) != size:
            raise ConfigurationError(
                f"the size {name} is {size} in the input {value}, and {sizes[name]} as --size says it; make them "
                f"equal, or leave --size out"
            )
        known.setdefault(name, size)
    return known


def _given_sizes(model: onnx.ModelProto, given: Feed) -> Iterator[tuple[str, int, str]]:
    """The name of an open axis, its size, and the input that has it."""
    for value in inputs_to_give(model):
        if value.name in given and value.type.tensor_type.HasField("shape"):
            for index, size in enumerate(given[value.name].shape):
                name = axis_name(value, index)
                if name is not None:
                    yield name, size, value.name


def _unequal(model: onnx.ModelProto, given: Feed) -> str:
    """Finds a size of the given values that the network calls by one name and that differs.

    Told only where the network does not run. ONNX Runtime does not compare such sizes, and where every open axis is
    called `?` (Paddle's exporter), they are not meant to be equal.
    """
    known: dict[str, int] = {}
    for name, size, value in _given_sizes(model, given):
        if known.setdefault(name, size) != size:
            return f"; the size {name} is {size} in the input {value}, and {known[name]} elsewhere: make them equal"
    return ""


def _attempts(model: onnx.ModelProto, known: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes for all open axes."""
    known = {**sizes_read(model), **known}
    axes = [axis for axis in open_axes(model) if axis.name not in known]
    batches = {axis.name: 0 for axis in axes if axis.first}
    extents = {axis.name: 0 for axis in axes if axis.name not in batches}
    for examples in EXAMPLES if batches else EXAMPLES[:1]:
        for extent in FREE_EXTENTS if extents else FREE_EXTENTS[:1]:
            sizes = {**dict.fromkeys(batches, examples), **dict.fromkeys(extents, extent), **known}
            if extent == FREE_EXTENTS[0] or _largest(model, sizes) <= MOST:
                yield sizes


def _largest(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    return max(math.prod(shape_with(value, sizes)) for value in inputs_to_give(model))


def _require_possible(values: Sequence[onnx.ValueInfoProto], sizes: Mapping[str, int]) -> None:
    for value in values:
        shape = shape_with(value, sizes)
        if math.prod(shape) > MOST_SAID:
            raise ConfigurationError(
                f"random values of the input {value.name} {shape} would be {math.prod(shape):,} numbers, more than "
                f"{MOST_SAID:,}; say smaller sizes with --size NAME=NUMBER, or give it with --input NAME=FILE.npy"
            )


def _open_names(value: onnx.ValueInfoProto) -> list[str]:
    indices = range(len(tensor_of(value.type).shape.dim))
    return [name for index in indices if (name := axis_name(value, index)) is not None]


def _error(opened: Opened, feed: Feed) -> str | None:
    """What ONNX Runtime says; None if it runs."""
    try:
        opened.run(feed)
    except ExportError as error:
        return first_line(error).removeprefix(CANNOT_RUN)
    return None


def described(value: onnx.ValueInfoProto) -> str:
    """Such as "image (float [batch, 3, 224, 224])"."""
    axes = tensor_of(value.type).shape.dim
    sizes = [axis_name(value, index) or str(axis.dim_value) for index, axis in enumerate(axes)]
    return f"{value.name} ({type_text(value.type, sizes)})"


def _shapes(feed: Feed) -> str:
    arrays = {name: value for name, value in feed.items() if isinstance(value, np.ndarray)}
    return ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())


def _said(names: Iterator[str]) -> str:
    options = " ".join(f"--size {name}=NUMBER" for name in dict.fromkeys(names))
    return f"; or say sizes that belong together with {options}" if options else ""
