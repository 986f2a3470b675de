"""`gossamer compress`, `show` and `tasks`: what they print and what they leave in the folder."""

import json
import math
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from command_line import gossamer
from safetensors.torch import load_file
from small_run import printed, refused

import gossamer as library
from gossamer.loop.configuration import read
from gossamer.loop.records import read_records
from gossamer.loop.settings import Settings
from gossamer.tasks import find_task

ARGUMENTS = ("compress", "digits", "--epochs", "2", "--target-sparsity", "0.5", "--out", "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run's folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("compress")
    finished = gossamer(folder, *ARGUMENTS)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return folder / "run", finished.stdout


def rows(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def test_each_round_has_one_line_with_what_was_promised(run: tuple[Path, str]) -> None:
    keys = [
        "round",
        "density",
        "kept",
        "prunable",
        "parameters",
        "val",
        "test",
        "metric",
        "seconds",
        "lr_rewound_to",
        "weights_rewound_to",
        "seed",
    ]
    table = rows(run[0])
    # 0.8^3 = 0.512 is above the target, so round 4 lands on one half.
    assert [row["round"] for row in table] == [0, 1, 2, 3, 4]
    assert all(set(keys) <= set(row) for row in table)
    prunable = table[0]["prunable"]
    assert isinstance(prunable, int)
    expected = [prunable, *(math.ceil(prunable * 8**i / 10**i) for i in (1, 2, 3)), math.ceil(prunable / 2)]
    assert [row["kept"] for row in table] == expected
    assert [row["lr_rewound_to"] for row in table] == [None, 0.0, 0.0, 0.0, 0.0]
    assert {row["metric"] for row in table} == {"accuracy"}


def test_the_kept_weights_are_those_of_the_files(run: tuple[Path, str]) -> None:
    for row in rows(run[0]):
        folder = run[0] / f"round-{row['round']:02d}"
        masks = library.load_masks(run[0], int(str(row["round"])))
        assert sum(int(mask.sum()) for mask in masks.values()) == row["kept"]
        weights = load_file(folder / "model.safetensors")
        for name, mask in masks.items():
            assert not weights[name][~mask].any()


def test_a_rounds_model_comes_back_with_its_accuracy(run: tuple[Path, str]) -> None:
    task = find_task("digits")
    model = task.model()
    record = library.load_round(run[0], -1, model)
    test = task.data(None).test
    model.eval()
    with torch.no_grad():
        accuracy = (model(test.inputs).argmax(1) == test.targets).double().mean()
    assert record.test == pytest.approx(float(accuracy), abs=1e-9)
    library.check(model)


def test_the_configuration_is_resolved_and_has_versions(run: tuple[Path, str]) -> None:
    configuration = tomllib.loads((run[0] / "config.toml").read_text())
    assert configuration["settings"]["task"] == "digits"
    assert configuration["settings"]["epochs"] == 2
    assert configuration["settings"]["batch_size"] == find_task("digits").recipe.batch_size
    assert configuration["rounds"] == {
        "target_sparsity": 0.5,
        "per_round": 0.2,
        "metric": "accuracy",
        "better": "higher",
        "seed": 0,
    }
    assert configuration["versions"]["torch"] == torch.__version__


def test_the_table_is_printed_and_printed_again(run: tuple[Path, str]) -> None:
    folder, printed = run
    shown = gossamer(folder.parent, "show", "run")
    assert shown.returncode == 0
    assert shown.stdout in printed
    lines = shown.stdout.splitlines()
    assert lines[0].split()[:4] == ["round", "density", "kept/prunable", "compression"]
    last = rows(folder)[-1]
    assert lines[6].split()[:4] == ["4", "50.00%", f"{last['kept']:,}/{last['prunable']:,}", "2.0x"]
    assert f"{last['prunable']:,} prunable weights of {last['parameters']:,} parameters" in shown.stdout


def test_without_a_terminal_there_are_plain_lines(run: tuple[Path, str]) -> None:
    assert "\x1b" not in run[1]
    assert sum(line.startswith("round  ") for line in run[1].splitlines()) == 5


def test_every_file_of_a_run_is_text_or_safetensors(run: tuple[Path, str]) -> None:
    for path in run[0].rglob("*"):
        if path.is_dir():
            continue
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            header_bytes = int.from_bytes(content[:8], "little")
            assert isinstance(json.loads(content[8 : 8 + header_bytes]), dict)
        else:
            assert path.name in ("config.toml", "rounds.jsonl", "round.json", "cost.json", "ledger.jsonl", ".lock")
            content.decode("utf-8")


def test_an_allowed_loss_ends_the_run_and_names_the_smallest_network(tmp_path: Path) -> None:
    finished = gossamer(
        tmp_path,
        *("compress", "digits", "--epochs", "1", "--max-drop", "0.02", "--per-round", "0.7", "--out", "run"),
    )
    assert finished.returncode == 0, finished.stderr
    table = rows(tmp_path / "run")
    losses = [float(str(table[0]["val"])) - float(str(row["val"])) for row in table]
    assert all(loss <= 0.02 + 1e-9 for loss in losses[:-1])
    assert losses[-1] > 0.02
    assert f"smallest within 0.02 of the dense accuracy: round {len(table) - 2}" in finished.stdout


def test_the_built_in_tasks_are_listed(tmp_path: Path) -> None:
    listed = gossamer(tmp_path, "tasks")
    assert listed.returncode == 0
    assert {"digits", "lenet-300-100"} <= {line.split()[0] for line in listed.stdout.splitlines() if line.strip()}


def test_a_users_own_task_is_compressed(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/own_task.py"
    (tmp_path / "mine.py").write_text(example.read_text())
    finished = gossamer(tmp_path, "compress", "mine.py:task", "--rounds", "2", "--epochs", "2", "--out", "run")
    assert finished.returncode == 0, finished.stderr
    assert [row["round"] for row in rows(tmp_path / "run")] == [0, 1, 2]


PRETRAINED = """
import torch
from torch import nn
from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task

def data(folder):
    inputs = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    return Data(*(Examples(part, (part[:, 0] > 0).long()) for part in inputs.split(32)))

def model():  # as a file of weights would give it
    layer = nn.Linear(4, 2)
    layer.load_state_dict({"weight": torch.tensor([[-9.0, 1, 2, 3], [9, 4, 5, 6]]), "bias": torch.tensor([0.5, 0.25])})
    return layer

def task():
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=OneCycle(peak=0.1), optimizer=SGD(momentum=0.9))
    return Task("theirs", "somebody else's", model, data, recipe, pretrained=True)
"""
THEIRS = ("compress", "theirs.py:task", "--per-round", "0.25", "--rounds", "1", "--out")


def test_a_network_that_comes_trained_is_the_dense_round_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(PRETRAINED)
    finished = gossamer(tmp_path, *THEIRS, "run")
    assert finished.returncode == 0, finished.stderr
    dense, cut = load_round(tmp_path / "run", 0), load_round(tmp_path / "run", 1)
    assert torch.equal(dense["weight"], torch.tensor([[-9.0, 1, 2, 3], [9, 4, 5, 6]]))
    # A quarter of the weights that came, the smallest, are cut, and what is left is trained.
    assert torch.equal(cut["weight"] == 0, torch.tensor([[False, True, True, False], [False, False, False, False]]))
    assert not torch.equal(cut["bias"], dense["bias"])
    ledger = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [(row["epochs"], row["steps"]) for row in ledger] == [(0, 0), (3, 6)]
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["settings"]["pretrained"] is True


def test_weights_that_came_trained_are_rewound_to_how_they_came(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(PRETRAINED)
    finished = gossamer(tmp_path, *THEIRS, "run", "--method", "weight-rewind", "--rounds", "2")
    assert finished.returncode == 0, finished.stderr
    refused = gossamer(tmp_path, *THEIRS, "other", "--method", "weight-rewind", "--rewind-epochs", "2")
    assert refused.returncode == 2
    assert "comes trained, so its weights can be rewound to how it came, not to a moment" in refused.stderr
    compared = gossamer(
        tmp_path,
        "compare",
        "theirs.py:task",
        *("--methods", "lr-rewind,weight-rewind", "--seeds", "1", "--target-sparsity", "0.5", "--out", "grid"),
    )
    assert compared.returncode == 0, compared.stderr
    for method in ("lr-rewind", "weight-rewind"):
        start = load_round(tmp_path / "grid" / "cells" / method / "seed-0", 0)
        assert torch.equal(start["weight"], torch.tensor([[-9.0, 1, 2, 3], [9, 4, 5, 6]]))


def load_round(run: Path, number: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"round-{number:02}" / "model.safetensors")


def test_a_finished_run_s_last_round_is_trained_for_int8(tmp_path: Path) -> None:
    words = ("compress", "digits", "--epochs", "1", "--rounds", "2", "--out", tmp_path / "run")
    assert "int8" not in printed(*words)
    shutil.rmtree(tmp_path / "run/round-02")
    table = printed(*words, "--quantised-rounds", "1")
    line = "round 2 was trained for int8 and measured with weights and inputs rounded to 8 bits; in float round 2 has "
    assert line in " ".join(table.split())
    assert table.endswith(printed("show", tmp_path / "run"))
    assert Settings.from_tables(read(tmp_path / "run")).retraining.quantised_rounds == 1


def test_a_finished_run_s_last_round_is_trained_in_levels(tmp_path: Path) -> None:
    words = ("compress", "digits", "--epochs", "1", "--rounds", "2", "--out", tmp_path / "run")
    printed(*words)
    assert "weights" not in printed("show", tmp_path / "run").splitlines()[0]
    shutil.rmtree(tmp_path / "run/round-02")
    table = printed(*words, "--quantised-rounds", "1", "--levels", "2")
    record = read_records(tmp_path / "run")[-1]
    line = (
        f"round 2 was trained in 2 levels and measured with weights rounded so; {record.rounded_to_zero:,} weights "
        f"rounded to zero and are gone; in float round 2 has "
    )
    assert record.rounded_to_zero > 0
    assert line in " ".join(table.split())
    shown = printed("show", tmp_path / "run")
    assert "weights" in shown.splitlines()[0]
    assert table.endswith(shown)
    assert "2 levels" in printed("watch", tmp_path / "run", "--once")
    assert Settings.from_tables(read(tmp_path / "run")).retraining.levels == 2
    assert "expected quantised_rounds=1 or more too" in refused(*words, "--levels", "2")


def test_averages_of_replicates_are_not_trained_for_int8(tmp_path: Path) -> None:
    words = ("compress", "digits", "--rounds", "2", "--out", tmp_path / "run", "--quantised-rounds", "1")
    assert "the average of several networks was trained with the ranges and levels of none" in refused(
        *words, "--replicates", "2"
    )
    assert "give target_sparsity or rounds too" in refused(
        *("compress", "digits", "--max-drop", "0.1", "--out", tmp_path / "run", "--quantised-rounds", "1")
    )
