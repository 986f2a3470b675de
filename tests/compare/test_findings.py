"""What a comparison says, on numbers whose answers are known."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gossamer.compare.findings import (
    Point,
    differences,
    largest_without_loss,
    mean_with_interval,
    partners_by_density,
    rows,
    with_choice_of_time,
)
from gossamer.compare.grid import Grid
from gossamer.compare.method import Method
from gossamer.errors import ConfigurationError
from gossamer.job.training import Training
from gossamer.loop.stop import Stop

RESULTS = Path(__file__).parents[2] / "docs" / "results"
ROUNDS = [100, 50, 20, 10, 5, 4]
"""Of a hundred weights, how many are left in each round."""


def point(method: str, seed: int, kept: int, val: float, test: float, family: str | None = None) -> Point:
    return Point(method, family or method, seed, ROUNDS.index(kept), kept / 100, kept, 100, val, test, 1.0)


def of_round(method: str, seed: int, number: int, kept: int, test: float = 0.5) -> Point:
    return Point(method, method, seed, number, kept / 1000, kept, 1000, 0.5, test, 1.0)


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
    # Seed by seed 0.01, 0.02, 0.03: mean 0.02, deviation 0.01, t(2) = 4.30265273.
    assert found[10].mean == pytest.approx(0.02)
    assert found[10].high == pytest.approx(0.02 + 4.30265273 * 0.01 / math.sqrt(3))
    assert found[10].low == pytest.approx(0.02 - 4.30265273 * 0.01 / math.sqrt(3))
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


def test_two_rounds_of_a_run_are_two_rows_however_near() -> None:
    points = [
        of_round(method, 0, number, kept, test)
        for method, tests in {"a": [0.5, 0.9, 0.8], "b": [0.5, 0.7, 0.75]}.items()
        for number, kept, test in zip(range(3), [1000, 512, 511], tests, strict=True)
    ]
    assert [(row.method, row.density, row.test.median, row.test.count) for row in rows(points)] == [
        *(("a", 1.0, 0.5, 1), ("a", 0.512, 0.9, 1), ("a", 0.511, 0.8, 1)),
        *(("b", 1.0, 0.5, 1), ("b", 0.512, 0.7, 1), ("b", 0.511, 0.75, 1)),
    ]
    found = differences(points, "higher")
    assert [(one.compression, one.reference_compression) for one in found] == [(1000 / 512,) * 2, (1000 / 511,) * 2]
    assert [one.mean for one in found] == pytest.approx([0.2, 0.05])


def test_seeds_that_keep_different_numbers_of_channels_are_one_row() -> None:
    kept = [[1000, 490, 220, 90], [1000, 450, 240, 60], [1000, 430, 200, 80]]
    points = [
        *(of_round("a", seed, number, 1000 // 2**number, 0.6) for seed in range(3) for number in range(4)),
        *(of_round("b", seed, number, kept[seed][number]) for seed in range(3) for number in range(4)),
    ]
    table = [row for row in rows(points) if row.method == "b"]
    assert [(row.density, row.test.count) for row in table] == [(1.0, 3), (0.45, 3), (0.22, 3), (0.08, 3)]
    assert [row.compression for row in table] == [1000 / kept for kept in (1000, 450, 220, 80)]
    found = differences(points, "higher")
    # The next smaller networks of a stand for it; none is as small as the last.
    assert [(one.compression, one.reference_compression) for one in found] == [(1000 / 450, 4), (1000 / 220, 8)]
    assert [one.seeds for one in found] == [3, 3]


def test_one_shot_runs_are_told_apart_by_the_density_that_was_asked_for() -> None:
    # Seed, weights of a hundred that whole channels came to, density that was asked for.
    runs = [(0, 50, 0.52), (0, 25, 0.3), (1, 25, 0.52), (1, 20, 0.3), (2, 40, 0.52), (2, 25, 0.3)]
    points = [Point("a", "a", seed, 1, kept / 100, kept, 100, 0.5, 0.5, 1.0, asked) for seed, kept, asked in runs]
    assert [(row.density, row.test.count) for row in rows(points)] == [(0.4, 3), (0.25, 3)]


def test_networks_of_two_methods_are_partners_by_nearness() -> None:
    # By a weight apart; too far apart; and, of two within reach, the nearer one.
    assert partners_by_density([1.0, 0.1001, 0.08], [1.0, 0.1, 0.0783]) == {0: 0, 1: 1}
    assert partners_by_density([0.512, 0.511], [0.511, 0.5]) == {1: 0}
    assert partners_by_density([0.512, 0.511], [0.5121, 0.5111]) == {0: 0, 1: 1}
    assert partners_by_density([0.5], []) == {}


def test_the_committed_comparison_follows_from_its_points() -> None:
    written = json.loads((RESULTS / "compare-lenet-300-100.json").read_text())
    points = [
        Point(**values, **place)
        for values in written["points"]
        if "validation" not in values["method"]
        for place in [_place(values, written["points"])]
    ]
    everything = with_choice_of_time(points, written["better"])
    table = rows(everything)
    assert [asdict(one) for one in table] == written["rows"]
    assert [asdict(one) for one in largest_without_loss(table, written["better"])] == written["largest_without_loss"]
    found = [asdict(one) for one in differences(everything, written["better"])]
    assert len(found) == 97
    for one, said in zip(found, written["differences"], strict=True):
        # These limits were written with quantiles of t of five digits.
        limits = [(one.pop(name) - said["mean"], said.pop(name) - said["mean"]) for name in ("low", "high")]
        assert one == said
        assert all(limit == pytest.approx(written_limit, rel=2e-5) for limit, written_limit in limits)


def _place(values: dict[str, Any], points: list[dict[str, Any]]) -> dict[str, Any]:
    """The round of a point that was written without: how many of its run are denser."""
    run = [one for one in points if (one["method"], one["seed"]) == (values["method"], values["seed"])]
    number = sum(one["density"] > values["density"] for one in run)
    if not values["method"].startswith("one-shot-"):
        return {"round": number, "asked_density": None}
    return {"round": min(number, 1), "asked_density": values["density"] if number else None}


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
    with pytest.raises(ConfigurationError, match=r"\+erk and \+uniform, which are all of a kind \(--allocation\)"):
        Method.named("lr-rewind+erk+lamp+uniform")
    for two in ("replicates=2+replicates=3", "a.toml+b.toml", "2:4+channels", "lamp+taylor"):
        with pytest.raises(ConfigurationError, match="all of a kind"):
            Method.named(f"lr-rewind+{two}")
    with pytest.raises(ConfigurationError, match=r"\+best names no allocation, criterion or structure"):
        Method.named("lr-rewind+best")
    for wrong in ("magic", "lr-rewind@", "lr-rewind@0", "lr-rewind@x", "one-shot-"):
        with pytest.raises(ConfigurationError, match="there is no method"):
            Method.named(wrong)


def test_the_grid_shares_the_dense_network_of_a_seed() -> None:
    methods = tuple(map(Method.named, ["lr-rewind", "weight-rewind@2", "weight-rewind", "one-shot-fine-tune"]))
    grid = Grid(Path("out"), "digits", methods, (0, 1), Stop(0.6), 0.2, recipe_epochs=5)
    dense = list(grid.dense_jobs())
    assert [job.folder for job in dense] == [Path("out/dense/seed-0"), Path("out/dense/seed-1")]
    assert dense[0].options[-7:-4] == ("--dense-only", "--keep-snapshots", "0,3")
    assert dense[0].snapshots == ("0 steps", "3 epochs")
    # Every third round, and the end: 0.8^3 and 0.4.
    assert grid.densities == (0.512, 0.4)
    cells = list(grid.cells())
    assert len(cells) == 2 * (3 + 2)
    assert {job.dense for job in cells[:5]} == {Path("out/dense/seed-0")}
    assert cells[1].options[-6:] == ("--per-round", "0.2", "--method", "weight-rewind", "--rewind-epochs", "2")
    assert cells[3].options[-5:] == ("--target-sparsity", "0.488", "--one-shot", "--method", "fine-tune")
    other = Grid(
        Path("out"), "digits", (Method.named("lr-rewind+lamp+policies/a.toml+2:4+replicates=3"),), (0,), Stop(0.6)
    )
    (cell,) = other.cells()
    assert cell.folder == Path("out/cells/lr-rewind+lamp+policies_a.toml+2:4+replicates=3/seed-0")
    assert cell.options[-8:] == (
        *("--criterion", "lamp"),
        *("--allocation", "policies/a.toml", "--structure", "2:4"),
        *("--replicates", "3"),
    )
    with pytest.raises(ConfigurationError, match="expected it in file_targets"):
        Grid(Path("out"), "digits", (Method.named("one-shot-lr-rewind+a.toml"),), (0,), Stop(0.6))
    with pytest.raises(ConfigurationError, match="longer than the 1 epochs"):
        Grid(Path("out"), "digits", methods, (0,), Stop(0.6), training=Training(epochs=1))


def test_runs_of_a_grid_have_folders_of_their_own() -> None:
    methods = tuple(map(Method.named, ["lr-rewind+a/p.toml", "lr-rewind+a_p.toml"]))
    with pytest.raises(ConfigurationError, match=r"lr-rewind\+a/p.toml and lr-rewind\+a_p.toml would both be kept in"):
        Grid(Path("out"), "digits", methods, (0,), Stop(0.6))
    for densities in [(0.5, 0.1, 0.5), (0.5, 0.50000001)]:
        with pytest.raises(ConfigurationError, match=r"one-shot density 0\.5 is there 2 times"):
            Grid(
                Path("out"), "digits", (Method("lr-rewind", None, True),), (0,), Stop(0.6), one_shot_densities=densities
            )
