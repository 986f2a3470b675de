"""The header of a safetensors file, read without trusting it: https://github.com/huggingface/safetensors#format."""

import json
from math import prod
from pathlib import Path
from typing import Any

from gossamer.errors import CheckpointError
from gossamer.files.stored import BITS, Stored
from gossamer.storage.files import regular

LONGEST = 100_000_000
"""Bytes of a header, as in safetensors."""
MOST_AXES = 64
METADATA = "__metadata__"


def read_header(path: Path, file: str) -> list[Stored]:
    """The tensors of a safetensors file, in the order of their bytes.

    Args:
        file: what the file is called in them.

    Raises:
        CheckpointError: there is no such file, or its header is damaged, or lies about what comes behind it.
    """
    try:
        with regular(path, links=True).open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(0)
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or not 2 <= length <= min(LONGEST, size - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            text = opened.read(length).decode("utf-8")
        entries = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_number)
        if not text.startswith("{") or not isinstance(entries, dict):
            raise ValueError("a header that is no table")
        _check_metadata(entries.pop(METADATA, {}))
        return _checked([_tensor(name, entry, file) for name, entry in entries.items()], size - 8 - length, 8 + length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}; expected one as it was written") from error


def _checked(tensors: list[Stored], behind: int, start: int) -> list[Stored]:
    """With offsets from the beginning of the file; each tensor begins where the one before it ends."""
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.length))
    end = 0
    for tensor in tensors:
        if tensor.offset != end:
            what = "overlaps another one" if tensor.offset < end else f"begins {tensor.offset - end} bytes too late"
            raise ValueError(f"{tensor.name} {what}")
        end += tensor.length
    if end != behind:
        raise ValueError(f"its tensors take {end:,} bytes, and {behind:,} are there")
    return [Stored(tensor.name, tensor.kind, tensor.shape, tensor.file, tensor.offset + start) for tensor in tensors]


def _tensor(name: str, entry: Any, file: str) -> Stored:
    if not isinstance(entry, dict) or {*entry} != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} has no dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in BITS:
        raise ValueError(f"{name} holds {kind!r}; known are {', '.join(BITS)}")
    if not _are_sizes(shape) or len(shape) > MOST_AXES or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has a shape or offsets that are no whole numbers from 0 on")
    bits = prod(shape) * BITS[kind]
    if bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise ValueError(f"{name} of shape {tuple(shape)} has {bits // 8} bytes, and its offsets say {offsets}")
    return Stored(name, kind, tuple(shape), file, offsets[0])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{METADATA} is no table of texts")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no size")
