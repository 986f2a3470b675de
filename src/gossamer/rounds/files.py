"""Files that are whole or absent: written beside their place, synced, then renamed into it."""

import errno
import hashlib
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from gossamer.errors import CheckpointError, ConfigurationError, GossamerWarning

TEMPORARY = ".tmp"
"""Suffix of what is being written. Whatever carries it was left by a crash and may be removed."""

NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""How filesystems (of a network, of a container) say that they have no locks, or do not sync folders."""


def absolute(path: str | Path) -> Path:
    """The path from the root, so that it stays the same place when the working directory changes.

    Raises:
        ConfigurationError: the path is relative, and the working directory is gone.
    """
    try:
        return Path(path).absolute()
    except OSError as error:
        raise ConfigurationError(
            f"{path} is relative to the working directory, which cannot be found ({error.strerror}); give a path from "
            f"the root"
        ) from error


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


@dataclass(frozen=True, eq=False)
class Holder:
    """Who holds a folder in this process."""

    process: int
    """Children begin with a copy of this table, and hold nothing."""
    thread: int
    end: Callable[[], None] | None
    """Makes it let go; None if only itself does."""

    def holds(self) -> bool:
        return self.process == os.getpid()

    def may_be_ended(self) -> bool:
        """Not while another thread may be at work."""
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return self.end is not None and self.thread not in others


_holders: dict[tuple[int, int], Holder] = {}
"""Device and inode of a lock's file -> who holds it. A lock of this very process looks like any other's."""


@contextmanager
def locked(folder: Path, end: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the folder for this process; the lock goes with the process, however it ends.

    Where the filesystem has no locks, that is a `GossamerWarning`.

    Args:
        end: makes the holder let go, when the same thread wants the folder for another one; None: the other is refused.

    Raises:
        ConfigurationError: another process holds it, or this one and will not let go.
        CheckpointError: it cannot be written.
    """
    import fcntl

    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise _explained(folder / ".lock", error) from error
    with file:
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino)
        _end_of_this_process(folder, _holders.get(identity))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{folder} is in use by another process that compresses into it; wait for it, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise _explained(folder / ".lock", error) from error
            _warn(f"{folder} cannot be locked ({error.strerror}); see to it that no other process writes to it")
        holder = _holders[identity] = Holder(os.getpid(), threading.get_ident(), end)
        try:
            yield
        finally:
            if _holders.get(identity) is holder:
                del _holders[identity]
            # Children that were forked meanwhile (workers that load data) have the file open too, and closing it here
            # would leave the lock with them.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)


def _end_of_this_process(folder: Path, holder: Holder | None) -> None:
    if holder is None or not holder.holds():
        return
    if holder.end is None or not holder.may_be_ended():
        raise ConfigurationError(
            f"{folder} is in use already, by this very process (a loop over the same folder, in it or in another "
            f"thread); end that first, or choose another folder"
        )
    holder.end()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Asks the disk to have it, so that a power cut after the rename finds the content too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        what = "folders" if path.is_dir() else "files"
        _warn(
            f"the filesystem at {_mount_point(path)} does not sync {what} ({error.strerror}); what was written last "
            f"may be lost in a power cut, and nothing else"
        )
    finally:
        os.close(descriptor)


def _mount_point(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_mount())


def _warn(message: str) -> None:
    warnings.warn(message, GossamerWarning, stacklevel=3)


def _explained(path: Path, error: BaseException) -> BaseException:
    """What the disk refused, as an error that says what to do; anything else as it is."""
    if not isinstance(error, (OSError, SafetensorError)):
        return error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return CheckpointError(
        f"cannot write {path}: {reason}. Every finished round is kept. Make room or mend the permissions, and run the "
        f"same command again: it continues."
    )
