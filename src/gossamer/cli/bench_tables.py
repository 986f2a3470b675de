"""Tables of `gossamer bench model` and `gossamer bench shapes`."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from gossamer.choice.front import fastest_within, points_of
from gossamer.cli.fitted import Column, fitted
from gossamer.wording import value_text

if TYPE_CHECKING:
    from gossamer.choice.choice import Choices


def engine_lines(result: dict[str, Any]) -> list[str]:
    """What stands above the table (the first line) and below it."""
    weights, machine = result["weights"], result["machine"]
    head = (
        f"{result['what']}: {weights['kept']:,} of {weights['all']:,} weights, {result['threads']} "
        f"thread{'s' if result['threads'] > 1 else ''}, {result['runs']} runs of each engine in turn "
        f"({machine['processor']})"
    )
    versions = sorted({facts["version"] for facts in result["engines"].values()})
    return [
        head,
        "versions: " + ", ".join(dict.fromkeys(part for version in versions for part in version.split(", "))),
        *(f"skipped {name}: {why}" for name, why in result["skipped"].items()),
    ]


def engine_table(result: dict[str, Any], width: int) -> Table:
    """A row for each engine, in at most `width` cells."""
    with_int8 = any("int8_ratio" in facts for facts in result["engines"].values())
    ours = ("gossamer", "gossamer-int8") if with_int8 else ("gossamer",)
    numbers = ("median ms", "10% .. 90%", *(f"{name} is" for name in ours), "difference", "ready in")
    columns = [Column("engine", words=True), *map(Column, numbers), Column("what", words=True, spare=True)]
    rows = []
    for name, facts in result["engines"].items():
        times = facts["milliseconds"]
        rows.append(
            (
                name,
                f"{times['median']:.3f}",
                f"{times['p10']:.3f} .. {times['p90']:.3f}",
                *(
                    "" if name == own else faster(facts[ratio])
                    for own, ratio in zip(ours, ("ratio", "int8_ratio"), strict=False)
                ),
                f"{facts['difference']:.1e}",
                f"{facts['ready_seconds']:.2f} s",
                facts["what"],
            )
        )
    return fitted(columns, rows, width)


def layer_table(result: dict[str, Any], width: int) -> Table:
    """A row for each layer, in at most `width` cells."""
    peak = f"of {result['peak_gflops']:.0f}\nGFLOP/s"
    numbers = ("density", "ms", "dense ms", "GFLOP/s", "as if\ndense", peak)
    columns = [Column("layer", words=True), Column("shape", words=True, spare=True), *map(Column, numbers)]
    rows = [
        (
            layer["name"],
            layer["shape"],
            f"{layer['density']:.1%}",
            f"{layer['milliseconds']:.3f}",
            f"{layer['dense_milliseconds']:.3f}",
            _number(layer["gflops"]),
            _number(layer["dense_gflops"]),
            "-" if layer["peak_share"] is None else f"{layer['peak_share']:.1%}",
        )
        for layer in result["layers"]
    ]
    other = [f"{result[key]:.3f}" for key in ("other_milliseconds", "other_dense_milliseconds")]
    return fitted(columns, [*rows, ("everything else", "", "", *other, "", "", "")], width)


def forms_table(found: "Choices", width: int) -> Table:
    """A row for each network, in at most `width` cells; the fastest first."""
    points = points_of(found.choices, found.better, lambda choice: choice.run)
    columns = [Column("form", words=True), Column("run", words=True, spare=True)]
    columns += map(Column, ("round", "kept", "ms", "bytes", f"val {found.metric}", f"test {found.metric}", "front"))
    rows = [
        (
            point.form,
            point.group,
            str(point.round),
            f"{point.density:.2%}",
            f"{point.milliseconds:.3f}",
            f"{point.bytes:,.0f}",
            value_text(found.metric, point.value),
            value_text(found.metric, point.test),
            "yes" if point.on_front else "",
        )
        for point in sorted(points, key=lambda point: point.milliseconds)
    ]
    return fitted(columns, rows, width)


def forms_lines(found: "Choices", max_drop: float | None) -> list[str]:
    """What stands below the table."""
    points = points_of(found.choices, found.better, lambda choice: choice.run)
    lines = [f"front: no other network is both faster and better by {found.metric} on validation"]
    if max_drop is not None:
        best = fastest_within(points, max_drop, found.better)
        lines.append(
            f"the fastest within {max_drop:g} of the dense {found.metric} on validation: "
            + ("none" if best is None else f"{best.form}, round {best.round} of {best.group}")
        )
    return [*lines, *(f"left out {name}: {why}" for name, why in found.left_out.items())]


def faster(ratio: float) -> str:
    """How gossamer stands to an engine whose time is `ratio` times its own."""
    return f"{ratio:.2f} x faster" if ratio >= 1 else f"{1 / ratio:.2f} x slower"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
