"""The user's mistakes: one clear line on standard error, exit code 2, no traceback, and nothing lost."""

from pathlib import Path

import pytest
from command_line import gossamer

QUICK = ("compress", "digits", "--epochs", "1", "--rounds", "1")

DIVERGING_TASK = """
import torch
from torch import nn
from gossamer.tasks import SGD, Data, Examples, Recipe, Task

def data(folder):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 8, generator=generator)
    examples = Examples(inputs, (inputs[:, 0] > 0).long())
    return Data(examples, examples, examples)

def task():
    return Task("diverging", "too high a learning rate", lambda: nn.Linear(8, 2), data,
                Recipe(epochs=2, batch_size=16, learning_rate=lambda progress: 1e38, optimizer=SGD()))
"""

NO_WEIGHTS_TASK = """
import torch
from torch import nn
from gossamer.tasks import SGD, Data, Examples, Recipe, Task

def task():
    return Task("normalisation", "no layer with weights", lambda: nn.BatchNorm1d(3), lambda folder: None,
                Recipe(epochs=1, batch_size=1, learning_rate=lambda progress: 0.1, optimizer=SGD()))
"""


def refused(folder: Path, *arguments: object) -> str:
    """The one line that the command ends with."""
    finished = gossamer(folder, *arguments)
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    return finished.stderr


@pytest.mark.parametrize("sparsity", ["1.5", "0", "1", "-0.2", "nan"])
def test_a_sparsity_outside_zero_to_one(tmp_path: Path, sparsity: str) -> None:
    message = refused(tmp_path, "compress", "digits", "--target-sparsity", sparsity, "--out", "run")
    assert message.startswith("error: target_sparsity is ")
    assert "expected a number between 0 and 1" in message
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_lists_the_known_ones(tmp_path: Path) -> None:
    message = refused(tmp_path, "compress", "digit", "--rounds", "1", "--out", "run")
    assert "'digit'" in message
    assert "digits, " in message


def test_missing_data_says_where_to_get_them(tmp_path: Path) -> None:
    message = refused(tmp_path, "compress", "lenet-300-100", "--rounds", "1", "--out", "run")
    assert "ylecun/mnist" in message
    assert "--data" in message


def test_no_stopping_rule(tmp_path: Path) -> None:
    assert "target_sparsity=0.95" in refused(tmp_path, "compress", "digits", "--out", "run")


def test_a_target_that_rounds_to_nothing(tmp_path: Path) -> None:
    message = refused(tmp_path, "compress", "digits", "--target-sparsity", "0.000001", "--out", "run")
    assert "rounds to no weight at all" in message


def test_no_prunable_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NO_WEIGHTS_TASK)
    message = refused(tmp_path, "compress", "mine.py:task", "--rounds", "1", "--out", "run")
    assert "no prunable weights" in message


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DIVERGING_TASK)
    message = refused(tmp_path, "compress", "mine.py:task", "--rounds", "1", "--out", "run")
    assert "expected a finite number" in message
    assert not list((tmp_path / "run").glob("round-*"))


def test_another_configuration_is_refused_and_the_difference_shown(tmp_path: Path) -> None:
    assert gossamer(tmp_path, *QUICK, "--out", "run").returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    message = refused(tmp_path, *QUICK, "--seed", "1", "--per-round", "0.5", "--out", "run")
    assert "rounds.seed: the folder's run has 0, this one has 1" in message
    assert "rounds.per_round: the folder's run has 0.2, this one has 0.5" in message
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    assert gossamer(tmp_path, *QUICK, "--out", "run").returncode == 0
    model = tmp_path / "run/round-01/model.safetensors"
    content = bytearray(model.read_bytes())
    content[-5] ^= 1
    model.write_bytes(content)
    message = refused(tmp_path, *QUICK, "--out", "run")
    assert message.startswith("error: run/round-01/model.safetensors is damaged")
    assert "remove" in message


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    message = refused(tmp_path, "show", "nowhere")
    assert "nowhere/config.toml is missing" in message


def test_an_option_that_does_not_exist(tmp_path: Path) -> None:
    assert "--spars" in refused(tmp_path, "compress", "digits", "--spars", "0.5", "--out", "run")


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    message = refused(tmp_path, "compress", "digits", "--rounds", "1", "--device", "gpu", "--out", "run")
    assert "expected 'cpu' or 'cuda'" in message


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    message = refused(tmp_path, *QUICK, "--exclude", "hiden", "--out", "run")
    assert "'hiden' matches no parameter" in message
    assert "hidden.weight" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-snapshots", "1"), "give dense_only with keep_snapshots"),
        (("--method", "weight-rewind", "--rewind-epochs", "1", "--rewind-to", "0"), "give only one of rewind_steps"),
        (("--method", "weight-rewind", "--rewound", "none,optimizer"), "cannot rewind 'none'"),
    ],
)
def test_options_that_would_be_ignored(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    assert message in refused(tmp_path, *QUICK, *options, "--out", "run")


def test_a_share_per_round_beside_one_shot(tmp_path: Path) -> None:
    one_shot = ("compress", "digits", "--one-shot", "--target-sparsity", "0.5", "--per-round", "0.5", "--out", "run")
    assert "neither rounds nor a share per round" in refused(tmp_path, *one_shot)


@pytest.mark.parametrize(("found", "asked"), [("channels", "unstructured"), ("unstructured", "channels")])
def test_a_policy_for_another_structure(tmp_path: Path, found: str, asked: str) -> None:
    (tmp_path / "policy.toml").write_text(f'structure = "{found}"\n[densities]\n"hidden.weight" = 0.5\n')
    message = refused(tmp_path, *QUICK, "--allocation", "policy.toml", "--structure", asked, "--out", "run")
    assert f"found for the structure {found}, got {asked}" in message


@pytest.mark.parametrize(("kind", "name"), [("comparison", "a comparison"), ("search", "a search")])
def test_the_folder_of_something_else_is_left_as_it_is(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "theirs").mkdir()
    content = f"[{kind}]\nseed = 0\n"
    (tmp_path / "theirs/config.toml").write_text(content)
    assert f"theirs holds {name}, which is left as it is" in refused(tmp_path, *QUICK, "--out", "theirs")
    assert f"theirs holds {name}; expected the folder of a run" in refused(tmp_path, "show", "theirs")
    assert (tmp_path / "theirs/config.toml").read_text() == content


@pytest.mark.parametrize("option", ["--examples", "--retrain-steps"])
def test_a_search_that_would_judge_or_train_nothing(tmp_path: Path, option: str) -> None:
    assert option in refused(tmp_path, "search", "run", "--budget", "weights=0.1", "-o", "policy.toml", option, "0")
