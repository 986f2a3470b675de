import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from gossamer.errors import GossamerError
from gossamer.tasks import DataError
from gossamer.tasks.hub_images import ImageDataset, load_split

GREY = ImageDataset("Tiny", "somebody/tiny", "tiny", "image", "L", height=2, width=3, classes=4)
COLOUR = replace(GREY, mode="RGB")
PIXELS = np.array([[[0, 1, 2], [3, 4, 255]], [[9, 8, 7], [6, 5, 4]]], np.uint8)


def png(pixels: NDArray[np.uint8], mode: str | None = None) -> bytes:
    """The pixels, of shape (height, width) or (height, width, 3), as a PNG file."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, encoded: Sequence[bytes | None], labels: Sequence[object], column: str = "image") -> None:
    """One parquet file as the hub has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(encoded)])
    pq.write_table(pa.table({column: images, "label": pa.array(labels)}), path)


def test_reads_the_pixels_and_labels_of_all_shards_in_order(tmp_path: Path) -> None:
    write_shard(tmp_path / "test-00000-of-00002.parquet", [png(PIXELS[0])], [3])
    write_shard(tmp_path / "test-00001-of-00002.parquet", [png(PIXELS[1]), png(PIXELS[0])], [0, 1])
    examples = load_split(GREY, tmp_path, "test")
    assert examples.inputs.tolist() == [[PIXELS[0].tolist()], [PIXELS[1].tolist()], [PIXELS[0].tolist()]]
    assert examples.inputs.dtype == torch.uint8
    assert examples.targets.tolist() == [3, 0, 1]
    assert examples.targets.dtype == torch.int64


def test_colours_come_first(tmp_path: Path) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    write_shard(tmp_path / "tiny" / "train-00000-of-00001.parquet", [png(pixels)], [2])
    examples = load_split(COLOUR, tmp_path, "train")  # the folder inside a folder of several data sets
    assert examples.inputs[0, 1].tolist() == [[1, 4, 7], [10, 13, 16]]


def test_without_a_folder_says_what_to_get_and_where() -> None:
    with pytest.raises(
        DataError, match=r"Tiny.*--data DIR.*hf download somebody/tiny.*image \{bytes, path\} and label"
    ):
        load_split(GREY, None, "train")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "found no file train-00000-of-00001.parquet"),
        (
            ["train-00000-of-00003", "train-00002-of-00003"],
            "expected 3 train files, got 2; missing: train-00001-of-00003",
        ),
        (["train-00000-of-00001", "train-00000-of-00002"], r"sets of \[1, 2\] files"),
        (["train-00000-of-00001", "train-00001-of-00001"], "expected 1 train files, got 2"),
    ],
)
def test_incomplete_folders(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        write_shard(tmp_path / f"{name}.parquet", [png(PIXELS[0])], [0])
    with pytest.raises(DataError, match=message):
        load_split(GREY, tmp_path, "train")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        load_split(GREY, tmp_path / "nowhere", "train")


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (png(PIXELS[0]), 4, "label of row 1 is 4; expected 0 to 3"),
        (png(PIXELS[0]), -1, "label of row 1 is -1"),
        (png(PIXELS[0]), None, "label of row 1 is None"),
        (png(PIXELS[0].T.copy()), 0, "image of row 1 is 3x2 L; expected 2x3 L"),
        (png(PIXELS[0], "RGB"), 0, "image of row 1 is 2x3 RGB; expected 2x3 L"),
        (png(PIXELS[0])[:-28], 0, "image of row 1 cannot be decoded"),
        (png(PIXELS[0])[:40], 0, "image of row 1 cannot be decoded"),
        (b"GIF89a", 0, "image of row 1 cannot be decoded"),
        (None, 0, "row 1 holds no image"),
        (b"\x89PNG" + bytes(1 << 20), 0, "expected a small PNG"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, image: bytes | None, label: int | None, message: str) -> None:
    write_shard(tmp_path / "train-00000-of-00001.parquet", [png(PIXELS[0]), image], [0, label])
    with pytest.raises(DataError, match=message) as caught:
        load_split(GREY, tmp_path, "train")
    assert "train-00000-of-00001.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0]}, r"expected a column image .* got the columns: label \(int64\)"),
        ({"image": [b"x"], "label": [0]}, "expected a column image"),
        ({"image": [{"path": "x"}], "label": [0]}, "expected a column image"),
        ({"image": [{"bytes": "x"}], "label": [0]}, "expected a column image"),
        ({"image": [{"bytes": b"x"}]}, "expected a column label of whole numbers; got no such column"),
        ({"image": [{"bytes": b"x"}], "label": ["cat"]}, "expected a column label of whole numbers; got string"),
        ({"image": pa.array([], pa.struct({"bytes": pa.binary()})), "label": pa.array([], pa.int64())}, "no examples"),
    ],
)
def test_other_columns(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=message):
        load_split(GREY, tmp_path, "train")


@pytest.mark.parametrize("damage", [0, 10, -30, None])
def test_damaged_parquet(tmp_path: Path, damage: int | None) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    write_shard(path, [png(PIXELS[0])] * 50, [0] * 50)
    content = path.read_bytes()
    # None: every page's bytes are replaced, the footer stays.
    path.write_bytes(content[:4] + b"\xff" * 400 + content[404:] if damage is None else content[:damage])
    with pytest.raises(GossamerError, match=r"train-00000-of-00001\.parquet"):
        load_split(GREY, tmp_path, "train")
