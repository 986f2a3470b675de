"""ResNets for ImageNet (He et al., 2016), with the stride in the 3x3 convolution of a bottleneck ("v1.5").

Parameters have torchvision's names, so that a `state_dict` of its ResNets loads as it is.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.tasks import initialise

Depth = Literal[18, 50]
BLOCKS: dict[Depth, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""Blocks of each stage."""
WIDTHS = (64, 128, 256, 512)


class ResNet(nn.Module):
    """Inputs (batch, 3, height, width) -> logits (batch, classes).

    Args:
        small: for images of less than 64 pixels: the first convolution is 3x3 with stride 1, and no pooling follows, so
            that the last stage still sees more than a pixel or two.
    """

    def __init__(self, depth: Depth, classes: int = 1000, *, small: bool = False) -> None:
        super().__init__()
        size, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(3, WIDTHS[0], size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        block = Bottleneck if depth == 50 else BasicBlock
        first, second, third, fourth = WIDTHS
        several = BLOCKS[depth]
        self.layer1 = _stage(block, first, first, several[0], stride=1)
        self.layer2 = _stage(block, first * block.expansion, second, several[1])
        self.layer3 = _stage(block, second * block.expansion, third, several[2])
        self.layer4 = _stage(block, third * block.expansion, fourth, several[3])
        self.fc = nn.Linear(fourth * block.expansion, classes)
        initialise.for_relu(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the block's input."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _downsample(channels_in, width, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        features = F.relu(self.bn1(self.conv1(inputs)), inplace=True)
        features = self.bn2(self.conv2(features))
        features += self.downsample(inputs)
        return F.relu(features, inplace=True)


class Bottleneck(nn.Module):
    """A 1x1 convolution to fewer channels, a 3x3 and a 1x1 to four times as many, added to the block's input."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _downsample(channels_in, width * self.expansion, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        features = F.relu(self.bn1(self.conv1(inputs)), inplace=True)
        features = F.relu(self.bn2(self.conv2(features)), inplace=True)
        features = self.bn3(self.conv3(features))
        features += self.downsample(inputs)
        return F.relu(features, inplace=True)


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels_in: int, width: int, count: int, stride: int = 2
) -> nn.Sequential:
    """So many blocks, of which the first has the stride."""
    first = block(channels_in, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(1, count)))


def _downsample(channels_in: int, channels: int, stride: int) -> nn.Module:
    """What the block's input goes through on its way to the sum; nothing where sizes agree."""
    if channels_in == channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
