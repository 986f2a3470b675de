"""A copy of the working tree, in which code is changed and tests are run; the checkout itself is never touched."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NO_TESTS = 5
"""Exit status of pytest when none of the wanted tests is there any more."""


@dataclass(frozen=True)
class Outcome:
    """How the tests went."""

    noticed_by: str | None
    """The first test that failed; "time limit", or how the process ended; None if all passed."""
    output: str


class Tree:
    """The copy. `root/` mirrors the repository; `scratch/` beside it is emptied before every run."""

    def __init__(self, checkout: Path, place: Path) -> None:
        self.checkout = checkout
        self.root = place / "tree"
        self.scratch = place / "scratch"
        self.last_write = 0
        self.server: subprocess.Popen[str] | None = None

    def refresh(self) -> None:
        """Makes the copy what the checkout is now: all files that git tracks or would."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=self.checkout,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split("\0")
        shutil.rmtree(self.root, ignore_errors=True)
        for name in filter(None, listed):
            source, copy = self.checkout / name, self.root / name
            if source.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
        library = installed_library()
        if library is not None:
            shutil.copy2(library, self.root / "runtime" / "src" / "gossamer_runtime" / library.name)

    def write(self, name: str, text: str) -> None:
        """Writes a file of the copy, with a time of its own in whole seconds: byte code of an earlier text that is as
        long would pass for this one's if they were written in the same second."""
        (self.root / name).write_text(text, encoding="utf-8")
        self.last_write = max(int(time.time()), self.last_write + 1)
        os.utime(self.root / name, (self.last_write, self.last_write))

    def record(self, wanted: dict[str, Any], data_file: Path, sources: Sequence[str]) -> None:
        """Runs pytest on the copied code under coverage, which is written to `data_file`."""
        request = self._request(wanted)
        command = [sys.executable, "-m", "coverage", "run", f"--data-file={data_file}", f"--source={','.join(sources)}"]
        with (self.scratch / "output").open("w") as output:
            subprocess.run(
                [*command, "-m", "mutants.running", str(request)],
                cwd=self.root,
                env=self._environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                check=False,
            )

    def test(self, wanted: dict[str, Any], limit: float) -> Outcome:
        """Runs pytest in a process of its own on the copied code; see `mutants.running` for what may be wanted.

        Args:
            limit: seconds after which the process and its children are killed.
        """
        request, output = self._request(wanted), self.scratch / "output"
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "mutants.running", "serve"],
                cwd=self.root,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([str(request), str(output), limit]) + "\n")
        self.server.stdin.flush()
        status = self.server.stdout.readline().strip()
        noticed = self.scratch / "noticed"
        told = output.read_text(errors="replace")
        if noticed.exists():
            return Outcome(noticed.read_text(), told)
        if status in ("0", str(NO_TESTS)):
            return Outcome(None, told)
        if status == "time limit" or status.startswith("-"):
            return Outcome(status if status == "time limit" else f"the process ended with signal {status[1:]}", told)
        raise SystemExit(f"the tests could not be run (status {status}):\n{told[-3000:]}")

    def _request(self, wanted: dict[str, Any]) -> Path:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        fixed = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
        arguments = [*fixed, f"--basetemp={self.scratch / 'tests'}", *wanted["arguments"]]
        noticed = str(self.scratch / "noticed")
        request = self.scratch / "wanted.json"
        request.write_text(json.dumps({**wanted, "noticed": noticed, "arguments": arguments}))
        return request

    def _environment(self) -> dict[str, str]:
        paths = [self.root, self.root / "src", self.root / "runtime" / "src"]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "TMPDIR": str(self.scratch),
            "OMP_NUM_THREADS": "1",
        }


def installed_library() -> Path | None:
    """The native library that tests run with; None where gossamer-runtime is installed without it."""
    import gossamer_runtime

    try:
        return Path(gossamer_runtime.library_path())
    except gossamer_runtime.NativeLibraryMissing:
        return None
