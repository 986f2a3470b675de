"""Tables of `gossamer bench model` and `gossamer bench shapes`."""

from typing import Any

from rich import box
from rich.table import Table


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


def engine_table(result: dict[str, Any]) -> Table:
    """A row for each engine."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("engine", no_wrap=True)
    for heading in ("median ms", "10% .. 90%", "gossamer is", "difference", "ready in"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what", no_wrap=True)
    for name, facts in result["engines"].items():
        times = facts["milliseconds"]
        table.add_row(
            name,
            f"{times['median']:.3f}",
            f"{times['p10']:.3f} .. {times['p90']:.3f}",
            "" if name == "gossamer" else faster(facts["ratio"]),
            f"{facts['difference']:.1e}",
            f"{facts['ready_seconds']:.2f} s",
            facts["what"],
        )
    return table


def layer_table(result: dict[str, Any]) -> Table:
    """A row for each layer."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    headings = ("density", "ms", "dense ms", "GFLOP/s", "as if dense", f"of {result['peak_gflops']:.0f} GFLOP/s")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in result["layers"]:
        table.add_row(
            layer["name"],
            layer["shape"],
            f"{layer['density']:.1%}",
            f"{layer['milliseconds']:.3f}",
            f"{layer['dense_milliseconds']:.3f}",
            _number(layer["gflops"]),
            _number(layer["dense_gflops"]),
            "-" if layer["peak_share"] is None else f"{layer['peak_share']:.1%}",
        )
    other = (f"{result[key]:.3f}" for key in ("other_milliseconds", "other_dense_milliseconds"))
    table.add_row("everything else", "", "", *other, "", "", "")
    return table


def faster(ratio: float) -> str:
    """How gossamer stands to an engine whose time is `ratio` times its own."""
    return f"{ratio:.2f} x faster" if ratio >= 1 else f"{1 / ratio:.2f} x slower"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
