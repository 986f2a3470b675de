"""What a comparison says, on numbers whose answers are known."""

import math
from pathlib import Path

import pytest

from gossamer.compare.findings import (
    Point,
    by_density,
    differences,
    largest_without_loss,
    mean_with_interval,
    rows,
    with_choice_of_time,
)
from gossamer.compare.grid import Grid, Method
from gossamer.errors import ConfigurationError


def point(method: str, seed: int, kept: int, val: float, test: float, family: str | None = None) -> Point:
    return Point(method, family or method, seed, kept / 100, kept, 100, val, test, 1.0)


POINTS = [
    *(point("a", seed, 100, 0.90, test) for seed, test in enumerate([0.80, 0.84, 0.82])),
    *(point("a", seed, 50, 0.91, test) for seed, test in enumerate([0.85, 0.81, 0.83])),
    *(point("a", seed, 10, 0.90, test) for seed, test in enumerate([0.80, 0.79, 0.78])),
    *(point("a", seed, 5, 0.85, test) for seed, test in enumerate([0.90, 0.90, 0.90])),
    *(point("b", seed, 100, 0.90, test) for seed, test in enumerate([0.80, 0.84, 0.82])),
    *(point("b", seed, 50, 0.88, test) for seed, test in enumerate([0.80, 0.80, 0.80])),
    *(point("b", seed, 10, 0.87, test) for seed, test in enumerate([0.79, 0.77, 0.75])),
    *(point("b", seed, 5, 0.86, test) for seed, test in enumerate([0.88, 0.90, 0.89])),
]


def test_medians_with_least_and_most() -> None:
    table = rows(POINTS)
    assert [(row.method, row.density) for row in table] == [
        (method, density) for method in "ab" for density in (1.0, 0.5, 0.1, 0.05)
    ]
    half = table[1].test
    assert (half.median, half.least, half.most, half.count) == (0.83, 0.81, 0.85, 3)
    assert table[2].compression == 10


def test_the_largest_compression_is_chosen_on_validation_and_told_of_test() -> None:
    first, second = largest_without_loss(rows(POINTS), "higher")
    assert (first.method, first.compression, first.val, first.test) == ("a", 10, 0.90, 0.79)
    assert first.compression_by_test == 20
    assert (second.compression, second.compression_by_test) == (1, 20)
    # Were lower better, everything of b would be as good as its dense network on validation.
    assert [one.compression for one in largest_without_loss(rows(POINTS), "lower")] == [20, 20]


def test_paired_differences() -> None:
    found = {one.compression: one for one in differences(POINTS, "higher")}
    assert list(found) == [2, 10, 20, None]
    assert [one.reference_compression for one in found.values()] == [2, 10, 20, None]
    # Seed by seed 0.01, 0.02, 0.03: mean 0.02, deviation 0.01, t(2) = 4.3027.
    assert found[10].mean == pytest.approx(0.02)
    assert found[10].high == pytest.approx(0.02 + 4.3027 * 0.01 / math.sqrt(3))
    assert found[10].low == pytest.approx(0.02 - 4.3027 * 0.01 / math.sqrt(3))
    # From 10x on, seed by seed: (0.01 + 0.02) / 2, (0.02 + 0) / 2, (0.03 + 0.01) / 2.
    assert found[None].mean == pytest.approx((0.015 + 0.01 + 0.02) / 3)
    assert found[None].seeds == 3
    assert {one.other for one in found.values()} == {"b"}
    worse = {one.compression: one for one in differences(POINTS, "lower")}
    assert worse[10].mean == pytest.approx(-0.02)


def test_a_density_that_the_reference_lacks_is_compared_with_its_next_smaller_network() -> None:
    others = [point("c", seed, 20, 0.9, 0.70) for seed in range(3)] + [
        point("c", seed, 4, 0.9, 0.99) for seed in (0, 1)
    ]
    found = differences([*(p for p in POINTS if p.method == "a"), *others], "higher")
    # Nothing of a is as small as the last one.
    assert [(one.compression, one.reference_compression) for one in found] == [(5, 10)]
    # 0.80, 0.79 and 0.78 with a tenth of the weights, against 0.70 with a fifth.
    assert found[0].mean == pytest.approx(0.09)
    assert found[0].seeds == 3


def test_only_seeds_that_both_have_are_paired() -> None:
    points = [*(p for p in POINTS if p.method == "a"), *(p for p in POINTS if p.method == "b" and p.seed == 1)]
    found = {one.compression: one for one in differences(points, "higher")}
    assert (found[10].mean, found[10].seeds) == (pytest.approx(0.02), 1)
    assert (found[10].low, found[10].high) == (-math.inf, math.inf)


