"""The detector's loss: which position answers for which object, how far off its box is, and how sure it is of it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.tasks.detection.boxes import areas, generalised_overlaps, overlaps
from gossamer.tasks.detection.network import STRIDES, centres

RADIUS = 1.5
"""Positions within so many strides of an object's centre, in both directions, answer for it (Tian et al., 2022)."""
LARGEST = 3
"""Objects of up to so many strides on their longer side belong to a level; the coarsest takes all larger ones."""
BOX_WEIGHT = 5.0
"""What a box counts against its classes; YOLOX's."""


@dataclass(frozen=True)
class DetectionLoss:
    """Generalised IoU of the boxes and cross entropy of every class by itself, over the number of positions that answer
    for an object; such a position is to be as sure of its class as its box is right (YOLOX)."""

    side: int
    """Pixels on a side of the images, which are square."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: as `Detector` returns them.
            targets: (batch, most objects, 5), float: class, left, top, right, bottom; of class -1 where there is none.
        """
        boxes, logits = outputs.split([4, outputs.shape[2] - 4], dim=2)
        centre, stride = positions(self.side, outputs.device)
        answers, object_of = assigned(targets, centre, stride)
        true = targets.gather(1, object_of[..., None].expand(-1, -1, 5))[answers]
        predicted = boxes[answers]
        certain = torch.zeros_like(logits)
        certain[answers, true[:, 0].long()] = overlaps(predicted.detach(), true[:, 1:])
        sure = F.binary_cross_entropy_with_logits(logits, certain, reduction="sum")
        placed = (1 - generalised_overlaps(predicted, true[:, 1:])).sum()
        return (BOX_WEIGHT * placed + sure) / answers.sum().clamp(min=1)


def positions(side: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Centre and stride of every position of square images, in the order of the detector's outputs; (positions, 2) and
    (positions,)."""
    levels = [centres(side // stride, side // stride, stride, device) for stride in STRIDES]
    strides = [torch.full((len(level),), float(stride)) for level, stride in zip(levels, STRIDES, strict=True)]
    return torch.cat(levels), torch.cat(strides).to(device)


def assigned(targets: Tensor, centre: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    """Which positions answer for an object, and for which: centre sampling in the level of the object's size, the
    smallest object where there are several (FCOS; Tian et al., 2022).

    Shapes: (batch, objects, 5), (positions, 2), (positions,) -> bool and int64, (batch, positions) each.
    """
    boxes = targets[:, None, :, 1:]
    x, y = centre[:, None, 0], centre[:, None, 1]
    to_sides = torch.stack([x - boxes[..., 0], y - boxes[..., 1], boxes[..., 2] - x, boxes[..., 3] - y], dim=-1)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    near = (centre[:, None] - middle).abs().amax(-1) < RADIUS * stride[:, None]
    longest = (boxes[..., 2:] - boxes[..., :2]).amax(-1) / stride[:, None]
    # Each level takes objects up to twice as large as the one below it.
    fits = ((longest > LARGEST / 2) | (stride == min(STRIDES))[:, None]) & (
        (longest <= LARGEST) | (stride == max(STRIDES))[:, None]
    )
    candidate = (targets[:, None, :, 0] >= 0) & near & fits & (to_sides.amin(-1) > 0)
    smallest = areas(boxes).expand(candidate.shape).masked_fill(~candidate, torch.inf).min(dim=2)
    return smallest.values.isfinite(), smallest.indices
