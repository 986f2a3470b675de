"""Texts cut into windows: by hand, and files that are not what they should be."""

from pathlib import Path

import pytest
import torch

from gossamer.tasks import DataError
from gossamer.tasks.text import text, windows


def write(path: Path, length: int = 1000) -> bytes:
    content = bytes(torch.randint(256, (length,), generator=torch.Generator().manual_seed(0)).tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def test_windows_by_hand() -> None:
    examples = windows(torch.tensor(list(b"abcdefgh"), dtype=torch.uint8), context=3, stride=2)
    assert [bytes(row.tolist()) for row in examples.inputs] == [b"abc", b"cde", b"efg"]
    assert [bytes(row.tolist()) for row in examples.targets] == [b"bcd", b"def", b"fgh"]
    inputs, _ = examples.batch(torch.tensor([2, 0]))
    assert inputs.dtype == torch.int64
    assert inputs.tolist() == [list(b"efg"), list(b"abc")]


def test_the_last_tenth_is_the_test_and_the_part_before_it_the_validation(tmp_path: Path) -> None:
    content = write(tmp_path / "a.txt")
    data = text(tmp_path / "a.txt", context=4, stride=1)
    assert len(data.train) == 850 - 4
    assert data.train.inputs[0].tolist() == list(content[:4])
    assert data.train.targets[-1].tolist() == list(content[846:850])
    assert data.validation.inputs.flatten().tolist() == list(content[850:898])  # 12 windows of 4
    assert data.validation.targets.flatten().tolist() == list(content[851:899])
    assert data.test.inputs.flatten().tolist() == list(content[900:996])
    assert data.test.targets[-1].tolist() == list(content[993:997])


@pytest.mark.parametrize("name", ["a.txt", "text/a.txt"])
def test_finds_the_one_text_of_a_folder(tmp_path: Path, name: str) -> None:
    content = write(tmp_path / name)
    (tmp_path / "README.md").write_text("something else")
    assert text(tmp_path, context=4, stride=4).train.inputs[0].tolist() == list(content[:4])


def test_no_text() -> None:
    with pytest.raises(DataError, match=r"needs a text: give a \.txt file, or a folder.*--data.*tinyshakespeare"):
        text(None, 4, 4)


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        ([], "nowhere", "there is no such file or folder"),
        ([], ".", r"expected one \.txt file; found none"),
        (["a.txt", "b.txt"], ".", r"expected one \.txt file; found a\.txt, b\.txt"),
        (["short.txt"], "short.txt", r"short\.txt: has 1,000 bytes; expected at least 2,020"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, names: list[str], asked: str, message: str) -> None:
    for name in names:
        write(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        text(tmp_path / asked, context=100, stride=100)
    assert "\n" not in str(caught.value)


def test_the_least_length_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", 2020)
    assert len(text(tmp_path, context=100, stride=100).validation) == 1
