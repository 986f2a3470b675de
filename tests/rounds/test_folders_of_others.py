"""A run's folder may come from anybody: nothing in it is run, no link in it is followed, and nothing in it waits."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import tomli_w
from small_run import printed, refused, small_run

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.rounds.configuration import read
from gossamer.rounds.files import locked, write_file, write_text
from gossamer.watch import look
from gossamer.watch.progress import Progress, ProgressFile

FILES = ("config.toml", "round-01/round.json", "round-01/masks.safetensors", "round-01/cost.json")
"""Read by `gossamer report`, each of them."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    small_run(folder)
    return folder


@pytest.fixture
def theirs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "theirs")
    return Path("theirs")


@contextmanager
def in_time() -> Iterator[None]:
    """Ends what waits for ever."""

    def waited(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it waits for somebody who never writes")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def with_settings(run: Path, table: str, **values: Any) -> None:
    tables = read(run)
    tables[table] = tables.get(table, {}) | values
    (run / "config.toml").write_text(tomli_w.dumps(tables))


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "theirs"],
        ["shrink", "theirs"],
        ["export", "theirs"],
        ["predict", "theirs"],
        ["search", "theirs", "--budget", "weights=0.1", "--out", "policy.toml"],
        ["explain", "theirs", "--against", "theirs"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_code_that_a_folder_names_is_never_run(arguments: list[str], theirs: Path) -> None:
    (theirs / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\ntask = None\n")
    with_settings(theirs, "settings", task="theirs/evil.py:anything")
    with_settings(theirs, "origin", task="theirs/evil.py:task")
    message = refused(*arguments)
    assert "--task" in message
    assert not Path("ran").exists()


def test_looking_runs_no_code_either(theirs: Path) -> None:
    (theirs / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    with_settings(theirs, "settings", task="theirs/evil.py:anything")
    printed("show", "theirs")
    printed("watch", "theirs", "--once")
    printed("report", "theirs", "-o", "report.html")
    assert "evil.py:anything" in Path("report.html").read_text()
    assert not Path("ran").exists()


@pytest.mark.parametrize("file", FILES)
def test_a_link_in_a_folder_is_not_followed(file: str, theirs: Path, tmp_path: Path) -> None:
    (theirs / file).rename(tmp_path / "elsewhere")
    (theirs / file).symlink_to(tmp_path / "elsewhere")
    assert "a link" in refused("report", "theirs", "--no-facts")


@pytest.mark.parametrize("file", FILES)
def test_a_pipe_in_a_folder_is_not_waited_for(file: str, theirs: Path) -> None:
    (theirs / file).unlink()
    os.mkfifo(theirs / file)
    with in_time():
        assert "a pipe" in refused("report", "theirs", "--no-facts")


def test_a_round_that_is_a_link_is_refused(theirs: Path, tmp_path: Path) -> None:
    (theirs / "round-01").rename(tmp_path / "elsewhere")
    (theirs / "round-01").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "round-01 is a link" in refused("show", "theirs")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_watching_does_not_wait_for_a_pipe(make: Callable[[Path], None], theirs: Path) -> None:
    make(theirs / "progress.json")
    with in_time():
        assert look(theirs).progress is None


def test_a_lock_that_is_a_link_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(CheckpointError, match=r"\.lock"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_lock_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with in_time(), pytest.raises(CheckpointError, match=r"\.lock"), locked(tmp_path):
        pass


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    for name in ("report.html", "progress.json"):
        (tmp_path / f"{name}.tmp").symlink_to(tmp_path / "precious")
        (tmp_path / name).symlink_to(tmp_path / "precious")
    write_text(tmp_path / "report.html", "new")
    listener = ProgressFile(tmp_path)
    listener._now = Progress(0, 1, 1.0, 0, None, (), None, None, 0.0)
    listener._write()
    assert (tmp_path / "precious").read_text() == "kept"
    assert (tmp_path / "report.html").read_text() == "new"
    assert json.loads((tmp_path / "progress.json").read_text())["last_round"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "progress.json", "report.html"]


def test_a_killed_write_is_cleared_by_the_next(tmp_path: Path) -> None:
    """Whatever name the writer gave to what it had half-written."""
    path = tmp_path / "small.safetensors"
    if not os.fork():

        def write(temporary: Path) -> None:
            temporary.write_text("half")
            (temporary.parent / ".tmpA1b2C3").write_text("half, under a name of the writer's own")
            os._exit(0)

        write_file(path, write)
    os.wait()
    assert [left.suffix for left in tmp_path.iterdir()] == [".tmp"]
    write_text(path, "whole")
    assert [left.name for left in tmp_path.iterdir()] == ["small.safetensors"]


def test_leftovers_that_are_links_are_removed_and_not_followed(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (theirs / "round-03.tmp").symlink_to(tmp_path / "precious", target_is_directory=True)
    small_run(theirs)
    assert (tmp_path / "precious" / "file").exists()
    assert not (theirs / "round-03.tmp").is_symlink()


def test_scalars_are_not_written_through_a_link(theirs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "elsewhere").mkdir()
    (theirs / "tensorboard").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    from gossamer.integrations.tensorboard import TensorBoard

    with pytest.raises(ConfigurationError, match="tensorboard is a link"):
        TensorBoard(theirs)
    assert not any((tmp_path / "elsewhere").iterdir())
