"""`gossamer watch` in a real terminal (a pseudo-terminal), with a real run that goes on beside it."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from command_line import Started, gossamer
from small_run import small_run

PATIENCE = 60.0


class Screen:
    """What a program writes to its terminal, and the keys that it is sent."""

    def __init__(self, process: Started, terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        self.written = ""

    def wait_for(self, text: str) -> None:
        """Reads on until `text` appears in what was written since the last time."""
        end = time.monotonic() + PATIENCE
        while text not in self.written:
            assert time.monotonic() < end, f"{text!r} never appeared: {self.written[-2000:]}"
            if select.select([self.terminal], [], [], 0.2)[0]:
                try:
                    self.written += os.read(self.terminal, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended without {text!r}: {self.written[-2000:]}") from None
        self.written = self.written[self.written.index(text) + len(text) :]

    def press(self, key: str) -> None:
        os.write(self.terminal, key.encode())

    def ended(self) -> int:
        """Its exit code; what it still writes is read meanwhile, or it could not end."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, "it does not end"
            if select.select([self.terminal], [], [], 0.1)[0]:
                with suppress(OSError):
                    self.written += os.read(self.terminal, 65536).decode(errors="replace")
        return self.process.wait()


@contextmanager
def watching(folder: Path) -> Iterator[Screen]:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = Started(
        folder.parent, *("watch", folder, "--every", "0.1"), terminal=terminal, session=True, TERM="xterm-256color"
    )
    os.close(terminal)
    try:
        yield Screen(process, controller)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(controller)


def test_from_before_the_beginning_past_a_kill_to_the_end(tmp_path: Path) -> None:
    run = ("compress", "digits", "--rounds", "1", "--epochs", "30", "--out", "run")
    with watching(tmp_path / "run") as screen:
        screen.wait_for("not begun yet")
        first = Started(tmp_path, *run)
        screen.wait_for("running")
        screen.wait_for("loss")
        first.send_signal(signal.SIGKILL)
        first.wait()
        screen.wait_for("stopped; the same command continues it")
        assert gossamer(tmp_path, *run).returncode == 0
        screen.wait_for("finished, 2 rounds")
        screen.press("q")
        assert screen.ended() == 0
        assert "80.00%" in screen.written


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "ctrl-c"])
def test_it_is_left_with_a_key(key: str, tmp_path: Path) -> None:
    with watching(tmp_path) as screen:
        screen.wait_for("not begun yet")
        screen.press(key)
        assert screen.ended() == 0
        assert "Traceback" not in screen.written


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    finished = gossamer(tmp_path, "watch", "run")
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0].startswith("round  0  density 100.00%     1.0x  val accuracy")
    assert lines[-1] == "run: finished, 3 rounds"
    assert "\x1b" not in finished.stdout


def test_a_single_look(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    text = gossamer(tmp_path, "watch", "run", "--once").stdout
    assert "run: finished, 3 rounds" in text
    assert "33.3x" in text
    assert "not begun yet" in gossamer(tmp_path, "watch", "other", "--once").stdout
