"""Curves of other methods, from a file: what a paper published, or anything in the same few fields.

    {"dense": {"resnet20": {"median": 0.9173}},
     "pruned": [{"network": "resnet20", "method": "lr_rewinding", "density": 0.8, "test_median": 0.9189,
                 "test_min": 0.9173, "test_max": 0.9209, "val_median": 0.91, "n": 3}, ...]}

That is the layout in which the accuracies of Renda, Frankle and Carbin (2020) are kept. Of several entries for one
method and density, as with several retraining times, the best on validation is taken, as in the paper; of iterative and
one-shot, or unstructured and structured pruning, what gossamer does: iterative and unstructured.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.report.errors import ReportError
from gossamer.report.given import read_json
from gossamer.report.run import is_number


@dataclass(frozen=True)
class PublishedPoint:
    """A density and what was reached there on test data, over n replicates."""

    density: float
    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Curve:
    """A method's points, from dense to sparse."""

    name: str
    source: str
    points: tuple[PublishedPoint, ...]


def read_curves(path: Path, network: str | None, task: str | None) -> list[Curve]:
    """The curves of a network.

    Args:
        network: its name in the file; None: the only one, or the one that is called like the task.

    Raises:
        ReportError: the file has another layout, or the network is not in it.
    """
    content = read_json(path)
    entries = content.get("pruned") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ReportError(f"{path} has no list 'pruned' of published points; see gossamer.report.published")
    chosen = _network(path, entries, network, task)
    best: dict[tuple[str, float], tuple[float, PublishedPoint]] = {}
    for entry in entries:
        if str(entry.get("network")) != chosen or entry.get("structure", "Unstructured") != "Unstructured":
            continue
        if entry.get("iterative", True) is not True:
            continue
        point = _point(path, entry)
        validation = entry.get("val_median", point.median)
        key = (str(entry.get("method", "published")), point.density)
        if key not in best or validation > best[key][0]:
            best[key] = (validation, point)
    if not best:
        raise ReportError(f"{path} has no iterative, unstructured points of {chosen!r}")
    dense = _dense(content, chosen)
    curves = []
    for method in dict.fromkeys(method for method, _ in best):
        points = [point for (of, _), (_, point) in best.items() if of == method]
        points.sort(key=lambda point: -point.density)
        curves.append(Curve(f"published: {method.replace('_', ' ')}", path.name, (*dense, *points)))
    return curves


def _network(path: Path, entries: list[dict[str, Any]], network: str | None, task: str | None) -> str:
    names = list(dict.fromkeys(str(entry.get("network")) for entry in entries))
    if network is not None:
        if network not in names:
            raise ReportError(f"{path} has no network {network!r}; it has {', '.join(names)}")
        return network
    if len(names) == 1:
        return names[0]
    alike = [name for name in names if _plain(name) == _plain(task or "")]
    if not alike:
        raise ReportError(f"{path} has several networks: {', '.join(names)}; say which with --network NAME")
    return alike[0]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _point(path: Path, entry: dict[str, Any]) -> PublishedPoint:
    median: Any = entry.get("test_median")
    low, high = entry.get("test_min", median), entry.get("test_max", median)
    density: Any = entry.get("density")
    n = entry.get("n", 1)
    validation = entry.get("val_median", median)
    if not all(is_number(number) for number in (density, median, low, high, n, validation)) or not 0 < density <= 1:
        raise ReportError(f"{path}: expected density in (0, 1], test_median and so on as numbers, got {entry!r}")
    return PublishedPoint(float(density), float(median), float(low), float(high), int(n))


def _dense(content: dict[str, Any], network: str) -> list[PublishedPoint]:
    dense = content.get("dense")
    entry = dense.get(network) if isinstance(dense, dict) else None
    median = entry.get("median") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not is_number(median):
        return []
    assert median is not None
    return [PublishedPoint(1.0, float(median), float(median), float(median), int(entry.get("n", 1)))]
