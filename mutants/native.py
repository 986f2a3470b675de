"""The C++ code: built in a folder of its own, tried by the native tests and then by those of the Python side."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mutants import folders, native_changes
from mutants.change import Change
from mutants.tree import Outcome, Tree

LIBRARY = "libgossamer_ops.so"
BUILD_LIMIT = 3600.0
"""Seconds in which a change has to be compiled."""
TEST_LIMIT = 120
"""Seconds for one native test; noticed after it."""


class Native:
    """What `mutants.__main__.Subject` asks for."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.build = tree.scratch.parent / "native"
        self.bin = Path(sys.executable).parent
        self.texts = folders.sources(tree.checkout, folders.NATIVE, lambda path: path.suffix in (".h", ".cc"))
        print("building the unchanged code", flush=True)
        self._run(
            [
                *(str(self.bin / "cmake"), "-G", "Ninja", "-S", str(tree.root / "runtime"), "-B", str(self.build)),
                *("-DGOSSAMER_BUILD_TESTS=ON", "-DGOSSAMER_BUILD_BENCH=OFF"),
                f"-DGOSSAMER_DOWNLOADS={tree.checkout / 'build' / 'downloads'}",
            ],
            BUILD_LIMIT,
        )
        built = self._build()
        if built.returncode != 0:
            raise SystemExit(f"the unchanged code cannot be built:\n{built.stdout[-2000:]}")
        outcome = self._test()
        if outcome.noticed_by is not None:
            raise SystemExit(f"{outcome.noticed_by} fails without any change:\n{outcome.output[-2000:]}")

    def changes(self, file: str) -> list[Change]:
        return native_changes.changes(file, self.texts[file])

    def attempt(self, change: Change) -> tuple[Outcome | None, int]:
        self.tree.write(change.file, change.apply(self.texts[change.file]))
        try:
            if self._build().returncode != 0:
                return None, 0
            return self._test(), 1
        finally:
            self.tree.write(change.file, self.texts[change.file])

    def control(self, tests: set[str]) -> Outcome:
        return Outcome(None, "all of them passed in the beginning")

    def _build(self) -> subprocess.CompletedProcess[str]:
        return self._run([str(self.bin / "cmake"), "--build", str(self.build), "--parallel", "1"], BUILD_LIMIT)

    def _test(self) -> Outcome:
        ran = self._run(
            [
                *(str(self.bin / "ctest"), "--test-dir", str(self.build), "--stop-on-failure", "--no-tests=error"),
                *("--timeout", str(TEST_LIMIT), "--parallel", "1"),
            ],
            BUILD_LIMIT,
        )
        if ran.returncode != 0:
            failed = re.findall(r"^\s*\d+ - (\S+)", ran.stdout, re.MULTILINE)
            return Outcome(failed[0] if failed else "ctest", ran.stdout)
        library = next(self.build.rglob(LIBRARY))
        shutil.copy2(library, self.tree.root / "runtime" / "src" / "gossamer_runtime" / LIBRARY)
        return self.tree.test({"arguments": ["-x", "runtime/tests"]}, BUILD_LIMIT)

    def _run(self, command: list[str], limit: float) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
            env=environment,
        )
