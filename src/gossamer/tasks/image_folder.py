"""A folder of images, DIR/train/CLASS/*.jpg, as a task: found, checked, decoded by workers while they are used.

Names of folders are the classes. Nothing in the folder is imported or unpickled; an image that cannot be decoded is
told by its name.
"""

import functools
import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gossamer.errors import GossamerWarning
from gossamer.tasks.batch import Batch, as_batch
from gossamer.tasks.built_in import BuiltIn
from gossamer.tasks.errors import DataError
from gossamer.tasks.loaded import Loaded
from gossamer.tasks.optimizers import SelectiveSGD
from gossamer.tasks.requirements import optional_module
from gossamer.tasks.resnet import Depth, ResNet
from gossamer.tasks.schedules import Steps, WarmUp
from gossamer.tasks.splits import VALIDATION, rows_aside
from gossamer.tasks.task import Data, Recipe, Task

ENDINGS, FORMATS = (".jpg", ".jpeg", ".png"), ("JPEG", "PNG")
OTHER_ENDINGS = (".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".heic", ".avif", ".jp2", ".ppm", ".pgm")
"""Of images that are not read."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's names of the kinds of pixel that become RGB without loss of range."""
MOST_PIXELS = 1 << 27
"""134 million. An image that claims more is not decoded."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, by channel, with 1 for white."""
FULL_SIZE = 224
"""Pixels of a side of the network's input; less for images that are smaller."""
SMALL = 64
"""Images below it are read by the network's stem for small ones."""
FEW = 1000
"""So many training images are read by the training itself, without workers."""
MOST_WORKERS = 8
LARGEST_BATCH, LEAST_BATCH, LEAST_STEPS = 1024, 16, 64
"""The paper's batch is halved until an epoch has `LEAST_STEPS` steps."""
RATE = 0.4
"""The learning rate of a batch of `LARGEST_BATCH`; of smaller ones in proportion (Goyal et al., 2017)."""
WHERE = "Expected DIR/train/CLASS/*.jpg or .png, with as many folders CLASS as classes, and DIR/val and DIR/test alike."


@dataclass(frozen=True)
class Images(Dataset[tuple[Tensor, int]]):
    """Images of one split, decoded when they are asked for: bytes of shape (3, size, size), and the class."""

    paths: Sequence[Path]
    labels: Sequence[int]
    size: int
    augment: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = decoded(self.paths[row])
        cut = random_crop(image, self.size) if self.augment else central_crop(image, self.size)
        return torch.from_numpy(np.array(cut)).permute(2, 0, 1), self.labels[row]


@dataclass(frozen=True)
class ImageFolder:
    """What a folder holds, found without decoding an image."""

    classes: tuple[str, ...]
    train: Images
    validation: Images
    test: Images | None

    def data(self) -> Data:
        """The splits, read by workers where there are many images."""
        workers = 0 if len(self.train) < FEW else min(MOST_WORKERS, os.cpu_count() or 1)
        test = None if self.test is None else Loaded(self.test, workers)
        train = Loaded(self.train, workers, unaugmented=replace(self.train, augment=False))
        return Data(train, Loaded(self.validation, workers), test, batch=standardised)


def image_task(entry: BuiltIn, depth: Depth) -> Task:
    """The task of a ResNet of this depth on a folder of images; what depends on the folder is made when it is known."""
    return Task(
        name=entry.name,
        description=entry.description,
        model=functools.partial(ResNet, depth),
        data=lambda folder: find_images(folder).data(),
        recipe=recipe(entry.epochs, LARGEST_BATCH),
        for_data=lambda folder: _for_folder(entry, depth, find_images(folder)),
    )


def recipe(epochs: int, batch_size: int) -> Recipe:
    """The paper's recipe for ImageNet: 90 epochs in batches of 1,024, a learning rate that warms up over 5 epochs to
    0.4 and is divided by 10 after 30, 60 and 80, weight decay on all but BatchNorm. With smaller batches the rate is
    smaller in proportion."""
    peak = RATE * batch_size / LARGEST_BATCH
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=WarmUp(Steps(first=peak, milestones=(30 / 90, 60 / 90, 80 / 90)), share=5 / 90),
        optimizer=SelectiveSGD(momentum=0.9, nesterov=True, weight_decay=1e-4),
        bfloat16=True,
        channels_last=True,
    )


def find_images(folder: Path | None) -> ImageFolder:
    """The images of a folder by split and class, and the size that the network reads them in.

    Raises:
        DataError: no folder was given, it holds something else, or a class has no images.

    Warns:
        GossamerWarning: images in it are not read, being of another format or in no class.
    """
    if folder is None:
        raise DataError(f"this task needs a folder of images: give it with --data DIR. {WHERE}")
    if not (folder / "train").is_dir():
        raise DataError(f"--data {folder}: there is no folder {folder / 'train'}. {WHERE}")
    classes = tuple(sorted(path.name for path in _folders(folder / "train")))
    if len(classes) < 2:
        raise DataError(f"{folder / 'train'} holds {len(classes)} folders; expected one for each class. {WHERE}")
    paths, labels = _listed(folder / "train", classes)
    one_of_each = dict(zip(labels, paths, strict=True))
    empty = [name for index, name in enumerate(classes) if index not in one_of_each]
    if empty:
        raise DataError(f"{folder / 'train' / empty[0]} holds no .jpg or .png. {WHERE}")
    size = _size(list(one_of_each.values()))
    train = Images(paths, labels, size, augment=True)
    there = [folder / name for name in VALIDATION if (folder / name).is_dir()]
    if len(there) > 1:
        raise DataError(f"{there[0]} and {there[1]} are both there; expected one folder of validation images")
    named = there[0] if there else None
    if named is None:
        train, validation = _set_aside(train)
    else:
        validation = Images(*_listed(named, classes), size)
    test = Images(*_listed(folder / "test", classes), size) if (folder / "test").is_dir() else None
    for where, split in {named or folder / "train": validation, folder / "test": test}.items():
        if split is not None and len(split) == 0:
            raise DataError(f"{where} holds no images. {WHERE}")
    return ImageFolder(classes, train, validation, test)


