"""What came of a draw: JSON lines, the first of which says what was drawn from; and the share that was noticed."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """One change, and whether a test noticed it."""

    file: str
    line_number: int
    line: str
    before: str
    after: str
    kind: str
    noticed_by: str | None
    """A test, or "time limit"; None if all that could tell passed."""
    tests: int
    """How many tests were to be run, the one that noticed it among them."""
    seconds: float

    @property
    def identity(self) -> tuple[str, str, str, str]:
        return self.file, self.line, self.before, self.after


def begin(path: Path, header: Mapping[str, Any]) -> list[Result]:
    """Opens the file of a draw: writes the header, or verifies that it is the same and returns what is there.

    Raises:
        SystemExit: the file is of another draw.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n")
        return []
    first, *others = path.read_text().splitlines()
    found = json.loads(first)
    for name in ("seed", "code", "only", "commit"):
        if found.get(name) != header[name]:
            raise SystemExit(f"{path} is of {name} {found.get(name)}, this draw of {header[name]}; name another file")
    return [Result(**json.loads(line)) for line in others]


def append(path: Path, result: Result) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    return [Result(**json.loads(line)) for line in path.read_text().splitlines()[1:]]


def table(results: Sequence[Result], reasons: Mapping[tuple[str, str, str, str], str]) -> str:
    """Folder by folder in Markdown: drawn, judged to alter nothing, noticed, and the share with its 95% interval; then
    what was not noticed."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(str(Path(result.file).parent), []).append(result)
    lines = ["| | drawn | alter nothing | noticed | share |", "|---|--:|--:|--:|--:|"]
    for folder, of_folder in [*sorted(rows.items()), ("all", list(results))]:
        equivalent = [r for r in of_folder if r.noticed_by is None and r.identity in reasons]
        noticed = sum(r.noticed_by is not None for r in of_folder)
        altering = len(of_folder) - len(equivalent)
        low, high = wilson(noticed, altering)
        share = f"{noticed / altering:.1%} ({low:.0%} to {high:.0%})" if altering else ""
        lines.append(f"| {folder} | {len(of_folder)} | {len(equivalent)} | {noticed} of {altering} | {share} |")
    for result in results:
        if result.noticed_by is None:
            why = reasons.get(result.identity, "NOT NOTICED")
            lines.append(
                f"\n{result.file}:{result.line_number} ({result.kind})\n  {result.line}\n"
                f"  {result.before!r} -> {result.after!r}\n  {why}"
            )
    return "\n".join(lines)


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% interval of a share. Source: E. B. Wilson, "Probable Inference", JASA 22 (1927)."""
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - spread) / (1 + z * z / count), (centre + spread) / (1 + z * z / count)
