"""Weights that are tied stay tied: a network that ties them otherwise cannot come back out of the folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gossamer
from gossamer.errors import CheckpointError, ConfigurationError


class Pair(nn.Module):
    """Two square layers of one weight, or of two."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        if tied:
            tie(self)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.second(torch.relu(self.first(inputs)))
        return outputs


def tie(model: Pair) -> None:
    model.second.weight = model.first.weight


def untie_by_a_new_parameter(model: Pair) -> None:
    model.second.weight = nn.Parameter(model.second.weight.detach().clone())


def untie_by_loading(model: Pair) -> None:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)


def train(model: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("untie", [untie_by_a_new_parameter, untie_by_loading])
def test_weights_that_come_apart_are_told_at_the_first_step(
    untie: Callable[[Pair], None], number: int, tmp_path: Path
) -> None:
    model = Pair(tied=True)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        if round.number == number:
            untie(model)
            apart = r"first\.weight and second\.weight were one when the rounds began and are apart now"
            with pytest.raises(ConfigurationError, match=apart):
                train(model, steps=1)
            tie(model)
        train(model)
        round.record(accuracy=0.5)


def test_weights_that_come_apart_after_the_training_can_be_recorded_tied(tmp_path: Path) -> None:
    model = Pair(tied=True)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model)
        untie_by_loading(model)
        with pytest.raises(ConfigurationError, match="are apart now"):
            round.record(accuracy=0.5)
        tie(model)
        round.record(accuracy=0.5)
    again = Pair(tied=True)
    gossamer.load_round(tmp_path, -1, again)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_weights_that_become_one(tmp_path: Path) -> None:
    model = Pair(tied=False)
    next(rounds := gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    tie(model)
    with pytest.raises(ConfigurationError, match=r"were apart when the rounds began and are one now"):
        train(model)
    del rounds


def test_two_weights_of_a_folder_do_not_fit_into_one(tmp_path: Path) -> None:
    model = Pair(tied=False)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model)
        round.record(accuracy=0.5)
    with pytest.raises(CheckpointError, match=r"has first\.weight and second\.weight apart, which are one"):
        gossamer.load_round(tmp_path, 0, Pair(tied=True))
