"""Files that are whole or absent."""

import errno
import fcntl
import os
import signal
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from gossamer.errors import CheckpointError, ConfigurationError, GossamerWarning
from gossamer.loop.folder import clear_leftovers
from gossamer.storage.files import locked, remove, same_working_directory, sha256, write_file, write_folder, write_text


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one")
    write_text(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "zwölf"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failed_write_leaves_what_was_there(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise error

    expected = CheckpointError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_file(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_cannot_even_be_begun_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*none/a\.txt: No such file or directory"):
        write_text(tmp_path / "none" / "a.txt", "one")


def test_what_safetensors_cannot_write_is_named(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        raise SafetensorError("I/O error: No space left on device")

    with pytest.raises(CheckpointError, match=r"cannot write .*a\.txt: I/O error: No space left on device"):
        write_file(tmp_path / "a.txt", write)


def test_a_folder_appears_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        assert not (tmp_path / "round").exists()
        (folder / "one").write_text("1")
        (folder / "two").write_text("2")

    write_folder(tmp_path / "round", write)
    assert sorted(p.name for p in (tmp_path / "round").iterdir()) == ["one", "two"]

    def fail(folder: Path) -> None:
        (folder / "one").write_text("1")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"cannot write .*other: No space left on device.*run the same command"):
        write_folder(tmp_path / "other", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["round"]


def test_a_half_written_folder_of_a_crash_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "round.tmp").mkdir()
    (tmp_path / "round.tmp" / "stale").write_text("x")
    write_folder(tmp_path / "round", lambda folder: (folder / "one").write_text("1") and None)
    assert [p.name for p in (tmp_path / "round").iterdir()] == ["one"]


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_sha256_by_hand(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_is_locked_for_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigurationError, match="in use already, by this very"), locked(tmp_path):
        pass
    with pytest.raises(RuntimeError, match="boom"), locked(tmp_path):
        raise RuntimeError("boom")
    with locked(tmp_path):
        pass
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_another_process_that_holds_a_folder_is_told_from_this_one(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ConfigurationError, match="in use by another process"), locked(tmp_path):
            pass


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_folder_is_free_even_if_a_child_forked_inside_lives_on(tmp_path: Path) -> None:
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_folder_is_free_once_its_process_was_killed_although_a_child_lives_on(tmp_path: Path) -> None:
    """As the workers of a loader do, which look only now and then whether their parent is there."""
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        with locked(tmp_path):
            child = os.fork()
            if child == 0:
                signal.pause()
            os.write(writing, str(child).encode())
            signal.pause()
    child = int(os.read(reading, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_that_leaves_the_lock_leaves_it_to_its_parent(tmp_path: Path) -> None:
    with locked(tmp_path):
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            with pytest.raises(ConfigurationError, match="in use by another process"), locked(tmp_path):
                pass
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
def test_where_nothing_can_be_locked_that_is_told_and_the_work_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No filesystem without locks can be mounted here.
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.warns(GossamerWarning, match=f"cannot be locked .{os.strerror(number)}.; see to it"),
        locked(tmp_path),
        # This process is still known.
        pytest.raises(ConfigurationError, match="this very process"),
        locked(tmp_path),
    ):
        pass


def test_a_lock_that_fails_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(CheckpointError, match=r"\.lock: Input/output error"), locked(tmp_path):
        pass


@pytest.mark.parametrize("what", ["folders", "files"])
def test_where_a_filesystem_does_not_sync_that_is_told_and_the_work_goes_on(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (what == "folders"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    mount = next(folder for folder in tmp_path.parents if os.path.ismount(folder))
    with pytest.warns(
        GossamerWarning, match=f"the filesystem at {mount} does not sync {what} .Invalid argument.; what"
    ):
        write_folder(tmp_path / "round", lambda folder: (folder / "one").write_text("1") and None)
    with pytest.warns(GossamerWarning, match=f"does not sync {what}"):
        write_text(tmp_path / "a.txt", "a")
    assert (tmp_path / "round" / "one").read_text() == "1"
    assert (tmp_path / "a.txt").read_text() == "a"


def test_a_sync_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CheckpointError, match="Input/output error"):
        write_text(tmp_path / "a.txt", "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_says_so(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(CheckpointError, match=r"\.lock"), locked(tmp_path):
        pass


def test_leftovers_of_a_crash_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    for name in ("training.safetensors.tmp", ".tmpciArEm", "rounds.jsonl", ".lock", ".tmpfiles-of-mine"):
        (tmp_path / name).touch()
    (tmp_path / "round-03.tmp").mkdir()
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".tmpfiles-of-mine", "rounds.jsonl"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted on Linux")
def test_no_file_stays_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        write_text(tmp_path / "file", str(number))
        write_folder(tmp_path / f"folder-{number}", lambda folder: (folder / "one").write_text("1"))
        with locked(tmp_path):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_working_directory_is_gone_back_to_if_it_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with same_working_directory():
        os.chdir("/")
    assert Path.cwd() == tmp_path

    # No filesystem that goes away can be mounted here.
    def refuse(*arguments: object) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with same_working_directory():
            os.chdir("/")
    assert Path.cwd() == Path("/")