def decoded(path: Path) -> Any:
    """An image in RGB.

    Raises:
        DataError: it cannot be decoded, or is of a kind that would lose its range; the message names it.
    """
    images = optional_module("PIL.Image")
    try:
        with path.open("rb") as file:
            # Of the two formats alone, whatever else Pillow could read; size and mode stand in the header.
            image = images.open(file, formats=FORMATS)
            if image.width * image.height > MOST_PIXELS:
                size = f"{image.width} x {image.height}"
                raise DataError(f"{path}: claims {size} pixels; expected at most {MOST_PIXELS:,}")
            if image.mode not in MODES:
                raise DataError(f"{path}: its pixels are {image.mode}; expected 8 bits a channel. Convert it first.")
            # Pillow wants a palette's transparency to go this way.
            return (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
    except DataError:
        raise
    # Pillow raises many kinds for a damaged file (OSError, SyntaxError, ValueError, struct.error, zlib.error, ...).
    except Exception as error:
        raise DataError(f"{path}: cannot be decoded ({' '.join(str(error).split())[:200]}). Remove it.") from error


def random_crop(image: Any, size: int) -> Any:
    """A part of the image of random size, ratio and position, scaled to a square and mirrored in half the cases
    (Szegedy et al., 2015): 8 to 100% of the area, a quarter at least of small images, ratios of 3/4 to 4/3. Python's
    random numbers are drawn."""
    images = optional_module("PIL.Image")
    least = 0.08 if size >= FULL_SIZE else 0.25
    box = (0.0, 0.0, float(image.width), float(image.height))
    for _ in range(10):
        area = image.width * image.height * random.uniform(least, 1.0)
        ratio = float(np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3))))
        width, height = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        if width <= image.width and height <= image.height:
            left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
            box = (left, top, left + width, top + height)
            break
    cut = image.resize((size, size), images.Resampling.BILINEAR, box=box)
    return cut.transpose(images.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else cut


def central_crop(image: Any, size: int) -> Any:
    """The middle of the image: its shorter side is scaled to 256 pixels, of which 224 are left, as is usual for
    ImageNet; to the size itself for smaller images."""
    images = optional_module("PIL.Image")
    shorter = size * 256 // 224 if size >= FULL_SIZE else size
    scale = min(image.width, image.height) / shorter
    side = size * scale
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), images.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def standardised(loaded: Any) -> Batch:
    """A batch with its images in float32, less the mean of ImageNet's pixels and divided by their deviation."""
    batch = as_batch(loaded)
    (images,) = batch.positional
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return replace(batch, positional=((images.float() / 255 - mean) / deviation,))


def batch_size_for(examples: int) -> int:
    """The paper's, halved until an epoch has enough steps."""
    size = LARGEST_BATCH
    while size > LEAST_BATCH and examples // size < LEAST_STEPS:
        size //= 2
    return size


def _for_folder(entry: BuiltIn, depth: Depth, found: ImageFolder) -> Task:
    model: Callable[[], nn.Module] = functools.partial(
        ResNet, depth, len(found.classes), small=found.train.size < SMALL
    )
    return Task(
        name=entry.name,
        description=entry.description,
        model=model,
        data=lambda folder: found.data(),
        recipe=recipe(entry.epochs, batch_size_for(len(found.train))),
        classes=found.classes,
    )


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in _visible(folder) if path.is_dir())


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _listed(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """The images of a split with their classes, in the order of their names; those that are left out are told."""
    paths, labels, left_out = [], [], list[Path]()
    for inside in sorted(_folders(folder)):
        if inside.name not in classes:
            raise DataError(f"{inside} is no class of the training images; expected {', '.join(classes[:10])} ...")
        for path in sorted(_files(inside)):
            if path.suffix.lower() in ENDINGS and path.is_file():
                paths.append(path)
                labels.append(classes.index(inside.name))
            elif path.suffix.lower() in ENDINGS + OTHER_ENDINGS:
                left_out.append(path)
    left_out += (path for path in _visible(folder) if path.suffix.lower() in ENDINGS + OTHER_ENDINGS and path.is_file())
    if left_out:
        warnings.warn(
            f"{folder}: {len(left_out):,} images are not read, such as {left_out[0]}; expected .jpg or .png in the "
            f"folder of a class",
            GossamerWarning,
            stacklevel=2,
        )
    return paths, labels


def _files(folder: Path) -> Iterator[Path]:
    """What lies in a folder and in those inside it, but for what is hidden."""
    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(inside, name) for name in names if not name.startswith("."))


def _size(some: Sequence[Path]) -> int:
    """The side of the network's input: 224 pixels, or as many as the shorter side of the smallest of some images has,
    in steps of 8."""
    smallest: int = min(min(decoded(path).size) for path in some)
    if smallest < 8:
        raise DataError(f"an image is {smallest} pixels wide or high; expected at least 8. Enlarge the images first.")
    return min(FULL_SIZE, smallest // 8 * 8)


def _set_aside(train: Images) -> tuple[Images, Images]:
    """The training images without a share of them, and those, as validation; the same ones in every run."""
    rest, aside = rows_aside(len(train))

    def of(rows: list[int], augment: bool) -> Images:
        return Images([train.paths[row] for row in rows], [train.labels[row] for row in rows], train.size, augment)

    return of(rest, True), of(aside, False)
