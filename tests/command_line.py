"""The command line is tested as a user meets it: a process of its own."""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import fork_server


def command(*arguments: object) -> list[str]:
    """The command line `gossamer ARGUMENTS`, with warnings as errors, for a process that imports everything itself."""
    return [sys.executable, "-W", "error", "-m", "gossamer.cli.main", *(str(argument) for argument in arguments)]


def environment() -> dict[str, str]:
    """One thread, so that the tests' own processes do not fight for the cores; wide enough for whole tables."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def gossamer(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs `gossamer ARGUMENTS` in `folder` and waits for its end."""
    return Started(folder, *arguments).completed()


class Started:
    """`gossamer ARGUMENTS` that goes on in `folder`, with warnings as errors (`fork_server`).

    Args:
        script: a Python program to run instead.
        piped: whether its standard output is read while it goes on (`output`); otherwise it goes to a file.
        into: a file descriptor that its standard output goes to instead.
        terminal: a file descriptor that is all its standard streams.
        session: whether it leads a session of its own.
        largest_file: bytes beyond which the system refuses to let a file grow.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        script: str | None = None,
        piped: bool = False,
        into: int | None = None,
        terminal: int | None = None,
        session: bool = False,
        largest_file: int | None = None,
        **variables: str,
    ) -> None:
        self._errors, self._file = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self.output: IO[str] | None = None
        self._status: int | None = None
        self._said = self._complained = ""
        reading, writing = os.pipe() if piped else (None, os.dup(self._file.fileno() if into is None else into))
        if reading is not None:
            self.output = os.fdopen(reading, encoding="utf-8")
        self._connection = _connected()
        with Path(os.devnull).open() as nothing:
            own = [nothing.fileno(), writing, self._errors.fileno()]
            socket.send_fds(self._connection, [b"+"], own if terminal is None else [terminal] * 3)
        os.close(writing)
        request = {
            "module": "gossamer.cli.main",
            "arguments": [str(argument) for argument in arguments],
            "script": script,
            "folder": str(folder),
            "session": session,
            "largest_file": largest_file,
            "blocked": [],
            "environment": environment() | variables,
        }
        self._connection.sendall(f"{json.dumps(request)}\n".encode())
        self._lines = self._connection.makefile("r")
        number = self._lines.readline()
        assert number, f"no process was started; the server ended with {_server()[1].poll()}"
        self.pid = int(number)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit code, below zero for a signal; None while it goes on."""
        return self.wait() if self._status is not None or select.select([self._connection], [], [], 0)[0] else None

    def wait(self, seconds: float = 300) -> int:
        """The same, once it has ended."""
        if self._status is None:
            if not select.select([self._connection], [], [], seconds)[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it went on after {seconds} seconds, and was killed")
            self._status = int(self._lines.readline())
            self._said, self._complained = _content(self._file), _content(self._errors)
            self._lines.close()
            self._connection.close()
        return self._status

    def completed(self) -> subprocess.CompletedProcess[str]:
        """What it came to; without what was read of its output already."""
        read = ""
        if self.output is not None:
            with self.output:
                read = self.output.read()
        return subprocess.CompletedProcess([], self.wait(), read + self._said, self._complained)


def _content(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode("utf-8")


def _connected() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    folder, server = _server()
    while True:
        try:
            connection.connect(str(folder / fork_server.SOCKET))
            return connection
        except OSError:
            assert server.poll() is None, "the server of processes has ended"
            time.sleep(0.01)


@cache
def _server() -> tuple[Path, "subprocess.Popen[bytes]"]:
    """The folder of the server, which ends with this process, when its standard input is closed."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    command = [sys.executable, "-W", "error", str(fork_server.__file__), str(folder)]
    # macOS ends what forks after it has looked at its graphics, as torch does; nothing here uses them.
    variables = environment() | {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}
    return folder, subprocess.Popen(command, env=variables, stdin=subprocess.PIPE)
