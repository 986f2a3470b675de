"""Files that are whole or absent: written beside their place, synced, then renamed into it."""

import errno
import hashlib
import os
import shutil
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from gossamer.errors import CheckpointError, ConfigurationError, GossamerWarning

TEMPORARY = ".tmp"
"""Suffix of what is being written. Whatever carries it was left by a crash and may be removed."""

LARGEST_TEXT = 2**26
"""Letters. A file may claim to be as large as a disk without taking any room on it."""

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


@contextmanager
def same_working_directory() -> Iterator[None]:
    """Puts the working directory back afterwards, if what runs inside (a user's own task) left it."""
    try:
        before = os.open(".", os.O_RDONLY)
    except OSError:
        # It is gone already: there is nothing to go back to.
        yield
        return
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Puts at `path` what `write` writes to the path it is given: all of it, or, after a crash, what was there before.

    It is written in a folder of its own beside its place: whatever else `write` leaves there (safetensors writes under
    a name that it makes up) goes with it, and nothing that lies there already, such as a link, is written through.

    Raises:
        CheckpointError: it cannot be written (disk full, no permission); nothing of it is left.
    """
    try:
        replace_file(path, lambda temporary: _write_and_sync(temporary, write))
        _sync(path.parent)
    except BaseException as error:
        raise explained(path, error) from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """`write_file` for what may be lost in a power cut: the disk is not waited for, and its errors come as they are."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        # To rename a file over /dev/stdout would take that from every program of the machine.
        raise OSError("it is a pipe or a device, not a regular file")
    workplace = path.with_name(path.name + TEMPORARY)
    try:
        remove(workplace)
        workplace.mkdir()
        write(workplace / path.name)
        (workplace / path.name).replace(path)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """`write_file` for UTF-8 text."""
    write_file(path, lambda temporary: _write_text(temporary, text))


def write_folder(path: Path, write: Callable[[Path], object], *, replace: bool = False) -> None:
    """Makes the folder `path` hold what `write` puts into the folder it is given: all of it, or nothing.

    Args:
        replace: whether a folder that is there goes, when the new one is whole.

    Raises:
        CheckpointError: it cannot be written (disk full, no permission); nothing of it is left.
    """
    with new_folder(path, replace=replace) as temporary:
        write(temporary)


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """The folder that is to be `path`, under another name; it gets its own at the end, unless that is an error."""
    temporary = path.with_name(path.name + TEMPORARY)
    before = path.with_name(f"{path.name}.before{TEMPORARY}")
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        yield temporary
        sync_files(temporary)
        _sync(temporary)
        if replace and path.exists():
            remove(before)
            path.rename(before)
        temporary.rename(path)
        _sync(path.parent)
        remove(before)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if replace and before.exists() and not path.exists():
            before.rename(path)
        raise explained(path, error) from error


def sync_files(folder: Path) -> None:
    """Asks the disk to have all that is in the folder."""
    for file in folder.rglob("*"):
        _sync(file)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def regular(path: Path, *, links: bool = False) -> Path:
    """The path, if what lies there can simply be read: no folder, and no pipe or device, which might never end.

    Args:
        links: whether it may be a link. What somebody names may be one; what is looked for in a folder, which may come
            from somebody else, may not, since it could lead anywhere.

    Raises:
        OSError: there is no such file.
    """
    mode = (path.stat() if links else path.lstat()).st_mode
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise OSError(f"it is {kind}, not a regular file")
    return path


def read_text(path: Path, *, links: bool = False) -> str:
    """The UTF-8 text of a `regular` file.

    Raises:
        OSError, UnicodeDecodeError: there is none.
    """
    with regular(path, links=links).open(encoding="utf-8") as file:
        text = file.read(LARGEST_TEXT + 1)
    if len(text) > LARGEST_TEXT:
        raise OSError(f"it is longer than the {LARGEST_TEXT:,} letters that any such file has")
    return text


def open_to_append(path: Path) -> BinaryIO:
    """Opens a regular file of a folder that may come from somebody else, made if it is not there; never through a link,
    and without waiting for whoever reads a pipe.

    Raises:
        CheckpointError: it is something else, or cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with suppress(FileNotFoundError):
            regular(path)
        return os.fdopen(os.open(path, flags, 0o666), "ab")
    except OSError as error:
        raise explained(path, error) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a `regular` file, in hexadecimal."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Holder:
    """Who holds a folder in this process."""

    process: int
    """Children begin with a copy of this table, and hold nothing."""
    thread: int
    end: Callable[[], None] | None
    """Makes it let go; None if only itself does."""
    file: BinaryIO
    """The lock's file, open."""

    def holds(self) -> bool:
        return self.process == os.getpid()

    def may_be_ended(self) -> bool:
        """Not while another thread may be at work."""
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return self.end is not None and self.thread not in others


_holders: dict[tuple[int, int], Holder] = {}
"""Device and inode of a lock's file -> who holds it. A lock of this very process looks like any other's."""


def _leave_locks_to_the_parent() -> None:
    """A lock is held by whoever has its file open: by workers too that load data, and that live on for seconds after
    the process that forked them was killed. So a child has none of them open."""
    for holder in _holders.values():
        holder.file.close()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


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

    with open_to_append(folder / ".lock") as file:
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
                raise explained(folder / ".lock", error) from error
            _warn(f"{folder} cannot be locked ({error.strerror}); see to it that no other process writes to it")
        holder = _holders[identity] = Holder(os.getpid(), threading.get_ident(), end, file)
        try:
            yield
        finally:
            if _holders.get(identity) is holder:
                del _holders[identity]
            # A child that comes here has closed its file, and a process that was forked in C may have it open still:
            # closing it here would leave the lock with that.
            with suppress(OSError, ValueError):
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
    # Paths that are no UTF-8 come with halves of letters in them, which UTF-8 cannot write.
    path.write_text(text, encoding="utf-8", errors="replace")


def _write_and_sync(path: Path, write: Callable[[Path], object]) -> None:
    write(path)
    _sync(path)


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


def explained(path: Path, error: BaseException) -> BaseException:
    """What the disk refused, as an error that says what to do; anything else as it is."""
    if not isinstance(error, (OSError, SafetensorError)):
        return error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return CheckpointError(
        f"cannot write {path}: {reason}. What was finished before is kept. Make room, mend the permissions or name "
        f"another place, and run the same command again."
    )
