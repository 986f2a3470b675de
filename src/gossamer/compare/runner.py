"""Runs the cells of a comparison: several processes of this machine, or tasks of a Ray cluster."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gossamer.compare.job import Job
from gossamer.errors import ConfigurationError, GossamerError
from gossamer.storage.files import open_to_append, regular

PYTHON = (sys.executable, "-P", "-m")
"""Runs a module. Without -P, a file in the current folder that is called as a package would hide the package."""
POLL_SECONDS = 0.2
LAST_LINES = 5
"""Lines of a failed run's output that are shown in the error."""
CELL = "gossamer.cli.cell"
"""The module that a run's process runs."""

ATTEMPTS = 4
"""How often a task of a cluster begins a run whose process was killed, and how often Ray begins such a task."""
IN_USE = "is in use by another process"
"""What a run says whose folder another one holds."""

Tell = Callable[[Job, str], None]
"""Is told of a job that it "started", is "done", or was "done before"."""


class CellFailedError(GossamerError):
    """A run of a comparison ended with an error."""


def run_in_processes(jobs: Sequence[Job], at_once: int, threads: int, tell: Tell) -> None:
    """Runs all jobs, `at_once` at a time, each after its dense network. What is done already is not run again.

    Every job is a process of its own: one that dies takes no other with it. What it says goes to a file beside its
    folder, `seed-0.log`. When this function is left early, or its process dies, the processes end (see
    `gossamer.cli.cell`); each continues next time.

    Raises:
        CellFailedError: a run failed; those that were going on are finished first.
    """
    waiting, running, failed = _unfinished(jobs, tell), dict[Job, _Process](), list[CellFailedError]()
    try:
        while running or (waiting and not failed):
            for job in [job for job, process in running.items() if process.code is not None]:
                process = running.pop(job)
                process.end()
                if process.code == 0:
                    tell(job, "done")
                else:
                    failed.append(_failure(job, process.code, process.said()))
            for job in [] if failed else list(waiting):
                if len(running) < at_once and _ready(job, waiting, running):
                    waiting.remove(job)
                    running[job] = _Process(job, threads)
                    tell(job, "started")
            time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            process.end()
    if failed:
        raise failed[0]


class _Process:
    """A job that is going on."""

    def __init__(self, job: Job, threads: int) -> None:
        self._log = job.folder.with_name(job.folder.name + ".log")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # Ctrl-C is for every process of the terminal. This one hears it and ends the others: blocked signals are
        # inherited, and stay blocked there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with open_to_append(self._log) as output:
                # What earlier attempts said stays before it.
                self._start = output.tell()
                self._process = subprocess.Popen(
                    [*PYTHON, CELL, *job.options],
                    env=_environment(threads),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def code(self) -> int | None:
        """The exit code, below zero for a signal; None while it goes on."""
        return self._process.poll()

    def end(self) -> None:
        """Ends it, if it goes on, and waits for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def said(self) -> str:
        """What it wrote."""
        with regular(self._log).open("rb") as file:
            file.seek(self._start)
            return file.read().decode("utf-8", errors="replace")


def run_on_cluster(jobs: Sequence[Job], address: str, threads: int, tell: Tell) -> None:
    """Runs all jobs as tasks of a Ray cluster, `threads` processors each. Ray places them, and repeats what died with
    its machine; a repeated run continues where its folder is. The folder must be one that every machine sees under the
    same name, and gossamer must be installed on all of them.

    Args:
        address: of the cluster ("auto", "host:port", "ray://host:port"); "local" starts one on this machine.

    Raises:
        CellFailedError: a run failed.
        ConfigurationError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(
            f"a cluster needs the package ray, which cannot be imported ({error}). Install it with: pip install "
            f"'gossamer[cluster]'; or leave --cluster out"
        ) from error
    ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False)
    try:
        task = ray.remote(num_cpus=threads, max_retries=ATTEMPTS - 1)(_remote_run(threads))
        waiting = _unfinished(jobs, tell)
        handles: dict[Path, Any] = {}
        going_on: dict[Any, Job] = {}
        for job in waiting:
            # The dense run's result is an argument: Ray starts the cell after it.
            after = handles.get(job.dense) if job.dense is not None else None
            handle = task.remote(job.options, after)
            handles[job.folder] = handle
            going_on[handle] = job
            tell(job, "started")
        while going_on:
            finished, _ = ray.wait(list(going_on), num_returns=1)
            for handle in finished:
                job = going_on.pop(handle)
                code, output, machine = ray.get(handle)
                if code != 0:
                    raise _failure(job, code, output, machine)
                tell(job, "done")
    finally:
        ray.shutdown()


Outcome = tuple[int, str, str]
"""Exit code, output, and the machine of a run."""


def _remote_run(threads: int) -> Callable[[Sequence[str], Outcome | None], Outcome]:
    """What a machine of the cluster does: a command's options -> what it came to. What `after` failed, it does not
    begin. A function inside a function travels as it is: the machine's worker need not import torch for it."""
    module, attempts, in_use, pause = CELL, ATTEMPTS, IN_USE, POLL_SECONDS

    def once(options: Sequence[str]) -> tuple[int, str]:
        import os
        import subprocess
        import sys

        with subprocess.Popen(
            [sys.executable, "-P", "-m", module, *options],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            # Before its standard input is closed, which would end it.
            return process.wait(), output

    def run(options: Sequence[str], after: Outcome | None) -> Outcome:
        import platform
        import time

        if after is not None and after[0] != 0:
            return after
        for _ in range(attempts):
            code, output = once(options)
            # Killed (of a signal the code is below zero) it goes on, as it does where the run of a dead worker
            # is still ending in the same folder.
            if code >= 0 and in_use not in output:
                break
            time.sleep(pause)
        return code, output, platform.node()

    return run


def _unfinished(jobs: Iterable[Job], tell: Tell) -> list[Job]:
    waiting = []
    for job in jobs:
        if job.done:
            tell(job, "done before")
        else:
            waiting.append(job)
    return waiting


def _ready(job: Job, waiting: Iterable[Job], running: Iterable[Job]) -> bool:
    return job.dense not in {other.folder for other in (*waiting, *running)}


def _environment(threads: int) -> dict[str, str]:
    """The number of threads is part of what makes a run's bits; every cell gets the same."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def _failure(job: Job, code: int | None, output: str, machine: str = "") -> CellFailedError:
    last = "".join(f"\n  {line}" for line in output.splitlines()[-LAST_LINES:])
    where = f" on {machine}" if machine else ""
    return CellFailedError(
        f"{job.name} {_how_it_ended(code)}{where}{':' if last else '.'}{last}\nWhat is finished is kept; the same "
        f"command continues. The run by itself: gossamer {' '.join(job.options)}"
    )


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return "failed"
    number = -code
    names = {known.value: known.name for known in signal.Signals}
    reason = ", often because memory ran out (fewer --jobs take less)" if number == signal.SIGKILL else ""
    return f"was killed by signal {number} ({names.get(number, 'unknown')}){reason}"
