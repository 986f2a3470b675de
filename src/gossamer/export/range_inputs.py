"""The examples that ranges of a network's values come from: those of files, or a task's."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.errors import ConfigurationError, first_line
from gossamer.export.feeds import described, fitting, loaded
from gossamer.graph.axes import inputs_to_give, open_axes
from gossamer.graph.sessions import Feed
from gossamer.storage.files import regular

BATCH = 16
"""Examples at a time, of those in files."""
MOST_BYTES = 2**33
"""Of the arrays of one file, unpacked."""
ENDINGS = (".npz", ".npy")


@dataclass(frozen=True)
class RangeInputs:
    """Batches of examples that ranges are found on."""

    feeds: tuple[Feed, ...]
    words: str
    """What they are, for people: "512 training examples"."""

    def __post_init__(self) -> None:
        for feed in self.feeds:
            for name, values in feed.items():
                if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ConfigurationError(
                        f"the input {name} holds infinities or NaN in {self.words}, of which no range can be made; "
                        f"expected finite numbers"
                    )

    def first(self, count: int) -> "RangeInputs":
        """The first batches, with so many examples together at least; all if there are no more."""
        kept: list[Feed] = []
        for feed in self.feeds:
            if sum(map(_examples, kept)) < count:
                kept.append(feed)
        if len(kept) == len(self.feeds):
            return self
        return RangeInputs(tuple(kept), f"the first {sum(map(_examples, kept)):,} of {self.words}")


def read_range_inputs(model: onnx.ModelProto, path: Path) -> RangeInputs:
    """The examples of a file, or of all files of a folder in the order of their names.

    Args:
        path: an .npz file with an array for each input of the network by its name, examples along the first axis; or,
            of a network with one input, an .npy file; or a folder of such. In a folder .npy files named for the inputs
            belong together.

    Raises:
        ConfigurationError: there is none, it cannot be read, or its arrays do not fit the inputs.
    """
    values = {value.name: value for value in inputs_to_give(model)}
    others = [name for name, value in values.items() if value.type.WhichOneof("value") != "tensor_type"]
    if others:
        raise ConfigurationError(
            f"the input {others[0]} is no tensor, so no file of arrays can hold it, and --int8 cannot find ranges"
        )
    feeds = [feed for file, arrays in _files(path, values) for feed in _batches(model, values, arrays, file)]
    count = sum(_examples(feed) for feed in feeds)
    return RangeInputs(tuple(feeds), f"{count:,} examples of {path}")


def _files(
    path: Path, values: Mapping[str, onnx.ValueInfoProto]
) -> Iterator[tuple[Path, dict[str, NDArray[np.generic]]]]:
    if not path.is_dir():
        yield path, _arrays(path, values)
        return
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    if not found:
        raise ConfigurationError(f"{path} holds no .npz or .npy file; {_expected(values)}")
    named = [file for file in found if file.suffix.lower() == ".npy"]
    if len(values) > 1 and named:
        if sorted(file.stem for file in named) != sorted(values) or len(named) < len(found):
            raise ConfigurationError(
                f"{path} holds {', '.join(file.name for file in found[:5])}; expected .npz files, or one .npy file for "
                f"each input: {', '.join(f'{name}.npy' for name in values)}"
            )
        yield path, {file.stem: loaded(file) for file in named}
        return
    for file in found:
        yield file, _arrays(file, values)


def _arrays(path: Path, values: Mapping[str, onnx.ValueInfoProto]) -> dict[str, NDArray[np.generic]]:
    """An array for each input."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigurationError(f"{path} is no .npz or .npy file; {_expected(values)}")
    if path.suffix.lower() == ".npy":
        if len(values) != 1:
            raise ConfigurationError(
                f"{path} holds one array, and the network has {len(values)} inputs; {_expected(values)}"
            )
        return {next(iter(values)): loaded(path)}
    arrays = _loaded_together(path)
    if sorted(arrays) != sorted(values):
        raise ConfigurationError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; {_expected(values)}")
    return arrays


def _loaded_together(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        file = regular(path, links=True)
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"its arrays are {size:,} bytes, more than {MOST_BYTES:,}; give fewer examples")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no file {path}; expected one that numpy.savez wrote") from error
    except Exception as error:  # damaged headers end in whatever zipfile, Python's tokenizer or NumPy's memory raise
        raise ConfigurationError(
            f"{path} cannot be read ({first_line(error)}); expected arrays of numbers, as numpy.savez writes them"
        ) from error


def _batches(
    model: onnx.ModelProto,
    values: Mapping[str, onnx.ValueInfoProto],
    arrays: Mapping[str, NDArray[np.generic]],
    path: Path,
) -> Iterator[Feed]:
    """The examples of a file in batches of the size that the network takes."""
    counted = {axis.name for axis in open_axes(model) if axis.first}
    fixed = [value.type.tensor_type.shape.dim[0].dim_value for value in values.values() if _rank(value)]
    size = BATCH if counted else max(fixed, default=1)
    # Two numbers of examples (such as users and items) say not which belong together.
    along = [name for name, value in values.items() if _rank(value) and _counts(value, size, counted)]
    along = along if len(counted) <= 1 else []
    lengths = {len(arrays[name]) for name in along if arrays[name].ndim}
    if len(lengths) > 1:
        told = ", ".join(f"{len(arrays[name])} of {name}" for name in along)
        raise ConfigurationError(f"{path} holds different numbers of examples: {told}; expected as many of each")
    count = max(lengths, default=size)
    whole = count if counted else count // size * size
    if whole < 1:
        raise ConfigurationError(f"{path} holds {count} examples; expected at least {1 if counted else size}")
    for start in range(0, whole, size):
        rows = slice(start, min(whole, start + size))
        cut = {name: array[rows] if name in along and array.ndim else array for name, array in arrays.items()}
        yield {name: fitting(value, cut[name], path) for name, value in values.items()}


def _rank(value: onnx.ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)


def _counts(value: onnx.ValueInfoProto, size: int, counted: set[str]) -> bool:
    """Whether the first axis of an input counts examples."""
    first: int = value.type.tensor_type.shape.dim[0].dim_value
    return first <= 0 if counted else first == size


def _examples(feed: Feed) -> int:
    return max((len(values) for values in feed.values() if np.ndim(values)), default=1)


def _expected(values: Mapping[str, onnx.ValueInfoProto]) -> str:
    arrays = ", ".join(f"{name}=ARRAY" for name in values)
    inputs = ", ".join(map(described, values.values()))
    return f"expected the network's inputs, as numpy.savez(FILE, {arrays}) writes them: {inputs}"
