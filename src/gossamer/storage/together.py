"""A folder that several processes write, each its own files, and that is whole or absent all the same."""

import platform
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from gossamer.errors import CheckpointError
from gossamer.ranks.group import Ranks
from gossamer.storage.files import TEMPORARY, explained, new_folder, sync_files

T = TypeVar("T")

SECONDS_UNTIL_SEEN = 60.0
"""How long what another machine made may take to be seen: NFS asks again after `acdirmax`, 60 seconds by default."""


def write_folder_together(
    ranks: Ranks, path: Path, write: Callable[[Path], T], finish: Callable[[Path, list[T]], object]
) -> None:
    """Makes the folder `path` hold what all ranks write into the folder that they are given: all of it, or nothing.

    Args:
        path: on a file system that the ranks share.
        write: writes this rank's files, and returns what rank 0 is to know of them, which JSON can say.
        finish: is called in rank 0, when all have written, with what the ranks returned.

    Raises:
        CheckpointError: it cannot be written, by whichever rank; nothing of it is left.
    """
    with ExitStack() as unfinished:
        temporary = path.with_name(path.name + TEMPORARY)
        with ranks.together():
            if ranks.first:
                unfinished.enter_context(new_folder(path))
        with ranks.together():
            own = _written(temporary, write, ranks)
        written = ranks.gather(own)
        with ranks.together():
            if ranks.first:
                finish(temporary, written)
                unfinished.close()
    if not ranks.first:
        require_seen(path)


def _written(temporary: Path, write: Callable[[Path], T], ranks: Ranks) -> T:
    if ranks.first:
        return write(temporary)
    try:
        require_seen(temporary)
        own = write(temporary)
        # Rank 0 syncs what it sees; a file system of a network may hold these in this machine.
        with suppress(FileNotFoundError):
            sync_files(temporary)
        return own
    except Exception as error:
        raise explained(temporary, error) from error


def require_seen(path: Path) -> None:
    """Waits until what another process made is seen here.

    Raises:
        CheckpointError: it is not.
    """
    last = time.monotonic() + SECONDS_UNTIL_SEEN
    while not path.exists():
        if time.monotonic() > last:
            raise CheckpointError(
                f"{path}, which rank 0 made, is not there on {platform.node() or 'this machine'}; expected a folder "
                f"that all processes of this training share: name one on a file system of all machines"
            )
        # Of a folder that was listed anew, what is in it is asked anew.
        with suppress(OSError):
            list(path.parent.iterdir())
        time.sleep(0.05)
