"""The table of a comparison, from points whose rows are known."""

from pathlib import Path

from gossamer.compare.findings import Point, rows
from gossamer.compare.grid import Grid
from gossamer.compare.method import Method
from gossamer.compare.report import as_text
from gossamer.loop.stop import Stop

GRID = Grid(Path("out"), "task", (Method.named("lr-rewind"), Method.named("fine-tune")), (0, 1), Stop(0.5))


def point(method: str, seed: int, number: int, kept: int, test: float) -> Point:
    return Point(method, method, seed, number, kept / 1000, kept, 1000, 0.5, test, 1.0)


def lines(points: list[Point]) -> list[str]:
    """The first table's."""
    text = as_text(GRID, "accuracy", rows(points), [], [], [])
    return [line for line in text.partition("Largest")[0].splitlines() if line.startswith("|")][2:]


def test_near_rounds_are_lines_of_their_own_and_near_methods_share_one() -> None:
    points = [
        point(method, seed, number, kept, test + seed / 100)
        for method, sizes in {"lr-rewind": [1000, 512, 511], "fine-tune": [1000, 512, 500]}.items()
        for seed in (0, 1)
        for number, kept, test in zip(range(3), sizes, [0.5, 0.6, 0.7], strict=True)
    ]
    assert lines(points) == [
        "| 100.00% | 1.0x | 50.50 (50.00, 51.00) | 50.50 (50.00, 51.00) |",
        "| 51.20% | 2.0x | 60.50 (60.00, 61.00) | 60.50 (60.00, 61.00) |",
        "| 51.10% | 2.0x | 70.50 (70.00, 71.00) | - |",
        "| 50.00% | 2.0x | - | 70.50 (70.00, 71.00) |",
    ]


def test_a_row_of_fewer_seeds_than_asked_for_says_so() -> None:
    points = [
        point("lr-rewind", 0, 0, 1000, 0.5),
        point("lr-rewind", 1, 0, 1000, 0.5),
        point("lr-rewind", 1, 1, 500, 0.6),
    ]
    assert lines(points) == [
        "| 100.00% | 1.0x | 50.00 (50.00, 50.00) |",
        "| 50.00% | 2.0x | 60.00 (60.00, 60.00), 1 of 2 seeds |",
    ]
