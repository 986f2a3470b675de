"""Values of files that may come from anybody."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from gossamer.storage.typed import WrongTypeError, read_as


@dataclass(frozen=True)
class Inner:
    share: float


@dataclass(frozen=True)
class Outer:
    count: int
    text: str = "none"
    flag: bool = False
    kind: Literal["a", 1] = "a"
    perhaps: int | None = None
    inner: Inner | None = None
    table: dict[str, float] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    pair: tuple[float, ...] = ()
    free: Any = None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 2**64 - 1),
        ("count", 1 - 2**64),
        ("text", ""),
        ("flag", True),
        ("kind", 1),
        ("perhaps", None),
        ("perhaps", 3),
        ("table", {"a": 1, "b": 0.5}),
        ("numbers", [1, 2]),
        ("pair", (0.5, 1)),
        ("free", object),
    ],
)
def test_what_fits_comes_as_it_is(name: str, value: object) -> None:
    found = read_as(Outer, {"count": 0, name: value, "of a later version": 1})
    assert getattr(found, name) == value
    assert type(getattr(found, name)) is type(value)


def test_what_is_nested() -> None:
    found = read_as(Outer, {"count": 1, "inner": {"share": 0.5}, "pair": [1, 2.5], "numbers": (3,)})
    assert found == Outer(1, inner=Inner(0.5), pair=(1, 2.5), numbers=[3])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 2**64, "it.count is 18446744073709551616; expected a whole number"),
        ("count", -(2**64), "it.count is -18446744073709551616; expected a whole number"),
        ("count", True, "it.count is True; expected a whole number"),
        ("count", 1.0, "it.count is 1.0; expected a whole number"),
        ("count", None, "it.count is nothing; expected a whole number"),
        ("text", 1, "it.text is 1; expected a text"),
        ("flag", 1, "it.flag is 1; expected true or false"),
        ("kind", "b", "it.kind is 'b'; expected 'a' or 1"),
        ("kind", True, "it.kind is True; expected 'a' or 1"),
        ("perhaps", "x", "it.perhaps is 'x'; expected a whole number"),
        ("inner", {"share": float("nan")}, "it.inner.share is nan; expected a finite number"),
        ("inner", {"share": float("inf")}, "it.inner.share is inf; expected a finite number"),
        ("inner", {"share": 2**64}, "it.inner.share is 18446744073709551616; expected a finite number"),
        ("inner", {"share": False}, "it.inner.share is False; expected a finite number"),
        ("inner", {}, "it lacks it.inner.share"),
        ("inner", [1], "it.inner is [1]; expected a table"),
        ("table", {"a": "x"}, "it.table.a is 'x'; expected a finite number"),
        ("table", {1: 1}, "it.table is {1: 1}; expected a table"),
        ("table", [1], "it.table is [1]; expected a table"),
        ("numbers", [1, 0.5], "it.numbers[1] is 0.5; expected a whole number"),
        ("numbers", "12", "it.numbers is '12'; expected a list"),
        ("text", ["x" * 100], f"it.text is ['{'x' * 58}...; expected a text"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(WrongTypeError) as refused:
        read_as(Outer, {"count": 0, name: value}, "it")
    assert str(refused.value) == message


def test_the_whole_may_be_none() -> None:
    with pytest.raises(WrongTypeError, match=r"^it is 5; expected a table"):
        read_as(Outer, 5)
    with pytest.raises(WrongTypeError, match=r"^mine is 5; expected a table"):
        read_as(Outer, 5, "mine")
    with pytest.raises(WrongTypeError, match=r"^it lacks count"):
        read_as(Outer, {})
