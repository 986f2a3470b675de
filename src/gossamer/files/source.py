"""What is pruned: a file of weights, or a folder with its shards, opened without reading a weight."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gossamer.files.candidates import Candidate

Finish = Callable[[Path, Mapping[str, bytes]], None]
"""(folder, changed contents) -> writes what is made of contents that lie in memory."""


def nothing_to_finish(folder: Path, contents: Mapping[str, bytes]) -> None:
    """For sources all of whose tensors lie in files."""


@dataclass(frozen=True)
class Source:
    """Files with weights, and the files beside them."""

    folder: Path
    candidates: list[Candidate]
    """In the order in which equal magnitudes are kept."""
    files: tuple[str, ...]
    """Those that hold the tensors, relative to the folder."""
    beside: tuple[str, ...] = ()
    """Those that are copied as they are."""
    left_behind: tuple[str, ...] = ()
    """Those that hold the weights in another form, unpruned, and are not copied."""
    known_by: str = ""
    """How it is known what each tensor is, for people."""
    contents: Mapping[str, bytes] = field(default_factory=dict)
    """File -> its bytes, of tensors that are in memory already, and in no file of their own."""
    finish: Finish = nothing_to_finish
    made: tuple[str, ...] = ()
    """Files that `finish` writes."""

    def open_file(self, file: str) -> BinaryIO:
        if file in self.contents:
            return io.BytesIO(self.contents[file])
        return (self.folder / file).open("rb", buffering=0)

    @property
    def written(self) -> tuple[str, ...]:
        """The files with weights that are made of it."""
        return (*self.made, *self.files)

    def size(self) -> int:
        """Bytes of all that is written."""
        of_files = sum((self.folder / file).stat().st_size for file in (*self.files, *self.beside))
        return of_files + sum(len(content) for content in self.contents.values())
