"""The built-in job against trainings written out one by one: learning rates, gradients, saved states."""

import hashlib
import math
import signal
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import Started
from flat import of_compress
from torch import Tensor, nn
from torch.nn import functional

import gossamer
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.job.training import DenseRound, Training
from gossamer.loop.configuration import read
from gossamer.loop.folder import load_ranges
from gossamer.loop.records import read_ledger, read_records
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.quantise.fake import FakeQuantisation
from gossamer.rewind.strategies import Retraining
from gossamer.storage import state as states
from gossamer.tasks import SGD, Data, EpochReport, Examples, Metric, Recipe, Steps, Task, train
from gossamer.tasks.evaluation import evaluate


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def data_of(training: int) -> Callable[[Path | None], Data]:
    def data(folder: Path | None) -> Data:
        inputs = torch.randn(training + 40, 12, generator=torch.Generator().manual_seed(0))
        return Data(*(Examples(part, part[:, :4].argmax(1)) for part in inputs.split([training, 20, 20])))

    return data


RECIPE = Recipe(epochs=4, batch_size=10, learning_rate=Steps(first=0.1, milestones=(0.5, 0.75)), optimizer=SGD())
TASK = Task("tiny", "", network, data_of(80), RECIPE)


def weights_of(folder: Path, number: int) -> nn.Module:
    model = network()
    gossamer.load_round(folder, number, model)
    return model


def test_fine_tuning_without_a_rate_of_its_own_goes_on_with_the_schedule_s_last(tmp_path: Path) -> None:
    rates: dict[int, list[float]] = {0: [], 1: []}

    class Noting(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            rates[round.number].append(report.learning_rate)

    compress(
        TASK,
        folder=tmp_path,
        callbacks=(Noting(),),
        stop=Stop(rounds=1),
        retraining=Retraining(method="fine-tune", rewind_epochs=2),
        training=Training(fresh_optimizer=True),
    )
    assert rates == {0: pytest.approx([0.1, 0.1, 0.01, 0.001]), 1: pytest.approx([0.001, 0.001])}
    expected, masks = weights_of(tmp_path, 0), gossamer.load_masks(tmp_path, 1)
    for name, kept in masks.items():
        weight = expected.get_parameter(name)
        with torch.no_grad():
            weight *= kept
        weight.register_hook(lambda gradient, kept=kept: gradient * kept)
    splits = TASK.data(None)
    optimizer = RECIPE.optimizer(expected)
    list(
        train(
            expected,
            optimizer,
            RECIPE,
            splits.train,
            seed=0,
            round_number=1,
            first_epoch=2,
            learning_rate=lambda step: 0.001,
        )
    )
    found = weights_of(tmp_path, 1).state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)


def test_gradients_for_a_cut_are_means_over_sixteen_batches(tmp_path: Path) -> None:
    """The criterion is |w dL/dw|; the batches are the first ones of a permutation drawn from the run's seed."""
    recipe = replace(RECIPE, epochs=1)
    task = replace(TASK, recipe=recipe, data=data_of(200))
    compress(
        task,
        folder=tmp_path,
        stop=Stop(rounds=1),
        cut=Cut(per_round=0.5, criterion="taylor"),
        training=Training(seed=7),
    )
    bits = int.from_bytes(hashlib.blake2b(b"7/gradients", digest_size=8).digest(), "big") >> 1
    order = torch.randperm(200, generator=torch.Generator().manual_seed(bits))
    examples = task.data(None).train

    def kept(batches: int) -> dict[str, Tensor]:
        model = weights_of(tmp_path, 0).eval()
        rows = order[: 10 * batches]
        functional.cross_entropy(model(examples.inputs[rows]), examples.targets[rows]).backward()
        scores = {name: (p * p.grad).abs() for name, p in model.named_parameters() if p.dim() == 2}
        everything = torch.cat([score.flatten() for score in scores.values()])
        threshold = everything.topk(math.ceil(everything.numel() / 2)).values[-1]
        return {name: score >= threshold for name, score in scores.items()}

    found = gossamer.load_masks(tmp_path, 1)
    assert all(torch.equal(mask, found[name]) for name, mask in kept(16).items())
    for other in (15, 17):
        assert any(not torch.equal(mask, found[name]) for name, mask in kept(other).items()), other


@pytest.mark.parametrize(("last", "fits"), [(0.002, True), (0.001, True), (0.0009, False)])
def test_the_last_rate_of_a_schedule_is_none_below_a_thousandth_of_its_highest(
    last: float, fits: bool, tmp_path: Path
) -> None:
    """The highest is that of one step in the middle only."""
    recipe = replace(RECIPE, epochs=1, learning_rate=lambda share: 1.0 if 0.49 < share < 0.51 else last)
    arguments = {"folder": tmp_path, "rounds": 1, "method": "fine-tune"}
    if fits:
        assert len(compress(replace(TASK, recipe=recipe), **of_compress(**arguments))) == 2
    else:
        with pytest.raises(ConfigurationError, match=r"ends at a learning rate of 0\.0009 \(highest: 1\)"):
            compress(replace(TASK, recipe=recipe), **of_compress(**arguments))