@pytest.mark.parametrize("count", [2, 3, 5, 12, 31, 200])
def test_the_interval_is_student_s(count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [math.sin(7 * index) for index in range(count)]
    low, high = stats.t.interval(0.95, count - 1, loc=sum(values) / count, scale=stats.tstd(values) / math.sqrt(count))
    assert mean_with_interval(values) == pytest.approx((sum(values) / count, low, high), rel=1e-3, abs=1e-4)


def test_the_retraining_time_is_chosen_on_validation_at_every_density() -> None:
    points = [
        point("b@1", 0, 50, 0.9, 0.1, "b"),
        point("b@2", 0, 50, 0.8, 0.9, "b"),
        point("b@1", 0, 10, 0.5, 0.9, "b"),
        point("b@2", 0, 10, 0.6, 0.2, "b"),
        point("a", 0, 10, 0.6, 0.2),
    ]
    added = with_choice_of_time(points, "higher")[len(points) :]
    assert [(p.method, p.kept, p.test) for p in added] == [
        ("b (t by validation)", 50, 0.1),
        ("b (t by validation)", 10, 0.2),
    ]


def test_densities_that_differ_by_a_weight_are_the_same() -> None:
    points = [Point("a", "a", 0, kept / 10000, kept, 10000, 1, 1, 1) for kept in (1000, 1001, 800, 10000)]
    assert [[p.kept for p in group] for group in by_density(points).values()] == [[10000], [1001, 1000], [800]]


def test_methods_by_name() -> None:
    assert Method.named("lr-rewind") == Method("lr-rewind")
    assert Method.named("one-shot-weight-rewind@10") == Method("weight-rewind", 10, True)
    assert str(Method("weight-rewind", 10, True)) == "one-shot-weight-rewind@10"
    assert Method.named("lr-rewind@3+erk+lamp") == Method("lr-rewind", 3, False, ("erk", "lamp"))
    assert str(Method.named("one-shot-lr-rewind@3+a/b.toml+2:4")) == "one-shot-lr-rewind@3+a/b.toml+2:4"
    assert Method.named("lr-rewind@3+erk").family == "lr-rewind+erk"
    assert str(Method.named("fine-tune+replicates=3+erk")) == "fine-tune+replicates=3+erk"
    with pytest.raises(ConfigurationError, match=r"got \+replicates=x; expected how many"):
        Method.named("lr-rewind+replicates=x")
    with pytest.raises(ConfigurationError, match=r"\+best names no allocation, criterion or structure"):
        Method.named("lr-rewind+best")
    for wrong in ("magic", "lr-rewind@", "lr-rewind@0", "lr-rewind@x", "one-shot-"):
        with pytest.raises(ConfigurationError, match="there is no method"):
            Method.named(wrong)


def test_the_grid_shares_the_dense_network_of_a_seed() -> None:
    methods = tuple(map(Method.named, ["lr-rewind", "weight-rewind@2", "weight-rewind", "one-shot-fine-tune"]))
    grid = Grid(Path("out"), "digits", methods, (0, 1), 0.6, 0.2, recipe_epochs=5)
    dense = list(grid.dense_jobs())
    assert [job.folder for job in dense] == [Path("out/dense/seed-0"), Path("out/dense/seed-1")]
    assert dense[0].options[-2:] == ("--keep-snapshots", "0,3")
    assert dense[0].snapshots == ("0 steps", "3 epochs")
    # Every third round, and the end: 0.8^3 and 0.4.
    assert grid.densities == (0.512, 0.4)
    cells = list(grid.cells())
    assert len(cells) == 2 * (3 + 2)
    assert {job.dense for job in cells[:5]} == {Path("out/dense/seed-0")}
    assert cells[1].options[-4:] == ("--per-round", "0.2", "--rewind-epochs", "2")
    assert cells[3].options[-3:] == ("--target-sparsity", "0.488", "--one-shot")
    other = Grid(
        Path("out"), "digits", (Method.named("lr-rewind+erk+lamp+policies/a.toml+2:4+replicates=3"),), (0,), 0.6
    )
    (cell,) = other.cells()
    assert cell.folder == Path("out/cells/lr-rewind+erk+lamp+policies_a.toml+2:4+replicates=3/seed-0")
    assert cell.options[-10:] == (
        *("--allocation", "erk", "--criterion", "lamp"),
        *("--allocation", "policies/a.toml", "--structure", "2:4"),
        *("--replicates", "3"),
    )
    with pytest.raises(ConfigurationError, match="longer than the 1 epochs"):
        Grid(Path("out"), "digits", methods, (0,), 0.6, epochs=1)
