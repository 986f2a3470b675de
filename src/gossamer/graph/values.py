"""Values of all the types that networks take and return: tensors, of texts too, sequences, maps and optional values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Value = Any
"""As ONNX Runtime takes it: an array; a list for a sequence, a dictionary for a map, None for an optional value that is
absent."""
LONG = 2
"""Values of a sequence, and of a map, that are drawn."""


def tensor_of(kind: onnx.TypeProto) -> onnx.TypeProto.Tensor:
    """The type itself, or that of the tensors in a sequence or optional value, or of a map's values."""
    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        return tensor_of(getattr(kind, which).elem_type)
    return tensor_of(kind.map_type.value_type) if which == "map_type" else kind.tensor_type


def draw(kind: onnx.TypeProto, shape: Sequence[int], rng: np.random.Generator) -> Value:
    """Normal numbers, and 0 and 1 for whole numbers, truth values and texts; optional values are there.

    Args:
        shape: of every tensor in it.
    """
    which = kind.WhichOneof("value")
    if which == "sequence_type":
        return [draw(kind.sequence_type.elem_type, shape, rng) for _ in range(LONG)]
    if which == "optional_type":
        return draw(kind.optional_type.elem_type, shape, rng)
    if which == "map_type":
        text = kind.map_type.key_type == onnx.TensorProto.STRING
        keys = [str(key) if text else key for key in range(LONG)]
        return {key: draw(kind.map_type.value_type, shape, rng) for key in keys}
    if kind.tensor_type.elem_type == onnx.TensorProto.STRING:
        return rng.choice(["0", "1"], shape).astype(object)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def arrays_in(values: Iterable[Value]) -> list[NDArray[np.generic]]:
    """All numbers in them, in an order that only their structure decides: before those of a list its length, before
    those of a dictionary (ONNX has maps to single numbers and texts) its keys, texts as the numbers of their letters.
    """
    found: list[NDArray[np.generic]] = []
    for value in values:
        if isinstance(value, Mapping):
            keys = sorted(value)
            found += arrays_in([np.asarray(keys), np.asarray([value[key] for key in keys])])
        elif isinstance(value, list):
            found += arrays_in([np.asarray(len(value)), *value])
        elif value is None:
            found.append(np.zeros(0))
        else:
            array = np.asarray(value)
            found.append(_letters(array) if array.dtype.kind in "OUS" else array)
    return found


def _letters(texts: NDArray[np.generic]) -> NDArray[np.generic]:
    """[..., letters of the longest]"""
    wide = np.asarray(texts, np.str_)
    longest = max(1, wide.dtype.itemsize // 4)
    return np.frombuffer(wide.astype(f"<U{longest}").tobytes(), "<u4").reshape(*wide.shape, longest)


def type_text(kind: onnx.TypeProto, sizes: Sequence[str]) -> str:
    """Such as "float [n, 64]", or "a sequence of float [n, 64]".

    Args:
        sizes: of the tensors in it, for people.
    """
    which = kind.WhichOneof("value")
    if which == "sequence_type":
        return f"a sequence of {type_text(kind.sequence_type.elem_type, sizes)}"
    if which == "optional_type":
        return f"optional {type_text(kind.optional_type.elem_type, sizes)}"
    if which == "map_type":
        key = onnx.TensorProto.DataType.Name(kind.map_type.key_type).lower()
        return f"a map from {key} to {type_text(kind.map_type.value_type, sizes)}"
    name = onnx.TensorProto.DataType.Name(kind.tensor_type.elem_type).lower()
    return f"{name} [{', '.join(sizes)}]" if kind.tensor_type.HasField("shape") else f"{name} of any shape"
