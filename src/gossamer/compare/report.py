"""A comparison as text, JSON and a plot."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gossamer.compare.findings import (
    Difference,
    Largest,
    Point,
    Row,
    differences,
    is_same_density,
    largest_without_loss,
    partners_by_density,
    rows,
    with_choice_of_time,
)
from gossamer.compare.grid import Grid
from gossamer.errors import CheckpointError
from gossamer.loop import configuration
from gossamer.loop.cost import JOULES_PER_GPU_SECOND, JOULES_PER_PROCESSOR_SECOND, pays_after, total
from gossamer.loop.directions import Better, direction_of
from gossamer.loop.records import read_ledger, read_records
from gossamer.storage.files import write_file, write_text
from gossamer.wording import SHARES

TABLE, NUMBERS, PLOTS = "comparison.md", "comparison.json", ("comparison.svg", "comparison.png")


def collect(grid: Grid) -> list[Point]:
    """Every round of every finished run.

    Raises:
        CheckpointError: a run is damaged, or its rounds were recorded without metrics.
        ConfigurationError: a file of densities was changed since the runs that used it.
    """
    for job in grid.cells():
        job.refuse_other_densities()
    points = []
    for method in grid.methods:
        densities = grid.densities_of(method)
        for seed in grid.seeds:
            for density in densities:
                folder = grid.cell_folder(method, seed, density)
                records = read_records(folder) if folder.exists() else []
                # Every one-shot run has the same dense network; once is enough.
                for record in records if density == densities[0] else records[1:]:
                    if record.val is None:
                        raise CheckpointError(f"round {record.round} of {folder} has no metrics; expected val")
                    size = (record.density, record.kept, record.prunable)
                    # Without a test split (`judged_on`) validation stands for it.
                    values = (record.val, record.val if record.test is None else record.test, record.seconds)
                    asked = density if record.round > 0 else None
                    points.append(Point(str(method), method.family, seed, record.round, *size, *values, asked))
    return points


@dataclass(frozen=True)
class Price:
    """What a run of a method cost beyond its dense network: medians over its finished runs."""

    method: str
    runs: int
    steps: float
    processor_seconds: float
    epochs: float | None
    training_flops: float | None
    wall_seconds: float
    """The time of its rounds one after the other, as they ran: with several runs at a time each is slower."""
    energy_joules_estimate: float
    """An estimate, by the assumptions of `gossamer.loop.cost`."""
    pays_after_inferences: float | None
    """Until the last round's network (of one-shot runs, that of the smallest density) has saved the operations that the
    run took, see `gossamer.loop.cost.pays_after`. None where they were not counted; infinite if it saves none."""


def prices(grid: Grid) -> list[Price]:
    """The price of every method, by the ledgers of its runs.

    Raises:
        CheckpointError: a ledger is damaged.
    """
    found = []
    for method in grid.methods:
        densities = grid.densities_of(method)
        ledgers = {
            (seed, density): read_ledger(folder)
            for seed in grid.seeds
            for density in densities
            if (folder := grid.cell_folder(method, seed, density)).exists()
        }
        bills = [total([cost for cost in ledger if cost.round > 0]) for ledger in ledgers.values()]
        bills = [bill for bill in bills if bill.rounds]
        if not bills:
            continue
        smallest = min((density for density in densities if density is not None), default=None)
        last = [ledger for (_, density), ledger in ledgers.items() if density == smallest and ledger]
        found.append(
            Price(
                str(method),
                len(bills),
                median(bill.steps for bill in bills),
                median(bill.processor_seconds for bill in bills),
                _median_if_known(bill.epochs for bill in bills),
                _median_if_known(bill.training_flops for bill in bills),
                median(bill.wall_seconds for bill in bills),
                median(bill.joules for bill in bills),
                _median_if_known(pays_after(ledger, ledger[-1].round) for ledger in last),
            )
        )
    return found


def _median_if_known(values: Iterable[float | None]) -> float | None:
    """None if one of them is, or there are none."""
    everything = list(values)
    known = [value for value in everything if value is not None]
    return median(known) if known and len(known) == len(everything) else None


def write(grid: Grid, points: Sequence[Point]) -> list[Path]:
    """Writes table, JSON and, if the packages for it are there, the plot into the comparison's folder.

    Raises:
        CheckpointError: a file cannot be written.
    """
    metric, better = metric_of(grid)
    points = with_choice_of_time(points, better)
    table = rows(points)
    paid = prices(grid)
    largest, paired = largest_without_loss(table, better), differences(points, better)
    numbers = {
        "task": grid.task,
        "metric": metric,
        "better": better,
        "judged_on": judged_on(grid),
        "methods": [str(method) for method in grid.methods],
        "seeds": list(grid.seeds),
        "target_sparsity": grid.target_sparsity,
        "per_round": grid.per_round,
        "epochs": grid.schedule_epochs,
        "rows": [asdict(row) for row in table],
        "largest_without_loss": [asdict(one) for one in largest],
        "differences": [_finite(asdict(one)) for one in paired],
        "prices": [_finite(asdict(price)) for price in paid],
        "points": [asdict(point) for point in points],
        "versions": configuration.versions(),
    }
    write_text(grid.folder / NUMBERS, json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    write_text(grid.folder / TABLE, as_text(grid, metric, table, largest, paired, paid))
    written = [grid.folder / NUMBERS, grid.folder / TABLE]
    return written + _plot(grid.folder, table, metric, judged_on(grid))


def metric_of(grid: Grid) -> tuple[str, Better]:
    """The metric that the runs were judged by, and which of its values are better."""
    for job in grid.cells():
        records = read_records(job.folder) if job.folder.exists() else []
        if records and records[0].metric is not None:
            told: Better | None = configuration.read(job.folder)["rounds"].get("better")
            return records[0].metric, told or direction_of(records[0].metric) or "higher"
    raise CheckpointError(f"{grid.folder} holds no finished run to compare")


def judged_on(grid: Grid) -> str:
    """The split that methods are compared on: "test", or "validation" where the task has no other."""
    found = [read_records(job.folder) for job in grid.cells() if job.folder.exists()]
    return "validation" if any(record.test is None for records in found for record in records) else "test"


def as_text(
    grid: Grid,
    metric: str,
    table: Sequence[Row],
    largest: Sequence[Largest],
    paired: Sequence[Difference],
    paid: Sequence[Price],
) -> str:
    """The comparison in Markdown."""
    percent, split = metric in SHARES, judged_on(grid)
    methods = list(dict.fromkeys(row.method for row in table))
    lines = [f"# {grid.task}: {', '.join(methods)}", ""]
    lines += [
        f"{split.capitalize()} {metric}{' in %' if percent else ''}, median (min, max) of {len(grid.seeds)} seeds.",
        "",
    ]
    lines += ["| density | compression | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for density, compression, cells in _by_density(table):
        shown = [_spread(cells[method], percent, len(grid.seeds)) if method in cells else "-" for method in methods]
        lines.append(f"| {density:.2%} | {compression:.1f}x | " + " | ".join(shown) + " |")
    lines += [
        "",
        "Largest compression with no loss: the smallest network whose median is no worse than the dense network's. It "
        "is chosen by its own median alone; larger networks of the same method may be worse than dense.",
        "",
    ]
    lines += [
        f"| method | chosen on validation | its {split} {metric} | on {split}, told afterwards |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {one.method} | {one.compression:.1f}x | {_value(one.test, percent)} | {one.compression_by_test:.1f}x |"
        for one in largest
    ]
    if paired:
        points = " (percentage points)" if percent else ""
        lines += [
            "",
            f"{paired[0].reference} against the others, {split} {metric}{points}, seed by seed: mean and 95% interval "
            f"(Student's t); above zero is for {paired[0].reference}.{_sparser(paired)}",
            "",
        ]
        lines += ["| other | compression | mean | 95% interval | seeds |", "|---|---|---|---|---|"]
        for one in paired:
            where = _where(one)
            limits = f"{_signed(one.low, percent)} to {_signed(one.high, percent)}"
            lines.append(f"| {one.other} | {where} | {_signed(one.mean, percent)} | {limits} | {one.seeds} |")
    if paid:
        lines += _prices(paid)
    return "\n".join(lines) + "\n"


def _prices(paid: Sequence[Price]) -> list[str]:
    lines = [
        "",
        "What a run cost beyond the dense network, median over the runs (FLOPs as dense kernels; the energy is an "
        f"estimate: {JOULES_PER_PROCESSOR_SECOND:g} W a busy core, {JOULES_PER_GPU_SECOND:g} W a GPU), and after how "
        "many inferences its last network pays for itself (of one-shot runs, the smallest), if an operation costs the "
        "same in training and inference and zeros are skipped entirely (sparse kernels):",
        "",
        "| method | runs | epochs | wall seconds | processor seconds | kJ, estimated | FLOPs | pays for itself after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for price in paid:
        cells = [
            price.method,
            str(price.runs),
            "-" if price.epochs is None else f"{price.epochs:g}",
            f"{price.wall_seconds:.0f}",
            f"{price.processor_seconds:.0f}",
            f"{price.energy_joules_estimate / 1000:.3g}",
            "-" if price.training_flops is None else f"{price.training_flops:.2e}",
            _inferences(price.pays_after_inferences),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _inferences(number: float | None) -> str:
    if number is None:
        return "-"
    return "never" if math.isinf(number) else f"{number:.3g}"


def _where(difference: Difference) -> str:
    """The compression that is compared, and the reference's if it is another."""
    if difference.compression is None:
        return "all from 10x on"
    where = f"{difference.compression:.1f}x"
    return f"{where} ({difference.reference_compression:.1f}x)" if _is_sparser(difference) else where


