"""Mean average precision, by hand and against COCO's own code."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gossamer.tasks.detection.average_precision import (
    COCO,
    Detections,
    MeanAveragePrecision,
    detections,
    mean_average_precision,
    objects,
)
from gossamer.tasks.detection.boxes import generalised_overlaps, non_maximum_suppression, overlaps

UNIT = [0.0, 0, 10, 10]


def given(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(classes).long())


@pytest.mark.parametrize(
    ("second", "union", "generalised"),
    [
        (UNIT, 1.0, 1.0),
        ([5.0, 0, 15, 10], 50 / 150, 50 / 150),
        # Beside one another: the box around both has 300, of which they cover 200.
        ([20.0, 0, 30, 10], 0.0, -100 / 300),
        # Around and within.
        ([2.0, 2, 4, 7], 10 / 100, 10 / 100),
        # Corner to corner: 25 of 175 shared, in 225.
        ([5.0, 5, 15, 15], 25 / 175, 25 / 175 - 50 / 225),
        ([3.0, 3, 3, 3], 0.0, 0.0),
    ],
)
def test_overlaps_by_hand(second: list[float], union: float, generalised: float) -> None:
    first, other = torch.tensor(UNIT), torch.tensor(second)
    assert float(overlaps(first, other)) == pytest.approx(union)
    assert float(generalised_overlaps(first, other)) == pytest.approx(generalised)


def test_suppression_by_hand() -> None:
    boxes = torch.tensor([UNIT, [1.0, 0, 11, 10], [2.0, 0, 12, 10], UNIT, [50.0, 50, 60, 60]])
    scores = torch.tensor([0.5, 0.9, 0.8, 0.7, 0.1])
    classes = torch.tensor([0, 0, 0, 1, 0])
    # Overlaps in a row are 9 / 11 and 8 / 12: the second takes both its neighbours; the fourth is of another class.
    assert non_maximum_suppression(boxes, scores, classes, 0.6).tolist() == [1, 3, 4]
    # Above 9 / 11 all stay, in the order of their scores.
    assert non_maximum_suppression(boxes, scores, classes, 0.82).tolist() == [1, 2, 3, 0, 4]
    # What is suppressed suppresses nothing: the first is only met by the third if the second leaves it.
    assert non_maximum_suppression(boxes[:3], torch.tensor([0.1, 0.2, 0.9]), classes[:3], 0.7).tolist() == [2, 0]


def test_what_is_found_in_an_image() -> None:
    """Five positions of two classes: the third is too unlikely, the fourth lies on the first."""
    logits = torch.tensor([[3.0, 0], [-1, 2], [-9, -8], [2, 1], [0, 1]])
    corners = torch.tensor([UNIT, [0.0, 0, 5, 5], UNIT, [0.0, 0, 10, 9], [80.0, 0, 90, 10]])
    found = detections(torch.cat([corners, logits], dim=1))
    assert found.classes.tolist() == [0, 1, 1]
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 2, 1]).sigmoid())
    assert found.boxes.tolist() == corners[[0, 1, 4]].tolist()
    assert len(detections(torch.cat([corners, logits], dim=1), most=2).scores) == 2
    assert len(detections(torch.cat([corners, logits - 20], dim=1)).scores) == 0


def test_objects_are_those_with_a_class() -> None:
    there = objects(torch.tensor([[1.0, *UNIT], [-1, 0, 0, 0, 0], [0, 1, 2, 3, 4]]))
    assert (there.classes.tolist(), there.boxes.tolist()) == ([1, 0], [UNIT, [1, 2, 3, 4]])


def test_average_precision_by_hand() -> None:
    """Three objects; right, wrong, right: precision 1 up to a recall of 1/3, then 2/3 up to 2/3, then 0."""
    true = given([UNIT, [20.0, 0, 30, 10], [40.0, 0, 50, 10]], [1.0] * 3, [0] * 3)
    found = given([UNIT, [0.0, 80, 10, 90], [21.0, 0, 31, 10]], [0.9, 0.8, 0.7], [0] * 3)
    # Of the recalls 0, 0.01 ... 1 those up to 0.33 are 34, those up to 0.66 are 33 more.
    assert mean_average_precision([found], [true]) == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    # The last one overlaps by 9 / 11.
    assert mean_average_precision([found], [true], (0.85,)) == pytest.approx(34 / 101)
    # Whatever comes first in time: equal boxes, of which the second finds the object taken.
    twice = given([UNIT, UNIT], [0.5, 0.6], [0, 0])
    assert mean_average_precision([twice], [given([UNIT], [1.0], [0])]) == pytest.approx(1.0)
    # The mean of a class that is found and of one that is not; a third, of which there is none, does not count.
    two = given([UNIT, UNIT], [1.0, 1.0], [0, 1])
    assert mean_average_precision([given([UNIT, UNIT], [0.9, 0.8], [0, 2])], [two]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no objects in any image"):
        mean_average_precision([found], [given([], [], [])])


def random_scenes(seed: int) -> tuple[list[Detections], list[Detections]]:
    """Objects of three classes, and detections that are some of them moved, and some of nothing; scores all differ."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    found, true = [], []
    for count in (0, 1, 3, 5, 8, 13):
        corner = draw(count, 2) * 80
        boxes = torch.cat([corner, corner + 5 + 30 * draw(count, 2)], dim=1)
        classes = torch.randint(3, (count,), generator=generator)
        true.append(Detections(boxes, torch.ones(count), classes))
        moved = torch.cat([boxes, boxes]) + 4 * draw(2 * count, 4) - 2
        extra = torch.cat([draw(4, 2) * 50, 50 + draw(4, 2) * 50], dim=1)
        everything = torch.cat([moved, extra])
        labels = torch.cat([classes, classes, torch.randint(3, (4,), generator=generator)])
        keep = draw(len(everything)) < 0.7
        found.append(Detections(everything[keep], draw(int(keep.sum())), labels[keep]))
    return found, true


