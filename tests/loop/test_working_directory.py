"""Relative paths mean what they meant at the call, though a loop or a task changes the working directory."""

import os
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from small_run import printed
from torch import nn

import gossamer
from gossamer.loop.records import read_records

MOVING_TASK = """
import dataclasses, os
from pathlib import Path
from gossamer.tasks import find_task

def task():
    digits = find_task("digits")
    def data(folder):
        assert folder is None or (folder / "here").exists(), folder
        os.chdir("/")
        return digits.data(None)
    os.chdir(Path(__file__).parent / "elsewhere")
    return dataclasses.replace(digits, name="mine", data=data)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(8, 6)).square().sum().backward()
    optimizer.step()


def test_a_loop_that_changes_the_working_directory(folder: Path) -> None:
    model = nn.Linear(6, 4)
    for round in gossamer.rounds(
        model, folder="run", stop=gossamer.Stop(rounds=2), retraining=gossamer.Retraining(method="weight-rewind")
    ):
        os.chdir(folder / "elsewhere")
        train(model)
        round.record(accuracy=0.5)
        os.chdir("/")
    assert [path.name for path in (folder / "elsewhere").iterdir()] == []
    assert [record.round for record in read_records(folder / "run")] == [0, 1, 2]


def test_a_dense_network_in_a_relative_folder(folder: Path) -> None:
    model = nn.Linear(6, 4)
    for round in gossamer.rounds(model, folder="first", stop=gossamer.Stop(rounds=1)):
        train(model)
        round.record(accuracy=0.5)
    rounds = gossamer.rounds(nn.Linear(6, 4), folder="second", dense="first", stop=gossamer.Stop(rounds=1))
    os.chdir(folder / "elsewhere")
    assert [round.number for round in rounds] == [1]
    assert len(read_records(folder / "second")) == 2


def test_a_task_that_changes_the_working_directory(folder: Path) -> None:
    (folder / "tasks").mkdir()
    (folder / "tasks" / "elsewhere").mkdir()
    (folder / "tasks" / "own.py").write_text(MOVING_TASK)
    (folder / "data").mkdir()
    (folder / "data" / "here").touch()
    task = "tasks/own.py:task"
    options = ("--epochs", 1, "--rounds", 1, "--data", "data")
    printed("compress", task, *options, "--out", "run")
    assert Path.cwd() == folder
    printed("compress", task, *options, "--out", "again", "--dense", "run")
    printed("explain", "run", "--task", task, "--data", "data", "--json", "facts.json")
    assert (folder / "facts.json").exists()
    assert not [*(folder / "tasks" / "elsewhere").iterdir()]
    # What is recorded is as the command said it, so that the folder can be moved.
    assert tomllib.loads((folder / "run" / "config.toml").read_text())["origin"]["task"] == task
    assert str(folder) not in (folder / "run" / "config.toml").read_text()
    shutil.move(folder / "run", folder / "moved")
    assert "moved" in printed("compress", task, *options, "--out", "moved")
    assert len(read_records(folder / "moved")) == 2


def test_a_relative_folder_without_a_working_directory(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(gossamer.GossamerError, match="run is relative to the working directory, which cannot be"):
            gossamer.rounds(nn.Linear(6, 4), folder="run", stop=gossamer.Stop(rounds=1))
    finally:
        os.chdir(folder)
