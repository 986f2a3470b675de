"""The detector's parts by hand: what is drawn, who answers for what, and what the loss is."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.tasks import DataError, find_task, initial_model
from gossamer.tasks.detection.loss import BOX_WEIGHT, DetectionLoss, assigned, positions
from gossamer.tasks.detection.network import Detector, centres
from gossamer.tasks.detection.shapes import MOST, SHAPES, shapes
from gossamer.tasks.shapes_detector import SIDE, drawn, scaled


def test_images_and_boxes_are_the_same_for_a_seed() -> None:
    images, targets = shapes(5, 64, seed=7)
    again, targets_again = shapes(5, 64, seed=7)
    others, _ = shapes(5, 64, seed=8)
    assert images.dtype == torch.uint8
    assert (images.shape, targets.shape) == ((5, 3, 64, 64), (5, MOST, 5))
    assert torch.equal(images, again)
    assert torch.equal(targets, targets_again)
    assert not torch.equal(images, others)


@pytest.mark.parametrize("side", [48, 100])
def test_images_that_shapes_do_not_fit_into_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"side is {side}; expected a multiple of 8 that is at least 60"):
        shapes(1, side, seed=0)


def test_what_is_drawn_fills_its_box() -> None:
    """Every shape touches all four sides of its box, and covers the share of it that geometry says."""
    shares = {"disk": math.pi / 4, "rectangle": 1.0, "triangle": 0.5, "ring": math.pi / 4 * (1 - 0.36), "cross": 5 / 9}
    pixel = (torch.arange(400) + 0.5) / 200 - 1
    for name, covers in SHAPES.items():
        mask = covers(pixel[None, :], pixel[:, None])
        assert float(mask.float().mean()) == pytest.approx(shares[name], abs=0.01), name
        for side in (mask[:2], mask[-2:], mask[:, :2], mask[:, -2:]):
            assert side.any(), name


def test_boxes_lie_in_the_image_and_apart() -> None:
    _, targets = shapes(40, 96, seed=3)
    there = targets[:, :, 0] >= 0
    assert there.any(1).all()
    assert len(there.sum(1).unique()) > 2
    assert set(targets[there][:, 0].long().tolist()) == set(range(len(SHAPES)))
    boxes = targets[there][:, 1:]
    assert boxes.min() >= 0
    assert boxes.max() <= 96
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert sizes.min() >= 12
    assert sizes.max() <= 60
    # A shape's middle has another colour than the ground beside it (not the ring's, which is open).
    images, targets = shapes(30, 96, seed=4)
    for image, target in zip(images.float(), targets, strict=True):
        label, left, top, right, bottom = (int(entry) for entry in target[0])
        if label != list(SHAPES).index("ring") and left > 4 and len(target[target[:, 0] >= 0]) == 1:
            row, column = (top + bottom) // 2, (left + right) // 2
            inside = image[:, row - 1 : row + 2, column - 1 : column + 2].mean((1, 2))
            assert (inside - image[:, top:bottom, left - 3 : left - 1].mean((1, 2))).abs().max() > 24


def test_the_network_returns_a_box_and_logits_for_every_position() -> None:
    torch.manual_seed(0)
    network = Detector(3, widths=(4, 4, 8, 8, 8)).eval()
    outputs = network(torch.randn(2, 3, 64, 96))
    assert outputs.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 4 + 3)
    middles = (outputs[..., :2] + outputs[..., 2:4]) / 2
    assert (outputs[..., 2:4] > outputs[..., :2]).all()
    # Distances begin near one stride on every side, so a box's middle lies near its position.
    expected = torch.cat([centres(8, 12, 8), centres(4, 6, 16), centres(2, 3, 32)])
    strides = torch.tensor([8.0] * 96 + [16] * 24 + [32] * 6)
    assert ((middles - expected).abs().amax(2) < strides).float().mean() > 0.9
    # Every class begins with a probability of about a hundredth.
    assert float(outputs[..., 4:].detach().sigmoid().mean()) == pytest.approx(0.01, abs=0.01)


def test_positions_run_row_by_row() -> None:
    assert centres(2, 3, 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    centre, stride = positions(32)
    assert stride.tolist() == [8.0] * 16 + [16.0] * 4 + [32.0]
    assert centre[-1].tolist() == [16, 16]


def object_at(*box: float, label: int = 0) -> Tensor:
    return torch.tensor([[[float(label), *box], [-1, 0, 0, 0, 0]]])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # 16 pixels, 2 strides of 8: positions of the finest level within 12 pixels of (32, 32), and in the box.
        ((24, 24, 40, 40), [[28, 28], [36, 28], [28, 36], [36, 36]]),
        # A narrow one: its longer side decides the level, and its own width who lies in it.
        ((24, 30, 40, 34), []),
        ((28, 24, 40, 40), [[36, 28], [36, 36]]),
        # 40 pixels are above 24 and up to 48: the middle level, within 24 pixels of (32, 32).
        ((12, 12, 52, 52), [[24, 24], [40, 24], [24, 40], [40, 40]]),
        # 60 pixels: the coarsest; its positions (16, 16), (48, 16) ... lie within 48 pixels.
        ((2, 2, 62, 62), [[16, 16], [48, 16], [16, 48], [48, 48]]),
    ],
)
def test_who_answers_for_an_object(box: tuple[float, ...], expected: list[list[float]]) -> None:
    centre, stride = positions(64)
    answers, which = assigned(object_at(*box), centre, stride)
    assert centre[answers[0]].tolist() == expected
    assert (which[answers] == 0).all()


def test_the_smaller_of_two_objects_has_the_position() -> None:
    centre, stride = positions(64)
    targets = torch.tensor([[[0.0, 20, 20, 44, 44], [1, 24, 24, 40, 40]]])
    answers, which = assigned(targets, centre, stride)
    small = [[28, 28], [36, 28], [28, 36], [36, 36]]
    found = {tuple(place): int(index) for place, index in zip(centre[answers[0]].tolist(), which[answers], strict=True)}
    assert {place for place, index in found.items() if index == 1} == {tuple(place) for place in small}


def test_the_loss_by_hand() -> None:
    """Perfect boxes at the four positions that answer, and the same logit everywhere."""
    targets = object_at(24, 24, 40, 40, label=1)
    count = len(positions(64)[0])
    outputs = torch.zeros(1, count, 4 + 3)
    outputs[..., :4] = torch.tensor([24.0, 24, 40, 40])
    outputs[..., 4:] = 0.5
    # Four entries have to be 1, as sure as their boxes are right; all others 0.
    expected = (4 * F.softplus(torch.tensor(-0.5)) + (3 * count - 4) * F.softplus(torch.tensor(0.5))) / 4
    assert float(DetectionLoss(64)(outputs, targets)) == pytest.approx(float(expected))
    # Boxes moved by half their width share 1/3, which is how sure they are to be; nothing else lies around both.
    outputs[..., :4] += torch.tensor([8.0, 0, 8, 0])
    moved = BOX_WEIGHT * (1 - 1 / 3) + expected + 0.5 * (1 - 1 / 3)
    assert float(DetectionLoss(64)(outputs, targets)) == pytest.approx(float(moved), rel=1e-5)


def test_an_image_without_objects_has_a_loss_and_gradients() -> None:
    outputs = torch.zeros(1, 84, 9, requires_grad=True)
    loss = DetectionLoss(64)(outputs, torch.full((1, 2, 5), -1.0))
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()
    assert float(loss.detach()) == pytest.approx(84 * 5 * math.log(2), rel=1e-5)


def test_the_task_is_what_it_says() -> None:
    task = find_task("shapes-detector")
    model = initial_model(task, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 4) == 1_206_896
    assert "1,206,896" in task.description
    with pytest.raises(DataError, match="draws its own data"):
        task.data(SIDE)  # type: ignore[arg-type]
    assert scaled(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
    assert drawn.__name__ == task.data.__name__  # type: ignore[attr-defined]


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    images, targets = shapes(8, 64, seed=1)
    network, loss = Detector(len(SHAPES), widths=(4, 8, 16, 16, 16)), DetectionLoss(64)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        value = loss(network(scaled(images)), targets)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.7 * losses[0]