def test_a_dense_network_is_trained_once_with_snapshots_for_others_to_rewind_to(tmp_path: Path) -> None:
    compress(TASK, folder=tmp_path / "dense", stop=Stop(rounds=1), dense=DenseRound(only=True, keep_snapshots=[1, 3]))
    names = {path.name for path in (tmp_path / "dense").glob("snapshot*")}
    assert names == {"snapshot-1-epochs.safetensors", "snapshot-3-epochs.safetensors"}
    for name, dense in (("shared", tmp_path / "dense"), ("alone", None)):
        compress(
            TASK,
            folder=tmp_path / name,
            stop=Stop(rounds=1),
            retraining=Retraining(method="weight-rewind", rewind_to_epoch=3),
            dense=DenseRound(taken_from=dense),
        )
    shared, alone = (weights_of(tmp_path / name, 1).state_dict() for name in ("shared", "alone"))
    assert all(torch.equal(shared[name], alone[name]) for name in alone)
    with pytest.raises(ConfigurationError, match="give dense_only with keep_snapshots"):
        compress(TASK, folder=tmp_path / "other", stop=Stop(rounds=1), dense=DenseRound(keep_snapshots=[1]))
    with pytest.raises(CheckpointError, match="kept no snapshot of its training after 2 epochs"):
        compress(
            TASK,
            folder=tmp_path / "missing",
            stop=Stop(rounds=1),
            retraining=Retraining(method="weight-rewind", rewind_to_epoch=2),
            dense=DenseRound(taken_from=tmp_path / "dense"),
        )


def test_epochs_to_retrain_are_told_from_the_start_where_weights_go_back(tmp_path: Path) -> None:
    """So that a snapshot has one name, whichever way a run says where it lies."""
    compress(
        TASK,
        folder=tmp_path / "length",
        stop=Stop(rounds=1),
        retraining=Retraining(method="weight-rewind", rewind_epochs=1),
    )
    assert read(tmp_path / "length")["method"]["rewind_to"] == "3 epochs"
    assert [record.weights_rewound_to for record in read_records(tmp_path / "length")] == [None, 3.0]
    for other in ({"rewind_to_epoch": 1}, {"rewind_to_step": 5}):
        with pytest.raises(ConfigurationError, match="give only one"):
            compress(
                TASK,
                folder=tmp_path / "both",
                stop=Stop(rounds=1),
                retraining=Retraining(method="weight-rewind", rewind_epochs=1, **other),
            )


class Interrupted(Exception):
    pass


def test_a_snapshot_of_another_step_than_the_one_to_rewind_to_is_refused(tmp_path: Path) -> None:
    """The dense training is interrupted after its snapshot, and goes on with more examples: epochs became longer."""

    class Stopping(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            if report.epochs_done == 3:
                raise Interrupted

    def run(task: Task, *callbacks: Callback) -> None:
        compress(
            task,
            folder=tmp_path,
            callbacks=callbacks,
            stop=Stop(rounds=1),
            retraining=Retraining(method="weight-rewind", rewind_to_epoch=2),
            training=Training(checkpoint_seconds=0),
        )

    with pytest.raises(Interrupted):
        run(TASK, Stopping())
    with pytest.raises(CheckpointError, match=r"snapshot\.safetensors is a snapshot of another step than 18"):
        run(replace(TASK, data=data_of(90)))
    assert not (tmp_path / "round-00").exists()


def test_the_training_is_saved_when_the_last_save_is_long_enough_ago_and_not_before(tmp_path: Path) -> None:
    def saved_epochs(folder: Path, least_seconds: float) -> list[int]:
        """What is kept after each epoch of the dense round; a pause before the third is long enough for 0.2 s."""
        saved: list[int] = []

        class Watching(Callback):
            def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
                path = folder / "training.safetensors"
                saved.append(int(states.load(path)["epochs_done"]) if path.exists() else 0)
                if report.epochs_done == 2:
                    time.sleep(0.25)

        compress(
            TASK,
            folder=folder,
            callbacks=(Watching(),),
            stop=Stop(rounds=1),
            training=Training(epochs=9, checkpoint_seconds=least_seconds),
            dense=DenseRound(only=True),
        )
        return saved

    assert saved_epochs(tmp_path / "always", 0) == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert saved_epochs(tmp_path / "never", 1000) == [0] * 9
    started = time.monotonic()
    sometimes = saved_epochs(tmp_path / "sometimes", 0.2)
    assert sometimes[2] == 3
    assert len({*sometimes} - {0}) <= (time.monotonic() - started) / 0.2


def test_epochs_are_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="epochs is 0; expected at least 1"):
        compress(TASK, folder=tmp_path, stop=Stop(rounds=1), training=Training(epochs=0))
    assert len(compress(TASK, folder=tmp_path, stop=Stop(rounds=1), training=Training(epochs=1))) == 2


