"""How far an epoch is: told by the job, written to the progress file, shown by `gossamer watch` and `compress`."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

import gossamer
from gossamer.cli.progress import PlainLines
from gossamer.cli.watch import _picture
from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.loop.stop import Stop
from gossamer.tasks import SGD, Data, OneCycle, Recipe, Task
from gossamer.tasks.training import EpochReport, StepReport
from gossamer.watch import look
from gossamer.watch.progress import Progress, ProgressFile, read_progress

DATA = TensorDataset(torch.randn(40, 3), torch.arange(40) % 3)


def run(folder: Path, *callbacks: Callback) -> None:
    recipe = Recipe(2, 10, OneCycle(peak=0.1), SGD())
    task = Task("own", "", lambda: nn.Linear(3, 3), lambda given: Data(DATA, DATA, DATA), recipe)
    compress(task, folder=folder, stop=Stop(rounds=1), callbacks=callbacks)


def test_every_step_and_every_batch_that_is_measured_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.job.callbacks.LEAST_SECONDS", 0.0)
    seen: list[tuple[Any, ...]] = []

    class Noting(Callback):
        def step_finished(self, round: gossamer.Round, report: StepReport) -> None:
            seen.append((round.number, report.doing, report.epochs_done, report.steps_done, report.steps))

        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            seen.append((round.number, "epoch", report.epochs_done))

    run(tmp_path, Noting())
    training = [
        entry
        for epoch in (0, 1)
        for entry in [*(("training", epoch, step, 4) for step in (1, 2, 3, 4)), ("epoch", epoch + 1)]
    ]
    measured = [(split, 2, batch, 4) for split in ("validation", "test") for batch in (1, 2, 3, 4)]
    assert seen == [(number, *entry) for number in (0, 1) for entry in [*training, *measured]]


def test_short_epochs_are_not_told_of(tmp_path: Path) -> None:
    class Refusing(Callback):
        def step_finished(self, round: gossamer.Round, report: StepReport) -> None:
            raise AssertionError(report)

    def never() -> float:
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gossamer.job.callbacks.time", SimpleNamespace(monotonic=never))
        run(tmp_path, Refusing())


ROUND: Any = SimpleNamespace(number=3, density=0.5, trainings=1, trainings_left=0)


def test_the_file_says_how_far_the_epoch_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.watch.progress.LEAST_STEP_SECONDS", 0.0)
    file = ProgressFile(tmp_path)
    file.round_started(ROUND, 5)
    file.step_finished(ROUND, StepReport(0, 2, 30, 100, 10.0, first_step=10))
    found = read_progress(tmp_path)
    assert found is not None
    assert (found.doing, found.steps_done, found.steps, found.step_seconds) == ("training", 30, 100, 0.5)
    file.epoch_finished(ROUND, EpochReport(1, 2, 0.7, 0.1, 60.0))
    file.epoch_finished(ROUND, EpochReport(2, 2, 0.7, 0.1, 60.0))
    found = read_progress(tmp_path)
    assert found is not None
    assert (found.steps_done, found.steps, found.step_seconds) == (0, 0, None)


def shown(progress: Progress) -> str:
    into = io.StringIO()
    glance: Any = SimpleNamespace(folder="run", state="running", records=(), progress=progress, problem=None)
    Console(file=into, width=100).print(_picture(glance, 40))
    return into.getvalue()


def test_watch_shows_it() -> None:
    first = Progress(0, 5, 1.0, 0, None, (), None, None, 0.0, steps_done=30, steps=100, step_seconds=2.0)
    assert "in its first epoch: step 30 of 100, 2 min left of this epoch" in shown(first)
    later = Progress(0, 5, 1.0, 1, 2, (0.5,), 0.1, 9.0, 0.0, steps_done=30, steps=100, step_seconds=0.5)
    assert "step 30 of 100, 35 s left of this epoch" in shown(later)
    measuring = Progress(0, 5, 1.0, 2, 2, (0.5,), 0.1, 9.0, 0.0, doing="test", steps_done=3)
    assert "measuring on test: batch 3\n" in shown(measuring).replace(" \n", "\n")
    assert "step" not in shown(Progress(0, 5, 1.0, 1, 2, (0.5,), 0.1, 9.0, 0.0))


def test_lines_tell_of_long_epochs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    into = io.StringIO()
    lines = PlainLines(Console(file=into, width=100))
    lines.step_finished(ROUND, StepReport(0, 2, 1, 100, 5.0))
    assert into.getvalue() == ""
    monkeypatch.setattr("gossamer.cli.progress.STEP_LINE_SECONDS", 0.0)
    lines.step_finished(ROUND, StepReport(1, 2, 30, 100, 10.0, first_step=10))
    lines.step_finished(ROUND, StepReport(2, 2, 7, 0, 10.0, doing="validation"))
    assert into.getvalue() == (
        "round 3  epoch 2/2  step 30/100, 35 s left of this epoch\n"
        "round 3  epoch 2/2  measuring on validation: batch 7\n"
    )


def test_a_stopped_run_shows_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.job.callbacks.LEAST_SECONDS", 0.0)
    monkeypatch.setattr("gossamer.watch.progress.LEAST_STEP_SECONDS", 0.0)

    class Stopping(Callback):
        def step_finished(self, round: gossamer.Round, report: StepReport) -> None:
            if (round.number, report.epochs_done, report.steps_done) == (1, 0, 3):
                raise InterruptedError

    with pytest.raises(InterruptedError):
        run(tmp_path, Stopping())
    progress = look(tmp_path).progress
    assert progress is not None
    assert (progress.round, progress.steps_done, progress.steps) == (1, 3, 4)
