"""A task whose data are read by workers, on the command line: killed, with workers that die, in every command."""

import shutil
from pathlib import Path

import pytest
from command_line import Started, gossamer

TASK = '''
"""Examples that are read by workers, each with noise of all three global generators."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gossamer.tasks import SGD, Data, Loaded, OneCycle, Recipe, Task

INPUTS = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS.abs()[:, :3].argmax(1)
STEPS = 0


class Jittered(Dataset):
    def __init__(self, dies=False):
        self.dies = dies

    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, row):
        if self.dies and row == 55:
            os.kill(os.getpid(), signal.SIGKILL)
        return INPUTS[row] + 0.1 * (torch.randn(6) + np.random.rand() + random.random()).float(), TARGETS[row]


def loss(outputs, targets):
    """Ends the process, as pulling the plug does, at the step that a file names."""
    global STEPS
    STEPS += torch.is_grad_enabled()
    if Path("kill").exists() and int(Path("kill").read_text()) == STEPS:
        os.kill(os.getpid(), signal.SIGKILL)
    return F.cross_entropy(outputs, targets)


def model():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def made(train):
    recipe = Recipe(2, 10, OneCycle(peak=0.1), SGD(), loss=loss)
    validation = DataLoader(Jittered(), batch_size=25)
    return Task("read", "", model, lambda folder: Data(train, validation), recipe)


def task():
    return made(Loaded(Jittered(), workers=2))


def dying():
    return made(Loaded(Jittered(dies=True), workers=1))
'''

COMPRESS = ("compress", "own.py:task", "--rounds", 1, "--checkpoint-seconds", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the task, and a run of it."""
    folder = tmp_path_factory.mktemp("real_data")
    (folder / "own.py").write_text(TASK)
    done = gossamer(folder, *COMPRESS, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_a_run_that_is_killed_in_the_middle_of_an_epoch_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "own.py", tmp_path)
    # In the middle of the first round after the dense one, which has two epochs of 6 steps.
    (tmp_path / "kill").write_text("22")
    killed = Started(tmp_path, *COMPRESS, "--out", "run")
    assert killed.wait() == -9
    (tmp_path / "kill").unlink()
    done = gossamer(tmp_path, *COMPRESS, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("round-00/model.safetensors", "round-01/model.safetensors", "round-01/masks.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / "run" / name).read_bytes()


def test_a_worker_that_dies(folder: Path) -> None:
    done = gossamer(folder, "compress", "own.py:dying", "--rounds", 1, "--out", "dying")
    assert done.returncode == 2
    # torch tells of it by raising wherever Python is just then, so that more lines may follow; in the middle of a
    # message it is the connection that ends.
    first = done.stderr.splitlines()[0]
    assert first.startswith("error: read: ")
    assert "DataLoader worker" in first or "ConnectionResetError" in first


def test_without_a_test_split_its_metric_is_left_out(folder: Path) -> None:
    shown = gossamer(folder, "show", "run")
    assert shown.returncode == 0
    assert gossamer(folder, "watch", "run", "--once").returncode == 0
    assert "test accuracy" not in shown.stdout
    assert "the task has no test split" in shown.stdout


OWN = ("--task", "own.py:task")
COMMANDS = {
    "explain": ("explain", "run", *OWN, "--json", "facts.json"),
    "shrink": ("shrink", "run", *OWN, "--out", "small.safetensors"),
    "export": ("export", "run", *OWN, "--dense", "-o", "net.onnx"),
    "export of a task": ("export", "own.py:task", "--dense", "-o", "untrained.onnx"),
    "report": ("report", "run", "--out", "page.html"),
    "compare": ("compare", "own.py:task", "--methods", "lr-rewind", "--seeds", 1, "--rounds", 1, "--out", "c"),
    "search": ("search", "run", *OWN, "--budget", "weights=0.5", "--episodes", 2, "--out", "s.toml"),
    "bench train": ("bench", "train", "own.py:task", "--data", ".", "--runs", 1, "--steps", 2),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_task(command: str, folder: Path) -> None:
    done = gossamer(folder, *COMMANDS[command])
    assert (done.returncode, done.stderr) == (0, "")
