"""LeNet-300-100: its size as published, the schedule replayed every round, training on hand-made images."""

import io
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.stop import Stop
from gossamer.prune.prunable import count_parameters, prunable_weights
from gossamer.tasks import TASKS, Examples, evaluate, initial_model, train
from gossamer.tasks.mnist import BLACK, VALIDATION_EXAMPLES, shifted

PEAKS = {"lenet-300-100": 0.1, "lenet-5": 0.05}
LENETS = list(PEAKS)


def weights_by_layer(name: str) -> list[int]:
    return [weight.numel() for weight in prunable_weights(TASKS[name].model()).values()]


def test_the_weights_of_lenet_300_100_are_those_of_han_et_al() -> None:
    # Han et al. (2015), table 3: 235K, 30K and 1K weights; 266K in all.
    assert weights_by_layer("lenet-300-100") == [235_200, 30_000, 1_000]
    assert count_parameters(TASKS["lenet-300-100"].model()) == 266_200 + 410


def test_the_weights_of_lenet_5_are_those_of_han_et_al() -> None:
    # Han et al. (2015), table 4: 0.5K, 25K, 400K and 5K weights; 431K in all.
    assert weights_by_layer("lenet-5") == [500, 25_000, 400_000, 5_000]
    assert count_parameters(TASKS["lenet-5"].model()) == 430_500 + 580


@pytest.mark.parametrize("name", LENETS)
def test_ten_logits_an_image(name: str) -> None:
    assert TASKS[name].model()(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_shifts_of_one_pixel() -> None:
    image = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    out = BLACK
    expected = {
        "stay": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "left": [[2, 3, out], [5, 6, out], [8, 9, out]],
        "right": [[out, 1, 2], [out, 4, 5], [out, 7, 8]],
        "up": [[4, 5, 6], [7, 8, 9], [out, out, out]],
        "down": [[out, out, out], [1, 2, 3], [4, 5, 6]],
        "up and left": [[5, 6, out], [8, 9, out], [out, out, out]],
        "up and right": [[out, 4, 5], [out, 7, 8], [out, out, out]],
        "down and left": [[out, out, out], [2, 3, out], [5, 6, out]],
        "down and right": [[out, out, out], [out, 1, 2], [out, 4, 5]],
    }
    moved = shifted(image.expand(500, -1, -1, -1), torch.Generator().manual_seed(0))
    assert moved.shape == (500, 1, 3, 3)
    counts = {name: int((moved == torch.tensor(rows)).flatten(1).all(dim=1).sum()) for name, rows in expected.items()}
    assert sum(counts.values()) == 500
    # 500 / 9 of each, give or take four standard deviations.
    assert all(27 <= count <= 84 for count in counts.values())


def test_shifts_up_to_the_most() -> None:
    dot = torch.full((2_000, 1, 9, 9), BLACK)
    dot[:, :, 4, 4] = 1
    moved = shifted(dot, torch.Generator().manual_seed(0), most=2)
    seen = {(row - 4, column - 4) for _, _, row, column in (moved == 1).nonzero().tolist()}
    assert seen == set(itertools.product(range(-2, 3), repeat=2))


@pytest.mark.parametrize("name", LENETS)
def test_every_round_replays_one_cycle_from_zero_to_the_peak_and_back(name: str) -> None:
    recipe = replace(TASKS[name].recipe, augment=None, channels_last=False)
    rates: list[float] = []

    class Recording(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])

    # Three steps an epoch, of images of one pixel.
    examples = Examples(torch.zeros(3 * recipe.batch_size, 1), torch.zeros(3 * recipe.batch_size).long())
    model = nn.Linear(1, 10)
    optimizer = Recording(model.parameters(), lr=7.0)
    for round_number in range(2):
        list(train(model, optimizer, recipe, examples, seed=0, round_number=round_number))

    steps = 3 * recipe.epochs
    peak = PEAKS[name]
    up = [peak * step / (0.2 * steps) for step in range(steps) if step < 0.2 * steps]
    down = [
        peak * (1 + math.cos(math.pi * (step / steps - 0.2) / 0.8)) / 2 for step in range(steps) if step >= 0.2 * steps
    ]
    assert rates == pytest.approx([*up, *down] * 2, abs=1e-9)


def write_split(folder: Path, split: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """One parquet file in the hub's layout."""
    encoded: list[dict[str, object]] = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    table = pa.table({"image": pa.array(encoded), "label": pa.array(labels)})
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def bars(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images whose class is the place of a bright bar, two of 28 rows high, in noise."""
    generator = np.random.default_rng(count)
    labels = generator.integers(10, size=count)
    images = generator.integers(60, size=(count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label, 4:24] = 220
    return images, labels


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in MNIST's layout with 512 images to train on beyond those set aside for validation."""
    folder = tmp_path_factory.mktemp("mnist")
    write_split(folder, "train", *bars(VALIDATION_EXAMPLES + 512))
    write_split(folder, "test", *bars(100))
    return folder


@pytest.mark.parametrize("name", LENETS)
def test_two_rounds_on_hand_made_images(name: str, hand_made: Path, tmp_path: Path) -> None:
    # Without shifts: a bar that is moved by a pixel lies half in the next class.
    task = replace(TASKS[name], recipe=replace(TASKS[name].recipe, batch_size=32, augment=None))
    dense, pruned = compress(
        task, folder=tmp_path / "run", data_folder=hand_made, stop=Stop(rounds=1), training=Training(epochs=3)
    )
    assert dense.kept == dense.prunable == sum(weights_by_layer(name))
    assert pruned.kept == math.ceil(dense.prunable * 4 / 5)
    for record in (dense, pruned):
        assert record.metric == "accuracy"
        assert record.val is not None
        assert record.val > 0.95


@pytest.mark.parametrize("name", LENETS)
def test_the_recipe_as_it_is_learns_from_real_digits(name: str, real_data: Path) -> None:
    """2,560 images, two epochs: far from the end, but well past chance."""
    data = TASKS[name].data(real_data)
    examples = Examples(data.train.inputs[:2560], data.train.targets[:2560])
    task = TASKS[name]
    recipe = replace(task.recipe, epochs=2)
    model = initial_model(task, seed=0)
    first, second = list(train(model, recipe.optimizer(model), recipe, examples, seed=0))
    assert second.loss < first.loss
    assert evaluate(model, data.validation, task.metric) > 0.85


def test_some_images_of_the_training_files_are_for_validation(hand_made: Path) -> None:
    data = TASKS["lenet-5"].data(hand_made)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [512, VALIDATION_EXAMPLES, 100]
    assert VALIDATION_EXAMPLES == 5000
