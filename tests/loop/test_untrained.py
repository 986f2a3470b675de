"""A round is recorded of the model that was given to `rounds`, trained in it; what else is meant has to be said.
After a mistake it can be recorded again."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import gossamer
from gossamer.errors import CheckpointError, ConfigurationError

UNTRAINED = r"weights of round {} are, bit for bit, what they were when it began.*untrained=True"


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, rate: float = 0.1) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate, momentum=0.9)
    for _ in range(3):
        inputs = torch.randn(16, 6)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), inputs[:, :3].argmax(1)).backward()
        optimizer.step()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_another_model_was_trained(first: int, tmp_path: Path) -> None:
    model = network()
    with pytest.raises(ConfigurationError, match=UNTRAINED.format(first)):  # noqa: PT012
        for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
            trained = model if round.number < first else network()
            train(trained)
            round.record(accuracy=1.0)
    assert len(list(tmp_path.glob("round-*"))) == first


def test_rounds_that_nobody_recorded_claim_nothing(tmp_path: Path) -> None:
    assert len(list(gossamer.rounds(network(), folder=tmp_path, stop=gossamer.Stop(rounds=1)))) == 2
    assert gossamer.load_round(tmp_path, -1, network()).metrics == {}


def test_statistics_alone_are_no_training(tmp_path: Path) -> None:
    model = network()
    round = next(gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    model.train()(torch.randn(8, 6))
    with pytest.raises(ConfigurationError, match=UNTRAINED.format(0)):
        round.record(accuracy=1.0)
    train(model, rate=0.0)
    with pytest.raises(ConfigurationError, match=UNTRAINED.format(0)):
        round.record(accuracy=1.0)
    train(model)
    assert round.record(accuracy=1.0).round == 0


def test_pruning_without_retraining_is_said(tmp_path: Path) -> None:
    model = network()
    train(model)
    for round in gossamer.rounds(model, folder=tmp_path, target_sparsity=0.5, cut=gossamer.Cut(one_shot=True)):
        round.record(accuracy=0.5, untrained=True)
    assert int((model[0].weight != 0).sum() + (model[3].weight != 0).sum()) == round.kept == 36


def test_a_network_that_came_trained_is_said_in_the_dense_round_only(tmp_path: Path) -> None:
    model = network()
    train(model)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        if round.number > 0:
            train(model)
        round.record(accuracy=0.5, untrained=round.number == 0)


def test_numbers_that_are_gone_are_no_training(tmp_path: Path) -> None:
    model = network()
    round = next(gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    train(model)
    model.to("meta")
    with pytest.raises(ConfigurationError, match=r"0\.weight is on the meta device and has no numbers"):
        round.record(accuracy=1.0)


@pytest.mark.filterwarnings("ignore:72 of 72 prunable weights are frozen")
def test_frozen_weights_stay_as_they_are_while_the_rest_is_trained(tmp_path: Path) -> None:
    model = network()
    for layer in (model[0], model[3]):
        layer.weight.requires_grad_(False)
    rounds = gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1))
    train(model)  # Before the round: of no account.
    for round in rounds:
        train(model)
        round.record(accuracy=0.5)
    with pytest.raises(ConfigurationError, match=UNTRAINED.format(0)):
        next(gossamer.rounds(model, folder=tmp_path / "again", stop=gossamer.Stop(rounds=1))).record(accuracy=0.5)


@pytest.mark.parametrize("method", ["weight-rewind", "reinit"])
def test_weights_that_went_back_are_where_the_training_begins(method: str, tmp_path: Path) -> None:
    model = network()
    with pytest.raises(ConfigurationError, match=UNTRAINED.format(1)):  # noqa: PT012
        for round in gossamer.rounds(
            model, folder=tmp_path, stop=gossamer.Stop(rounds=1), retraining=gossamer.Retraining(method=method)
        ):
            if round.number == 0:
                train(model)
            round.record(accuracy=0.5)


def test_a_resumed_round_is_told_too(tmp_path: Path) -> None:
    for _ in range(2):
        model = network()
        for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
            train(model)
            round.record(accuracy=0.5)
            break
    with pytest.raises(ConfigurationError, match=UNTRAINED.format(2)):
        next(gossamer.rounds(network(), folder=tmp_path, stop=gossamer.Stop(rounds=3))).record(accuracy=0.5)


def test_a_dense_network_that_is_taken_over_was_trained_elsewhere(tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path / "first", stop=gossamer.Stop(rounds=1)):
        train(model)
        round.record(accuracy=0.5)
    model = network()
    for round in gossamer.rounds(
        model, folder=tmp_path / "second", dense=tmp_path / "first", stop=gossamer.Stop(rounds=1)
    ):
        assert round.number == 1
        with pytest.raises(ConfigurationError, match=UNTRAINED.format(1)):
            round.record(accuracy=0.5)
        train(model)
        round.record(accuracy=0.5)


def test_every_replicate_has_to_be_trained(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(ConfigurationError, match="weights of replicate 1 of round 1 are, bit for bit"):  # noqa: PT012
        for round in gossamer.rounds(
            model, folder=tmp_path, stop=gossamer.Stop(rounds=1), retraining=gossamer.Retraining(replicates=2)
        ):
            for replicate in round.replicates():
                if replicate == 0:
                    train(model)
            round.record(accuracy=0.5)


# --- recording again --------------------------------------------------------------------------------------------------


def test_a_round_is_recorded_again_after_any_mistake(tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(
        model, folder=tmp_path, stop=gossamer.Stop(rounds=1, metric="accuracy", better="higher")
    ):
        train(model)
        for wrong in ({"accuracy": "high"}, {"loss": 1.0}, {"accuracy": float("nan")}):
            with pytest.raises(gossamer.GossamerError):
                round.record(**wrong)  # type: ignore[arg-type]
        assert round.result is None
        assert round.record(accuracy=0.5).val == 0.5


@pytest.mark.parametrize("what", ["the round", "the table after it"])
def test_a_round_is_recorded_again_after_the_disk_was_full(what: str, tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model)
        table, aside = tmp_path / "rounds.jsonl", tmp_path / "aside"
        if what == "the round":
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        else:
            if table.exists():
                table.rename(aside)
            table.mkdir()  # No file can take the place of a folder.
        try:
            with pytest.raises(CheckpointError):
                round.record(accuracy=0.75)
        finally:
            if what == "the round":
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            else:
                table.rmdir()
                if aside.exists():
                    aside.rename(table)
        assert round.record(accuracy=0.5).val == 0.5
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["val"] for line in lines] == [0.5, 0.5]
    assert gossamer.load_round(tmp_path, -1, network()).val == 0.5


def test_a_dense_network_that_changes_while_it_is_copied_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for round in gossamer.rounds(network(), folder=tmp_path / "dense", stop=gossamer.Stop(rounds=1)):
        round.record(accuracy=0.5, untrained=True)
        break
    copied = shutil.copyfile

    def changed(source: Path, destination: Path) -> None:
        # As if somebody wrote to it after it was verified.
        copied(source, destination)
        with destination.open("ab") as file:
            file.write(b"x")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", changed)
        with pytest.raises(CheckpointError, match="changed while its dense round was copied"):
            list(
                gossamer.rounds(
                    network(), folder=tmp_path / "run", dense=tmp_path / "dense", stop=gossamer.Stop(rounds=1)
                )
            )
    assert not (tmp_path / "run" / "round-00").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.toml").write_bytes((tmp_path / "dense" / "config.toml").read_bytes())
    with pytest.raises(CheckpointError, match="empty holds no finished round; expected the folder of a run with its"):
        list(
            gossamer.rounds(network(), folder=tmp_path / "run", dense=tmp_path / "empty", stop=gossamer.Stop(rounds=1))
        )
