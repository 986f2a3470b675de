"""`gossamer compare` with real processes: the cells are the runs that anybody would get alone, to the byte."""

import json
import os
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Started, command, environment, gossamer
from safetensors import safe_open

from gossamer.cli.compare import compare
from gossamer.errors import ConfigurationError, GossamerError

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
SIZES = ["--target-sparsity", "0.5", "--per-round", "0.5"]
SMALL = ["compare", "tiny.py:task", "--methods", "lr-rewind", "--seeds", "1", *SIZES, "--out", "grid"]
RUNS = ["lr-rewind", "weight-rewind@2", "one-shot-fine-tune/density-0.25"]


OWN_TASK = f"{Path(__file__).parents[2] / 'examples' / 'own_task.py'}:task"


def stopping_once(how: str, after_steps: int = 0) -> str:
    """The task, whose first training does this once it has made so many steps."""
    loss = f"""
import os, time
from pathlib import Path
from torch.nn.functional import cross_entropy
steps = 0

def loss(outputs, targets):
    global steps
    steps += 1
    if steps > {after_steps} and not Path("begun").exists():
        Path("begun").touch()
        {how}
    return cross_entropy(outputs, targets)
"""
    return loss + TASK.replace("epochs=3,", "epochs=3, loss=loss,")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was interrupted once and then finished."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "tiny.py").write_text(TASK)
    begun = Started(folder, *GRID, "--jobs", "2")
    while not list((folder / "grid").glob("cells/*/seed-0/round-00")):
        assert begun.poll() is None, begun.completed()
        time.sleep(0.05)
    begun.send_signal(signal.SIGTERM)
    assert begun.wait() == 128 + signal.SIGTERM
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
    # What the runs' own ledgers say.
    (price, *_) = numbers["prices"]
    ledgers = [
        [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()][1:]
        for folder in sorted((grid / "grid" / "cells" / "lr-rewind").glob("seed-?"))
    ]
    for name in ("wall_seconds", "energy_joules_estimate"):
        of_runs = [sum(round[name] for round in ledger) for ledger in ledgers]
        assert price[name] == pytest.approx(sum(of_runs) / 2)
    # The last network multiplies by 188 weights instead of 750, and adds as often.
    operations = sum(round["training_flops"] for round in ledgers[0])
    assert price["pays_after_inferences"] == pytest.approx(operations / (2 * (750 - 188)), rel=0.01)
    table = (grid / "grid" / "comparison.md").read_text()
    assert f"| {price['pays_after_inferences']:.3g} |" in table
    assert "the energy is an estimate: 10 W a busy core" in table
    assert "larger networks of the same method may be worse than dense" in table
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


@pytest.mark.slow
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
    (tmp_path / "grid" / "dense").mkdir(parents=True)
    (tmp_path / "grid" / "dense" / "seed-0.log").write_text("of an earlier attempt\n")
    failed = gossamer(tmp_path, *GRID)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: dense seed 0 failed:\n")
    assert "\n  error: the training loss became" in failed.stderr
    assert "of an earlier attempt" not in failed.stderr
    assert "gossamer compress tiny.py:task --seed 0" in failed.stderr


