"""Milliseconds of the rounds' networks, measured or predicted, from a JSON file.

    {"what": "predicted", "where": "2 threads of ...",
     "points": [{"run": "lenet", "round": 3, "milliseconds": 0.41}, ...]}

`run` is the name of a run's folder; without it a point belongs to all runs of the report. `engine` may tell several
curves apart.
"""

from dataclasses import dataclass
from pathlib import Path

from gossamer.report.errors import ReportError
from gossamer.report.given import read_json
from gossamer.report.run import is_number


@dataclass(frozen=True)
class Latency:
    """The time that a round's network takes."""

    run: str | None
    round: int
    milliseconds: float
    engine: str
    where: str


def read_latencies(path: Path) -> list[Latency]:
    """All points of a file.

    Raises:
        ReportError: the file has another layout.
    """
    content = read_json(path)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise ReportError(f"{path} has no list 'points' of latencies; expected run, round and milliseconds of each")
    what, where = str(content.get("what", "measured")), str(content.get("where", "on an unnamed machine"))
    found = []
    for point in points:
        number = point.get("round") if isinstance(point, dict) else None
        time = point.get("milliseconds") if isinstance(point, dict) else None
        if not isinstance(number, int) or not is_number(time) or time is None or time <= 0:
            raise ReportError(f"{path}: expected a round and positive milliseconds, got {point!r}")
        run = point.get("run")
        engine = str(point.get("engine", what))
        found.append(Latency(None if run is None else str(run), number, float(time), engine, f"{what}, {where}"))
    return found
