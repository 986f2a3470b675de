"""Files that are whole or absent."""

import fcntl
from pathlib import Path

import pytest

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.rounds.files import locked, remove, sha256, write_file, write_folder, write_text
from gossamer.rounds.folder import clear_leftovers


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
    with locked(tmp_path), pytest.raises(ConfigurationError, match="in use by another process"), locked(tmp_path):
        pass
    with pytest.raises(RuntimeError, match="boom"), locked(tmp_path):
        raise RuntimeError("boom")
    with locked(tmp_path):
        pass
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
