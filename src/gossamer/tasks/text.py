"""A text as bytes, cut into windows: the data of a language model."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gossamer.tasks.errors import DataError
from gossamer.tasks.task import Data, Examples

FOLDER_NAME = "text"
"""The name of the text's folder inside a folder of several data sets."""
TRAIN_SHARE, VALIDATION_SHARE = 0.85, 0.05
"""Shares of the text, from its beginning; the rest, its last tenth, is the test."""
WHERE = (
    "Any plain text will do, such as the 1.1 million characters of Shakespeare at "
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)


def text(source: Path | None, context: int, stride: int) -> Data:
    """A text file's first 85% for training, 5% for validation and last 10% for testing.

    An example is a window of `context` bytes, and as its targets the byte that follows each of them; bytes are
    characters in plain English. Windows for training begin `stride` bytes apart and overlap when that is less than
    `context`; those for validation and test lie side by side, so that every byte is predicted once.

    Returns:
        Inputs and targets of shape (count, context), uint8; batches of inputs are turned into int64.

    Raises:
        DataError: no file was given, it is not there, is not the only one, or is too short.
    """
    path = _find(source)
    try:
        content = torch.from_numpy(np.fromfile(path, np.uint8))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    ends = [round(len(content) * share) for share in (TRAIN_SHARE, TRAIN_SHARE + VALIDATION_SHARE)]
    parts = content.tensor_split(ends)
    if min(map(len, parts)) <= context:
        needed = round((context + 1) / VALIDATION_SHARE)
        raise DataError(f"{path}: has {len(content):,} bytes; expected at least {needed:,}. {WHERE}")
    train, validation, test = parts
    return Data(windows(train, context, stride), windows(validation, context, context), windows(test, context, context))


def windows(content: Tensor, context: int, stride: int) -> Examples:
    """Every window of a text (length,) that begins at a multiple of `stride`, and what follows each of its bytes."""
    # A view: overlapping windows take no memory.
    cut = content.unfold(0, context + 1, stride)
    return Examples(cut[:, :-1], cut[:, 1:], torch.Tensor.long)


def _find(source: Path | None) -> Path:
    if source is None:
        raise DataError(f"this task needs a text: give a .txt file, or a folder that holds one, with --data. {WHERE}")
    if not source.exists():
        raise DataError(f"--data {source}: there is no such file or folder. {WHERE}")
    if source.is_file():
        return source
    inside = source / FOLDER_NAME
    folder = inside if inside.is_dir() else source
    found = sorted(folder.glob("*.txt"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) or "none"
        raise DataError(f"{folder}: expected one .txt file; found {names}. Give the file itself with --data.")
    return found[0]
