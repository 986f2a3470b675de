"""A run that an earlier version made, and did not finish, is read and resumed for ever.

`old_run/run` was made by `old_run/task.py` with gossamer as of November 2026 (ca6c7af), method weight-rewind, 2 rounds,
killed inside round 1; `old_run/expected.safetensors` is round 2 of the same run, undisturbed.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_run import printed

import gossamer
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.records import read_ledger, read_records
from gossamer.loop.stop import Stop
from gossamer.rewind.strategies import Retraining
from gossamer.tasks import Task

HERE = Path(__file__).with_name("old_run")


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    monkeypatch.syspath_prepend(str(HERE))
    import task as module

    yield module.task()
    del sys.modules["task"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE / "run", tmp_path / "run"))


def test_it_is_read(folder: Path, task: Task) -> None:
    (record,) = read_records(folder)
    assert (record.round, record.kept, record.prunable, record.val) == (0, 176, 176, 0.9609375)
    assert [cost.steps for cost in read_ledger(folder)] == [64]
    model = task.model()
    assert gossamer.load_round(folder, -1, model) == record
    assert all(mask.all() for mask in gossamer.load_masks(folder, 0).values())
    assert "96.09%" in printed("show", folder)


def test_it_is_resumed(folder: Path, task: Task) -> None:
    dense = (folder / "round-00" / "model.safetensors").read_bytes()
    records = compress(
        task,
        folder=folder,
        stop=Stop(rounds=2),
        retraining=Retraining(method="weight-rewind", rewind_epochs=3),
        training=Training(checkpoint_seconds=0),
    )
    assert [(record.kept, record.val) for record in records] == [(176, 0.9609375), (141, 0.9453125), (113, 0.9765625)]
    assert (folder / "round-00" / "model.safetensors").read_bytes() == dense
    found = load_file(folder / "round-02" / "model.safetensors")
    # The same bits where it was made; another processor's sums may differ in the last one.
    for name, expected in load_file(HERE / "expected.safetensors").items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[name] == 0, expected == 0)
