"""The demonstration: a small network on the 1,797 real handwritten digits of 8x8 pixels that scikit-learn contains."""

import functools
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.tasks import built_in, initialise
from gossamer.tasks.errors import DataError
from gossamer.tasks.optimizers import SGD
from gossamer.tasks.requirements import optional_module
from gossamer.tasks.schedules import OneCycle
from gossamer.tasks.splits import set_aside
from gossamer.tasks.task import Data, Examples, Recipe, Task

TEST_EXAMPLES = 400
VALIDATION_EXAMPLES = 200


def digits(folder: Path | None) -> Data:
    """scikit-learn's digits as 1,197 training, 200 validation and 400 test examples; the same ones in every run.

    Inputs have the shape (count, 1, 8, 8), float32; the grey levels 0 to 16 are scaled to -1 to 1.

    Raises:
        DataError: scikit-learn is not installed, or a folder was given, which this task has no use for.
    """
    if folder is not None:
        raise DataError(f"digits brings its own data; got --data {folder}. Leave --data out.")
    bunch = optional_module("sklearn.datasets").load_digits()
    inputs = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1
    rest, test = set_aside(Examples(inputs, torch.from_numpy(bunch.target).long()), TEST_EXAMPLES)
    train, validation = set_aside(rest, VALIDATION_EXAMPLES)
    return Data(train, validation, test)


def jittered(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 0.2 radians, scaled by up to a tenth in each direction, slanted, and moved by up to
    half a pixel; background outside. Shapes: (batch, 1, 8, 8) -> the same."""

    def draw(largest: float) -> Tensor:
        return (torch.rand(len(inputs), generator=generator, device=inputs.device) * 2 - 1) * largest

    angle = draw(0.2)
    from_x = torch.stack([angle.cos() * (1 + draw(0.1)), draw(0.15) - angle.sin(), draw(0.125)], dim=1)
    from_y = torch.stack([angle.sin(), angle.cos() * (1 + draw(0.1)), draw(0.125)], dim=1)
    grid = F.affine_grid(torch.stack([from_x, from_y], dim=1), list(inputs.shape), align_corners=False)
    # Zero is what lies outside; one is added meanwhile so that zero is the background's -1.
    return F.grid_sample(inputs + 1, grid, align_corners=False) - 1


def small_cnn(width: int = 16) -> nn.Module:
    """Two 3x3 convolutions and a hidden layer. Inputs (batch, 1, 8, 8) -> logits (batch, 10)."""
    model = nn.Sequential(
        OrderedDict(
            conv_1=nn.Conv2d(1, width, 3, padding=1),
            relu_1=nn.ReLU(),
            pool_1=nn.MaxPool2d(2),
            conv_2=nn.Conv2d(width, 2 * width, 3, padding=1),
            relu_2=nn.ReLU(),
            pool_2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(2 * width * 4, 128),
            relu_3=nn.ReLU(),
            classes=nn.Linear(128, 10),
        )
    )
    initialise.for_relu(model)
    return model


TASK = Task(
    name=built_in.DIGITS.name,
    description=built_in.DIGITS.description,
    model=small_cnn,
    data=digits,
    # Chosen on validation, over up to four seeds and down to 2-3% of the weights. Without jitter, networks of 90%
    # sparsity scattered by a point around the dense one; with it they lie a little above it on average, with or
    # without label smoothing, which steadies the last rounds. A width of 32 is no better and takes 1.4 times as long.
    recipe=Recipe(
        epochs=built_in.DIGITS.epochs,
        batch_size=64,
        learning_rate=OneCycle(peak=0.1),
        optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=2e-3),
        # Of 0.0003, 0.001, 0.003, 0.01 and 0.03 the best on validation (seeds 20 to 22, 36% cuts, mean error of the
        # rounds from 10.7% density down: 9.3, 2.3, 1.3, 0.79 and 0.75%).
        fine_tune_rate=0.03,
        loss=functools.partial(F.cross_entropy, label_smoothing=0.1),
        augment=jittered,
    ),
)