def test_a_run_that_is_killed_is_named_with_the_signal(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(stopping_once("os.kill(os.getpid(), 9)"))
    (tmp_path / "grid" / "dense").mkdir(parents=True)
    (tmp_path / "grid" / "dense" / "seed-0.log").write_text("of an earlier attempt\n")
    failed = gossamer(tmp_path, *SMALL)
    assert failed.returncode == 2
    assert failed.stderr.startswith(
        "error: dense seed 0 was killed by signal 9 (SIGKILL), often because memory ran out"
    )
    assert "of an earlier attempt" not in failed.stderr
    assert gossamer(tmp_path, *SMALL).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_runs_end_with_the_comparison_however_it_ends(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(stopping_once("time.sleep(200)"))
    begun = Started(tmp_path, *SMALL, session=True)
    while not (tmp_path / "begun").exists():
        assert begun.poll() is None, begun.completed()
        time.sleep(0.05)
    if number == signal.SIGINT:
        # As a terminal does: to every process of the group.
        os.killpg(begun.pid, number)
    else:
        begun.send_signal(number)
    assert begun.wait() == (128 + number if number == signal.SIGINT else -number)
    # The folder of its run is free, which it would not be for 200 seconds.
    continued = gossamer(tmp_path, *SMALL)
    assert continued.returncode == 0, continued.stderr
    log = (tmp_path / "grid" / "dense" / "seed-0.log").read_text()
    assert "the comparison that started this run has ended; what was finished is kept" in log.splitlines()
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_method_that_goes_back_is_added_to_an_interrupted_dense_training(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(stopping_once("os.kill(os.getpid(), 9)", after_steps=15))
    dense = ("compress", "tiny.py:task", "--dense-only", *SIZES, "--seed", 0, "--out", "grid/dense/seed-0")
    assert gossamer(tmp_path, *dense, "--checkpoint-seconds", 0).returncode == -signal.SIGKILL
    assert (tmp_path / "grid/dense/seed-0/training.safetensors").exists()
    finished = gossamer(tmp_path, *SMALL, "--methods", "lr-rewind,weight-rewind")
    assert finished.returncode == 0, finished.stderr
    assert "grid/dense/seed-0: its training begins again, for it had passed what a method goes" in finished.stdout
    # It was trained once more, not once more for the method that goes back to its start.
    assert (tmp_path / "grid/dense/seed-0/snapshot-0-steps.safetensors").exists()
    start = [tmp_path / "grid" / run / "seed-0/round-00/cost.json" for run in ("dense", "cells/weight-rewind")]
    assert start[0].read_bytes() == start[1].read_bytes()


def test_a_file_of_densities_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(TASK)
    policy = Path("policy.toml")
    policy.write_text('[densities]\n"0.weight" = 0.1\n"3.weight" = 0.5\n')
    # Where it ends was not said.
    lines = ("compare", "tiny.py:task", "--methods", "lr-rewind+policy.toml", "--seeds", "1", "--per-round", "0.5")
    finished = gossamer(tmp_path, *lines, "--out", "grid")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(Path("grid/comparison.json").read_text())["target_sparsity"] == 0.95
    again = {
        "task": "tiny.py:task",
        "out": Path("grid"),
        "methods": "lr-rewind+policy.toml",
        "seeds": 1,
        "per_round": 0.5,
    }
    policy.write_text('[densities]\n"0.weight" = 0.2\n"3.weight" = 0.5\n')
    before = {path: path.stat().st_mtime_ns for path in Path("grid").rglob("*")}
    changed = r"grid/cells/lr-rewind\+policy.toml/seed-0 was made with other densities than policy.toml holds now"
    with pytest.raises(ConfigurationError, match=changed + r" \(0.weight: 0.1 then, 0.2 now\)"):
        compare(**again)
    assert {path: path.stat().st_mtime_ns for path in Path("grid").rglob("*")} == before


@pytest.mark.slow
def test_one_cut_to_densities_in_a_file_is_looked_at_where_these_end(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TASK)
    # 600 and 150 weights: 60 + 75, and 12 + 30.
    (tmp_path / "large.toml").write_text('[densities]\n"0.weight" = 0.1\n"3.weight" = 0.5\n')
    (tmp_path / "small.toml").write_text('[densities]\n"0.weight" = 0.02\n"3.weight" = 0.2\n')
    methods = "one-shot-lr-rewind,one-shot-lr-rewind+large.toml,one-shot-lr-rewind+small.toml"
    lines = ("compare", "tiny.py:task", "--methods", methods, "--seeds", "1", "--one-shot-densities", "0.5")
    finished = gossamer(tmp_path, *lines, "--out", "grid")
    assert finished.returncode == 0, finished.stderr
    numbers = json.loads((tmp_path / "grid/comparison.json").read_text())
    kept = [(point["method"].partition("+")[2], point["kept"]) for point in numbers["points"]]
    assert kept == [
        ("", 750),
        ("", 375),
        *(("large.toml", n) for n in (750, 135)),
        *(("small.toml", n) for n in (750, 42)),
    ]
    cell = tmp_path / "grid/cells/one-shot-lr-rewind+small.toml/seed-0"
    with safe_open(cell / "round-01/model.safetensors", "pt") as model:
        assert [int((model.get_tensor(name) != 0).sum()) for name in ("0.weight", "3.weight")] == [12, 30]
    again = gossamer(tmp_path, *lines, "--out", "grid")
    assert (again.returncode, again.stdout.count("done before")) == (0, 4)
    (tmp_path / "small.toml").write_text('[densities]\n"0.weight" = 0.04\n"3.weight" = 0.2\n')
    changed = gossamer(tmp_path, *lines, "--out", "grid")
    assert changed.returncode == 2
    assert "small.toml/seed-0 was made with other densities than small.toml holds now" in " ".join(
        changed.stderr.split()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": OWN_TASK}, "^fine-tune: the recipe's schedule ends at a learning rate of"),
        ({"fine_tune_rate": -1.0}, "^fine-tune: fine_tune_rate is -1.0; expected a learning rate above 0"),
        ({"methods": "lr-rewind+nofile.toml"}, r"^lr-rewind\+nofile.toml: cannot read densities from nofile.toml"),
        ({"methods": "lr-rewind+other.toml"}, r"^lr-rewind\+other.toml: there is no density for"),
        ({"methods": "one-shot-lr-rewind+other.toml"}, r"^one-shot-lr-rewind\+other.toml: there is no density for"),
        (
            {"methods": "lr-rewind+2:4", "target_sparsity": 0.3},
            r"^lr-rewind\+2:4: the last round keeps .* weights, but",
        ),
        ({"epochs": 0}, "^epochs is 0; expected at least 1"),
        ({"device": "cuda"}, "^device is 'cuda', but torch sees no GPU here"),
        ({"device": "toaster"}, "^device is 'toaster'; expected"),
        ({"task": "lenet-300-100", "data": Path("missing")}, "missing"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_trained(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("other.toml").write_text("[densities]\nelsewhere = 0.5\n")
    with pytest.raises(GossamerError, match=message):
        compare(**{"task": "digits", "out": Path("grid"), "target_sparsity": 0.5} | options)
    # So that a setting which is mended is not that of another comparison.
    assert not Path("grid").exists()


def test_a_dense_network_of_other_settings_is_refused(grid: Path) -> None:
    refused = gossamer(
        grid,
        *("compress", "tiny.py:task", "--rounds", "1", "--seed", "0", "--out", "other", "--dense", "grid/dense/seed-1"),
    )
    assert refused.returncode == 2
    assert "rounds.seed: its run has 1, this one has 0" in refused.stderr


KILLS_ITS_WORKER = """
import os, sys, time
from pathlib import Path
from torch.nn.functional import cross_entropy
steps = 0

def loss(outputs, targets):
    "In the middle of round 1 of a cell, once, the worker of Ray dies under whose command this process runs."
    global steps
    steps += 1
    if steps == 15 and any("cells/lr-rewind/seed-1" in word for word in sys.argv):
        note = Path(__file__).with_name("killed")
        with note.open("a") as attempts:
            attempts.write(f"{os.getppid()}\\n")
        if len(note.read_text().splitlines()) == 1:
            os.kill(os.getppid(), 9)
            time.sleep(200)
    return cross_entropy(outputs, targets)
"""


@pytest.mark.slow
@pytest.mark.processes
def test_a_ray_cluster_gives_the_same_bytes_though_a_worker_is_killed(grid: Path, tmp_path: Path) -> None:
    """A local cluster; without it, and with nothing killed, the same comparison was run before."""
    pytest.importorskip("ray")
    (tmp_path / "tiny.py").write_text(KILLS_ITS_WORKER + TASK.replace("epochs=3,", "epochs=3, loss=loss,"))
    finished = subprocess.run(
        [arg for arg in command(*GRID, "--cluster", "local", "--threads", "1") if arg not in ("-W", "error")],
        cwd=tmp_path,
        # Workers as important as everybody else, also where other tests run beside this one.
        env={**environment(), "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    workers = (tmp_path / "killed").read_text().splitlines()
    assert len(set(workers)) == 2, "the cell was begun by one worker, which died, and gone on with by another"
    for run in RUNS:
        for seed in (0, 1):
            cells = [folder / "grid" / "cells" / run / f"seed-{seed}" for folder in (grid, tmp_path)]
            files, found = (sorted(path.relative_to(cell) for path in cell.rglob("*.safetensors")) for cell in cells)
            assert files == found
            assert Path("round-01/model.safetensors") in files
            for file in files:
                assert (cells[0] / file).read_bytes() == (cells[1] / file).read_bytes(), (run, seed, file)
    ours, expected = (json.loads((folder / "grid/comparison.json").read_text()) for folder in (tmp_path, grid))
    scores = ("method", "seed", "round", "kept", "val", "test")
    assert [[point[name] for name in scores] for point in ours["points"] if "@1" not in point["method"]] == [
        [point[name] for name in scores] for point in expected["points"] if "@1" not in point["method"]
    ]
