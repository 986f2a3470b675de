"""What a machine of a cluster does with a run, without the cluster."""

import os
import platform
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gossamer.compare.runner import _remote_run


def test_a_remote_run_returns_exit_code_and_output() -> None:
    run = _remote_run(1)
    code, output, machine = run(["tasks"], None)
    assert (code, machine) == (0, platform.node())
    assert "lenet-300-100" in output
    code, output, _ = run(["compress", "no-such-task", "--rounds", "1", "--out", "never"], (0, "", "elsewhere"))
    assert (code, output.partition(" 'no-such-task'")[0]) == (2, "error: there is no task")
    # What its dense network failed with, it fails with.
    assert run(["tasks"], (2, "error: diverged", "elsewhere")) == (2, "error: diverged", "elsewhere")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the process in /proc")
def test_a_remote_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    found: list[tuple[int, str, str]] = []
    options = ["compress", "digits", "--rounds", "1", "--epochs", "30", "--out", str(tmp_path / "run")]
    thread = threading.Thread(target=lambda: found.append(_remote_run(1)(options, None)))
    thread.start()
    killed = 0
    while not killed and thread.is_alive():
        time.sleep(0.02)
        for number in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
            with suppress(OSError):
                words = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace")
                if str(tmp_path / "run") in words and (tmp_path / "run" / "config.toml").exists():
                    os.kill(number, signal.SIGKILL)
                    killed += 1
    thread.join()
    assert killed
    assert found[0][0] == 0, found
    assert (tmp_path / "run" / "round-01" / "model.safetensors").exists()
