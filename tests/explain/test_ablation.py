"""Ablation curves and sign flips of weights written by hand."""

import pytest
import torch
from torch import nn

from gossamer.explain.ablation import ablate
from gossamer.explain.signs import count_sign_flips
from gossamer.tasks import Examples, Metric


def test_the_weakest_and_the_strongest_survivors() -> None:
    """Class 1 wins if input 0 is on: the weight of 5 decides, those of 1 do nothing, pruned ones are left out."""
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 1.0], [5.0, -1.0, 1.0, 0.0]]))
    inputs = torch.tensor([[1.0, 1, 1, 1]] * 6 + [[0.0, 0, 0, 1]] * 4)
    examples = Examples(inputs, torch.tensor([1] * 6 + [0] * 4))
    masks = {"0.weight": torch.tensor([[False, False, False, True], [True, True, True, False]])}
    ablation = ablate(model, masks, examples, Metric(), fractions=(0.2, 0.75, 1.0))
    assert (ablation.baseline, ablation.examples) == (1.0, 10)
    found = {(point.which, point.fraction): (point.removed, point.metric) for point in ablation.points}
    assert found == {
        # Of equal ones the first in the tensor is the weakest: that of class 0. Then both outputs are 0 or one is 5.
        ("weakest", 0.2): (1, 1.0),
        ("weakest", 0.75): (3, 1.0),
        ("weakest", 1.0): (4, 0.4),
        ("strongest", 0.2): (1, 0.4),
        ("strongest", 0.75): (3, 0.4),
        ("strongest", 1.0): (4, 0.4),
    }
    lost = next(point for point in ablation.points if point.which == "strongest")
    assert lost.change == pytest.approx(-0.6)
    assert lost.interval[0] < -0.6 < lost.interval[1] < 0
    assert model[0].weight[1, 0] == 5


def test_signs_that_flipped() -> None:
    everything, three = torch.ones(4, dtype=torch.bool), torch.tensor([True, True, True, False])
    signs = count_sign_flips(
        [
            (0, {"a": torch.tensor([1.0, -1, 2, 3])}, {"a": everything}),
            (1, {"a": torch.tensor([1.0, 1, 0, -3])}, {"a": everything}),
            (2, {"a": torch.tensor([-1.0, -1, 5, 0])}, {"a": three}),
        ]
    )
    assert [(flips.round, flips.survivors, flips.flipped) for flips in signs.rounds] == [(1, 3, 2), (2, 2, 2)]
    assert signs.rounds[0].layers == {"a": (3, 2)}
    assert signs.rounds[0].share == pytest.approx(2 / 3)
