"""Scores of weights, against numbers computed by hand and against loops written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.errors import ConfigurationError, TrainingDivergedError
from gossamer.prune import masks as masks_of
from gossamer.prune.choose import choose, require_losses
from gossamer.prune.criteria import ScoreInputs, find_criterion
from gossamer.prune.cut import Cut
from gossamer.prune.gradients import mean_gradients
from gossamer.prune.prunable import prunable_weights


def scores(criterion: str, weights: dict[str, Tensor], **given: dict[str, Tensor]) -> dict[str, Tensor]:
    masks = given.get("masks", masks_of.full(weights))
    generator = torch.Generator().manual_seed(0)
    return dict(find_criterion(criterion).score(ScoreInputs(weights, masks, given.get("gradients", {}), generator)))


def test_magnitudes_are_the_weights_themselves_and_not_copied() -> None:
    weights = {"w": torch.tensor([0.5, -1.0])}
    assert scores("magnitude", weights)["w"] is weights["w"]


def test_lamp_by_hand() -> None:
    # Squares 1, 4, 9, 16: each divided by the sum of those at least as large.
    weights = {"w": torch.tensor([[1.0, -2.0], [3.0, -4.0]])}
    assert scores("lamp", weights)["w"].tolist() == [[1 / 30, 4 / 29], [9 / 25, 1.0]]


def test_lamp_counts_surviving_weights_only() -> None:
    weights = {"w": torch.tensor([1.0, -2.0, 3.0])}
    masks = {"w": torch.tensor([True, True, False])}
    assert scores("lamp", weights, masks=masks)["w"].tolist()[:2] == [1 / 5, 1.0]


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 30), levels=st.integers(1, 6))
def test_lamp_against_the_definition(seed: int, size: int, levels: int) -> None:
    """Equation 3 of the paper, in two loops, with many ties: of equal weights the earlier one ranks higher."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-levels, levels + 1, (size,), generator=generator).float()
    mask = torch.rand(size, generator=generator) < 0.8
    found = scores("lamp", {"w": weight}, masks={"w": mask})["w"]
    for index in range(size):
        if not mask[index] or weight[index] == 0:
            assert found[index] == 0
            continue
        total = 0.0
        for other in range(size):
            larger = abs(weight[other]) > abs(weight[index])
            tied = abs(weight[other]) == abs(weight[index]) and other <= index
            if mask[other] and (larger or tied):
                total += float(weight[other]) ** 2
        assert found[index].item() == pytest.approx(float(weight[index]) ** 2 / total, rel=1e-12)


def test_lamp_leaves_every_layer_its_largest_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    weights = prunable_weights(model)
    masks = choose(Cut(criterion="lamp"), model, weights, 3, masks_of.full(weights), round_number=1)
    for name, weight in weights.items():
        assert masks[name].reshape(-1).nonzero().item() == weight.detach().abs().argmax()


def test_random_is_the_same_for_the_same_seed_and_round_and_spreads_evenly() -> None:
    model = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 50))
    weights = prunable_weights(model)

    def chosen(seed: int, number: int) -> dict[str, Tensor]:
        cut = Cut(criterion="random")
        return choose(cut, model, weights, 1000, masks_of.full(weights), round_number=number, seed=seed)

    first = chosen(1, 1)
    assert all(torch.equal(mask, chosen(1, 1)[name]) for name, mask in first.items())
    assert not torch.equal(first["0.weight"], chosen(2, 1)["0.weight"])
    assert not torch.equal(first["0.weight"], chosen(1, 2)["0.weight"])
    # 500 expected in each; the standard deviation is 18.
    assert abs(masks_of.count_kept({"w": first["0.weight"]}) - 500) < 90
    assert masks_of.count_kept(first) == 1000


def test_taylor_is_weight_times_gradient() -> None:
    """For a linear model with a squared loss the gradient is known: dL/dw = 2 (w x - y) x."""
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
    batches = [(torch.tensor([1.0, 0.0, 2.0]), 1.0), (torch.tensor([0.0, 1.0, 4.0]), -1.0)]
    outputs = [2.0, 0.0]
    expected = np.mean(
        [2 * (output - target) * x.numpy() for (x, target), output in zip(batches, outputs, strict=True)], axis=0
    )
    weights = prunable_weights(model)
    model.train()
    gradients = mean_gradients(model, weights, lambda: ((model(x) - y).square() for x, y in batches))
    assert gradients["weight"].tolist() == [expected.tolist()]
    assert model.weight.grad is None
    assert model.training
    # |w g| = 1, 2, 2.5 (3 - halves): the middle one of the first two goes first.
    cut = Cut(criterion="taylor", losses=lambda: ((model(x) - y).square() for x, y in batches))
    products = np.abs(expected * model.weight.detach().numpy()[0])
    masks = choose(cut, model, weights, 2, masks_of.full(weights), round_number=1)
    assert masks["weight"].tolist() == [[index != products.argmin() for index in range(3)]]


def test_gradients_are_taken_in_evaluation_mode_and_the_mode_comes_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = torch.randn(8, 4)
    weights = prunable_weights(model)
    found = [mean_gradients(model, weights, lambda: [model(inputs).square().mean()]) for _ in range(2)]
    assert torch.equal(found[0]["0.weight"], found[1]["0.weight"])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True, True]


def test_what_cannot_be_a_loss_is_refused() -> None:
    model = nn.Linear(2, 2)
    weights = prunable_weights(model)
    inputs = torch.ones(1, 2)
    for losses, message in (
        (lambda: [], "yielded nothing"),
        (lambda: [model(inputs)], "expected a scalar"),
        (lambda: [model(inputs).sum().detach()], "cannot be derived"),
        (lambda: [3.0], "expected a scalar"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            mean_gradients(model, weights, losses)  # type: ignore[arg-type]
    with pytest.raises(TrainingDivergedError, match="a loss is"):
        mean_gradients(model, weights, lambda: [model(inputs).sum() * math.inf])


def test_mistakes_say_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="expected one of magnitude, random, taylor, lamp"):
        Cut(criterion="magic")
    with pytest.raises(ConfigurationError, match="pass losses="):
        require_losses(Cut(criterion="taylor"))
    with pytest.raises(ConfigurationError, match="criterion='taylor'"):
        Cut(losses=list)


@pytest.mark.parametrize("criterion", ["magnitude", "lamp"])
def test_a_weight_that_is_no_number_is_named(criterion: str) -> None:
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight[1, 1] = math.nan
    weights = prunable_weights(model)
    with pytest.raises(TrainingDivergedError, match="weight holds nan"):
        choose(Cut(criterion=criterion), model, weights, 4, masks_of.full(weights), round_number=1)
