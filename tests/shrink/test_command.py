"""`gossamer shrink`: what it prints, and that what it writes is the same network."""

import os
import re
from pathlib import Path

import pytest
import torch
from command_line import gossamer
from safetensors.torch import load_file
from small_run import printed, refused, small_run

import gossamer as library
from gossamer.loop.stop import Stop
from gossamer.shrink import load_shrunk
from gossamer.tasks import find_task


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shrink") / "run"
    small_run(folder)
    return folder


def test_the_smaller_network_is_written_and_computes_the_same(run: Path) -> None:
    finished = gossamer(run.parent, "shrink", "run", "-o", "small.safetensors")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    task = find_task("digits")
    model, smaller = task.model(), load_shrunk(run.parent / "small.safetensors", task.model())
    library.load_round(run, -1, model)
    test = task.data(None).test.inputs
    with torch.no_grad():
        difference = (model.eval()(test) - smaller(test)).abs().max()
    assert difference < 1e-5
    parameters = sum(tensor.numel() for tensor in load_file(run.parent / "small.safetensors").values())
    assert parameters < 22_602
    assert f"parameters 22,602 -> {parameters:,} " in finished.stdout
    removed = sum(
        len(before.weight) - len(after.weight)
        for before, after in zip(model, smaller, strict=True)
        if hasattr(before, "weight")
    )
    assert f"round 2 of run: {removed} of 186 units removed" in finished.stdout
    assert re.search(r"on 200 validation examples: largest difference of an output \d", finished.stdout)


def test_of_the_dense_network_nothing_is_removed(run: Path) -> None:
    text = printed("shrink", run, "--round", 0)
    assert ": 0 of 186 units removed" in text
    assert "parameters 22,602 -> 22,602 " in text


def test_a_round_that_is_not_there(run: Path) -> None:
    assert "has no round 7" in refused("shrink", run, "--round", 7)


def test_a_run_of_ones_own_loop_says_how_to_do_it_in_python(tmp_path: Path) -> None:
    for round in library.rounds(torch.nn.Linear(4, 2), folder=tmp_path / "run", stop=Stop(rounds=1)):
        round.record(untrained=True, accuracy=1.0)
    assert "gossamer.shrink.shrink(model, inputs)" in refused("shrink", tmp_path / "run")


def test_a_run_of_ones_own_task_asks_for_it(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/own_task.py"
    (tmp_path / "mine.py").write_text(example.read_text())
    own = f"{tmp_path / 'mine.py'}:task"
    printed("compress", own, "--epochs", 1, "--rounds", 1, "--per-round", 0.9, "--out", tmp_path / "run")
    # The path that the folder records is named, and its code is not run before the user names it too.
    (tmp_path / "mine.py").write_text(example.read_text() + f"\nPath({str(tmp_path / 'imported')!r}).touch()\n")
    message = refused("shrink", tmp_path / "run")
    assert f"--task {Path(os.path.relpath(tmp_path / 'mine.py')).as_posix()}:task" in message
    assert not (tmp_path / "imported").exists()
    file = tmp_path / "small.safetensors"
    assert "units removed" in printed("shrink", tmp_path / "run", "--task", own, "--select-inputs", "-o", file)
    assert any(name.endswith(".index") for name in load_file(file))
    assert (tmp_path / "imported").exists()
    assert "is a run of the task 'tumours'" in refused("shrink", tmp_path / "run", "--task", "digits")


def test_a_recorded_path_with_control_characters_is_not_shown(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/own_task.py"
    printed("compress", f"{example}:task", "--epochs", 1, "--rounds", 1, "--per-round", 0.9, "--out", tmp_path / "run")
    config = tmp_path / "run/config.toml"
    lines = config.read_text().splitlines()
    config.write_text(
        "\n".join('task = "\\u001b[2Jmine.py:task"' if "own_task.py" in line else line for line in lines) + "\n"
    )
    message = refused("shrink", tmp_path / "run")
    assert "\x1b" not in message
    assert "--task path/file.py:function" in message