def _sparser(paired: Sequence[Difference]) -> str:
    if not any(map(_is_sparser, paired)):
        return ""
    return (
        f" Where {paired[0].reference} was not tried at a density, its next smaller network stands for it, in brackets."
    )


def _is_sparser(difference: Difference) -> bool:
    there, here = difference.reference_compression, difference.compression
    return there is not None and here is not None and there > here and not is_same_density(1 / there, 1 / here)


def _by_density(table: Sequence[Row]) -> list[tuple[float, float, dict[str, Row]]]:
    """Rows of (nearly) the same density side by side, from dense to sparse, with the density and the compression of the
    first method among them."""
    sides: list[dict[str, Row]] = []
    for method in dict.fromkeys(row.method for row in table):
        own = [row for row in table if row.method == method]
        partners = partners_by_density(
            [row.density for row in own], [next(iter(side.values())).density for side in sides]
        )
        for index, row in enumerate(own):
            if index in partners:
                sides[partners[index]][method] = row
            else:
                sides.append({method: row})
    firsts = [(next(iter(side.values())), side) for side in sides]
    return [(row.density, row.compression, side) for row, side in sorted(firsts, key=lambda one: -one[0].density)]


def _plot(folder: Path, table: Sequence[Row], metric: str, split: str) -> list[Path]:
    try:
        import altair
        import vl_convert  # noqa: F401
    except ImportError:
        return []
    percent = 100 if metric in SHARES else 1
    values = [
        {
            "method": row.method,
            "compression": row.compression,
            "median": row.test.median * percent,
            "min": row.test.least * percent,
            "max": row.test.most * percent,
        }
        for row in table
    ]
    unit = ", %" if percent > 1 else ""
    base = altair.Chart.from_dict({"data": {"values": values}, "mark": "line", "encoding": {}}).encode(
        x=altair.X(
            "compression:Q",
            scale=altair.Scale(type="log", nice=False),
            title="compression (prunable / kept weights)",
        ),
        color=altair.Color("method:N", sort=list(dict.fromkeys(row.method for row in table)), title=None),
    )
    height = altair.Y("median:Q", scale=altair.Scale(zero=False), title=f"{split} {metric}{unit}: median, min to max")
    chart = altair.layer(
        base.mark_area(opacity=0.15).encode(y=altair.Y("min:Q", scale=altair.Scale(zero=False)), y2="max:Q"),
        base.mark_line(point=True).encode(y=height),
    ).properties(width=640, height=400)
    for name in PLOTS:
        kind = name.rpartition(".")[2]
        write_file(folder / name, lambda path, kind=kind: chart.save(path, format=kind))  # type: ignore[misc]
    return [folder / name for name in PLOTS]


def _spread(row: Row, percent: bool, seeds: int) -> str:
    median, least, most = (_value(value, percent) for value in (row.test.median, row.test.least, row.test.most))
    fewer = f", {row.test.count} of {seeds} seeds" if row.test.count < seeds else ""
    return f"{median} ({least}, {most}){fewer}"


def _value(value: float, percent: bool) -> str:
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"


def _signed(value: float, percent: bool) -> str:
    if math.isinf(value):
        return "unknown"
    return f"{100 * value:+.2f}" if percent else f"{value:+.4f}"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities: an unknown limit is null."""
    return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in values.items()}
