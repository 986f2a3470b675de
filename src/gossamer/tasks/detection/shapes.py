"""Images with drawn shapes on a noisy ground, and where they are: data for a detector, made from a seed, whole numbers
throughout so that they are the same everywhere."""

from collections.abc import Callable

import torch
from torch import Tensor

from gossamer.tasks.detection.boxes import overlaps

SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disk": lambda x, y: x.square() + y.square() <= 1,
    "rectangle": lambda x, y: x.abs().maximum(y.abs()) <= 1,
    "triangle": lambda x, y: 2 * x.abs() <= y + 1,
    "ring": lambda x, y: (x.square() + y.square() - 0.68).abs() <= 0.32,
    "cross": lambda x, y: x.abs().minimum(y.abs()) <= 1 / 3,
}
"""Which points a shape covers, in a box from -1 to 1 in both directions, y downwards. The classes, in this order."""
MOST = 6
"""Shapes in an image at most."""
SMALLEST, LARGEST = 12, 60
"""Pixels on a side of a shape's box."""
_AT_ONCE = 64


def shapes(count: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws images.

    Args:
        count: how many images.
        side: pixels on a side of an image.
        seed: of everything that is drawn at random.

    Returns:
        Images (count, 3, side, side), uint8; and their shapes (count, `MOST`, 5), float32: class, left, top, right,
        bottom, in the order in which they were drawn; of class -1 where there is none.

    Raises:
        ValueError: the images are too small for the largest shape, or no multiple of 8 pixels.
    """
    if side < LARGEST or side % 8:
        raise ValueError(f"side is {side}; expected a multiple of 8 that is at least {LARGEST}, the largest shape")
    generator = torch.Generator().manual_seed(seed)
    targets = _placed(count, side, generator)
    images = [_drawn(some, side, generator) for some in targets.split(_AT_ONCE)]
    return torch.cat(images), targets


def _placed(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Classes and boxes; those that would overlap an earlier one by more than a tenth are left out."""
    targets = torch.zeros(count, MOST, 5)
    targets[:, :, 0] = -1
    for index in range(MOST):
        # As many small ones as large ones: uniform in the logarithm, rounded to whole pixels.
        size = SMALLEST * (LARGEST / SMALLEST) ** torch.rand(count, generator=generator)
        ratio = 0.75 + 0.5 * torch.rand(count, generator=generator)
        sizes = torch.stack([size, (size * ratio).clamp(SMALLEST, LARGEST)], dim=1).round()
        first = (torch.rand(count, 2, generator=generator) * (side - sizes + 1)).floor()
        boxes = torch.cat([first, first + sizes], dim=1)
        classes = torch.randint(len(SHAPES), (count,), generator=generator)
        taken = overlaps(boxes[:, None], targets[:, :index, 1:]).gt(0.1).any(dim=1)
        # About a third of the later ones is left out too, so that images hold different numbers.
        wanted = torch.rand(count, generator=generator) < (1 if index == 0 else 2 / 3)
        here = wanted & ~taken
        targets[here, index, 0] = classes[here].float()
        targets[here, index, 1:] = boxes[here]
    return targets


def _drawn(targets: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Images of these shapes, in colours that differ from the ground's by at least a quarter of the range."""
    count = len(targets)
    ground = torch.randint(256, (count, 3, 1, 1), generator=generator)
    tiles = torch.randint(-20, 21, (count, 3, side // 8, side // 8), generator=generator)
    images = ((ground + tiles) % 256).short().repeat_interleave(8, 2).repeat_interleave(8, 3)
    colours = (ground[:, None] + torch.randint(64, 193, (count, MOST, 3, 1, 1), generator=generator)).short() % 256
    covers = list(SHAPES.values())
    for image, index in (targets[:, :, 0] >= 0).nonzero().tolist():
        number, left, top, right, bottom = (int(entry) for entry in targets[image, index])
        x, y = (2 * (torch.arange(length) + 0.5) / length - 1 for length in (right - left, bottom - top))
        place = images[image, :, top:bottom, left:right]
        place.copy_(torch.where(covers[number](x[None, :], y[:, None]), colours[image, index], place))
    noise = torch.randint(-24, 25, images.shape, generator=generator, dtype=torch.int16)
    return (images + noise).clamp(0, 255).to(torch.uint8)
