"""The example with Ray Train on two workers of a cluster of this machine, one of which is killed."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command_line import Started

from gossamer.loop.records import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the workers in /proc"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_train_digits.py"


def started(folder: Path, run: str, retries: int) -> Started:
    script = f"import warnings\nwarnings.resetwarnings()\n{EXAMPLE.read_text(encoding='utf-8')}"
    # Workers as important as everybody else, also where other tests run beside this one.
    options = (run, "--rounds", 2, "--retries", retries)
    return Started(folder, *options, script=script, session=True, RAY_worker_niceness="0")


def made(folder: Path) -> list[tuple[Any, ...]]:
    """What the rounds of a run are. Numbers of Python's and numpy's generators, which nobody uses, are others."""
    files = ("model.safetensors", "masks.safetensors")
    return [(one.round, one.kept, one.val, *(one.sha256[name] for name in files)) for one in read_records(folder)]


def workers_of(number: int) -> Iterator[int]:
    """The processes that train, of the cluster that a process started."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker") and number in _above(
                int(entry.name)
            ):
                yield int(entry.name)


def _above(number: int) -> Iterator[int]:
    while number > 1:
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        yield number


def kill_a_worker(going: Started, after: Path) -> None:
    """Kills one, in the middle of the round after one that is finished."""
    while not after.exists():
        assert going.poll() is None, going.completed()
        time.sleep(0.02)
    workers = sorted(workers_of(going.pid))
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)


def test_a_worker_that_is_killed_is_replaced_and_the_same_command_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("ray.train", exc_type=ImportError)  # ray alone has no ray.train
    pytest.importorskip("sklearn")
    whole = started(tmp_path, "whole", 0).completed()
    assert whole.returncode == 0, whole.stderr
    expected = made(tmp_path / "whole")
    assert [kept for _, kept, *_ in expected] == [2704, 1352, 676]
    assert (tmp_path / "whole" / "round-02" / "state-1.safetensors").exists(), "two workers"

    replaced = started(tmp_path, "replaced", 3)
    kill_a_worker(replaced, tmp_path / "replaced" / "round-00")
    ended = replaced.completed()
    assert ended.returncode == 0, ended.stderr
    assert made(tmp_path / "replaced") == expected

    given_up = started(tmp_path, "given-up", 0)
    kill_a_worker(given_up, tmp_path / "given-up" / "round-00")
    assert given_up.completed().returncode != 0
    assert len(made(tmp_path / "given-up")) == 1
    again = started(tmp_path, "given-up", 0).completed()
    assert again.returncode == 0, again.stderr
    assert made(tmp_path / "given-up") == expected
