"""A task whose data are read by workers, on the command line: killed, with workers that die, in every command."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from command_line import Started, gossamer

from gossamer.loop.records import read_records

TASK = '''
"""Examples that are read by workers, each with noise of all three global generators."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gossamer.tasks import SGD, Data, Loaded, Metric, OneCycle, Recipe, Task

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


class Pairs(Dataset):
    """Two inputs by their names."""

    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, row):
        return {"first": INPUTS[row, :3], "second": INPUTS[row, 3:], "labels": TARGETS[row]}


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(16, 3)

    def forward(self, first, second):
        hidden = torch.cat([self.left(first), self.right(second)], 1).relu()
        return {"hidden": hidden, "logits": self.head(hidden)}


class Wrong:
    """How many are classified wrongly."""

    higher_is_better = False

    def __init__(self):
        self.count = 0

    def update(self, outputs, targets):
        self.count += int((outputs["logits"].argmax(1) != targets).sum())

    def compute(self):
        return {"wrong": self.count, "right": len(INPUTS) - self.count}


def pairs():
    recipe = Recipe(2, 10, OneCycle(peak=0.1), SGD(), loss=lambda o, t: F.cross_entropy(o["logits"], t))
    metric = Metric.over_set("wrong", Wrong)
    return Task("pairs", "", Both, lambda folder: Data(Pairs(), Pairs()), recipe, metric)


class Murderous(nn.Sequential):
    """Kills a process that reads while a checkpoint asks for the weights, and waits until torch has been told."""

    def state_dict(self, *args, **kwargs):
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.5)
        return super().state_dict(*args, **kwargs)


def killed_while_writing():
    recipe = Recipe(2, 10, OneCycle(peak=0.1), SGD())
    data = Data(Loaded(Jittered(), workers=1), Loaded(Jittered()))
    return Task("read", "", lambda: Murderous(nn.Linear(6, 3)), lambda folder: data, recipe)


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


@pytest.mark.slow
def test_an_interruption_ends_training_and_workers(folder: Path) -> None:
    """Ctrl-C reaches the workers too. One that is just being forked says so, in lines of its own."""
    command = ("compress", "own.py:task", "--rounds", 1, "--epochs", 1000, "--out", "interrupted")
    process = Started(folder, *command, session=True)
    while not (folder / "interrupted" / "training.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    done = process.completed()
    assert done.returncode == 130
    assert "interrupted; runs, comparisons and searches keep what was finished" in done.stderr


def test_a_worker_that_dies(folder: Path) -> None:
    done = gossamer(folder, "compress", "own.py:dying", "--rounds", 1, "--out", "dying")
    assert done.returncode == 2
    # torch tells of it by raising wherever Python is just then, so that more lines may follow; in the middle of a
    # message it is the connection that ends, and outside of what the task does its name is not known.
    first = done.stderr.splitlines()[0]
    assert first.startswith(("error: read: ", "error: a process that reads examples is gone: "))
    assert any(told in first for told in ("DataLoader worker", "ConnectionResetError", "EOFError"))


def test_a_worker_that_dies_while_a_checkpoint_is_written(folder: Path) -> None:
    """torch raises from a signal's handler, here where nothing of the task runs."""
    command = ("compress", "own.py:killed_while_writing", "--rounds", 1, "--checkpoint-seconds", 0, "--out", "writing")
    done = gossamer(folder, *command)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a process that reads examples is gone: DataLoader worker (pid ")


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


SLOW = ("compare", "export of a task")


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in COMMANDS]
)
def test_every_command_takes_the_task(command: str, folder: Path) -> None:
    done = gossamer(folder, *COMMANDS[command])
    assert (done.returncode, done.stderr) == (0, "")


PAIRS = ("--task", "own.py:pairs")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Path:
    done = gossamer(folder, "compress", "own.py:pairs", "--rounds", 1, "--out", "pairs")
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_several_inputs_and_outputs_are_exported_with_a_metric_of_the_whole_set(pairs: Path) -> None:
    import onnx

    done = gossamer(pairs, "export", "pairs", *PAIRS, "--shrink", "--dense", "-o", "pairs.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    graph = onnx.load(pairs / "pairs.onnx").graph
    assert [value.name for value in graph.input] == ["first", "second"]
    assert len(graph.output) == 2
    record = read_records(pairs / "pairs")[-1]
    assert f"wrong {record.val:.4f} -> {record.val:.4f}" in done.stdout
    assert record.metrics == {"wrong": record.val, "right": 60 - (record.val or 0)}


def test_they_are_shrunk(pairs: Path) -> None:
    done = gossamer(pairs, "shrink", "pairs", *PAIRS)
    assert (done.returncode, done.stderr) == (0, "")


def test_they_are_explained(pairs: Path) -> None:
    done = gossamer(pairs, "explain", "pairs", *PAIRS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "77 of 96 prunable weights kept" in done.stdout
