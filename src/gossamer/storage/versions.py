"""Format versions of files: an older file is read, with defaults for what it lacks; a newer one is refused by name."""

from gossamer.errors import CheckpointError


def refuse_newer(found: object, known: int, what: object) -> None:
    """Verifies that a file is of a version that is known here.

    Args:
        found: the version that the file states; 1 where it states none.
        known: the newest version of such files that this code writes.
        what: the file, for the message.

    Raises:
        CheckpointError: it is of a newer version, or of none.
    """
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise CheckpointError(f"{what} is damaged: its format version is {found!r}; expected a whole number from 1 on")
    if found > known:
        raise CheckpointError(
            f"{what} is of format version {found}, made by a newer gossamer; this one reads up to version {known}. "
            f"Upgrade it: pip install --upgrade gossamer"
        )
