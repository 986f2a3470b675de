"""The residual networks of He et al. (2016), section 4.2, for images of CIFAR's size: ResNet-20, 32, 44, 56, 110."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.tasks import initialise
from gossamer.tasks.cifar10 import cropped_and_flipped
from gossamer.tasks.optimizers import SGD
from gossamer.tasks.schedules import Steps
from gossamer.tasks.task import Recipe

WIDTHS = (16, 32, 64)
Shortcut = Literal["projection", "padding"]
"""How a block's input reaches its output where a stage begins.

`projection`: a 1x1 convolution with BatchNorm in the first block of every stage, the first one included, as in the
code of Renda et al. (2020). `padding`: He et al.'s option A without weights; every second pixel, and channels of
zeros on both sides, where the shape changes.
"""


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of residual blocks, the mean over the image, and a linear layer.

    Inputs (batch, 3, height, width) -> logits (batch, classes). The stages have 16, 32 and 64 channels unless `widths`
    says otherwise, whose second and third are each twice the one before.

    The modules have the names that PyTorch weights of these networks mostly come with (`layer1.0.conv1`, `linear`).
    """

    def __init__(
        self,
        depth: int,
        shortcut: Shortcut = "projection",
        classes: int = 10,
        widths: tuple[int, int, int] = WIDTHS,
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth is {depth}; expected 6n + 2 layers, such as 20 or 56")
        blocks = (depth - 2) // 6
        first, second, third = widths
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, blocks, shortcut)
        self.layer2 = _stage(first, second, blocks, shortcut)
        self.layer3 = _stage(second, third, blocks, shortcut)
        self.linear = nn.Linear(third, classes)
        initialise.for_relu(self)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the block's input. A block that widens also halves the image."""

    def __init__(self, channels_in: int, channels: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=_stride(channels_in, channels), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        # In place where the backward pass does not need what is overwritten.
        features = F.relu(self.bn1(self.conv1(inputs)), inplace=True)
        features = self.bn2(self.conv2(features))
        features += self.shortcut(inputs)
        return F.relu(features, inplace=True)


class PaddedShortcut(nn.Module):
    """Every second pixel of every second row, between as many channels of zeros on both sides.

    Shapes: (batch, channels, height, width) -> (batch, 2 channels, height / 2, width / 2).
    """

    def forward(self, inputs: Tensor) -> Tensor:
        zeros = inputs.shape[1] // 2
        return F.pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, zeros, zeros))


def recipe(epochs: int) -> Recipe:
    """The recipe of the paper, of 182 epochs, in batches of 128, with weight decay on all variables.

    The paper trains on all 50,000 images (71,108 steps); 5,000 of them are validation here (63,882 steps).
    """
    return Recipe(
        epochs=epochs,
        batch_size=128,
        learning_rate=Steps(first=0.1, milestones=(91 / 182, 136 / 182)),
        optimizer=SGD(momentum=0.9, weight_decay=2e-4),
        augment=cropped_and_flipped,
        bfloat16=True,
        channels_last=True,
    )


def _stage(channels_in: int, channels: int, blocks: int, shortcut: Shortcut) -> nn.Sequential:
    first = Block(channels_in, channels, _first_shortcut(channels_in, channels, shortcut))
    return nn.Sequential(first, *(Block(channels, channels, nn.Identity()) for _ in range(1, blocks)))


def _first_shortcut(channels_in: int, channels: int, shortcut: Shortcut) -> nn.Module:
    if shortcut == "padding":
        return PaddedShortcut() if channels != channels_in else nn.Identity()
    stride = _stride(channels_in, channels)
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))


def _stride(channels_in: int, channels: int) -> int:
    return channels // channels_in
