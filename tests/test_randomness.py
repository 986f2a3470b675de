"""The global random generators, captured and put back."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from gossamer import randomness
from gossamer.storage import state as states


def draw() -> list[object]:
    # An odd number of Gaussians: the generators keep the second of each pair for later.
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(3).tolist(),
        torch.rand(3).tolist(),
        torch.randn(17).tolist(),
        torch.randperm(9).tolist(),
    ]


def test_after_restoring_the_same_numbers_are_drawn(tmp_path: Path) -> None:
    draw()
    states.save(tmp_path / "random.safetensors", randomness.capture())
    expected = [draw(), draw()]
    randomness.restore(states.load(tmp_path / "random.safetensors"))
    assert [draw(), draw()] == expected
    assert draw() not in expected


def test_capturing_draws_nothing() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = draw()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    randomness.capture()
    assert draw() == expected


class Machine:
    """Stands in for torch's view of a machine with so many GPUs: each has one generator, whose state is a number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
        self.generators = [torch.tensor([100 + index], dtype=torch.uint8) for index in range(gpus)]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [state.clone() for state in self.generators])
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.set)

    def set(self, state: torch.Tensor, device: int) -> None:
        self.generators[device] = state

    @property
    def numbers(self) -> list[int]:
        return [int(state) for state in self.generators]


@pytest.mark.parametrize("gpus", [0, 1, 2, 3])
def test_generators_of_gpus_are_put_back_where_there_are_such_gpus(
    gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 2)
    states.save(tmp_path / "random.safetensors", randomness.capture())
    expected = draw()
    machine.generators[0] += 7
    other = Machine(monkeypatch, gpus)
    other.generators = [state + 50 for state in other.generators]
    randomness.restore(states.load(tmp_path / "random.safetensors"))
    assert other.numbers == [100, 101, 152][:gpus]
    assert draw() == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPUs")
def test_a_state_from_a_machine_with_gpus_is_taken_where_there_are_none() -> None:
    state = {**randomness.capture(), "cuda": [torch.zeros(16, dtype=torch.uint8)]}
    expected = draw()
    randomness.restore(state)
    assert draw() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_after_restoring_a_gpu_draws_the_same_numbers(tmp_path: Path) -> None:
    states.save(tmp_path / "random.safetensors", randomness.capture())
    expected = torch.rand(5, device="cuda").tolist()
    randomness.restore(states.load(tmp_path / "random.safetensors"))
    assert torch.rand(5, device="cuda").tolist() == expected


def test_plain_numbers_are_the_same_states() -> None:
    """As they go from one process to another."""
    random.gauss(0, 1)
    before = randomness.capture()
    drawn = random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(2).tolist()
    randomness.restore(randomness.from_plain(json.loads(json.dumps(randomness.as_plain(before)))))
    assert drawn == (random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(2).tolist())
