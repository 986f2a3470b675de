"""A pytest of its own process: `python -m mutants.running FILE.json` runs the tests that the file lists, in its order,
each with the seconds that it took before; `python -m mutants.running serve` runs one such file after another.

With "record" in the file, each test is a context of the coverage that surrounds it, and what it took is written there.
"""

import contextlib
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import coverage
import pytest

SLOW_IMPORTS = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "rich",
    "safetensors",
    "sklearn",
    "typer",
)
"""Nothing of the code that is changed, and nothing that pytest wants to import itself."""
MEMORY = 12 << 30
"""Bytes of data that a process may have: changed code may ask for any number."""
BROKEN = 100
"""The exit status when it is not the tests that failed."""
FILE_SIZE = 1 << 30
"""Bytes that a file which it writes may have."""


class InOrder:
    """Keeps the listed tests, in the order of the list, behind those that were written since the list was made."""

    def __init__(self, listed: list[str], known: list[str]) -> None:
        self.place = {name: place for place, name in enumerate(listed)}
        self.left_out = {*known} - {*listed}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid not in self.left_out),
            key=lambda item: self.place.get(item.nodeid, -1),
        )


class FirstFailure:
    """Writes to a file which test failed first, or could not be collected."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tell(self, name: str) -> None:
        if not self.path.exists():
            self.path.write_text(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(report.nodeid)


class Limited:
    """Ends the process when a test takes much longer than it does without a change, which counts as noticed."""

    def __init__(self, seconds: dict[str, float], first_failure: FirstFailure) -> None:
        self.seconds = seconds
        self.first_failure = first_failure

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        def end(number: int, frame: object) -> None:
            self.first_failure.tell(f"{item.nodeid} (time limit)")
            os._exit(1)

        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, 60 + 10 * self.seconds.get(item.nodeid, 0.0))
        result = yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        return result


class Recording:
    """Says to the surrounding coverage which test runs; notes seconds and outcome of each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        current = coverage.Coverage.current()
        assert current is not None, "run under `coverage run`"
        current.switch_context(item.nodeid)
        result = yield
        current.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps({"seconds": self.seconds, "failed": sorted(self.failed)}))


def main(path: Path) -> int:
    wanted = json.loads(path.read_text())
    first_failure = FirstFailure(Path(wanted["noticed"]))
    plugins: list[object] = [first_failure]
    if "record" in wanted:
        plugins.append(Recording(Path(wanted["record"])))
    if "tests" in wanted:
        plugins += [InOrder([*wanted["tests"]], wanted["known"]), Limited(wanted["tests"], first_failure)]
    return int(pytest.main([*wanted["arguments"]], plugins=plugins))


def serve() -> None:
    """For every line of standard input, [path, output, seconds] in JSON, forks a process that has imported what takes
    long and runs `main` in it; answers with its exit status, or "time limit" after killing it."""
    for name in SLOW_IMPORTS:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    for line in sys.stdin:
        path, output, seconds = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(Path(path), Path(output))
        status = _wait(child, seconds)
        # Its children too: it began a session of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            _wait(child, math.inf)
        with contextlib.suppress(BrokenPipeError):
            print(status or "time limit", flush=True)


def _run(path: Path, output: Path) -> NoReturn:
    os.setsid()
    for kind, most in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_FSIZE, FILE_SIZE), (resource.RLIMIT_CORE, 0)):
        # The soft limit only: a test that fills the disk sets limits of its own and puts them back.
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    status = BROKEN
    try:
        status = main(path)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int, seconds: float) -> str | None:
    """How the process ended; None if it has not after so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, 0 if seconds == math.inf else os.WNOHANG)
        if done:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.02)
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(main(Path(sys.argv[1])))
