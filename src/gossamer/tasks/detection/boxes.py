"""Boxes as their corners (left, top, right, bottom), in pixels: overlaps, and which of many detections are kept."""

import torch
from torch import Tensor


def areas(boxes: Tensor) -> Tensor:
    """Shapes: (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of two boxes that lie at the same position; 0 where both are empty.

    Shapes: (..., 4), (..., 4) -> (...), broadcast.
    """
    shared = _shared(first, second)
    return shared / (areas(first) + areas(second) - shared).clamp(min=1e-9)


def generalised_overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Generalised intersection over union (Rezatofighi et al., 2019), which tells boxes apart that do not meet: less
    the share of the smallest box around both that neither covers. From -1 to 1; shapes as for `overlaps`."""
    shared = _shared(first, second)
    union = areas(first) + areas(second) - shared
    around = torch.cat([first[..., :2].minimum(second[..., :2]), first[..., 2:].maximum(second[..., 2:])], dim=-1)
    hull = areas(around).clamp(min=1e-9)
    return shared / union.clamp(min=1e-9) - (hull - union) / hull


def non_maximum_suppression(boxes: Tensor, scores: Tensor, classes: Tensor, largest_overlap: float) -> Tensor:
    """The detections that stay, best first: each one takes those after it of its class away that it overlaps by more.

    Args:
        boxes, scores, classes: of one image; shapes (detections, 4), (detections,), (detections,).
        largest_overlap: intersection over union that two detections of one class may have.

    Returns:
        Indices, int64; equal scores in the order in which they were given.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, classes = boxes[order], classes[order]
    suppresses = overlaps(boxes[:, None], boxes[None]) > largest_overlap
    suppresses &= classes[:, None] == classes[None]
    stays = torch.ones(len(order), dtype=torch.bool)
    for index in range(len(order)):
        if stays[index]:
            stays[index + 1 :] &= ~suppresses[index, index + 1 :]
    return order[stays]


def _shared(first: Tensor, second: Tensor) -> Tensor:
    sides = first[..., 2:].minimum(second[..., 2:]) - first[..., :2].maximum(second[..., :2])
    return sides.clamp(min=0).prod(dim=-1)
