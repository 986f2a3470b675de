"""Values of files that may come from anybody: of the types that they are declared with, or refused.

The declarations are dataclasses; what a file says is compared with them once, where it is read, so that nobody who
works with the values has to ask again.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

LARGEST_WHOLE = 2**64
"""Counts and seeds are below it; numbers of hundreds of digits could not even be made floating-point numbers."""
SHOWN = 60
"""Letters of a wrong value that a message shows."""

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    tuple: "a list",
    types.NoneType: "nothing",
}


class WrongTypeError(ValueError):
    """A value is of another type than declared."""


def read_as(kind: type[T], values: object, name: str = "") -> T:
    """An instance of a dataclass from a file's values, each checked against the type of its field.

    Types are classes, `float` (whole numbers too), literals, lists and tuples of one type, dictionaries with texts as
    keys, dataclasses, and unions of one of them with None. Other keys than the fields' are left out; a field that has a
    default may be missing.

    Args:
        name: of the whole, put before the names of its fields in messages.

    Raises:
        WrongTypeError: a value is missing, or is of another type, or a number is not finite or absurdly large.
    """
    if not isinstance(values, Mapping):
        raise _wrong(name or "it", values, "a table")
    hints, found = get_type_hints(kind), {}
    for field in fields(kind):  # type: ignore[arg-type]
        called = f"{name}.{field.name}" if name else field.name
        if field.name in values:
            found[field.name] = _checked(hints[field.name], values[field.name], called)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise WrongTypeError(f"it lacks {called}")
    return kind(**found)


def _checked(kind: Any, value: Any, name: str) -> Any:
    """The value, if it is of the type; as it is, but for what is nested in it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        chosen = next(one for one in inner if one is not types.NoneType)
        return None if value is None else _checked(chosen, value, name)
    if origin is Literal:
        if not any(type(value) is type(one) and value == one for one in inner):
            raise _wrong(name, value, " or ".join(map(repr, inner)))
        return value
    if is_dataclass(kind):
        return read_as(kind, value, name)  # type: ignore[arg-type]
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _wrong(name, value, "a table")
        return {key: _checked(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise _wrong(name, value, "a list")
        return origin(_checked(inner[0], item, f"{name}[{index}]") for index, item in enumerate(value))
    if kind is not Any and not _is_of(kind, value):
        raise _wrong(name, value, _words(kind))
    return value


def _is_of(kind: Any, value: object) -> bool:
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | kind):
            return False
        return abs(value) < LARGEST_WHOLE if isinstance(value, int) else math.isfinite(value)
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    return WORDS.get(get_origin(kind) or kind, str(kind))


def _wrong(name: str, value: object, expected: str) -> WrongTypeError:
    shown = "nothing" if value is None else repr(value)
    return WrongTypeError(f"{name} is {shown if len(shown) <= SHOWN else shown[:SHOWN] + '...'}; expected {expected}")
