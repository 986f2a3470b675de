"""Files of tensors, opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gossamer.storage.files import regular

LONGEST = 300
"""Letters of what safetensors says of a damaged file."""


@contextmanager
def opened(path: Path, *, links: bool = False) -> Iterator[Any]:
    """The `regular` file `path`, opened by safetensors; its tensors come on the CPU.

    Raises:
        OSError, SafetensorError: there is none, or it is damaged.
    """
    with regular(path, links=links).open("rb") as file:
        # safetensors opens only what is called in UTF-8; the system, whatever it has opened already, by its number.
        name = path if _is_text(path) else Path(f"/proc/self/fd/{file.fileno()}")
        try:
            found = safe_open(name, framework="pt", device="cpu")
        except RuntimeError as error:
            # Torch's own words for what the system refused: no room for its pages, a filesystem that maps none.
            raise OSError(str(error).splitlines()[0]) from error
        except SafetensorError as error:
            # It quotes the file, all of it if need be.
            words = str(error)
            raise SafetensorError(words if len(words) <= LONGEST else f"{words[:LONGEST]}...") from error
        with found as tensors:
            yield tensors


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
