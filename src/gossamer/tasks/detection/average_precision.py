"""What a detector found, and how good that is: mean average precision, as COCO measures it (Lin et al., 2014)."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from gossamer.tasks.detection.boxes import non_maximum_suppression, overlaps

LOWEST_SCORE, LARGEST_OVERLAP, MOST = 0.01, 0.6, 100
RECALLS = torch.linspace(0, 1, 101, dtype=torch.float64)
"""Recalls at which COCO reads off the precision."""


class Detections(NamedTuple):
    """What was found in an image, or what is there, with scores of 1; shapes (count, 4), (count,), (count,)."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def detections(
    output: Tensor,
    lowest_score: float = LOWEST_SCORE,
    largest_overlap: float = LARGEST_OVERLAP,
    most: int = MOST,
) -> Detections:
    """What the detector found in one image, best first: the likeliest class of every position, without those that a
    better box of the same class suppresses.

    Args:
        output: of one image, as `network.Detector` returns it; shape (positions, 4 + classes).
        lowest_score: probability below which a position found nothing.
        largest_overlap: intersection over union that two detections of a class may have.
        most: detections at most.
    """
    scores, classes = output[:, 4:].sigmoid().max(dim=1)
    found = (scores >= lowest_score).nonzero().flatten()
    boxes, scores, classes = output[found, :4], scores[found], classes[found]
    kept = non_maximum_suppression(boxes, scores, classes, largest_overlap)[:most]
    return Detections(boxes[kept], scores[kept], classes[kept])


def objects(target: Tensor) -> Detections:
    """What is in an image; from (most objects, 5) of class, left, top, right, bottom, of class -1 where there is
    none."""
    there = target[target[:, 0] >= 0]
    return Detections(there[:, 1:], torch.ones(len(there)), there[:, 0].long())


def mean_average_precision(
    found: Iterable[Detections], true: Iterable[Detections], least_overlaps: Iterable[float] = (0.5,)
) -> float:
    """The mean, over classes and overlaps, of the average precision; classes of which there is no object do not count.

    Args:
        found: of every image.
        true: the objects of the same images.
        least_overlaps: intersections over union from which on a box counts as found; `COCO` has those of COCO.

    Raises:
        ValueError: there are no objects at all.
    """
    pairs = list(zip(found, true, strict=True))
    present = sorted({int(number) for _, objects in pairs for number in objects.classes})
    if not present:
        raise ValueError("there are no objects in any image; expected at least one")
    precisions = [average_precision(pairs, number, least) for least in least_overlaps for number in present]
    return sum(precisions) / len(precisions)


COCO = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""The overlaps of COCO's first measure: 0.5 to 0.95."""


class MeanAveragePrecision:
    """The metric of a whole set: "mAP" at an overlap of 0.5, and "mAP_50_95", COCO's mean over ten overlaps."""

    def __init__(self) -> None:
        self.found: list[Detections] = []
        self.true: list[Detections] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in what the detector returned for some images, and their targets (`detections`, `objects`)."""
        self.found += [detections(output) for output in outputs.float().cpu()]
        self.true += [objects(target) for target in targets.cpu()]

    def compute(self) -> dict[str, float]:
        """Both measures."""
        return {
            "mAP": mean_average_precision(self.found, self.true),
            "mAP_50_95": mean_average_precision(self.found, self.true, COCO),
        }


def average_precision(pairs: list[tuple[Detections, Detections]], number: int, least_overlap: float) -> float:
    """The precision, averaged over 101 recalls, with which the objects of one class are found.

    Best first, every detection takes the object of its image that it overlaps most and that is not taken; it is right
    if there is one that it overlaps by at least `least_overlap`. The precision at a recall is the best one at this
    recall or a higher one.
    """
    scores, right, count = [], [], 0
    for found, true in pairs:
        mine, theirs = found.classes == number, true.classes == number
        order = found.scores[mine].argsort(descending=True, stable=True)[:MOST]
        count += int(theirs.sum())
        scores.append(found.scores[mine][order])
        right.append(_right(found.boxes[mine][order], true.boxes[theirs], least_overlap))
    order = torch.cat(scores).argsort(descending=True, stable=True)
    hits = torch.cat(right)[order].double().cumsum(0)
    recall = hits / count
    precision = hits / torch.arange(1, len(hits) + 1)
    precision = precision.flip(0).cummax(0).values.flip(0) if len(hits) else precision
    at = torch.searchsorted(recall, RECALLS)
    return float(torch.cat([precision, torch.zeros(1)])[at].mean())


def _right(boxes: Tensor, objects: Tensor, least_overlap: float) -> Tensor:
    """Which boxes, best first, take an object; bool, shape (boxes,)."""
    right = torch.zeros(len(boxes), dtype=torch.bool)
    if not len(objects):
        return right
    shared = overlaps(boxes[:, None], objects[None])
    for index in range(len(boxes)):
        best, which = shared[index].max(dim=0)
        if best >= least_overlap:
            right[index] = True
            shared[:, which] = -1
    return right
