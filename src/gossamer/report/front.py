"""The Pareto front: networks to which no other is preferable in size and in the metric at once."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    sign = 1 if found[0].run.higher_is_better else -1
    best = float("-inf")
    kept = set()
    # From the smallest on, a network is on the front if it is better than all that are smaller.
    for position in sorted(range(len(found)), key=lambda index: (found[index].bytes, -sign * found[index].value)):
        if sign * found[position].value > best:
            best = sign * found[position].value
            kept.add(position)
    return [
        Network(one.series, one.run, one.round, one.bytes, one.value, position in kept)
        for position, one in enumerate(found)
    ]
