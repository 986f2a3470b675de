"""A run that is killed at any moment ends, after the same command again, with the same bytes."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command_line import Started, command, environment, gossamer

RUN = ["compress", "digits", "--rounds", "3", "--epochs", "4", "--seed", "5", "--checkpoint-seconds", "0"]
KILLS = 20


def content(run: Path) -> dict[str, bytes]:
    """Everything in the folder of a finished run but for the times that it took."""
    files = {}
    for path in sorted(run.rglob("*")):
        if path.is_dir() or path.name in (".lock", "cost.json", "ledger.jsonl"):
            continue
        text = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            rows = [json.loads(line) for line in text.splitlines()]
            # The record's own checksum covers its time, so it goes too.
            digests = [{name: value for name, value in row["sha256"].items() if name != "round.json"} for row in rows]
            text = json.dumps(
                [{**row, "seconds": None, "sha256": sha256} for row, sha256 in zip(rows, digests, strict=True)]
            ).encode()
        files[str(path.relative_to(run))] = text
    return files


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    # Nothing of it is shared with the others, not even the seed of hashes.
    whole = [*command(*RUN), "--out", "run"]
    finished = subprocess.run(whole, cwd=folder, env=environment(), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return folder / "run"


def run_until(signal_number: int, seconds: float, folder: Path) -> int | None:
    """Starts the command, sends it the signal after its training began and this many seconds passed; its exit code."""
    process = Started(folder, *RUN, "--out", "run", piped=True)
    assert process.output is not None
    process.output.readline()
    time.sleep(seconds)
    process.send_signal(signal_number)
    return process.completed().returncode


def test_the_bytes_are_those_of_an_uninterrupted_run_after_twenty_kills(uninterrupted: Path, tmp_path: Path) -> None:
    moments = random.Random(0)
    killed = 0
    restarts = 0
    while killed < KILLS:
        restarts += 1
        code = run_until(signal.SIGKILL, moments.uniform(0.0, 0.35), tmp_path)
        if code == -signal.SIGKILL:
            killed += 1
        else:
            # It got to its end: compare, and begin again with an empty folder.
            assert code == 0
            assert content(tmp_path / "run") == content(uninterrupted)
            (tmp_path / "run").rename(tmp_path / f"finished-{restarts}")
    finished = gossamer(tmp_path, *RUN, "--out", "run")
    assert finished.returncode == 0, finished.stderr
    assert content(tmp_path / "run") == content(uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_that_the_run_can_be_continued(
    uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = Started(tmp_path, *RUN, "--out", "run", piped=True)
    assert process.output is not None
    process.output.readline()
    process.send_signal(number)
    interrupted = process.completed()
    assert interrupted.returncode == 128 + number
    assert (
        interrupted.stderr
        == "interrupted; runs, comparisons and searches keep what was finished, and the same command continues them\n"
    )
    assert gossamer(tmp_path, *RUN, "--out", "run").returncode == 0
    assert content(tmp_path / "run") == content(uninterrupted)


OWN_TASK = """
import os, signal, time
import torch
from torch import nn
from gossamer.tasks import SGD, Data, Examples, Recipe, Task

class Passing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)

interruptions = [Passing]

def rate(progress):
    # Once, as a person does: another one within the next hundredth of a second would put off what the first one ends.
    if progress > 0.05 and interruptions:
        interruptions.pop()()
    time.sleep(0.001)
    return 0.1

def task():
    examples = Examples(torch.randn(64, 4), torch.arange(64) % 2)
    recipe = Recipe(epochs=1000, batch_size=8, learning_rate=rate, optimizer=SGD())
    return Task("passing", "", lambda: nn.Linear(4, 2), lambda folder: Data(examples, examples, examples), recipe)
"""


def test_an_interruption_in_a_destructor_is_not_lost(tmp_path: Path) -> None:
    """Python passes over what a destructor raises: torch's loaders stop their workers in one."""
    (tmp_path / "own.py").write_text(OWN_TASK)
    interrupted = gossamer(tmp_path, "compress", "own.py:task", "--rounds", "1", "--out", "run")
    assert interrupted.returncode == 128 + signal.SIGINT
    assert interrupted.stderr.count("\n") == 1
    assert not list((tmp_path / "run").glob("round-*"))


def test_a_full_disk_loses_no_finished_round(uninterrupted: Path, tmp_path: Path) -> None:
    smaller_than_a_model = 100_000
    full = Started(tmp_path, *RUN, "--out", "run", largest_file=smaller_than_a_model).completed()
    assert full.returncode == 2
    assert full.stderr.startswith("error: cannot write run/training.safetensors: ")
    assert "Traceback" not in full.stderr
    assert full.stderr.count("\n") == 1
    assert gossamer(tmp_path, *RUN, "--out", "run").returncode == 0
    assert content(tmp_path / "run") == content(uninterrupted)


def test_another_seed_gives_other_bytes(uninterrupted: Path, tmp_path: Path) -> None:
    other = [argument if argument != "5" else "6" for argument in RUN]
    assert gossamer(tmp_path, *other, "--out", "run").returncode == 0
    model = "round-03/model.safetensors"
    assert content(tmp_path / "run")[model] != content(uninterrupted)[model]


def test_a_finished_run_is_shown_again_at_once(uninterrupted: Path) -> None:
    before = content(uninterrupted)
    again = gossamer(uninterrupted.parent, *RUN, "--out", "run")
    assert again.returncode == 0
    assert "51.20%" in again.stdout
    assert content(uninterrupted) == before
