"""What can be seen of a run from outside."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from small_run import small_run

import gossamer
from gossamer.cli.watch import sparkline
from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.record import RoundRecord
from gossamer.loop.round import Round
from gossamer.loop.stop import Stop
from gossamer.rewind.strategies import Retraining
from gossamer.tasks import find_task
from gossamer.tasks.training import EpochReport
from gossamer.watch import Glance, look
from gossamer.watch.progress import FILE, read_progress


class Interrupted(Exception):
    pass


class Looking(Callback):
    """Looks after every epoch, and stops the run after some of them."""

    def __init__(self, folder: Path, stop_after: int) -> None:
        self.folder = folder
        self.left = stop_after
        self.seen: list[Glance] = []

    def epoch_finished(self, round: Round, report: EpochReport) -> None:
        self.seen.append(look(self.folder))
        self.left -= 1
        if self.left == 0:
            raise Interrupted


def test_what_is_not_there_has_not_begun(tmp_path: Path) -> None:
    assert look(tmp_path / "run").state == "not begun"


def test_a_run_that_goes_on_is_stopped_and_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.watch.progress.LEAST_SECONDS", 0.0)
    folder = tmp_path / "run"

    def run(stop_after: int) -> Looking:
        looking = Looking(folder, stop_after)
        with suppress(Interrupted):
            compress(
                find_task("digits"),
                folder=folder,
                callbacks=(looking,),
                stop=Stop(rounds=1),
                training=Training(epochs=2),
            )
        return looking

    seen = run(stop_after=3).seen
    assert [glance.state for glance in seen] == ["running"] * 3
    assert [len(glance.records) for glance in seen] == [0, 0, 1]
    progress = seen[1].progress
    assert progress is not None
    assert (progress.round, progress.last_round, progress.epochs_done, progress.epochs) == (0, 1, 2, 2)
    assert len(progress.losses) == 2
    stopped = look(folder)
    assert stopped.state == "stopped"
    assert stopped.progress is not None
    assert (stopped.progress.round, stopped.progress.density) == (1, pytest.approx(0.8, abs=1e-3))
    run(stop_after=0)
    finished = look(folder)
    assert (finished.state, len(finished.records), finished.progress) == ("finished", 2, None)
    assert not (folder / FILE).exists()


def test_the_trainings_of_later_rounds_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.watch.progress.LEAST_SECONDS", 0.0)
    looking = Looking(tmp_path, stop_after=0)
    compress(
        find_task("digits"),
        folder=tmp_path,
        callbacks=(looking,),
        stop=Stop(rounds=2),
        retraining=Retraining(replicates=3),
        training=Training(epochs=1),
    )
    told = [
        (seen.round, seen.epochs_done, seen.epochs, seen.trainings, seen.trainings_left)
        for glance in looking.seen
        if (seen := glance.progress) is not None
    ]
    assert told == [
        (0, 1, 1, 1, 6),
        *((1, done, 3, 3, 3) for done in (1, 2, 3)),
        *((2, done, 3, 3, 0) for done in (1, 2, 3)),
    ]


def test_the_file_of_an_older_version_is_understood(tmp_path: Path) -> None:
    old = {"round": 1, "last_round": 3, "density": 0.8, "epochs_done": 2, "epochs": 5, "losses": [0.5], "written": 1.0}
    (tmp_path / FILE).write_text(json.dumps({**old, "learning_rate": 0.1, "epoch_seconds": 2.0}))
    found = read_progress(tmp_path)
    assert found is not None
    assert (found.epochs_done, found.trainings, found.trainings_left) == (2, 1, None)


def test_a_loop_of_ones_own_shows_its_rounds(tmp_path: Path) -> None:
    states = []
    for round in gossamer.rounds(torch.nn.Linear(8, 8), folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        states.append(look(tmp_path).state)
        round.record(untrained=True, accuracy=0.5)
    assert states == ["running", "running"]
    assert look(tmp_path).state == "finished"


def test_a_run_within_an_allowed_loss_is_over_when_it_is_exceeded(tmp_path: Path) -> None:
    values = iter([0.9, 0.89, 0.5])
    for round in gossamer.rounds(torch.nn.Linear(8, 8), folder=tmp_path, stop=gossamer.Stop(max_drop=0.1)):
        round.record(untrained=True, accuracy=next(values))
    assert look(tmp_path).state == "finished"
    shutil.rmtree(tmp_path / "round-02")
    assert look(tmp_path).state == "stopped"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"round": 0}', json.dumps({"round": "x" * 99})])
def test_damaged_progress_is_none(content: str, tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    (tmp_path / "run" / FILE).write_text(content)
    assert look(tmp_path / "run").progress is None
    assert look(tmp_path / "run").state == "finished"


def test_a_damaged_folder_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    records: list[RoundRecord] = small_run(tmp_path / "run")
    (tmp_path / "run" / f"round-{len(records) - 1:02d}" / "round.json").write_text("{")
    glance = look(tmp_path / "run")
    assert glance.problem is not None
    assert "round.json is damaged" in glance.problem


def test_the_sparkline_by_hand() -> None:
    assert sparkline([0.0, 7.0, 3.5], 10) == "▁█▅"
    assert sparkline([1.0, 1.0], 10) == "▁▁"
    assert sparkline([0.0, 0.0, 7.0, 7.0], 2) == "▁█"
    assert sparkline([], 5) == ""
