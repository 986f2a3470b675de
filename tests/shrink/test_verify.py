"""Two networks compared on a task's data."""

import pytest
import torch
from torch import Tensor, nn

from gossamer.shrink import ShrinkError
from gossamer.shrink.verify import OutputsCompared, verify
from gossamer.tasks import Examples, Metric
from gossamer.tasks.sample import BATCH


def linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer.eval()


SAME = [[1.0, 0], [0, 1]]
INPUTS = torch.tensor([[3.0, 1], [0, 8], [-9, 2]])
EXAMPLES = Examples(INPUTS, torch.tensor([0, 1, 0]))


def first(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:, 0]


def test_what_is_compared() -> None:
    other = linear([[1.0, 0], [0, 1 + 2**-14]])
    found = verify(linear(SAME), other, EXAMPLES, Metric())
    # 8 * 2 ** -14, beside a largest output of 9.
    assert found == OutputsCompared(3, 2**-11, 9.0, pytest.approx(2 / 3), pytest.approx(2 / 3))
    found = verify(linear(SAME), linear([[1 + 2**-14, 0], [0, 1]]), EXAMPLES, Metric("first", "lower", first))
    assert (found.metric_before, found.metric) == (-2.0, pytest.approx(-2.0 * (1 + 2**-14)))


@pytest.mark.parametrize("weight", [[[1.0, 0], [0, 1.01]], [[1.0, 0], [0, float("nan")]], [[1.0, 0], [0, 1 - 2e-4]]])
def test_what_differs_by_more_than_rounding_is_refused(weight: list[list[float]]) -> None:
    with pytest.raises(ShrinkError, match=r"on 3 examples .* differ by up to .* expected at most 0\.0009"):
        verify(linear(SAME), linear(weight), EXAMPLES, Metric())


def test_every_example_counts() -> None:
    inputs = torch.zeros(2 * BATCH + 1, 2)
    inputs[-1, 1] = 1
    with pytest.raises(ShrinkError, match=r"by up to 0\.1"):
        verify(linear(SAME), linear([[1.0, 0], [0, 1.1]]), Examples(inputs, torch.zeros(len(inputs)).long()), Metric())
