"""A folder of images as a task."""

import hashlib
import importlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gossamer
from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.record import RoundRecord
from gossamer.loop.stop import Stop
from gossamer.prune.layers import CONVOLUTIONS
from gossamer.tasks import TASKS, DataError, SelectiveSGD, WarmUp
from gossamer.tasks.image_folder import batch_size_for, central_crop, decoded, find_images, random_crop, standardised
from gossamer.tasks.loading import load_data
from gossamer.tasks.resnet import Depth, ResNet
from gossamer.tasks.sample import chosen_batches
from gossamer.tasks.schedules import Linear
from gossamer.tasks.training import EpochReport

images = pytest.importorskip("PIL.Image")
NAME = "image-folder-resnet-18"
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def paint(path: Path, colour: Any, size: tuple[int, int] = (16, 16), mode: str = "RGB", **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.new(mode, size, colour).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, 4 training images each and 2 of the other splits."""
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        for name, colour in COLOURS.items():
            for number in range(count):
                paint(tmp_path / split / name / f"{number}.png", colour)
    return tmp_path


def test_training_images_are_looked_at_without_augmentation(folder: Path) -> None:
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        images.fromarray(noise).save(folder / "train" / "red" / f"{number}.png")
    train = load_data(TASKS[NAME], folder, 0).train
    (drawn,) = chosen_batches(train, 100, seed=0)
    pixels = [np.array(central_crop(decoded(path), 16)) for path in find_images(folder).train.paths]
    whole = standardised((torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), drawn.targets)).positional[0]
    assert torch.equal(drawn.positional[0], whole)


def test_what_is_in_a_folder(folder: Path) -> None:
    found = find_images(folder)
    assert found.classes == ("blue", "green", "red")
    assert found.test is not None
    assert [len(split) for split in (found.train, found.validation, found.test)] == [12, 6, 6]
    assert list(found.validation.labels) == [0, 0, 1, 1, 2, 2]
    image, label = found.validation[5]
    assert (image.shape, image.dtype, label) == ((3, 16, 16), torch.uint8, 2)
    assert image.flatten(1).float().mean(1).tolist() == [255, 0, 0]


def test_a_batch_is_standardised_by_the_pixels_of_imagenet(folder: Path) -> None:
    data = load_data(TASKS[NAME].at(folder), folder, seed=0)
    first = next(iter(data.validation.once(lambda *purpose: 0)))
    expected = torch.tensor([(0 - 0.485) / 0.229, (0 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert torch.allclose(first.positional[0][0].flatten(1).mean(1), expected)
    bytes_of_black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert standardised((bytes_of_black, torch.tensor([1, 0]))).targets.tolist() == [1, 0]


def test_the_network_is_that_of_the_folder(folder: Path) -> None:
    task = TASKS[NAME].at(folder)
    model = task.model()
    assert isinstance(model, ResNet)
    assert (model.fc.out_features, model.conv1.kernel_size, model.conv1.stride) == (3, (3, 3), (1, 1))
    assert task.recipe.batch_size == 16
    shutil.rmtree(folder / "train" / "red")
    for split in ("val", "test"):
        shutil.rmtree(folder / split / "red")
    for path in folder.rglob("*.png"):
        paint(path, (9, 9, 9), (70, 100))
    larger = TASKS["image-folder-resnet-50"].at(folder).model()
    assert isinstance(larger, ResNet)
    assert (larger.fc.out_features, larger.conv1.kernel_size) == (2, (7, 7))
    assert find_images(folder).train.size == 64


def test_without_validation_images_a_tenth_is_set_aside(folder: Path) -> None:
    shutil.rmtree(folder / "val")
    shutil.rmtree(folder / "test")
    first, second = find_images(folder), find_images(folder)
    assert (len(first.train), len(first.validation), first.test) == (11, 1, None)
    assert not set(first.train.paths) & set(first.validation.paths)
    assert first.validation.paths == second.validation.paths
    assert (first.train.augment, first.validation.augment) == (True, False)


@pytest.mark.parametrize(("examples", "expected"), [(1_281_167, 1024), (65_536, 1024), (50_000, 512), (500, 16)])
def test_batches_of_small_folders_are_smaller(examples: int, expected: int) -> None:
    assert batch_size_for(examples) == expected


@pytest.mark.parametrize(
    ("mode", "colour", "ending"),
    [("L", 77, "png"), ("P", 3, "png"), ("RGBA", (9, 8, 7, 0), "png"), ("CMYK", (1, 2, 3, 4), "jpg"), ("1", 1, "png")],
)
def test_every_kind_of_8_bits_becomes_rgb(mode: str, colour: Any, ending: str, tmp_path: Path) -> None:
    paint(tmp_path / f"a.{ending}", colour, mode=mode)
    image = decoded(tmp_path / f"a.{ending}")
    assert (image.mode, image.size) == ("RGB", (16, 16))


def test_a_palette_with_transparency_in_bytes(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 3, mode="P", transparency=bytes([0, 9, 255, 3]))
    assert decoded(tmp_path / "a.png").mode == "RGB"


def spoilt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def another_format(path: Path) -> None:
    images.new("RGB", (16, 16)).save(path, format="GIF")


def deep(path: Path) -> None:
    images.fromarray(np.zeros((16, 16), np.uint16)).save(path)


def enormous(path: Path) -> None:
    """A header that claims a billion pixels."""
    content = bytearray(path.read_bytes())
    content[16:24] = (40_000).to_bytes(4, "big") + (30_000).to_bytes(4, "big")
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt, "cannot be decoded"),
        (lambda path: path.write_bytes(b""), "cannot be decoded"),
        (lambda path: path.write_bytes(b"#!/bin/sh"), "cannot be decoded"),
        (another_format, "cannot be decoded"),
        (deep, "its pixels are I;16; expected 8 bits"),
        (enormous, "cannot be decoded|claims 40000 x 30000 pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_an_image_that_cannot_be_used_is_told_by_its_name(
    spoil: Callable[[Path], Any], message: str, folder: Path, tmp_path: Path
) -> None:
    path = folder / "train" / "green" / "2.png"
    spoil(path)
    with pytest.raises(DataError, match=message) as told:
        compress(
            TASKS[NAME], folder=tmp_path / "run", data_folder=folder, stop=Stop(rounds=1), training=Training(epochs=1)
        )
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_run_goes_on_with_the_classes_that_it_had(folder: Path, tmp_path: Path) -> None:
    """Outputs are numbered by the names in order, which another name would change."""

    def run(data: Path) -> None:
        training = Training(epochs=2)
        compress(TASKS[NAME], folder=tmp_path / "run", data_folder=data, stop=Stop(rounds=1), training=training)

    run(folder)
    for split in ("train", "val", "test"):
        (folder / split / "blue").rename(folder / split / "sky")
    with pytest.raises(gossamer.ConfigurationError, match=r"settings\.classes: .*blue.*red.* this one has .*sky"):
        run(folder)


def no_train(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def one_class(folder: Path) -> None:
    for name in ("red", "green"):
        shutil.rmtree(folder / "train" / name)


def empty_class(folder: Path) -> None:
    (folder / "train" / "yellow").mkdir()


def other_class(folder: Path) -> None:
    paint(folder / "val" / "yellow" / "0.png", (1, 2, 3))


def tiny(folder: Path) -> None:
    paint(folder / "train" / "red" / "3.png", (1, 2, 3), (5, 9))


def two_validations(folder: Path) -> None:
    paint(folder / "valid" / "red" / "0.png", (1, 2, 3))


def test_images_in_folders_inside_that_of_a_class(folder: Path) -> None:
    for hidden in (".ipynb_checkpoints/0.png", ".0.png"):
        paint(folder / "train" / "red" / hidden, (255, 0, 0))
    (folder / "train" / "red" / "deep").mkdir()
    (folder / "train" / "red" / "0.png").rename(folder / "train" / "red" / "deep" / "0.png")
    found = find_images(folder)
    assert (len(found.train), list(found.train.labels[8:])) == (12, [2, 2, 2, 2])


def test_images_that_are_not_read_are_told(folder: Path) -> None:
    for name in ("red/5.webp", "6.png"):
        paint(folder / "train" / name, (255, 0, 0))
    (folder / "train" / "red" / "7.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "train" / "red" / "notes.txt").write_text("none")
    with pytest.warns(gossamer.GossamerWarning, match=r"train: 3 images are not read, such as .*; expected .jpg"):
        assert len(find_images(folder).train) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_train, r"there is no folder .*train\. Expected DIR/train/CLASS"),
        (one_class, "train holds 1 folders; expected one for each class"),
        (empty_class, "yellow holds no .jpg or .png"),
        (other_class, "yellow is no class of the training images; expected blue, green, red"),
        (tiny, "an image is 5 pixels wide or high; expected at least 8"),
        (two_validations, "val and .*valid are both there; expected one folder of validation images"),
    ],
)
def test_folders_that_are_none_of_images(change: Callable[[Path], None], message: str, folder: Path) -> None:
    change(folder)
    with pytest.raises(DataError, match=message):
        TASKS[NAME].at(folder)


def test_no_folder() -> None:
    with pytest.raises(DataError, match="needs a folder of images: give it with --data DIR"):
        TASKS[NAME].at(None)


def test_crops(tmp_path: Path) -> None:
    """Against a gradient: where in it the crop was taken."""
    ramp = images.fromarray(np.tile(np.arange(256, dtype=np.uint8), (128, 1)))
    middle = np.array(central_crop(ramp, 32))
    assert middle.shape == (32, 32)
    # The middle 128 of 256 columns, each pixel the mean of four.
    assert middle[0, 0] == pytest.approx(65.5, abs=1)
    assert middle[0, -1] == pytest.approx(189.5, abs=1)
    several = [np.array(random_crop(ramp, 32)).astype(int) for _ in range(40)]
    widths = [abs(crop[0, -1] - crop[0, 0]) for crop in several]
    assert {crop.shape for crop in several} == {(32, 32)}
    assert min(widths) < 120 < max(widths)
    assert {bool(crop[0, 0] < crop[0, -1]) for crop in several} == {True, False}


def test_the_schedule_of_the_paper() -> None:
    rate = TASKS[NAME].recipe.learning_rate
    epochs = {0: 0.0, 2.5: 0.2, 5: 0.4, 29.9: 0.4, 30: 0.04, 60: 0.004, 80: 0.0004}
    assert [rate(epoch / 90) for epoch in epochs] == pytest.approx(list(epochs.values()))
    falling = WarmUp(Linear(1.0), 0.1)
    assert [falling(progress) for progress in (0.0, 0.05, 0.1, 0.55, 1.0)] == pytest.approx([0, 0.45, 0.9, 0.45, 0])


def test_vectors_do_not_decay() -> None:
    model = ResNet(18, 10)
    optimizer = SelectiveSGD(weight_decay=1e-4)(model)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    weights = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Linear, *CONVOLUTIONS))}
    assert decayed == weights
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), (50, 25_557_032)])
def test_the_size_of_the_network(depth: Depth, parameters: int) -> None:
    """As torchvision states them."""
    assert sum(p.numel() for p in ResNet(depth).parameters()) == parameters


TORCHVISION = {
    18: "84fb10d9c6905a1cbb020b284537dc97c4f4ec55fb2a780a41152a23a2dd0e9d",
    50: "d7e4f8bb0a5363446a59c81c3887ccf66900a11651a0ae2dec96d1bb1eb6ea81",
}
"""SHA-256 of the lines "name shape" of the state_dict of torchvision 0.28's ResNets."""


@pytest.mark.parametrize("depth", [18, 50])
def test_weights_have_the_names_and_shapes_of_torchvision(depth: Depth) -> None:
    lines = (f"{name} {tuple(value.shape)}" for name, value in ResNet(depth).state_dict().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TORCHVISION[depth]


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_a_folder_made_of_cifar_10(real_data: Path, tmp_path: Path) -> None:
    """Trained, stopped and gone on with: the same bits, and better than chance."""
    importlib.import_module("pyarrow")
    import pyarrow.parquet

    rows = next(pyarrow.parquet.ParquetFile(real_data / "cifar10" / "test-00000-of-00001.parquet").iter_batches(600))
    for index, (struct, label) in enumerate(zip(rows.column(0).to_pylist(), rows.column(1).to_pylist(), strict=True)):
        if label < 2:
            path = tmp_path / "data" / "train" / f"class_{label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.open(io.BytesIO(struct["bytes"])).save(path)

    class Stopping(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            if (round.number, report.epochs_done) == (1, 1):
                raise Interrupted

    def run(folder: str, *callbacks: Callback) -> list[RoundRecord]:
        return compress(
            TASKS[NAME],
            folder=tmp_path / folder,
            data_folder=tmp_path / "data",
            stop=Stop(rounds=1),
            training=Training(epochs=2, checkpoint_seconds=0),
            callbacks=callbacks,
        )

    with pytest.raises(Interrupted):
        run("again", Stopping())
    records, again = run("whole"), run("again")
    for name in ("model.safetensors", "state.safetensors"):
        assert [record.sha256[name] for record in again] == [record.sha256[name] for record in records]
    assert [record.metrics.keys() for record in records] == [{"accuracy"}] * 2
    assert records[-1].kept < records[0].kept
