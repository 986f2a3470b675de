"""When the network to rewind to is kept, and what is said if that is not known, past, or another moment."""

from pathlib import Path
from typing import Any

import pytest
import torch
from flat import of_rounds
from torch import nn

import gossamer
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.record import RoundRecord
from gossamer.rewind.strategies import Retraining
from gossamer.storage import state as states
from gossamer.storage.files import sha256


def begun(folder: Path, **arguments: Any) -> tuple[gossamer.Round, torch.optim.Optimizer]:
    model = nn.Linear(4, 3)
    rounds = gossamer.rounds(model, folder=folder, **of_rounds(rounds=1, **arguments))
    # The iterator is kept by the round's run; a round lives as long as somebody holds it.
    round = next(rounds)
    round.__dict__["iterator"] = rounds
    return round, torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_snapshot_is_of_the_dense_round_of_a_method_that_rewinds(tmp_path: Path) -> None:
    round, _ = begun(tmp_path / "a", method="lr-rewind")
    with pytest.raises(ConfigurationError, match=r"a snapshot is of the dense round.* this is round 0 of lr-rewind"):
        round.take_snapshot()
    for round in gossamer.rounds(
        nn.Linear(4, 3),
        folder=tmp_path / "b",
        stop=gossamer.Stop(rounds=1),
        retraining=gossamer.Retraining(method="weight-rewind"),
    ):
        if round.number == 1:
            with pytest.raises(ConfigurationError, match="this is round 1 of weight-rewind"):
                round.take_snapshot()
        round.record(untrained=True)


def test_the_moment_has_to_be_known(tmp_path: Path) -> None:
    round, _ = begun(tmp_path, method="weight-rewind", rewind_steps=3)
    with pytest.raises(ConfigurationError, match="which step to rewind to is not known yet"):
        round.take_snapshot()
    round.schedule(5)
    round.take_snapshot()
    assert states.load(tmp_path / "snapshot.safetensors")["step"] == 2


def test_a_dense_round_has_one_schedule(tmp_path: Path) -> None:
    round, _ = begun(tmp_path, method="weight-rewind", rewind_steps=3)
    round.schedule(5)
    round.schedule(5)
    with pytest.raises(ConfigurationError, match="rewound to step 2 of the dense round, and now to step 4"):
        round.schedule(7)


@pytest.mark.parametrize(("taken", "past"), [(1, False), (2, False), (3, True)])
def test_the_moment_must_not_be_past(taken: int, past: bool, tmp_path: Path) -> None:
    round, optimizer = begun(tmp_path, method="weight-rewind", rewind_steps=3)
    for _ in range(taken):
        optimizer.step()
    if past:
        with pytest.raises(ConfigurationError, match="step 2 of the dense round, which is past: 3 steps were taken"):
            round.schedule(5)
    else:
        round.schedule(5)
        assert (tmp_path / "snapshot.safetensors").exists() == (taken == 2)


def test_later_rounds_have_the_schedule_of_the_dense_one(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        stop=gossamer.Stop(rounds=1),
        retraining=gossamer.Retraining(method="weight-rewind", rewind_steps=3),
    ):
        if round.number == 1:
            with pytest.raises(
                ConfigurationError, match=r"to step 2 .*, but this schedule of 7 steps begins at step 4"
            ):
                round.schedule(7)
        assert len(round.schedule(5)) == (3 if round.number else 5)
        for _ in range(5):
            optimizer.step()
        round.record(untrained=True)


def test_a_snapshot_of_a_dense_round_that_begins_again_is_removed(tmp_path: Path) -> None:
    for name in ("snapshot.safetensors", "snapshot-1-epochs.safetensors"):
        (tmp_path / name).write_text("left by a crash")
    begun(tmp_path, method="weight-rewind", rewind_to_step=1)
    assert not list(tmp_path.glob("snapshot*"))


def loop(folder: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for round in gossamer.rounds(
        model,
        folder=folder,
        state={"sgd": optimizer},
        stop=gossamer.Stop(rounds=1),
        retraining=gossamer.Retraining(method="weight-rewind", rewind_to_step=1),
    ):
        if round.number == 1:
            break
        for _ in range(2):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
        round.record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, r"is no snapshot of a network"),
        ({"step": "x"}, r"is no snapshot of a network"),
        ({"optimizers": 3}, r"is no snapshot of a network"),
        ({"optimizers": {}}, r"the state of 'sgd' in .* does not fit it"),
        ({"optimizers": {"sgd": {}}}, r"the state of 'sgd' in .* does not fit it"),
    ],
)
def test_a_snapshot_from_somebody_else_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Its checksum is right: whoever writes the file can compute that too."""
    loop(tmp_path)
    path = tmp_path / "round-00" / "snapshot.safetensors"
    states.save(path, states.load(path) | change)
    record = path.with_name("round.json")
    found = RoundRecord.from_json(record.read_text(), "test")
    found.sha256[path.name] = sha256(path)
    record.write_text(found.sealed().to_json() + "\n")
    with pytest.raises(CheckpointError, match=rf"snapshot\.safetensors {message}|{message}"):
        loop(tmp_path)


@pytest.mark.parametrize(
    ("retraining", "first"),
    [
        (Retraining(), 0),
        (Retraining(rewind_to_step=3), 3),
        (Retraining(rewind_to_epoch=0), 0),
        (Retraining(rewind_to_epoch=3), None),
        (Retraining(rewind_steps=3), None),
    ],
)
def test_where_a_retraining_begins_that_knows_no_schedule(retraining: Retraining, first: int | None) -> None:
    assert retraining.first_known == first


def test_where_to_and_how_long_are_one_question() -> None:
    with pytest.raises(
        ConfigurationError, match="got 2 epochs and 1 steps to rewind; give only one of rewind_steps, rewind_epochs"
    ):
        Retraining(rewind_to_step=1, rewind_epochs=2)


def test_slots_that_go_back_lie_in_memory_as_their_weights_do(tmp_path: Path) -> None:
    """Of one entry along an axis, a file does not say how the axis lies."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    arguments: dict[str, Any] = {"folder": tmp_path, "rounds": 1, "method": "weight-rewind", "rewind_to_step": 1}
    weight = model[0].weight
    for round in gossamer.rounds(model, state={"optimizer": optimizer}, **of_rounds(**arguments)):
        if round.number == 1:
            assert optimizer.state[weight]["momentum_buffer"].stride() == weight.stride() == (3, 1, 3, 3)
        for _ in round.schedule(2):
            optimizer.zero_grad()
            model(torch.ones(2, 3, 4, 4)).sum().backward()
            optimizer.step()
        round.record()
