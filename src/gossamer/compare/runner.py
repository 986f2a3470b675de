"""Runs the cells of a comparison: several processes of this machine, or tasks of a Ray cluster."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gossamer.compare.grid import Job
from gossamer.errors import ConfigurationError, GossamerError

POLL_SECONDS = 0.2
LAST_LINES = 5
"""Of a failed run's output, shown in the error."""

Tell = Callable[[Job, str], None]
"""Is told of a job that it "started", is "done", or was "done before"."""


class CellFailedError(GossamerError):
    """A run of a comparison ended with an error."""


def run_in_processes(jobs: Sequence[Job], at_once: int, threads: int, tell: Tell) -> None:
    """Runs all jobs, `at_once` at a time, each after its dense network. What is done already is not run again.

    Every job is a process of its own: one that dies takes no other with it. What it says goes to a file beside its
    folder, `seed-0.log`. When this function is left early, the processes are ended; each continues next time.

    Raises:
        CellFailedError: a run failed; those that were going on are finished first.
    """
    waiting, running, failed = _unfinished(jobs, tell), dict[Job, subprocess.Popen[bytes]](), list[Job]()
    try:
        while running or (waiting and not failed):
            for job in [job for job, process in running.items() if process.poll() is not None]:
                code = running.pop(job).returncode
                if code == 0:
                    tell(job, "done")
                else:
                    failed.append(job)
            for job in [] if failed else list(waiting):
                if len(running) < at_once and _ready(job, waiting, running):
                    waiting.remove(job)
                    running[job] = _start(job, threads)
                    tell(job, "started")
            time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if failed:
        raise _failure(failed[0], _log(failed[0]).read_text(encoding="utf-8", errors="replace"))


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
        task = ray.remote(num_cpus=threads, max_retries=3)(_remote_run(threads))
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
                code, output = ray.get(handle)
                if code != 0:
                    raise _failure(job, output)
                tell(job, "done")
    finally:
        ray.shutdown()


def _remote_run(threads: int) -> Callable[[Sequence[str], tuple[int, str] | None], tuple[int, str]]:
    """What a machine of the cluster does: a command's options -> exit code and output. What `after` failed, it does not
    begin. A function inside a function travels as it is: the machine's worker need not import torch for it."""

    def run(options: Sequence[str], after: tuple[int, str] | None) -> tuple[int, str]:
        import os
        import subprocess
        import sys

        if after is not None and after[0] != 0:
            return after
        finished = subprocess.run(
            [sys.executable, "-m", "gossamer.cli.main", *options],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        return finished.returncode, finished.stdout + finished.stderr

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


def _start(job: Job, threads: int) -> "subprocess.Popen[bytes]":
    log = _log(job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(job.command, env=_environment(threads), stdout=output, stderr=subprocess.STDOUT)


def _environment(threads: int) -> dict[str, str]:
    """The number of threads is part of what makes a run's bits; every cell gets the same."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def _log(job: Job) -> Path:
    return job.folder.with_name(job.folder.name + ".log")


def _failure(job: Job, output: str) -> CellFailedError:
    last = "\n".join(f"  {line}" for line in output.splitlines()[-LAST_LINES:])
    return CellFailedError(
        f"{job.name} failed:\n{last}\nWhat is finished is kept; the same command continues. The run by itself: "
        f"gossamer {' '.join(job.options)}"
    )
