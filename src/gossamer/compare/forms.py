"""The last networks of a comparison in every form that could be shipped: `gossamer compare --forms`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gossamer.choice.choice import Choices
from gossamer.choice.find import find_choices
from gossamer.choice.front import Point, points_of
from gossamer.choice.written import Asked
from gossamer.compare.grid import Grid
from gossamer.report.drawing import theme
from gossamer.report.forms import front_chart
from gossamer.storage.files import write_file, write_text
from gossamer.tasks.own_task import is_own_task
from gossamer.wording import value_text

TABLE, NUMBERS, PLOTS = "forms.md", "forms.json", ("forms.svg", "forms.png")
WIDTH = 720
"""Pixels of the chart."""


def write_forms(grid: Grid, runs: int = 25, progress: Callable[[str], object] = lambda text: None) -> list[Path]:
    """Scores and times the dense network and each method's last one, in fp32 and in int8, all in turn on one thread.

    Table, numbers and, if the packages for it are there, the chart are written into the comparison's folder.

    Args:
        runs: turns of each network.
        progress: is told what comes next, for people.

    Raises:
        GossamerError: a run is damaged, or its networks cannot be written.
    """
    methods = {
        str(folder): str(method)
        for method in grid.methods
        for seed in grid.seeds
        for density in grid.densities_of(method)
        if (folder := grid.cell_folder(method, seed, density)).exists()
    }
    asked = Asked(
        tuple(map(Path, methods)), data=grid.data, task=grid.task if is_own_task(grid.task) else None, max_drop=None
    )
    found = find_choices(asked, runs=runs, progress=progress)
    points = points_of(found.choices, found.better, lambda choice: methods[choice.run])
    found.written(grid.folder / NUMBERS)
    write_text(grid.folder / TABLE, as_text(points, found))
    return [grid.folder / NUMBERS, grid.folder / TABLE, *_plot(grid.folder, points, found.metric)]


def as_text(points: Sequence[Point], found: Choices) -> str:
    """The table in Markdown, the fastest first."""
    metric = found.metric
    lines = [
        f"Which form to ship: {metric} against milliseconds of one input ({found.what}; {found.where}), medians of the "
        f"seeds. A star: no other network is both faster and better on validation.",
        "",
        f"| network | kept | milliseconds | bytes | val {metric} | test {metric} | seeds | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for point in sorted(points, key=lambda point: point.milliseconds):
        cells = [
            point.form if point.dense else f"{point.group}: {point.form}",
            f"{point.density:.2%}",
            f"{point.milliseconds:.4g}",
            f"{point.bytes:,.0f}",
            value_text(metric, point.value),
            value_text(metric, point.test),
            str(point.runs),
            "*" if point.on_front else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Left out {name}: {why}" for name, why in found.left_out.items())]
    return "\n".join(lines).rstrip() + "\n"


def _plot(folder: Path, points: Sequence[Point], metric: str) -> list[Path]:
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError:
        return []
    drawn = front_chart(points, metric, None) | {"width": WIDTH, "config": theme("light") | {"background": "#ffffff"}}
    svg, png = (folder / name for name in PLOTS)
    write_text(svg, vl_convert.vegalite_to_svg(drawn))
    picture = vl_convert.vegalite_to_png(drawn, scale=2)
    write_file(png, lambda path: path.write_bytes(picture))
    return [svg, png]
