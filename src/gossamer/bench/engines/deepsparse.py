"""DeepSparse 1.8.0, the last release, in an environment of its own, which is made when it is asked for first.

It needs Python 3.11 and older versions of onnx and numpy than gossamer, so it runs in another process
(`deepsparse_worker`), which times one run at a time on request: its runs can take turns with those of engines in this
process.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gossamer.bench.engines.engine import BothForms, EngineFailed
from gossamer.graph.messages import copied, replace_items
from gossamer.storage.cache import cache_folder

PYTHON = (3, 11)
NEWEST_OPSET = 18
"""It reads 19 too, but lacks some ops in that version, such as a Reshape that it leaves to its own ONNX Runtime."""
NEWEST_IR = 9
READY = "ready"


class DeepSparseRunner:
    """The worker process and what it was told."""

    def __init__(self, worker: "subprocess.Popen[str]", errors: Any, subject: BothForms) -> None:
        self._worker, self._errors, self._folder = worker, errors, subject.folder
        model, inputs = subject.folder / "deepsparse.onnx", subject.folder / "inputs.npz"
        onnx.save(for_deepsparse(subject.dense), model)
        np.savez(inputs, **subject.inputs)  # type: ignore[arg-type]
        request = {"model": str(model), "threads": subject.threads, "inputs": str(inputs)}
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
            raise EngineFailed(f"DeepSparse's process ended: {self._last_error()}")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise EngineFailed(f"DeepSparse cannot run this network: {answer['problem']}")
        return answer

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def open_deepsparse(subject: BothForms) -> DeepSparseRunner:
    """The dense form in DeepSparse, which finds the zeros by itself; its environment is made if there is none.

    Raises:
        EngineFailed: there is no Python 3.11, the environment cannot be made, or DeepSparse cannot run the network.
    """
    python = environment()
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the runner
    worker = subprocess.Popen(
        [str(python), "-I", str(resources.files("gossamer.bench.engines") / "deepsparse_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_"))},
    )
    try:
        return DeepSparseRunner(worker, errors, subject)
    except BaseException:
        worker.kill()
        worker.communicate()
        errors.close()
        raise


def environment() -> Path:
    """The Python of DeepSparse's environment in the user's cache folder, made now if it is not there.

    Raises:
        EngineFailed: it cannot be made; the message says what is missing.
    """
    requirements = (resources.files("gossamer.bench.engines") / "deepsparse-requirements.txt").read_text("utf-8")
    folder = cache_folder() / f"deepsparse-{hashlib.sha256(requirements.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if (folder / READY).is_file() and python.exists():
        return python
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise EngineFailed("DeepSparse exists for Linux only, on x86-64 and aarch64")
    print(
        f"making an environment for DeepSparse in {folder} (once; downloads about 100 MB, takes 350 MB)",
        file=sys.stderr,
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _do([_python_3_11(), "-m", "venv", str(folder)], "make an environment")
    pinned = folder / "requirements.txt"
    pinned.write_text(requirements, encoding="utf-8")
    _do([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pinned)], "install DeepSparse")
    (folder / READY).touch()
    return python


def _python_3_11() -> str:
    if sys.version_info[:2] == PYTHON:
        # Not the one of this environment: it would lend the new one its packages' settings.
        return getattr(sys, "_base_executable", sys.executable)
    found = shutil.which("python3.11")
    if found is None:
        raise EngineFailed("DeepSparse needs Python 3.11, and there is no python3.11 on the path; install one")
    return found


def _do(command: list[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stdout.strip().splitlines() if line]
        raise EngineFailed(f"could not {what} ({' '.join(command)}): {lines[-1] if lines else 'it said nothing'}")


def for_deepsparse(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in opset 18, the newest of which DeepSparse has every op; the only op of later ones that occurs,
    Gelu, in its parts."""
    old = copied(model)
    old.ir_version = min(old.ir_version, NEWEST_IR)
    for imported in old.opset_import:
        if imported.domain == "":
            imported.version = min(imported.version, NEWEST_OPSET)
    if not any(node.op_type == "Gelu" for node in old.graph.node):
        return old
    constants = {"root": np.sqrt(2.0), "one": 1.0, "half": 0.5}
    names = {name: f"gossamer.bench.{name}" for name in constants}
    for name, value in constants.items():
        old.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), names[name]))
    nodes: list[onnx.NodeProto] = []
    for node in old.graph.node:
        if node.op_type != "Gelu" or any(a.name == "approximate" and a.s != b"none" for a in node.attribute):
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        nodes += [
            helper.make_node("Div", [x, names["root"]], [f"{y}.scaled"]),
            helper.make_node("Erf", [f"{y}.scaled"], [f"{y}.erf"]),
            helper.make_node("Add", [f"{y}.erf", names["one"]], [f"{y}.shifted"]),
            helper.make_node("Mul", [x, f"{y}.shifted"], [f"{y}.doubled"]),
            helper.make_node("Mul", [f"{y}.doubled", names["half"]], [y]),
        ]
    replace_items(old.graph.node, nodes)
    return old
