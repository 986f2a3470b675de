"""The global random generators, captured and put back."""

import random
from pathlib import Path

import numpy as np
import torch

from gossamer.rounds import randomness
from gossamer.rounds import state as states


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
