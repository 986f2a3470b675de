"""The Pareto front: networks to which no other is preferable in size and in the metric at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gossamer.choice.front import front_of
from gossamer.loop.directions import Better
from gossamer.report.run import ReportedRun
from gossamer.report.series import Series


@dataclass(frozen=True)
class Network:
    """The network of a round of a run."""

    series: str
    run: ReportedRun
    round: int
    bytes: int
    value: float
    """The value of the metric, on validation."""
    on_front: bool = False


def networks(series: Sequence[Series]) -> list[Network]:
    """All networks whose metric was recorded, each with whether it is on the front of all of them."""
    found = [
        Network(of.name, run, record.round, run.bytes_on_disk(record.round), record.val)
        for of in series
        for run in of.runs
        for record in run.records
        if record.val is not None
    ]
    if not found:
        return []
    better: Better = "higher" if found[0].run.higher_is_better else "lower"
    kept = front_of([one.bytes for one in found], [one.value for one in found], better)
    return [replace(one, on_front=index in kept) for index, one in enumerate(found)]
