"""The command line is tested as a user meets it: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def command(*arguments: object) -> list[str]:
    """The command line `gossamer ARGUMENTS`, with warnings as errors."""
    return [sys.executable, "-W", "error", "-m", "gossamer.cli.main", *(str(argument) for argument in arguments)]


def environment() -> dict[str, str]:
    """One thread, so that the tests' own processes do not fight for the cores; wide enough for whole tables."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def gossamer(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs `gossamer ARGUMENTS` in `folder` and waits for its end."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
