"""A small detector of the YOLO kind: YOLOv8's blocks (Jocher et al., 2023), YOLOX's anchor-free, decoupled head (Ge et
al., 2021) on a feature pyramid (Lin et al., 2017)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
"""Pixels between two positions of each level of the pyramid, the finest first."""
WIDTHS = (16, 32, 96, 128, 128)
"""Channels at strides 2, 4, 8, 16 and 32. YOLOv8n has 64 at 8 and 256 at 32, where most of its weights are, which few
positions use: pruned globally, those alone would nearly make up 90%."""
HEAD = 64
"""Channels of each branch of the head."""
PRIOR = 0.01
"""The probability that every class begins with at every position (Lin et al., 2017, "Focal loss")."""


class Detector(nn.Module):
    """Backbone of five strided convolutions, neck from coarse to fine, and a head at strides 8, 16 and 32.

    Images (batch, 3, height, width), of sides that 32 divides -> (batch, positions, 4 + classes): at every position of
    the three levels, row by row, the corners of a box (left, top, right, bottom) in pixels, and a logit for each class.
    Boxes that overlap are left to `detections`.
    """

    def __init__(self, classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        *_, fine, middle, coarse = widths
        self.stem = block(3, widths[0], 3, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(block(before, width, 3, stride=2), CrossStage(width, width, shortcut=True))
            for before, width in pairwise(widths)
        )
        self.merge_middle = CrossStage(coarse + middle, middle)
        self.merge_fine = CrossStage(middle + fine, fine)
        self.heads = nn.ModuleList(Head(width, HEAD, classes) for width in (fine, middle, coarse))

    def forward(self, images: Tensor) -> Tensor:
        features = [self.stem(images)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        *_, fine, middle, coarse = features
        middle = self.merge_middle(torch.cat([_twice_as_large(coarse), middle], dim=1))
        fine = self.merge_fine(torch.cat([_twice_as_large(middle), fine], dim=1))
        levels = zip(self.heads, (fine, middle, coarse), STRIDES, strict=True)
        return torch.cat([_decoded(head(level), stride) for head, level, stride in levels], dim=1)


class CrossStage(nn.Module):
    """YOLOv8's C2f, after cross-stage partial networks (Wang et al., 2020): half of the channels goes through a
    bottleneck, and everything is merged."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = block(inputs, outputs, 1)
        self.bottleneck = nn.Sequential(block(half, half, 3), block(half, half, 3))
        self.leave = block(3 * half, outputs, 1)
        self.shortcut = shortcut

    def forward(self, features: Tensor) -> Tensor:
        kept, worked_on = self.enter(features).chunk(2, dim=1)
        result = self.bottleneck(worked_on)
        if self.shortcut:
            result = worked_on + result
        return self.leave(torch.cat([kept, worked_on, result], dim=1))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Two branches of a 3x3 and a 1x1 convolution. Features (batch, inputs, height, width) -> the logarithms of the
    distances to the four sides, in strides, and the classes' logits: (batch, 4, ...), (batch, classes, ...)."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.boxes = nn.Sequential(block(inputs, width, 3), nn.Conv2d(width, 4, 1))
        self.classes = nn.Sequential(block(inputs, width, 3), nn.Conv2d(width, classes, 1))
        last = self.classes[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.constant_(last.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.boxes(features), self.classes(features)


def block(inputs: int, outputs: int, size: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, SiLU."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


def centres(height: int, width: int, stride: int, device: torch.device | str = "cpu") -> Tensor:
    """Where the positions of a level lie in the image, (x, y) in pixels, row by row; shape (height * width, 2)."""
    rows, columns = (torch.arange(length, device=device) * stride + stride / 2 for length in (height, width))
    return torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=1)


def _decoded(found: tuple[Tensor, Tensor], stride: int) -> Tensor:
    """Corners and logits at every position; shape (batch, height * width, 4 + classes)."""
    distances, logits = found
    centre = centres(distances.shape[2], distances.shape[3], stride, distances.device)
    # Training in bfloat16, whose numbers from 64 to 128 are half a pixel apart.
    sides = distances.flatten(2).transpose(1, 2).float().exp() * stride
    corners = torch.cat([centre - sides[..., :2], centre + sides[..., 2:]], dim=2)
    return torch.cat([corners, logits.flatten(2).transpose(1, 2)], dim=2)


def _twice_as_large(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
