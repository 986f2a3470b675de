"""What single changes are found in code, written out by hand."""

import textwrap

import pytest
from mutants import native_changes, python_changes
from mutants.results import wilson


def python(code: str) -> set[str]:
    """The changed programs, each as its lines that are new."""
    text = textwrap.dedent(code).lstrip("\n")
    before = text.splitlines()
    return {
        " | ".join(line.strip() for line in change.apply(text).splitlines() if line not in before)
        for change in python_changes.changes("file.py", text)
    }


def test_conditions() -> None:
    assert python(
        """
        def f(a, b, c):
            if a <= 1 and b:
                return g(b, key=c)
        """
    ) == {
        "if a < 1 and b:",
        "if a >= 1 and b:",
        "if a <= 2 and b:",
        "if a <= 0 and b:",
        "if a <= 1 or b:",
        "if a <= 1:",
        "if b:",
        "if not (a <= 1 and b):",
        "return None",
        "return g(b, )",
    }


def test_statements() -> None:
    assert python(
        """
        def f(values, total):
            for value in values:
                if not value:
                    continue
                total += value
                note(value, total)
        """
    ) == {"if value:", "break", "pass", "total -= value", "note(total, value)"}


def test_what_is_not_changed() -> None:
    assert python(
        '''
        @decorated(frozen=True)
        class A:
            """Of 3 things."""

            size: Annotated[int, 3]

            def f(self, a: tuple[int, 3]) -> Literal[3]:
                assert a[0] == 3
                raise ValueError(f"expected {3} of {a[0]}" + str(3))

            def __repr__(self):
                return "A" * 3
        '''
    ) == {"pass"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("const std::vector<int>& a = b;  // x < 3", set()),
        ('if (name == "a < 3") return x;', {'if (name != "a < 3") return x;', 'if (!(name == "a < 3")) return x;'}),
        ("  Run(a * b, true);", {"  Run(a / b, true);", "  Run(a * b, false);", "  ;"}),
        (
            "x = y ? std::min(a, 8u) : !z;",
            {"x = y ? std::max(a, 8u) : !z;", "x = y ? std::min(a, 9u) : !z;"}
            | {"x = y ? std::min(a, 7u) : !z;", "x = y ? std::min(a, 8u) : z;"},
        ),
        ("#define A 3", set()),
    ],
)
def test_native_code(line: str, expected: set[str]) -> None:
    assert {change.apply(line) for change in native_changes.changes("file.cc", line)} == expected


def test_what_changes_are_called() -> None:
    text = "x = 1\nif a == b and c == d:\n    pass\n"
    second = next(
        c for c in python_changes.changes("file.py", text) if c.after == "!=" and c.start > text.index("c ==")
    )
    assert second.identity(text) == ("file.py", "if a == b and c == d:", "== d:", "!=")
    assert (second.line(text), second.first_line, second.last_line) == (2, 2, 2)


def test_the_interval_of_a_share() -> None:
    # Of Wilson's score, as published for 8 of 10.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
