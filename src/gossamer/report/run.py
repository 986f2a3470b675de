"""What a report knows of a run: its folder, read once and checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gossamer.errors import CheckpointError
from gossamer.loop.configuration import INFORMATION, flat
from gossamer.loop.cost import Cost
from gossamer.loop.directions import direction_of
from gossamer.loop.finished import read_finished
from gossamer.loop.folder import load_masks
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import read_ledger
from gossamer.report.size import FLOAT32, LayerSize, layer_size


@dataclass(frozen=True)
class ReportedRun:
    """A run with at least one finished round."""

    folder: Path
    name: str
    """The name of the folder; with those above it if another run of the report has the same."""
    tables: dict[str, Any]
    """The tables of its config.toml."""
    records: tuple[RoundRecord, ...]
    layers: tuple[tuple[LayerSize, ...], ...]
    """The layers of every round, in the order of the network."""
    ledger: tuple[Cost, ...]
    """What the rounds cost, as far as that was kept."""
    costs: tuple[dict[str, float], ...]
    """The costs of every round: name of a cost -> its amount. Always with `seconds`."""
    recommended: int
    """Number of the recommended round."""
    why: str
    """The rule by which it is recommended."""
    max_drop: float | None
    """The allowed loss by which it is recommended; None: there is none."""

    @property
    def task(self) -> str | None:
        """The name of its task; None for a training loop of one's own."""
        name = table(self.tables, "settings").get("task")
        return name if isinstance(name, str) else None

    @property
    def seed(self) -> Any:
        return table(self.tables, "rounds").get("seed")

    @property
    def metric(self) -> str | None:
        return self.records[0].metric

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better; where nobody said it, as for an accuracy."""
        better = table(self.tables, "rounds").get("better")
        return (better or direction_of(str(self.metric)) or "higher") == "higher"

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what is computed, flat, without the seed."""
        tables = {name: value for name, value in self.tables.items() if name not in INFORMATION}
        settings = flat(tables)
        settings.pop("rounds.seed", None)
        return settings

    def bytes_on_disk(self, number: int, value_bytes: int = FLOAT32) -> int:
        """Bytes of a round's network: packed sparse weights, and all other parameters as they are."""
        record = self.records[number]
        packed = sum(layer.packed(value_bytes) for layer in self.layers[number])
        return packed + value_bytes * (record.parameters - record.prunable)

    def bytes_dense(self) -> int:
        """Bytes of the dense network in float32."""
        return FLOAT32 * self.records[0].parameters


def read_run(folder: Path, max_drop: float | None = None) -> ReportedRun:
    """Reads the folder of a run.

    Args:
        max_drop: the allowed loss by which a round is recommended; None: the run's own.

    Raises:
        CheckpointError: it is no run, has no finished round, or is damaged.
        ConfigurationError: the allowed loss cannot be used with the run's metric.
    """
    run = read_finished(folder, max_drop)
    for record in run.records:
        _check(record, folder)
    best, records = run.recommended, run.records
    layers = tuple(
        tuple(layer_size(name, mask) for name, mask in load_masks(folder, record.round).items()) for record in records
    )
    ledger = read_ledger(folder)
    why = "the last round: the run was given no allowed loss"
    if run.stop.max_drop is not None:
        why = f"the smallest within {run.stop.max_drop:g} of the dense {best.metric} on validation"
    costs, name, drop = _costs(records, ledger), folder.resolve().name, run.stop.max_drop
    return ReportedRun(folder, name, run.tables, records, layers, tuple(ledger), costs, best.round, why, drop)


def named_apart(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The runs, under as much of their folders' paths as it takes to tell them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    length = next(
        length for length in range(1, 1 + max(map(len, parts))) if len({of[-length:] for of in parts}) == len(runs)
    )
    return [replace(run, name="/".join(of[-length:])) for run, of in zip(runs, parts, strict=True)]


def table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """A table of the configuration; empty if it is missing or none."""
    found = tables.get(name)
    return found if isinstance(found, dict) else {}


def _check(record: RoundRecord, folder: Path) -> None:
    """The entries that a record's own reader takes as they are."""
    for name, value in (("val", record.val), ("test", record.test), ("seconds", record.seconds)):
        if value is not None and not is_number(value):
            raise CheckpointError(f"{folder}: {name} of round {record.round} is {value!r}; expected a finite number")
    if not isinstance(record.metric, str | None):
        raise CheckpointError(f"{folder}: metric of round {record.round} is {record.metric!r}; expected a name")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _costs(records: Sequence[RoundRecord], ledger: list[Cost]) -> tuple[dict[str, float], ...]:
    """Seconds from the records, and what the ledger has beside them."""
    costs: list[dict[str, float]] = [{"seconds": float(record.seconds)} for record in records]
    for cost in ledger:
        if 0 <= cost.round < len(costs):
            costs[cost.round] |= {
                "processor seconds": cost.processor_seconds,
                "steps": cost.steps,
                "joules (an estimate)": cost.joules,
            }
            if cost.work is not None:
                costs[cost.round] |= {"epochs": cost.work.epochs, "FLOPs, as if dense": cost.work.training_flops}
    return tuple(costs)