@pytest.mark.parametrize("seed", range(4))
def test_against_a_reference_written_with_loops(seed: int) -> None:
    found, true = random_scenes(seed)
    for least in (0.5, 0.75):
        precisions = []
        for number in range(3):
            entries = sorted(
                (-float(score), image, box.tolist())
                for image, one in enumerate(found)
                for box, score, label in zip(*one, strict=True)
                if label == number
            )
            left = [
                [box.tolist() for box, label in zip(one.boxes, one.classes, strict=True) if label == number]
                for one in true
            ]
            total, right, curve = sum(map(len, left)), 0, []
            for rank, (_, image, box) in enumerate(entries, 1):
                shared = [float(overlaps(torch.tensor(box), torch.tensor(other))) for other in left[image]]
                if shared and max(shared) >= least:
                    del left[image][int(np.argmax(shared))]
                    right += 1
                curve.append((right / total, right / rank))
            at = [max((p for r, p in curve if r >= step / 100), default=0.0) for step in range(101)]
            precisions.append(sum(at) / 101)
        assert mean_average_precision(found, true, (least,)) == pytest.approx(np.mean(precisions), abs=1e-9)


def test_against_coco(tmp_path: Path) -> None:
    """COCO's evaluation, where it is installed."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    found, true = random_scenes(11)

    def described(scenes: list[Detections]) -> list[dict[str, object]]:
        numbers = itertools.count(1)
        return [
            {
                "id": next(numbers),
                "image_id": image,
                "category_id": int(label),
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "area": float((box[2:] - box[:2]).prod()),
                "iscrowd": 0,
                "score": float(score),
            }
            for image, one in enumerate(scenes)
            for box, score, label in zip(*one, strict=True)
        ]

    categories = [{"id": number, "name": str(number)} for number in range(3)]
    images = [{"id": image} for image in range(len(true))]
    path = tmp_path / "true.json"
    path.write_text(json.dumps({"images": images, "annotations": described(true), "categories": categories}))
    reference = coco.COCO(str(path))
    measured = evaluation.COCOeval(reference, reference.loadRes(described(found)), "bbox")
    measured.evaluate()
    measured.accumulate()
    measured.summarize()
    assert mean_average_precision(found, true, COCO) == pytest.approx(measured.stats[0], abs=1e-6)
    assert mean_average_precision(found, true) == pytest.approx(measured.stats[1], abs=1e-6)


def test_the_metric_of_a_whole_set() -> None:
    """Batch by batch the same as all at once; a perfect detector has 1, and one that sees nothing 0."""
    targets = torch.tensor([[[0.0, *UNIT], [1, 20, 20, 40, 40]], [[1, 5, 5, 9, 9], [-1, 0, 0, 0, 0]]])
    perfect = torch.zeros(2, 2, 6)
    perfect[:, :, :4] = targets[:, :, 1:]
    perfect[:, :, 4:] = -9
    for image, row in ((0, 0), (0, 1), (1, 0)):
        perfect[image, row, 4 + int(targets[image, row, 0])] = 9
    metric = MeanAveragePrecision()
    for image in range(2):
        metric.update(perfect[image : image + 1], targets[image : image + 1])
    assert metric.compute() == {"mAP": pytest.approx(1.0), "mAP_50_95": pytest.approx(1.0)}
    blind = MeanAveragePrecision()
    blind.update(torch.full_like(perfect, -9), targets)
    assert blind.compute() == {"mAP": 0.0, "mAP_50_95": 0.0}
