"""Engines in environments of their own, in the user's cache folder, each made when its engine is asked for first."""

import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gossamer.bench.engines.engine import EngineFailed
from gossamer.storage.cache import cache_folder

READY = "ready"


@dataclass(frozen=True)
class Environment:
    """What an engine needs beside gossamer."""

    engine: str
    """As its makers write it."""
    pythons: tuple[tuple[int, int], ...]
    """Versions of Python that its packages exist for, the first that is found is taken."""
    size: str
    """What is told before it is made: megabytes to download, and on disk."""

    def folder(self) -> Path:
        """Where it is, or would be made."""
        digest = hashlib.sha256(self._requirements().encode()).hexdigest()
        return cache_folder() / f"{self.engine.lower()}-{digest[:12]}"

    def is_made(self) -> bool:
        """Whether it is there."""
        return (self.folder() / READY).is_file() and (self.folder() / "bin" / "python").exists()

    def python(self) -> Path:
        """The Python of the environment, made now if it is not there.

        Raises:
            EngineFailed: it cannot be made; the message says what is missing.
        """
        folder = self.folder()
        python = folder / "bin" / "python"
        if self.is_made():
            return python
        if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
            raise EngineFailed(f"{self.engine} is run on Linux only, on x86-64 and aarch64")
        base = self._base()
        print(f"making an environment for {self.engine} in {folder} (once; {self.size})", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _do([base, "-m", "venv", str(folder)], "make an environment")
        pinned = folder / "requirements.txt"
        pinned.write_text(self._requirements(), encoding="utf-8")
        _do([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pinned)], f"install {self.engine}")
        (folder / READY).touch()
        return python

    def _requirements(self) -> str:
        """All of its packages, one a line."""
        name = f"{self.engine.lower()}-requirements.txt"
        return (resources.files("gossamer.bench.engines") / name).read_text("utf-8")

    def _base(self) -> str:
        names = [f"python{major}.{minor}" for major, minor in self.pythons]
        if sys.version_info[:2] in self.pythons:
            # Not the one of this environment: it would lend the new one its packages' settings.
            return getattr(sys, "_base_executable", sys.executable)
        for name in names:
            found = shutil.which(name)
            # What is on the path may be no more than a name, which tells how to get it.
            if found is not None and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
                return found
        raise EngineFailed(
            f"{self.engine} needs {' or '.join(names)}, and none is on the path; install one"
            if len(names) > 1
            else f"{self.engine} needs {names[0]}, which is not on the path; install it"
        )


def _do(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stdout.strip().splitlines() if line]
        raise EngineFailed(f"could not {what} ({' '.join(command)}): {lines[-1] if lines else 'it said nothing'}")
