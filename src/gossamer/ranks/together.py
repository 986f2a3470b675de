"""What a program does before its rounds, such as finding its data, and what fails in one rank: told in all of them."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

from gossamer.errors import GossamerError, RankError
from gossamer.ranks.group import current


@contextmanager
def together() -> Iterator[None]:
    """Has all ranks end with one message if what stands inside fails in one of them.

        with gossamer.together():
            data = ImageFolder("/data/imagenet")

    Without it a rank that does not find its data ends by itself, and the others wait for it. All ranks have to come
    here; inside nothing waits for another rank. In a program of one process it does nothing.

    Raises:
        RankError: in every rank, with the numbers and machines of the ranks that failed and the first one's reason; the
            own error of a rank is its cause.
    """
    ranks = current()
    if not ranks.several:
        yield
        return
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    found = ranks.gather_outcomes(None if own is None else [platform.node(), _reason(own)], own)
    failed = {rank: one for rank, one in enumerate(found) if one is not None}
    if not failed:
        return
    (first, (machine, reason)), *others = failed.items()
    more = "".join(f", rank {rank} on {one[0]}" for rank, one in others)
    raise RankError(
        f"rank {first} on {machine or 'its machine'}{more}: {reason}; expected what every process of this training "
        f"needs to be where it runs. Put it there (a copy, a mount of the same name), or name a folder that all "
        f"machines share, and run the same command again; all {ranks.size} processes end here"
    ) from own


def _reason(error: Exception) -> str:
    """In a line, with the file that could not be read if there is one."""
    if isinstance(error, GossamerError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename} ({error.strerror})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:1000]}"
