"""What the charts draw, as rows of plain values. Names of runs and layers are values here and nothing else: never a
field's name, never part of an expression."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from gossamer.report.front import networks
from gossamer.report.latency import Latency
from gossamer.report.published import Curve
from gossamer.report.run import ReportedRun
from gossamer.report.series import SeedSpread, Series
from gossamer.report.size import FLOAT16, FLOAT32

Row = dict[str, Any]


def accuracy_rows(series: Sequence[Series], curves: Sequence[Curve]) -> list[Row]:
    """Rows of every series and round, and of every published point: the metric's median, least and largest value."""
    rows = []
    for of in series:
        recommended = {run.recommended for run in of.runs}
        for number in range(of.rounds):
            record = of.records(number)[0]
            row: Row = {
                "series": of.name,
                "round": number,
                "density": record.kept / record.prunable,
                "compression": record.compression,
                "recommended": number in recommended,
                "seeds": len(of.records(number)),
                "weights": record.mark or "float",
            }
            row |= _named("val", of.spread(number, lambda run, number=number: run.records[number].val))  # type: ignore[misc]
            row |= _named("test", of.spread(number, lambda run, number=number: run.records[number].test))  # type: ignore[misc]
            rows.append(row)
    for curve in curves:
        for point in curve.points:
            spread = SeedSpread(point.median, point.low, point.high, point.n)
            rows.append(
                {
                    "series": curve.name,
                    "density": point.density,
                    "compression": 1 / point.density,
                    "recommended": False,
                    "seeds": point.n,
                    "weights": "float",
                    **_named("test", spread),
                }
            )
    return rows


def density_rows(series: Sequence[Series]) -> list[Row]:
    """Rows of every series and layer: the density in every round, the mean over the seeds; rounds beside as a list."""
    return [
        {
            "series": of.name,
            "layer": layer.name,
            "weights": layer.weights,
            "round": list(range(of.rounds)),
            "density": [
                _short(mean(run.layers[number][index].density for run in of.runs if number < len(run.layers)))
                for number in range(of.rounds)
            ],
        }
        for of in series
        for index, layer in enumerate(of.runs[0].layers[0])
    ]


def size_rows(series: Sequence[Series]) -> list[Row]:
    """Rows of every series and round: the bytes on disk, in both types of values."""
    return [
        {
            "series": of.name,
            "round": number,
            "kind": kind,
            "bytes": spread.middle,
            "share": spread.middle / of.runs[0].bytes_dense(),
        }
        for of in series
        for number in range(of.rounds)
        for kind, size in (("float32 values", FLOAT32), ("float16 values", FLOAT16))
        for spread in [of.spread(number, lambda run, number=number, size=size: run.bytes_on_disk(number, size))]  # type: ignore[misc]
        if spread is not None
    ]


def front_rows(series: Sequence[Series]) -> list[Row]:
    """Every network of every run: its size, its metric on validation, and whether another is better in both."""
    return [
        {
            "series": network.series,
            "run": network.run.name,
            "round": network.round,
            "bytes": network.bytes,
            "value": network.value,
            "front": network.on_front,
            "recommended": network.round == network.run.recommended,
        }
        for network in networks(series)
    ]


def latency_rows(series: Sequence[Series], latencies: Sequence[Latency]) -> list[Row]:
    """Every latency of every run that it belongs to."""
    return [
        {
            "series": of.name,
            "round": latency.round,
            "engine": latency.engine,
            "where": latency.where,
            "milliseconds": latency.milliseconds,
        }
        for of in series
        for latency in latencies
        if any(latency.run in (None, run.name) for run in of.runs) and latency.round < of.rounds
    ]


def cost_names(series: Sequence[Series]) -> list[str]:
    """What is known of costs, seconds first."""
    return list(dict.fromkeys(name for of in series for run in of.runs for costs in run.costs for name in costs))


def cost_rows(series: Sequence[Series]) -> list[Row]:
    """Rows of every series, round and cost: the mean over the seeds."""
    return [
        {"series": of.name, "round": number, "cost": name, "amount": mean(amounts)}
        for of in series
        for number in range(of.rounds)
        for name in cost_names(series)
        for amounts in [_amounts(of.runs, number, name)]
        if amounts
    ]


def _amounts(runs: Sequence[ReportedRun], number: int, name: str) -> list[float]:
    return [run.costs[number][name] for run in runs if number < len(run.costs) and name in run.costs[number]]


def _named(name: str, spread: SeedSpread | None) -> Row:
    if spread is None:
        return {name: None}
    return {name: spread.middle, f"{name}_low": spread.low, f"{name}_high": spread.high}


def _short(value: float) -> float:
    """Four digits are more than a colour can show, and a page of many layers stays small."""
    return float(f"{value:.4g}")
