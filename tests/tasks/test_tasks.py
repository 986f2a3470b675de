"""The built-in tasks: their models' sizes as published, their data, their training."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from gossamer.prune.prunable import count_parameters, prunable_weights
from gossamer.tasks import TASKS, Data, DataError, evaluate, initial_model, train
from gossamer.tasks.digits import jittered

PRUNABLE = {
    "lenet-300-100": 784 * 300 + 300 * 100 + 100 * 10,  # 266,200
    "digits": 9 * 16 + 9 * 16 * 32 + 128 * 128 + 128 * 10,
}


@pytest.mark.parametrize("name", PRUNABLE)
def test_prunable_weights(name: str) -> None:
    assert sum(weight.numel() for weight in prunable_weights(TASKS[name].model()).values()) == PRUNABLE[name]


@pytest.mark.parametrize(
    ("name", "variance", "largest"),
    [
        ("lenet-300-100", 2.0, math.inf),
        ("digits", 2.0, math.inf),
        ("resnet-20", 2.0, math.inf),
        # Uniform on both sides of zero.
        ("lenet-5", 1.0, math.sqrt(3.0)),
    ],
)
def test_initial_weights_have_the_variance_that_is_stated(name: str, variance: float, largest: float) -> None:
    """As He et al. (2015) for ReLU, normal with variance 2 / fan-in; LeNet-5 as Caffe's "xavier": 1 / fan-in."""
    model = initial_model(TASKS[name], seed=0)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            scaled = layer.weight.detach() * math.sqrt(layer.weight[0].numel())
            assert float(scaled.square().mean()) == pytest.approx(variance, rel=6 / math.sqrt(scaled.numel()))
            assert float(scaled.abs().max()) <= largest
            assert largest < math.inf or float(scaled.abs().max()) > 2.5 * math.sqrt(variance)
            assert layer.bias is None or not layer.bias.any()


def test_layers_in_their_order() -> None:
    kinds = [type(layer).__name__ for layer in TASKS["lenet-300-100"].model()]
    assert kinds == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    drops = {layer.p for layer in TASKS["char-gpt"].model().modules() if isinstance(layer, nn.Dropout)}
    assert drops == {0.1}


def test_lenet_300_100_has_410_biases() -> None:
    assert count_parameters(TASKS["lenet-300-100"].model()) == 266_200 + 410


def sizes(data: Data) -> list[int]:
    return [len(split) for split in (data.train, data.validation, data.test)]


def rows(inputs: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in inputs}


def test_digits() -> None:
    data = TASKS["digits"].data(None)
    assert sizes(data) == [1197, 200, 400]
    assert rows(data.train.inputs).isdisjoint(rows(data.validation.inputs) | rows(data.test.inputs))
    assert rows(data.validation.inputs).isdisjoint(rows(data.test.inputs))
    assert data.train.inputs.shape[1:] == (1, 8, 8)
    assert (data.train.inputs.min(), data.train.inputs.max()) == (-1, 1)
    assert data.test.targets.unique().tolist() == list(range(10))
    again = TASKS["digits"].data(None)
    assert torch.equal(data.test.inputs, again.test.inputs)


def test_digits_takes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="digits brings its own data"):
        TASKS["digits"].data(tmp_path)


def test_digits_are_learnt_in_one_round() -> None:
    task = TASKS["digits"]
    data = task.data(None)
    model = initial_model(task, seed=0)
    list(train(model, task.recipe.optimizer(model), task.recipe, data.train, seed=0))
    assert evaluate(model, data.test, task.metric) > 0.97


def test_jitter_moves_the_ink_and_keeps_the_background() -> None:
    images = TASKS["digits"].data(None).train.inputs[:200]
    moved = jittered(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert moved.min() >= -1 - 1e-6
    assert moved.max() <= 1 + 1e-6
    assert not torch.allclose(moved, images, atol=0.1)
    background = torch.full((5, 1, 8, 8), -1.0)
    assert torch.equal(jittered(background, torch.Generator().manual_seed(0)), background)
    ink = (images + 1).sum(dim=(1, 2, 3))
    # Scaling by up to a tenth each way changes the area by up to about a fifth; some ink leaves the image.
    assert (((moved + 1).sum(dim=(1, 2, 3)) / ink - 1).abs() < 0.4).all()


def test_mnist(real_data: Path) -> None:
    data = TASKS["lenet-300-100"].data(real_data)
    assert sizes(data) == [55_000, 5_000, 10_000]
    together = torch.cat([data.train.inputs, data.validation.inputs])
    # The published mean and standard deviation of the training images, 0.1307 and 0.3081, to four digits.
    assert together.mean().item() == pytest.approx(0, abs=3e-4)
    assert together.std().item() == pytest.approx(1, abs=3e-4)
    # The classes of the test set are not equally many: 980 zeros, 1135 ones, ... 1009 nines.
    expected = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.test.targets.bincount().tolist() == expected


@pytest.mark.parametrize("name", ["lenet-300-100"])
def test_data_that_are_not_there(name: str) -> None:
    with pytest.raises(DataError, match=r"MNIST is not part of gossamer: .*--data DIR.*ylecun/mnist"):
        TASKS[name].data(None)
