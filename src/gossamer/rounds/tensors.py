"""Files of tensors, opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open

from gossamer.rounds.files import regular


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
        with found as tensors:
            yield tensors


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
