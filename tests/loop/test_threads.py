"""Runs in several threads of one process, each with a folder and a model of its own."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import gossamer


@pytest.fixture
def threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("threads_take_turns_often")
def test_runs_begin_cut_and_end_while_others_train(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def run(folder: Path) -> None:
        try:
            model = nn.Linear(4, 3)
            for round in gossamer.rounds(model, folder=folder, stop=gossamer.Stop(rounds=4)):
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
                for _ in range(5):
                    model(torch.ones(2, 4)).square().sum().backward()
                    optimizer.step()
                assert int((model.weight != 0).sum()) == round.kept
                round.record(accuracy=0.5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(tmp_path / str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
