"""`gossamer compare` with real processes: the cells are the runs that anybody would get alone, to the byte."""

import json
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from command_line import command, environment, gossamer
from safetensors import safe_open

TASK = """
from torch import nn, randn, Generator
from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task

def model():
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 5))

def data(folder):
    inputs = randn(400, 20, generator=Generator().manual_seed(0))
    return Data(*(Examples(part, part[:, :5].argmax(1)) for part in inputs.split([200, 100, 100])))

def task():
    recipe = Recipe(epochs=3, batch_size=20, learning_rate=OneCycle(peak=0.1), optimizer=SGD(), fine_tune_rate=0.01)
    return Task(name="tiny", description="", model=model, data=data, recipe=recipe)
"""
GRID = ["compare", "tiny.py:task", "--methods", "lr-rewind,weight-rewind@2,one-shot-fine-tune", "--seeds", "2"]
GRID += ["--target-sparsity", "0.75", "--per-round", "0.5", "--one-shot-densities", "0.25", "--out", "grid"]
RUNS = ["lr-rewind", "weight-rewind@2", "one-shot-fine-tune/density-0.25"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was interrupted once and then finished."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "tiny.py").write_text(TASK)
    begun = subprocess.Popen(
        [*command(*GRID), "--jobs", "2"], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not list((folder / "grid").glob("cells/*/seed-0/round-00")):
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.05)
    begun.send_signal(signal.SIGTERM)
    begun.communicate()
    assert begun.returncode == 128 + signal.SIGTERM
    finished = gossamer(folder, *GRID, "--jobs", "2")
    assert finished.returncode == 0, finished.stderr
    assert "dense seed 0: done before" in finished.stdout
    assert (folder / "grid" / "comparison.md").read_text() in finished.stdout
    return folder


def test_every_cell_is_there_with_its_rounds(grid: Path) -> None:
    for seed in (0, 1):
        for run in RUNS:
            lines = (grid / "grid" / "cells" / run / f"seed-{seed}" / "rounds.jsonl").read_text().splitlines()
            kept = [json.loads(line)["kept"] for line in lines]
            assert kept == ([750, 188] if "one-shot" in run else [750, 375, 188])


def test_a_cell_is_the_run_that_one_gets_alone(grid: Path) -> None:
    alone = gossamer(
        grid,
        *("compress", "tiny.py:task", "--method", "weight-rewind", "--rewind-epochs", "2", "--seed", "1"),
        *("--target-sparsity", "0.75", "--per-round", "0.5", "--out", "alone"),
    )
    assert alone.returncode == 0, alone.stderr
    cell = grid / "grid" / "cells" / "weight-rewind@2" / "seed-1"
    files = sorted(path.relative_to(grid / "alone") for path in (grid / "alone").rglob("*.safetensors"))
    assert files == sorted(path.relative_to(cell) for path in cell.rglob("*.safetensors"))
    assert Path("round-00/snapshot.safetensors") in files
    for file in [*files, Path("config.toml")]:
        assert (cell / file).read_bytes() == (grid / "alone" / file).read_bytes(), file


def test_the_numbers_are_those_of_the_runs(grid: Path) -> None:
    numbers = json.loads((grid / "grid" / "comparison.json").read_text())
    assert (numbers["metric"], numbers["better"], numbers["seeds"]) == ("accuracy", "higher", [0, 1])
    for run in RUNS:
        method = run.partition("/")[0]
        for seed in (0, 1):
            lines = (grid / "grid" / "cells" / run / f"seed-{seed}" / "rounds.jsonl").read_text().splitlines()
            expected = [(r["density"], r["val"], r["test"]) for r in map(json.loads, lines)]
            found = [p for p in numbers["points"] if p["method"] == method and p["seed"] == seed]
            assert [(p["density"], p["val"], p["test"]) for p in found] == expected
    # Two cuts of 3 epochs, two of 2, and one of 3, with 200 examples each.
    assert [(price["method"], price["runs"], price["epochs"]) for price in numbers["prices"]] == [
        ("lr-rewind", 2, 6),
        ("weight-rewind@2", 2, 4),
        ("one-shot-fine-tune", 2, 3),
    ]
    svg = (grid / "grid" / "comparison.svg").read_text()
    assert svg.startswith("<svg")
    assert "weight-rewind@2" in svg
    assert (grid / "grid" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_all_methods_have_the_same_dense_network(grid: Path) -> None:
    models = [grid / "grid" / "cells" / run / "seed-0" / "round-00" / "model.safetensors" for run in RUNS]
    assert len({model.read_bytes() for model in models}) == 1
    with safe_open(grid / "grid/dense/seed-0/round-00/model.safetensors", "pt") as file:
        assert "0.weight" in file.keys()  # noqa: SIM118


def test_a_method_is_added_and_another_task_refused(grid: Path) -> None:
    # What is finished is not run again.
    more = [argument.replace("one-shot-fine-tune", "weight-rewind@1") for argument in GRID]
    added = gossamer(grid, *more, "--seeds", "1")
    assert added.returncode == 0, added.stderr
    assert added.stdout.count("done before") == 1 + 2
    assert "weight-rewind@1 seed 0: done" in added.stdout
    refused = gossamer(grid, *GRID, "--epochs", "2")
    assert refused.returncode == 2
    assert "comparison.epochs: the folder's run has 3, this one has 2" in refused.stderr


def test_fine_tuning_with_a_rate_is_added_and_its_rate_stays(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TASK)
    small = [*GRID[:2], "--seeds", "1", "--target-sparsity", "0.5", "--per-round", "0.5", "--out", "grid"]
    assert gossamer(tmp_path, *small, "--methods", "lr-rewind").returncode == 0
    added = gossamer(tmp_path, *small, "--methods", "lr-rewind,fine-tune", "--fine-tune-rate", "0.02")
    assert added.returncode == 0, added.stderr
    run = tomllib.loads((tmp_path / "grid/cells/fine-tune/seed-0/config.toml").read_text())
    assert run["settings"]["fine_tune_rate"] == 0.02
    refused = gossamer(tmp_path, *small, "--methods", "lr-rewind,fine-tune", "--fine-tune-rate", "0.03")
    assert refused.returncode == 2
    assert "comparison.fine_tune_rate: the folder's run has 0.02, this one has 0.03" in refused.stderr
    # Methods that have no such rate do not care, and what is known of it is kept.
    assert gossamer(tmp_path, *small, "--methods", "lr-rewind").returncode == 0
    assert tomllib.loads((tmp_path / "grid/config.toml").read_text())["comparison"]["fine_tune_rate"] == 0.02


def test_a_failing_run_is_named_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TASK.replace("peak=0.1", "peak=1e30"))
    failed = gossamer(tmp_path, *GRID)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: dense seed 0 failed:\n")
    assert "\n  error: the training loss became" in failed.stderr
    assert "gossamer compress tiny.py:task --seed 0" in failed.stderr


def test_a_dense_network_of_other_settings_is_refused(grid: Path) -> None:
    refused = gossamer(
        grid,
        *("compress", "tiny.py:task", "--rounds", "1", "--seed", "0", "--out", "other", "--dense", "grid/dense/seed-1"),
    )
    assert refused.returncode == 2
    assert "rounds.seed: its run has 1, this one has 0" in refused.stderr


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_bytes(grid: Path) -> None:
    pytest.importorskip("ray")
    on_cluster = [argument if argument != "grid" else "cluster" for argument in GRID]
    finished = subprocess.run(
        [arg for arg in command(*on_cluster, "--cluster", "local", "--threads", "1") if arg not in ("-W", "error")],
        cwd=grid,
        # Workers as important as everybody else, also where other tests run beside this one.
        env={**environment(), "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for run in RUNS:
        for file in ("round-00/model.safetensors", "round-01/model.safetensors", "round-01/masks.safetensors"):
            one, other = (grid / name / "cells" / run / "seed-1" / file for name in ("grid", "cluster"))
            assert one.read_bytes() == other.read_bytes()
