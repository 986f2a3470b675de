"""At a cut the slots of what was pruned are zero, before anything reads them: some optimizers put weights together from
their slots outside a step, and what they compute must not depend on what ran before in the process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import gossamer


class ScheduleFree(torch.optim.Optimizer):
    """Gradients at a point between a fast sequence and its mean, put together between steps (Defazio, 2024)."""

    def __init__(self, parameters: Any, rate: float = 0.1) -> None:
        super().__init__(parameters, {"rate": rate, "training": False, "steps": 0})

    def _move(self, training: bool, weight: float) -> None:
        for group in self.param_groups:
            if group["training"] != training:
                for parameter in group["params"]:
                    if "fast" in self.state[parameter]:
                        parameter.data.lerp_(self.state[parameter]["fast"], weight)
                group["training"] = training

    def train(self) -> None:
        self._move(True, 0.1)

    def eval(self) -> None:
        self._move(False, 1 - 1 / 0.9)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["steps"] += 1
            for parameter in group["params"]:
                fast = self.state[parameter].setdefault("fast", parameter.clone())
                parameter.lerp_(fast, 1 / group["steps"]).add_(parameter.grad, alpha=-group["rate"] * 0.9)
                fast.sub_(parameter.grad, alpha=group["rate"])


class CountsUnderAKeyOfItsOwn(torch.optim.SGD):
    """As MADGRAD does."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1, momentum=0.9)
        self.state["k"] = torch.tensor([0])  # type: ignore[index]

    def train(self) -> None: ...

    def eval(self) -> None: ...


def batch() -> Tensor:
    return torch.randn(8, 6)


def train(model: nn.Module, optimizer: Any) -> None:
    optimizer.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(batch()).square().sum().backward()
        optimizer.step()
    optimizer.eval()


@pytest.mark.parametrize("make", [ScheduleFree, CountsUnderAKeyOfItsOwn])
def test_optimizers_with_other_slots_go_on_with_the_same_bits(make: Callable[[Any], Any], tmp_path: Path) -> None:
    def attempt(folder: Path, rounds: int) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = make(model.parameters())
        for round in gossamer.rounds(
            model, folder=folder, state={"optimizer": optimizer}, stop=gossamer.Stop(rounds=3)
        ):
            train(model, optimizer)
            round.record(accuracy=0.5)
            rounds -= 1
            if not rounds:
                break

    attempt(tmp_path / "whole", 4)
    for _ in range(4):
        attempt(tmp_path / "interrupted", 1)
    for number in range(4):
        name = f"round-{number:02d}/model.safetensors"
        whole, interrupted = load_file(tmp_path / "whole" / name), load_file(tmp_path / "interrupted" / name)
        assert all(torch.equal(whole[key], interrupted[key]) for key in whole)


def test_the_first_cut_clears_the_slots_too(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        for name, mask in round.masks.items():
            slots = optimizer.state.get(model.get_parameter(name), {})
            assert all(not slot[~mask].any() for slot in slots.values())
        model(batch()).square().sum().backward()
        optimizer.step()
