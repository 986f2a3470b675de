"""Files that are whole or absent: written beside their place, synced, then renamed into it."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from gossamer.errors import CheckpointError, ConfigurationError

TEMPORARY = ".tmp"
"""Suffix of what is being written. Whatever carries it was left by a crash and may be removed."""


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Puts at `path` what `write` writes to the path it is given: all of it, or, after a crash, what was there before.

    Raises:
        CheckpointError: it cannot be written (disk full, no permission); nothing of it is left.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        raise _explained(path, error) from error


def write_text(path: Path, text: str) -> None:
    """`write_file` for UTF-8 text."""
    write_file(path, lambda temporary: _write_text(temporary, text))


def write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Makes the folder `path` hold what `write` puts into the folder it is given: all of it, or nothing.

    Raises:
        CheckpointError: it cannot be written (disk full, no permission); nothing of it is left.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        write(temporary)
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        temporary.rename(path)
        _sync(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _explained(path, error) from error


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the lock goes with the process, however it ends.

    Raises:
        ConfigurationError: another process holds it.
        CheckpointError: it cannot be written.
    """
    import fcntl

    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise _explained(folder / ".lock", error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"{folder} is in use by another process that compresses into it; wait for it, or choose another folder"
            ) from error
        yield


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Asks the disk to have it, so that a power cut after the rename finds the content too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(path: Path, error: BaseException) -> BaseException:
    """What the disk refused, as an error that says what to do; anything else as it is."""
    if not isinstance(error, (OSError, SafetensorError)):
        return error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return CheckpointError(
        f"cannot write {path}: {reason}. Every finished round is kept. Make room or mend the permissions, and run the "
        f"same command again: it continues."
    )
