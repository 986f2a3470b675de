"""The event files, read back."""

import sys
from pathlib import Path
from typing import Any

import pytest
from small_run import printed, refused

from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.records import read_records
from gossamer.loop.stop import Stop

pytest.importorskip("tensorboard")

RUN = ("compress", "digits", "--rounds", 1, "--epochs", 3, "--tensorboard")


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of every scalar."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Any = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_scalars_of_every_epoch_and_round(tmp_path: Path) -> None:
    printed(*RUN, "--out", tmp_path / "run")
    found = scalars(tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert [step for step, _ in found["epoch/loss"]] == [1, 2, 3, 4, 5, 6]
    assert all(value > 0 for _, value in found["epoch/loss"])
    assert found["epoch/density"] == [(step, pytest.approx(1.0 if step < 4 else 0.8, abs=1e-3)) for step in range(1, 7)]
    assert found["round/accuracy"] == [(record.round, pytest.approx(record.val)) for record in records]
    assert found["round/test_accuracy"] == [(record.round, pytest.approx(record.test)) for record in records]
    assert found["round/compression"][1] == (1, pytest.approx(1.25, abs=1e-3))


def test_every_replicate_has_steps_of_its_own(tmp_path: Path) -> None:
    printed("compress", "digits", "--rounds", 2, "--epochs", 2, "--replicates", 2, "--tensorboard", "--out", tmp_path)
    # 2 epochs of the dense round, 2 x 2 of each of the others.
    assert [step for step, _ in scalars(tmp_path)["epoch/loss"]] == list(range(1, 11))


def test_an_interrupted_run_has_every_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    class Interrupted(Exception):
        pass

    class Stopping(Callback):
        def epoch_finished(self, round: object, report: object) -> None:
            nonlocal steps
            steps += 1
            if steps == 5:
                raise Interrupted

    from gossamer.integrations.tensorboard import TensorBoard
    from gossamer.tasks import find_task

    for stopping in ((Stopping(),), ()):
        board = TensorBoard(tmp_path / "run")
        try:
            compress(
                find_task("digits"),
                folder=tmp_path / "run",
                stop=Stop(rounds=1),
                training=Training(epochs=3),
                callbacks=(board, *stopping),
            )
        except Interrupted:
            pass
        finally:
            board.close()
    found = scalars(tmp_path / "run")
    assert [step for step, _ in found["epoch/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in found["round/accuracy"]] == [0, 1]


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'gossamer[tensorboard]'" in refused(*RUN, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
