"""Settings as options of the command line: the fields of frozen objects, with their types, defaults and docstrings.

What can be set is written once, as a field with its docstring. From it come the option, its help, and the words that a
report prints to make a run again.
"""

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from gossamer.errors import ConfigurationError

T = TypeVar("T")

FORM = "option"
"""The key of a field's metadata."""


@dataclass(frozen=True)
class Form:
    """How a field is written on the command line, where its type and name do not say it."""

    name: str | None = None
    """The option's name, without its dashes; the field's by default."""
    kind: type | None = None
    """The type of what the command line gives, if the field's own type is no plain one."""
    read: Callable[[str, str], Any] | None = None
    """(name of the option, text) -> the value, for values that are several in one text."""
    written: Callable[[Any], str] = str
    """The opposite of it."""
    hidden: bool = False
    """No option: only Python can give it, such as a function."""


def as_option(default: Any, **form: Any) -> Any:
    """A field of a settings object whose option is not just its name and type; the arguments are `Form`'s."""
    return field(default=default, metadata={FORM: Form(**form)})


@dataclass(frozen=True)
class Option:
    """An option of the command line."""

    field: str
    name: str
    """With its dashes."""
    kind: Any
    """int, float, str, bool or Path, a list of them, or one of these or None."""
    default: Any
    help: str
    form: Form

    def words(self, value: Any) -> list[str]:
        """What is typed to get this value; nothing for the default."""
        if value == self.default:
            return []
        if isinstance(value, bool):
            return [self.name]
        if isinstance(value, tuple) and self.form.read is None:
            return [word for one in value for word in (self.name, str(one))]
        return [self.name, self.form.written(value)]


@cache
def options_of(kind: Any) -> tuple[Option, ...]:
    """The options of a class of settings objects, in the order of its fields."""
    described = docstrings(kind)
    return tuple(_option(one, described[one.name]) for one in fields(kind) if not _form(one).hidden)


def to_options(settings: Any) -> list[str]:
    """The words of a command line that make these settings: all that is not as it is by default."""
    kind: Any = type(settings)
    return [word for option in options_of(kind) for word in option.words(getattr(settings, option.field))]


def from_options(kind: type[T], values: Mapping[str, Any]) -> T:
    """The object of what the command line gave, by field; what it did not give is as it is by default.

    Raises:
        ConfigurationError: a value is out of range.
    """
    given, of_settings = {}, cast(Any, kind)
    for option in options_of(of_settings):
        value = values.get(option.field)
        if isinstance(value, list):
            value = tuple(value) or option.default
        elif isinstance(value, str) and option.form.read is not None:
            value = option.form.read(option.name, value)
        given[option.field] = option.default if value is None else value
    return kind(**given)


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers, such as (0, 1, 5) from "0,1,5".

    Raises:
        ConfigurationError: it is no such list.
    """
    return _several(name, text, int, "whole numbers such as 0,1,5")


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers, such as (0.5, 0.1) from "0.5,0.1".

    Raises:
        ConfigurationError: it is no such list.
    """
    return _several(name, text, float, "numbers such as 0.5,0.1")


def names(name: str, text: str) -> tuple[str, ...]:
    """Names, such as ("optimizer", "statistics") from "optimizer,statistics"; nothing from "none"."""
    return () if text == "none" else tuple(text.split(","))


def joined(values: Iterable[Any]) -> str:
    """The opposite of the three above."""
    return ",".join(map(str, values)) or "none"


@cache
def docstrings(kind: Any) -> dict[str, str]:
    """Field -> the docstring under it, on one line."""
    tree = ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__).body
    found = {}
    for declared, below in pairwise(body):
        match declared, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                found[name] = " ".join(text.split())
    return found


def _several(name: str, text: str, kind: type[T], expected: str) -> tuple[T, ...]:
    try:
        return tuple(kind(part) for part in text.split(",")) if text else ()  # type: ignore[call-arg]
    except ValueError as error:
        raise ConfigurationError(f"{name} is {text!r}; expected {expected}") from error


def _form(one: "Field[Any]") -> Form:
    form: Form = one.metadata.get(FORM, Form())
    return form


def _option(one: "Field[Any]", described: str) -> Option:
    form = _form(one)
    default = None if one.default is MISSING else one.default
    name = f"--{(form.name or one.name).replace('_', '-')}"
    return Option(one.name, name, _typed(one, form), default, described, form)


def _typed(one: "Field[Any]", form: Form) -> Any:
    """The type of what the command line gives for a field."""
    given = str if form.read is not None else form.kind
    if given is not None:
        return given if isinstance(one.default, given) else given | None
    if get_origin(one.type) is tuple:
        return list[get_args(one.type)[0]] | None  # type: ignore[misc]
    return one.type
