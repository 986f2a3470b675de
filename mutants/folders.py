"""Which code is changed, and which tests belong to it."""

from collections.abc import Callable
from pathlib import Path

PYTHON = {
    "src/gossamer/job/compress.py": "tests/test_compress.py",
    "src/gossamer/tasks": "tests/tasks",
    "src/gossamer/shrink": "tests/shrink",
    "src/gossamer/export": "tests/export",
    "src/gossamer/rewind": "tests/rewind",
    "src/gossamer/loop": "tests/loop",
    "src/gossamer/prune": "tests/prune",
    "src/gossamer/model": "tests/model",
    "src/gossamer/storage": "tests/storage",
    "src/gossamer/randomness.py": "tests/test_randomness.py",
    "runtime/src/gossamer_runtime": "runtime/tests",
}
"""Folder or file -> the tests that are its own."""
NATIVE = ("runtime/native/kernels", "runtime/native/ort", "runtime/native/format")

TESTS = (
    "tests/test_arguments.py",
    "tests/test_compress.py",
    "tests/test_randomness.py",
    "tests/prune",
    "tests/model",
    "tests/storage",
    "tests/rewind",
    "tests/shrink",
    "tests/export",
    "tests/loop",
    "tests/tasks",
    "runtime/tests",
    "tests/cli/test_export.py",
    "tests/cli/test_mistakes.py",
    "tests/cli/test_compress.py",
    "tests/integrations",
    "tests/explain",
    "tests/compare",
)
"""The tests that are run; those of other folders take long and add little."""


def sources(checkout: Path, places: dict[str, str] | tuple[str, ...], wanted: Callable[[Path], bool]) -> dict[str, str]:
    """Path in the repository -> text, of the wanted files in these places."""
    found: dict[str, str] = {}
    for place in places:
        path = checkout / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and wanted(file):
                found[str(file.relative_to(checkout))] = file.read_text(encoding="utf-8")
    return found


def own_tests(file: str) -> str:
    """Where the tests of a Python file begin with."""
    return next(tests for place, tests in PYTHON.items() if file == place or file.startswith(f"{place}/"))
