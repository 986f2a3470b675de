"""An engine in another process, with an environment of its own (`environment`).

It times one run at a time on request: its runs can take turns with those of engines in this process.
"""

import json
import os
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.bench.engines.engine import BothForms, EngineFailed
from gossamer.bench.engines.environment import Environment


class WorkerRunner:
    """The process (`worker`) and what it was told."""

    def __init__(self, engine: str, worker: "subprocess.Popen[str]", errors: Any, subject: BothForms) -> None:
        self._engine, self._worker, self._errors, self._folder = engine, worker, errors, subject.folder
        self.version = ""

    def open(self, request: dict[str, Any]) -> None:
        """Has it open the network."""
        self.version = str(self._ask(request)["version"])

    def run(self) -> list[np.ndarray[Any, Any]]:
        path = self._folder / "outputs.npz"
        self._ask({"outputs": str(path)})
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in arrays.files]

    def seconds(self) -> float:
        return float(self._ask({"time": True})["seconds"])

    def close(self) -> None:
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.close()
        try:
            self._worker.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()
        self._worker.stdout.close()
        self._errors.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        try:
            self._worker.stdin.write(json.dumps(request) + "\n")
            self._worker.stdin.flush()
            line = self._worker.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineFailed(f"{self._engine}'s process ended: {self._last_error()}")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise EngineFailed(f"{self._engine} cannot run this network: {answer['problem']}")
        return answer

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def open_worker(needs: Environment, subject: BothForms, model: Path, **request: Any) -> WorkerRunner:
    """The network in an engine of its own environment, which is made if there is none.

    Args:
        model: the file that it is given; with its name and `request` it is told the inputs and threads.

    Raises:
        EngineFailed: the environment cannot be made, or the engine cannot run the network.
    """
    python = needs.python()
    inputs = subject.folder / "inputs.npz"
    np.savez(inputs, **subject.inputs)  # type: ignore[arg-type]
    request |= {"model": str(model), "inputs": str(inputs), "threads": subject.threads}
    here = resources.files("gossamer.bench.engines")
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the runner
    worker = subprocess.Popen(
        [str(python), "-I", str(here / "worker.py"), str(here / f"{needs.engine.lower()}_network.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_"))},
    )
    runner = WorkerRunner(needs.engine, worker, errors, subject)
    try:
        runner.open(request)
    except BaseException:
        worker.kill()
        runner.close()
        raise
    return runner
