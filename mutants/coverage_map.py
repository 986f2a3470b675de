"""Which tests run which line: made once by running all of them under coverage, and followed through later edits."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import coverage

from mutants.tree import Tree

SLOW = 2.0
"""Seconds from which a test is slow."""


def file_of(test: str) -> str:
    """The file that a test is in."""
    return test.split("::")[0]


@dataclass
class CoverageMap:
    """What was seen when all tests ran."""

    seconds: dict[str, float]
    """Test -> what it took."""
    failed: list[str]
    """Tests that fail without any change: of no use here."""
    sources: dict[str, list[str]]
    """File -> its lines at that time."""
    tests: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """File -> number of a line (from 1, as text) -> the tests that ran it. Under "" those that imported it."""

    @classmethod
    def make(cls, tree: Tree, files: Sequence[str], tests: Sequence[str]) -> "CoverageMap":
        """Runs the tests on the unchanged copy."""
        place = tree.scratch.parent
        data_file, record = place / "coverage.data", place / "record.json"
        sources = sorted({str(tree.root / name.split("/gossamer", 1)[0]) for name in files})
        tree.record({"arguments": list(tests), "record": str(record)}, data_file, sources)
        recorded = json.loads(record.read_text())
        found = cls(
            recorded["seconds"],
            recorded["failed"],
            {name: (tree.root / name).read_text(encoding="utf-8").splitlines() for name in files},
        )
        data = coverage.CoverageData(str(data_file))
        data.read()
        for name in files:
            lines = data.contexts_by_lineno(str(tree.root / name))
            found.tests[name] = {str(line): sorted(filter(None, contexts)) for line, contexts in lines.items()}
        return found

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self)))

    @classmethod
    def load(cls, path: Path) -> "CoverageMap":
        return cls(**json.loads(path.read_text()))

    def of_lines(self, name: str, now: list[str], first: int, last: int) -> list[str]:
        """The tests that ran one of the lines `first` to `last` of the file as it is now; where these are new, or run
        when the file is imported, the tests that ran anything in it."""
        by_line = self.tests.get(name, {})
        match = difflib.SequenceMatcher(None, self.sources.get(name, []), now, autojunk=False)
        then = {
            block.b + offset + 1: block.a + offset + 1
            for block in match.get_matching_blocks()
            for offset in range(block.size)
        }
        found = {test for line in range(first, last + 1) for test in by_line.get(str(then.get(line)), ())}
        return sorted(found or {test for tests in by_line.values() for test in tests})

    def ordered(self, covering: Sequence[str], folder: str, budget: float) -> dict[str, float]:
        """Test -> seconds, of what is worth running, in the order in which it probably notices soonest: tests that
        cover the change before those beside them (what a fixture of a whole file runs counts for its first test only),
        quick ones before slow ones, the folder's own before others; as many as `budget` seconds allow."""
        covers = set(covering)
        files = {file_of(test) for test in covering}
        beside = {test for test in self.seconds if file_of(test) in files or test.startswith(folder)}

        def rank(test: str) -> tuple[bool, bool, bool, float]:
            seconds = self.seconds.get(test, 0.0)
            return test not in covers, seconds > SLOW, not test.startswith(folder), seconds

        chosen, total = {}, 0.0
        for test in sorted((covers | beside) - set(self.failed), key=rank):
            total += self.seconds.get(test, 0.0)
            if total > budget:
                break
            chosen[test] = self.seconds.get(test, 0.0)
        return chosen
