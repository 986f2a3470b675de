"""Labelled texts in a folder: train.csv, .tsv or .jsonl with a text and a label in each row; read, never run."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.tasks.errors import DataError

ENDINGS = (".csv", ".tsv", ".jsonl")
TEXT, LABEL = "text", "label"
WHERE = (
    'Expected DIR/train.csv, .tsv (both with the columns text and label in the first line) or .jsonl ({"text": ..., '
    '"label": ...} a line), and validation and test alike if there are any.'
)


@dataclass(frozen=True)
class Texts:
    """The rows of one file, in order."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    path: Path

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, numbers: Iterable[int]) -> "Texts":
        """Some of them."""
        chosen = list(numbers)
        return Texts(tuple(self.texts[row] for row in chosen), tuple(self.labels[row] for row in chosen), self.path)


def find_texts(folder: Path | None, names: tuple[str, ...]) -> Texts | None:
    """The texts of the file of one of these names; None if there is none.

    Raises:
        DataError: no folder was given, there are several files, or the file is no such table.
    """
    if folder is None or not folder.is_dir():
        got = "" if folder is None else f"--data {folder}: there is no such folder. "
        raise DataError(f"{got}This task needs a folder of labelled texts: give it with --data DIR. {WHERE}")
    paths = [folder / f"{name}{ending}" for name in names for ending in ENDINGS]
    there = [path for path in paths if path.is_file()]
    if len(there) > 1:
        raise DataError(f"{there[0]} and {there[1].name} are both there; expected one file. Put them together.")
    return read_texts(there[0]) if there else None


def read_texts(path: Path) -> Texts:
    """The rows of a .csv, .tsv or .jsonl file.

    Raises:
        DataError: it is no such table, or holds no rows; the row is named.
    """
    texts, labels = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in _rows(path, file):
                text, label = row.get(TEXT), row.get(LABEL)
                label = label.strip() if isinstance(label, str) else label
                whole = isinstance(label, int) and not isinstance(label, bool)
                if not isinstance(text, str) or not (whole or (isinstance(label, str) and label)):
                    raise DataError(f"{path}, row {number}: expected a text and a label; got {str(row)[:100]}")
                if re.search("[\ud800-\udfff]", text):
                    raise DataError(f"{path}, row {number}: half a letter (a lone surrogate) is in {text[:100]!r}")
                texts.append(text)
                labels.append(str(label))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 ({error.reason} at byte {error.start}). Convert it first.") from error
    except (OSError, csv.Error, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {WHERE}") from error
    if not texts:
        raise DataError(f"{path}: holds no rows. {WHERE}")
    return Texts(tuple(texts), tuple(labels), path)


def classes_of(texts: Texts) -> tuple[str, ...]:
    """The labels in order: whole numbers by their size, else by name.

    Raises:
        DataError: there is one only.
    """
    found = set(texts.labels)
    if len(found) < 2:
        raise DataError(f"{texts.path}: all {len(texts)} labels are {texts.labels[0]!r}; expected several classes")
    numbers = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label) if numbers else 0, label)))


def numbered(texts: Texts, classes: tuple[str, ...]) -> list[int]:
    """The number of each text's class.

    Raises:
        DataError: a label is no class of the training texts.
    """
    numbers = {label: number for number, label in enumerate(classes)}
    for row, label in enumerate(texts.labels, 1):
        if label not in numbers:
            raise DataError(
                f"{texts.path}, row {row}: the label {label[:40]!r} is none of the training texts'; expected "
                f"{', '.join(classes[:10])}{' ...' if len(classes) > 10 else ''}"
            )
    return [numbers[label] for label in texts.labels]


def _rows(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its number, from 1 on."""
    if path.suffix == ".jsonl":
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}, row {number}: is no JSON ({error}). {WHERE}") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path}, row {number}: expected a text and a label; got {line.strip()[:100]}")
                yield number, row
        return
    # Of a tab-separated file quotes are letters like others.
    reader = (
        csv.DictReader(file, strict=True)
        if path.suffix == ".csv"
        else csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    )
    missing = {TEXT, LABEL} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{path}: has the columns {reader.fieldnames}, and no {' and '.join(sorted(missing))}. {WHERE}")
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if None in row:
                raise DataError(
                    f"{path}, row {number}: has more fields than the first line has columns; put texts with commas or "
                    f"tabs between quotes (.csv), or into a .jsonl. Got {str(row)[:100]}"
                )
            yield number, row
    except csv.Error as error:
        raise DataError(
            f"{path}, row {number + 1}: {error}. A quote that opens has to close, one inside "
            f"a text is written twice; texts of more than {csv.field_size_limit():,} letters belong into a .jsonl."
        ) from error
