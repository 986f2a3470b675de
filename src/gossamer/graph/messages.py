"""ONNX's messages, which are changed in place: copies of them, and lists with other content."""

from collections.abc import Iterable, MutableSequence
from typing import Any, TypeVar

M = TypeVar("M", bound=Any)


def copied(message: M) -> M:
    """One of its own with the same content."""
    result: M = type(message)()
    result.CopyFrom(message)
    return result


def fill(field: MutableSequence[Any], items: Iterable[Any]) -> None:
    """Gives a repeated field other content, its own among it perhaps."""
    kept = list(items)
    del field[:]
    field.extend(kept)
