"""Labelled images in parquet files, in the layout of the Hugging Face hub: found, checked and decoded.

A folder holds `SPLIT-00000-of-0000N.parquet` for the splits `train` and `test`, with one column of {bytes, path} for
the encoded images and one column `label` of class numbers. Nothing in a file is trusted before it was checked.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gossamer.tasks.errors import DataError
from gossamer.tasks.requirements import optional_module
from gossamer.tasks.task import Examples

SHARD = re.compile(r"(?P<split>train|test)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")
Pixels = NDArray[np.uint8]
LARGEST_ENCODED_IMAGE = 1 << 20
"""Bytes. Thumbnails need a few thousand; more is not one, and is not decoded."""


@dataclass(frozen=True)
class ImageDataset:
    """What a data set of small labelled images is called, and what its files must hold."""

    title: str
    hub_name: str
    folder_name: str
    """The name of its folder inside a folder of several data sets."""
    image_column: str
    mode: str
    """Pillow's name for the kind of pixel: `L` is one grey byte, `RGB` three bytes."""
    height: int
    width: int
    classes: int

    @property
    def channels(self) -> int:
        return len(self.mode)


def load_split(dataset: ImageDataset, folder: Path | None, split: str) -> Examples:
    """All examples of a split (`train` or `test`) in the files' order.

    Returns:
        Inputs of shape (count, channels, height, width), uint8; targets of shape (count,), int64.

    Raises:
        DataError: no folder was given, or a file is missing, damaged, or holds something else.
    """
    shards = _find_shards(dataset, folder, split)
    images, labels = zip(*(_read_shard(dataset, shard) for shard in shards), strict=True)
    return Examples(torch.cat(images), torch.cat(labels))


def _find_shards(dataset: ImageDataset, folder: Path | None, split: str) -> list[Path]:
    if folder is None:
        raise DataError(f"{dataset.title} is not part of gossamer: give its folder with --data DIR. {_where(dataset)}")
    if not folder.is_dir():
        raise DataError(f"--data {folder}: there is no such folder. {_where(dataset)}")
    inside = folder / dataset.folder_name
    folder = inside if inside.is_dir() else folder
    shards = {path: match for path in sorted(folder.iterdir()) if (match := SHARD.fullmatch(path.name))}
    shards = {path: match for path, match in shards.items() if match["split"] == split}
    if not shards:
        raise DataError(f"{folder}: found no file {split}-00000-of-00001.parquet. {_where(dataset)}")
    counts = sorted({int(match["count"]) for match in shards.values()})
    if len(counts) > 1:
        raise DataError(f"{folder}: the {split} files belong to sets of {counts} files; expected those of one set")
    present = {int(match["index"]) for match in shards.values()}
    missing = [index for index in range(counts[0]) if index not in present]
    if missing or len(present) > counts[0]:
        names = ", ".join(f"{split}-{index:05}-of-{counts[0]:05}.parquet" for index in missing[:3])
        raise DataError(f"{folder}: expected {counts[0]} {split} files, got {len(present)}; missing: {names or 'none'}")
    return list(shards)


def _where(dataset: ImageDataset) -> str:
    name = dataset.folder_name
    return (
        f"Get it from the Hugging Face hub, for example: hf download {dataset.hub_name} --repo-type dataset "
        f"--local-dir {name}. DIR (or DIR/{name}, or the folder of the files) then holds "
        "train-00000-of-0000N.parquet ... and test-00000-of-0000N.parquet ..., with the columns "
        f"{dataset.image_column} {{bytes, path}} and label."
    )


def _read_shard(dataset: ImageDataset, path: Path) -> tuple[Tensor, Tensor]:
    arrow, parquet = optional_module("pyarrow"), optional_module("pyarrow.parquet")
    images: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(dataset, path, file.schema_arrow, arrow)
            for rows in file.iter_batches(columns=[dataset.image_column, "label"]):
                first_row = sum(map(len, labels))
                labels.append(_checked_labels(dataset, path, rows.column(1), first_row))
                images.append(_decoded_images(dataset, path, rows.column(0), first_row))
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({_one_line(error)}). Download it again.") from error
    if not images:
        raise DataError(f"{path}: holds no examples. Download it again.")
    return torch.cat(images), torch.cat(labels)


def _check_columns(dataset: ImageDataset, path: Path, schema: Any, arrow: Any) -> None:
    types = {name: schema.field(name).type for name in schema.names if schema.names.count(name) == 1}
    image = types.get(dataset.image_column)
    if not _holds_bytes(image, arrow):
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items()) or "none"
        raise DataError(
            f"{path}: expected a column {dataset.image_column} {{bytes, path}} of encoded "
            f"images; got the columns: {found}"
        )
    label = types.get("label")
    if label is None or not arrow.types.is_integer(label):
        raise DataError(f"{path}: expected a column label of whole numbers; got {label or 'no such column'}")


def _holds_bytes(column: Any, arrow: Any) -> bool:
    if column is None or not arrow.types.is_struct(column) or column.get_field_index("bytes") < 0:
        return False
    return bool(arrow.types.is_binary(column.field("bytes").type))


def _checked_labels(dataset: ImageDataset, path: Path, column: Any, first_row: int) -> Tensor:
    for row, label in enumerate(column.to_pylist(), first_row):
        if label is None or not 0 <= label < dataset.classes:
            raise DataError(f"{path}: the label of row {row} is {label}; expected 0 to {dataset.classes - 1}")
    return torch.from_numpy(column.to_numpy(zero_copy_only=False).astype(np.int64))


def _decoded_images(dataset: ImageDataset, path: Path, column: Any, first_row: int) -> Tensor:
    # One thread: Pillow holds the interpreter lock for most of a small image (two threads took 1.2 times as long).
    images = optional_module("PIL.Image")
    pixels = np.empty((len(column), dataset.height, dataset.width, dataset.channels), np.uint8)
    for row, struct in enumerate(column.to_pylist()):
        encoded = None if struct is None else struct["bytes"]
        pixels[row] = _decoded(dataset, path, encoded, first_row + row, images)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _decoded(dataset: ImageDataset, path: Path, encoded: bytes | None, row: int, images: Any) -> Pixels:
    """The pixels of one image, of shape (height, width, channels). `images` is the module PIL.Image."""
    if not encoded:
        raise DataError(f"{path}: row {row} holds no image")
    if len(encoded) > LARGEST_ENCODED_IMAGE:
        raise DataError(f"{path}: the image of row {row} has {len(encoded)} bytes; expected a small PNG")
    try:
        # Size and mode stand in the header: they are compared before anything is inflated.
        image = images.open(io.BytesIO(encoded), formats=("PNG",))
        if (image.height, image.width, image.mode) != (dataset.height, dataset.width, dataset.mode):
            raise DataError(
                f"{path}: the image of row {row} is {image.height}x{image.width} {image.mode}; "
                f"expected {dataset.height}x{dataset.width} {dataset.mode}"
            )
        pixels = np.asarray(image)
    # Pillow raises many kinds for a damaged file (OSError, SyntaxError, ValueError, struct.error, zlib.error, ...).
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: the image of row {row} cannot be decoded ({_one_line(error)})") from error
    return pixels.reshape(dataset.height, dataset.width, dataset.channels)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
