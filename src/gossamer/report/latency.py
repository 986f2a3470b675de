"""Milliseconds of the rounds' networks, measured or predicted, from a JSON file.

    {"what": "predicted", "where": "2 threads of ...",
     "points": [{"run": "lenet", "round": 3, "milliseconds": 0.41}, ...]}

`run` is the name of a run's folder; without it a point belongs to all runs of the report. `engine` may tell several
curves apart. A file of `gossamer bench model.onnx --json` or `gossamer predict --json`, which knows no round, is
given as ROUND=FILE.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def as_given(text: str) -> tuple[int | None, Path]:
    """`FILE`, or `ROUND=FILE` for a file that knows no round -> the round, if one is said, and the path."""
    number, equals, path = text.partition("=")
    return (int(number), Path(path)) if equals and number.isdecimal() else (None, Path(text))


def read_latencies(path: Path, number: int | None = None) -> list[Latency]:
    """All points of a file.

    Args:
        number: the round to which a file of `gossamer bench` belongs.

    Raises:
        ReportError: the file has another layout.
    """
    content = read_json(path)
    of_one_network = isinstance(content, dict) and ("engines" in content or "dense_milliseconds" in content)
    if of_one_network and number is None:
        raise ReportError(f"{path} is of one network; say of which round: --latency ROUND={path}")
    if of_one_network and number is not None:
        return _of_round(path, content, number)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise ReportError(
            f"{path} is neither a file of `gossamer bench model.onnx --json` nor has it a list 'points' of latencies "
            f"with round and milliseconds"
        )
    what, where = str(content.get("what", "measured")), str(content.get("where", "on an unnamed machine"))
    found = []
    for point in points:
        if not isinstance(point, dict) or not isinstance(point.get("round"), int):
            raise ReportError(f"{path}: expected a round and positive milliseconds, got {point!r}")
        run = None if point.get("run") is None else str(point["run"])
        time = _milliseconds(path, point.get("milliseconds"))
        found.append(Latency(run, point["round"], time, str(point.get("engine", what)), f"{what}, {where}"))
    return found


def _of_round(path: Path, content: dict[str, Any], number: int) -> list[Latency]:
    """What a bench measured on every engine, or what was predicted for the sparse and the dense network."""
    machine = content.get("machine")
    processor = machine.get("processor", "an unnamed machine") if isinstance(machine, dict) else "an unnamed machine"
    times: dict[str, Any] = {
        "predicted, sparse": content.get("milliseconds"),
        "predicted, dense": content.get("dense_milliseconds"),
    }
    what = "predicted"
    if isinstance(content.get("engines"), dict):
        what = "measured, medians"
        times = {name: _median(facts) for name, facts in content["engines"].items()}
    where = f"{what}, threads: {content.get('threads', '?')}, {processor}"
    return [Latency(None, number, _milliseconds(path, time), name, where) for name, time in times.items()]


def _median(facts: Any) -> Any:
    spread = facts.get("milliseconds") if isinstance(facts, dict) else None
    return spread.get("median") if isinstance(spread, dict) else None


def _milliseconds(path: Path, value: Any) -> float:
    if not is_number(value) or value <= 0:
        raise ReportError(f"{path}: expected positive milliseconds, got {value!r}")
    return float(value)
