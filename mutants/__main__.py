"""Draws single changes to the code, runs the tests that could notice each in a copy of the tree, and says which did.

    python -m mutants --seed 1 --count 128 --out docs/results/mutants-python-1.jsonl

The same command goes on where it was interrupted. A change is drawn by drawing a line, then one of its changes. A
change in behaviour that no test notices asks for a test; one that alters nothing for a line in mutants/judged.toml.
"""

import argparse
import datetime
import platform
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mutants import folders, native, python_changes, results
from mutants.change import Change, by_line
from mutants.coverage_map import CoverageMap, file_of
from mutants.judged import reasons
from mutants.results import Result
from mutants.tree import Outcome, Tree

EARLY = 40
"""How many tests are tried before the rest."""
CHECKOUT = Path(__file__).resolve().parents[1]


class Subject(Protocol):
    """A language of the repository: what can be changed, and how a change is tried."""

    texts: dict[str, str]
    """File -> text."""

    def changes(self, file: str) -> list[Change]: ...

    def attempt(self, change: Change) -> tuple[Outcome | None, int]:
        """What the tests say, and how many were asked; None for a change that leaves no program, or the same."""

    def control(self, tests: set[str]) -> Outcome:
        """What these tests say without any change."""


class Python:
    """The Python code, whose tests are chosen by what they run."""

    def __init__(self, tree: Tree, budget: float, map_path: Path) -> None:
        self.tree = tree
        self.budget = budget
        self.texts = folders.sources(CHECKOUT, folders.PYTHON, lambda path: path.suffix == ".py")
        if map_path.exists():
            self.map = CoverageMap.load(map_path)
        else:
            print("running all tests once under coverage, to know which could notice what", flush=True)
            self.map = CoverageMap.make(tree, list(self.texts), folders.TESTS)
            self.map.save(map_path)
        if self.map.failed:
            print(f"left out, since they fail without any change: {', '.join(self.map.failed)}")

    def changes(self, file: str) -> list[Change]:
        return python_changes.changes(file, self.texts[file])

    def attempt(self, change: Change) -> tuple[Outcome | None, int]:
        text = self.texts[change.file]
        if not python_changes.is_another_program(text, change.apply(text)):
            return None, 0
        covering = self.map.of_lines(change.file, text.splitlines(), change.first_line, change.last_line)
        tests = self.map.ordered(covering, folders.own_tests(change.file), self.budget)
        if not tests:
            return Outcome(None, "no test runs the file"), 0
        self.tree.write(change.file, change.apply(text))
        try:
            return self._first_notice(tests, self._newer_files(folders.own_tests(change.file))), len(tests)
        finally:
            self.tree.write(change.file, text)

    def control(self, tests: set[str]) -> Outcome:
        return self._first_notice({test: self.map.seconds.get(test, 0.0) for test in sorted(tests) if "::" in test})

    def _newer_files(self, own: str) -> list[str]:
        """Files of the folder's own tests that are not in the map, since they were written later."""
        known = set(map(file_of, self.map.seconds))
        found = (str(path.relative_to(self.tree.root)) for path in (self.tree.root / own).glob("test_*.py"))
        return sorted(set(found) - known)

    def _first_notice(self, tests: dict[str, float], newer: Sequence[str] = ()) -> Outcome:
        """Runs the tests of the folder's own that are quick first: most changes do not outlive them, and the files of
        the others take long to import."""
        names = list(tests)
        first = file_of(names[0]).rsplit("/", 1)[0]
        early = [name for name in names if name.startswith(first)][:EARLY]
        outcome = Outcome(None, "")
        for part in (early, [name for name in names if name not in early]):
            # A file of tests may be gone since the map was made.
            files = [file for file in dict.fromkeys(map(file_of, part)) if (self.tree.root / file).exists()]
            files += () if part is early else newer
            if files and outcome.noticed_by is None:
                chosen = {name: tests[name] for name in part}
                wanted = {"arguments": ["-x", *files], "tests": chosen, "known": [*self.map.seconds]}
                outcome = self.tree.test(wanted, 600 + 10 * sum(chosen.values()))
        return outcome


def draw(subject: Subject, seed: int, only: str = "") -> list[Change]:
    """All lines in a drawn order, and of each one drawn change; no change of its own is drawn twice."""
    lines = by_line(
        [change for file in subject.texts if file.startswith(only) for change in subject.changes(file)], subject.texts
    )
    generator = random.Random(seed)
    order = sorted(lines)
    generator.shuffle(order)
    return [generator.choice(lines[line]) for line in order]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=32, help="how many changes are tried")
    parser.add_argument("--native", action="store_true", help="change the C++ code instead of the Python code")
    parser.add_argument("--only", default="", metavar="START", help="only files whose path begins like this")
    parser.add_argument(
        "--budget", type=float, default=120, help="seconds that the tests of one change may take without any change"
    )
    parser.add_argument("--out", type=Path, default=Path("build/mutants/results.jsonl"), help="JSON lines")
    parser.add_argument("--report", action="store_true", help="only print the table of what is in --out")
    chosen = parser.parse_args()
    if not chosen.report:
        _run(chosen.seed, chosen.count, chosen.native, chosen.only, chosen.budget, chosen.out)
    print(results.table(results.read(chosen.out), reasons()))


def _run(seed: int, count: int, of_native: bool, only: str, budget: float, out: Path) -> None:
    header = {
        "seed": seed,
        "code": "C++" if of_native else "Python",
        "only": only,
        "budget_seconds": budget,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(),
        "python": platform.python_version(),
    }
    done = {(result.file, result.line_number) for result in results.begin(out, header)}
    place = CHECKOUT / "build" / "mutants" / ("native" if of_native else "python")
    tree = Tree(CHECKOUT, place)
    tree.refresh()
    subject: Subject = native.Native(tree) if of_native else Python(tree, budget, place / "map.json")
    tried = 0
    for change in draw(subject, seed, only):
        if tried == count:
            break
        text = subject.texts[change.file]
        if (change.file, change.line(text)) in done:
            tried += 1
            continue
        started = time.monotonic()
        outcome, tests = subject.attempt(change)
        if outcome is None:
            continue
        tried += 1
        file, line, before, after = change.identity(text)
        result = Result(
            file,
            change.line(text),
            line,
            before,
            after,
            change.kind,
            outcome.noticed_by,
            tests,
            round(time.monotonic() - started, 1),
        )
        results.append(out, result)
        print(f"{tried:4} {_told(result)}", flush=True)
    control = subject.control({result.noticed_by for result in results.read(out) if result.noticed_by})
    if control.noticed_by is not None:
        print(f"NOT VALID: {control.noticed_by} fails without any change, so what it noticed is nothing")


def _told(result: Result) -> str:
    change = f"{result.file}:{result.line_number} {result.before[:60]!r} -> {result.after[:60]!r}"
    return f"{change} {result.noticed_by}" if result.noticed_by else f"NOT NOTICED {change}"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()


def _machine() -> str:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