def test_a_network_that_comes_trained_is_the_dense_round_as_it_is(tmp_path: Path) -> None:
    def trained() -> nn.Module:
        torch.manual_seed(3)
        return network()

    task = replace(TASK, model=trained, pretrained="by hand")
    compress(task, folder=tmp_path, stop=Stop(rounds=1), cut=Cut(per_round=0.5), training=Training(epochs=1))
    found, expected = weights_of(tmp_path, 0).state_dict(), trained().state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [cost.steps for cost in read_ledger(tmp_path)] == [0, 8]


def test_a_constant_rate_is_the_given_one(tmp_path: Path) -> None:
    rates: list[float] = []

    class Noting(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            rates.append(report.learning_rate)

    compress(
        TASK,
        folder=tmp_path,
        callbacks=(Noting(),),
        stop=Stop(rounds=1),
        retraining=Retraining(method="fine-tune"),
        training=Training(fine_tune_rate=0.03, epochs=2),
    )
    assert rates == pytest.approx([0.1, 0.001, 0.03, 0.03])


def test_a_dense_network_that_kept_no_snapshot_is_not_one_for_others(tmp_path: Path) -> None:
    arguments = {"folder": tmp_path, "rounds": 1, "epochs": 2, "only": True}
    compress(TASK, **of_compress(**arguments))
    assert len(compress(TASK, **of_compress(**arguments))) == 1
    with pytest.raises(ConfigurationError, match="trained already and kept no snapshot after epoch 1; train it again"):
        compress(TASK, **of_compress(keep_snapshots=[1], **arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"round": "x"}, "does not say of which round it is"),
        ({"round": None}, "does not say of which round it is"),
        ({"replicate": "x"}, "does not say of which round it is"),
        ({"model": {}}, "does not fit this run"),
        ({"optimizer": 3}, "does not fit this run"),
        ({"epochs_done": "x"}, "does not fit this run"),
        ({"seconds": None}, "does not fit this run"),
    ],
)
def test_a_training_state_from_somebody_else_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    class Stopping(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            if report.epochs_done == 2:
                raise Interrupted

    arguments = {"folder": tmp_path, "rounds": 1, "only": True, "checkpoint_seconds": 0.0}
    with pytest.raises(Interrupted):
        compress(TASK, callbacks=(Stopping(),), **of_compress(**arguments))
    path = tmp_path / "training.safetensors"
    saved = states.load(path)
    assert (saved["round"], saved["replicate"], saved["epochs_done"], saved["steps"]) == (0, 0, 2, 16)
    states.save(path, saved | change)
    with pytest.raises(CheckpointError, match=message):
        compress(TASK, **of_compress(**arguments))


def test_a_training_state_of_an_older_version_says_less(tmp_path: Path) -> None:
    class Stopping(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            if report.epochs_done == 2:
                raise Interrupted

    arguments = {"rounds": 1, "only": True, "checkpoint_seconds": 0.0}
    compress(TASK, folder=tmp_path / "whole", **of_compress(**arguments))
    with pytest.raises(Interrupted):
        compress(TASK, folder=tmp_path / "parts", callbacks=(Stopping(),), **of_compress(**arguments))
    path = tmp_path / "parts" / "training.safetensors"
    saved = states.load(path)
    for name in ("replicate", "steps", "processor_seconds"):
        del saved[name]
    states.save(path, saved)
    compress(TASK, folder=tmp_path / "parts", **of_compress(**arguments))
    assert [cost.steps for cost in read_ledger(tmp_path / "parts")] == [32]
    found, expected = (weights_of(tmp_path / name, 0).state_dict() for name in ("parts", "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_training_state_of_a_finished_round_is_removed(tmp_path: Path) -> None:
    arguments = {"folder": tmp_path, "rounds": 1, "epochs": 2, "checkpoint_seconds": 0.0}

    class Keeping(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            if round.number == 0 and report.epochs_done == 1:
                (tmp_path / "training.safetensors").rename(tmp_path / "kept")

        def round_started(self, round: gossamer.Round, last_round: int | None) -> None:
            if round.number == 1:
                (tmp_path / "kept").rename(tmp_path / "training.safetensors")

    compress(TASK, callbacks=(Keeping(),), **of_compress(**arguments))
    assert [cost.steps for cost in read_ledger(tmp_path)] == [16, 16]
    assert not (tmp_path / "training.safetensors").exists()


def test_the_task_says_which_direction_of_its_metric_is_better(tmp_path: Path) -> None:
    """Of a name that says nothing."""

    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none")

    for better in ("lower", "higher"):
        task = replace(TASK, metric=Metric("own", better, score))
        compress(task, folder=tmp_path / better, stop=Stop(rounds=1, max_drop=1.0), training=Training(epochs=1))
        assert read(tmp_path / better)["rounds"]["better"] == better
        assert read(tmp_path / better)["rounds"]["metric"] == "own"


def test_what_is_asked_for_is_what_the_run_is_of(tmp_path: Path) -> None:
    records = compress(
        TASK,
        folder=tmp_path,
        scope=gossamer.Scope(exclude=["3.*"]),
        task_source="mine.py:task",
        stop=Stop(target_sparsity=0.5),
        cut=Cut(per_round=0.4, criterion="random", allocation="uniform", structure="2:4"),
        training=Training(epochs=1, seed=7),
    )
    tables = read(tmp_path)
    assert tables["rounds"] == {
        "target_sparsity": 0.5,
        "per_round": 0.4,
        "seed": 7,
        "metric": "accuracy",
        "better": "higher",
    } | {name: tables["rounds"][name] for name in ("one_shot",) if name in tables["rounds"]}
    method = tables["method"]
    assert (method["criterion"], method["allocation"], method["structure"]) == ("random", "uniform", "2:4")
    assert tables["scope"]["exclude"] == ["3.*"]
    assert tables["origin"] == {"task": "mine.py:task"}
    assert tables["settings"]["task"] == "tiny"
    assert (tables["settings"]["epochs"], tables["settings"]["batch_size"]) == (1, 10)
    assert (tables["settings"]["device"], tables["settings"]["optimizer_state"]) == ("cpu", "keep")
    assert [record.kept for record in records] == [192, 116, 96]
    assert {record.seed for record in records} == {7}


def test_the_last_round_is_trained_for_int8_and_measured_in_both_ways(tmp_path: Path) -> None:
    retraining = Retraining(quantised_rounds=1)
    records = compress(TASK, folder=tmp_path, stop=Stop(rounds=2), retraining=retraining)
    assert [record.quantised for record in records] == [False, False, True]
    measured = ["accuracy", "test_accuracy"]
    assert list(records[1].metrics) == measured
    assert list(records[2].metrics) == [*measured, "float_accuracy", "test_float_accuracy"]
    splits = TASK.data(None)
    assert splits.test is not None
    model = weights_of(tmp_path, 2)
    assert evaluate(model, splits.validation, TASK.metric) == records[2].metrics["float_accuracy"]
    assert evaluate(model, splits.test, TASK.metric) == records[2].metrics["test_float_accuracy"]
    fake = FakeQuantisation(model, gossamer.prunable_weights(model))
    fake.ranges = load_ranges(tmp_path, 2)
    with fake.attached():
        assert evaluate(model, splits.validation, TASK.metric) == records[2].val
        assert evaluate(model, splits.test, TASK.metric) == records[2].test


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from gossamer.job.callbacks import Callback
    from gossamer.job.compress import compress
    from gossamer.job.training import Training
    from gossamer.loop.stop import Stop
    from gossamer.rewind.strategies import Retraining
    from gossamer.tasks import find_task

    class Killing(Callback):
        def round_started(self, round, last_round): ...
        def step_finished(self, round, report): ...
        def round_finished(self, record): ...
        def epoch_finished(self, round, report):
            if round.quantised and report.epochs_done == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    compress(
        find_task("digits"),
        folder=Path(sys.argv[1]),
        callbacks=(Killing(),),
        stop=Stop(rounds=1),
        retraining=Retraining(quantised_rounds=1, levels=int(sys.argv[3]) or None),
        training=Training(epochs=3, checkpoint_seconds=0),
    )
"""


@pytest.mark.parametrize("levels", [0, 2])
def test_killed_in_a_quantised_round_it_goes_on_with_the_same_bits(levels: int, tmp_path: Path) -> None:
    def run(name: str, killed_after: int) -> int:
        return Started(tmp_path, tmp_path / name, killed_after, levels, script=textwrap.dedent(KILLED)).wait()

    assert run("whole", 0) == 0
    assert [run("killed", 1), run("killed", 2), run("killed", 0)] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    of_int8 = [] if levels else ["ranges.json"]
    for name in ("model.safetensors", "masks.safetensors", "state.safetensors", *of_int8):
        assert (tmp_path / "whole/round-01" / name).read_bytes() == (tmp_path / "killed/round-01" / name).read_bytes()
    whole, killed = (read_records(tmp_path / name)[1].metrics for name in ("whole", "killed"))
    assert whole == killed
