"""CIFAR-10: the files, and what is done to the images, against numpy."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gossamer.tasks import DataError
from gossamer.tasks import cifar10 as module
from gossamer.tasks.cifar10 import CIFAR10, cifar10, cropped_and_flipped, standardised
from gossamer.tasks.hub_images import load_split

GENERATOR = np.random.default_rng(0)


def write_shard(path: Path, images: list[np.ndarray], labels: list[int]) -> None:
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pa.table({"img": encoded, "label": labels}), path)


def test_reads_the_hubs_layout(tmp_path: Path) -> None:
    images = [GENERATOR.integers(256, size=(32, 32, 3), dtype=np.uint8) for _ in range(4)]
    write_shard(tmp_path / "train-00000-of-00002.parquet", images[:3], [3, 9, 0])
    write_shard(tmp_path / "train-00001-of-00002.parquet", images[3:], [7])
    examples = load_split(CIFAR10, tmp_path, "train")
    assert examples.targets.tolist() == [3, 9, 0, 7]
    np.testing.assert_array_equal(examples.inputs.numpy(), np.stack(images).transpose(0, 3, 1, 2))


def test_without_data_says_where_to_get_them() -> None:
    with pytest.raises(DataError, match=r"CIFAR-10 is not part of gossamer: .*--data DIR.*uoft-cs/cifar10.*img"):
        cifar10(None)


def test_standardised_equals_numpy() -> None:
    images = GENERATOR.integers(256, size=(7, 3, 32, 32), dtype=np.uint8)
    images[4] = GENERATOR.integers(100, 103, size=(3, 32, 32))
    values = images.astype(np.float64)
    expected = [(image - image.mean()) / max(image.std(), 1 / np.sqrt(3 * 32 * 32)) for image in values]
    np.testing.assert_allclose(standardised(torch.from_numpy(images)).numpy(), expected, atol=2e-5)


def test_an_image_of_one_colour_becomes_zeros() -> None:
    images = torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)
    assert torch.equal(standardised(images), torch.zeros(2, 3, 32, 32))


def every_crop(image: np.ndarray) -> dict[bytes, tuple[int, int, bool]]:
    """All 162 images that one can become -> how far from the top and the left, and whether mirrored."""
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
    crops = {}
    for top in range(9):
        for left in range(9):
            crop = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
            crops[crop.tobytes()] = (top, left, False)
            crops[crop[:, :, ::-1].tobytes()] = (top, left, True)
    return crops


@given(seed=st.integers(0, 1000), height=st.integers(1, 12), width=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_every_image_becomes_one_of_its_own_crops(seed: int, height: int, width: int) -> None:
    images = np.random.default_rng(seed).integers(1, 256, size=(6, 3, height, width), dtype=np.uint8)
    moved = cropped_and_flipped(torch.from_numpy(images), torch.Generator().manual_seed(seed))
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    assert all(after.numpy().tobytes() in every_crop(before) for before, after in zip(images, moved, strict=True))


def test_every_crop_comes_up_equally_often() -> None:
    image = GENERATOR.integers(1, 256, size=(3, 16, 16), dtype=np.uint8)
    crops = every_crop(image)
    assert len(crops) == 162
    moved = cropped_and_flipped(torch.from_numpy(image).repeat(16_200, 1, 1, 1), torch.Generator().manual_seed(0))
    counts = dict.fromkeys(crops.values(), 0)
    for after in moved.numpy():
        counts[crops[after.tobytes()]] += 1
    # 100 of each are expected, give or take 10; six times that is never seen by chance.
    assert min(counts.values()) > 40
    assert max(counts.values()) < 160


def test_the_generator_decides() -> None:
    images = torch.from_numpy(GENERATOR.integers(256, size=(64, 3, 32, 32), dtype=np.uint8))
    moved = [cropped_and_flipped(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


def test_some_images_of_the_training_files_are_for_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 5,000 would have to be written.
    assert module.VALIDATION_EXAMPLES == 5000
    monkeypatch.setattr(module, "VALIDATION_EXAMPLES", 2)
    for split, count in (("train", 5), ("test", 4)):
        images = [GENERATOR.integers(256, size=(32, 32, 3), dtype=np.uint8) for _ in range(count)]
        write_shard(tmp_path / f"{split}-00000-of-00001.parquet", images, list(range(count)))
    data = cifar10(tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [3, 2, 4]
    assert sorted([*data.train.targets.tolist(), *data.validation.targets.tolist()]) == [0, 1, 2, 3, 4]
    assert data.test.targets.tolist() == [0, 1, 2, 3]
    for part in (data.train, data.validation, data.test):
        inputs, targets = part.batch(slice(0, 2))
        torch.testing.assert_close(inputs, standardised(part.inputs[:2]))
        assert torch.equal(targets, part.targets[:2])


@pytest.mark.slow
def test_the_real_files(real_data: Path) -> None:
    data = cifar10(real_data)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [45_000, 5_000, 10_000]
    assert data.test.targets.bincount().tolist() == [1000] * 10
    together = torch.cat([data.train.inputs, data.validation.inputs])
    assert (data.train.targets.bincount() + data.validation.targets.bincount()).tolist() == [5000] * 10
    # The published means and standard deviations of the training images, a channel at a time.
    for channel, (mean, deviation) in enumerate(((0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616))):
        values = together[:, channel].float() / 255
        assert values.mean().item() == pytest.approx(mean, abs=1e-4)
        assert values.std().item() == pytest.approx(deviation, abs=1e-4)
    inputs, _ = data.validation.batch(slice(0, 10))
    assert inputs.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(inputs.std(dim=(1, 2, 3), correction=0), torch.ones(10))
