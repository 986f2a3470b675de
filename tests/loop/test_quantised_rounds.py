"""Rounds that are trained for int8, around loops of one's own."""

import copy
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rounded_loop import (
    INPUTS,
    Killed,
    loss,
    require_same_before,
    retrained_as_it_is,
    run,
    run_with_checkpoints,
    small,
    state_of_round,
    train,
)
from safetensors.torch import load_file
from torch import nn

import gossamer
from gossamer import Retraining, Stop
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.configuration import read
from gossamer.loop.folder import load_ranges
from gossamer.loop.records import read_records
from gossamer.prune.prunable import prunable_weights
from gossamer.quantise.fake import FakeQuantisation

LAST = Retraining(quantised_rounds=1)


def test_the_last_rounds_are_trained_and_measured_as_int8_networks(tmp_path: Path) -> None:
    model = run(tmp_path, Retraining(quantised_rounds=2))
    records = read_records(tmp_path)
    assert [record.quantised for record in records] == [False, False, True, True]
    assert [record.val == record.metrics["float_loss"] for record in records] == [True, True, False, False]
    # What comes out of the loop, and of the folder, is an ordinary network.
    assert [type(layer) for layer in model] == [type(layer) for layer in small()]
    assert loss(model) == records[-1].metrics["float_loss"]
    again = small()
    gossamer.load_round(tmp_path, -1, again)
    assert loss(again) == records[-1].metrics["float_loss"]
    gossamer.check(again)
    assert load_file(tmp_path / "round-03" / "model.safetensors").keys() == small().state_dict().keys()


def test_the_recorded_number_is_that_of_the_weights_and_ranges_in_the_folder(tmp_path: Path) -> None:
    run(tmp_path, LAST)
    model = small()
    record = gossamer.load_round(tmp_path, -1, model)
    fake = FakeQuantisation(model, prunable_weights(model))
    fake.ranges = load_ranges(tmp_path, -1)
    with fake.attached():
        assert loss(model) == record.val
    assert record.val != record.metrics["float_loss"]


def test_rounds_before_are_those_of_a_run_without(tmp_path: Path) -> None:
    require_same_before(tmp_path, LAST)
    assert not (tmp_path / "with" / "round-02" / "ranges.json").exists()
    assert "quantised" not in (tmp_path / "without" / "config.toml").read_text()


@pytest.mark.parametrize(
    "retraining",
    [
        Retraining("weight-rewind", quantised_rounds=2),
        Retraining("fine-tune", rewind_steps=4, quantised_rounds=1),
        Retraining("weight-rewind", rewind_to_step=2, quantised_rounds=1),
        Retraining("linear-lr-restart", quantised_rounds=9),
    ],
    ids=str,
)
def test_every_method_has_quantised_rounds_and_goes_on_inside_them(retraining: Retraining, tmp_path: Path) -> None:
    job = partial(run_with_checkpoints, retraining=retraining, lives_on=False)
    job(tmp_path / "whole", killed_at=None)
    with pytest.raises(Killed):
        job(tmp_path / "killed", killed_at=(2, 3))
    job(tmp_path / "killed", killed_at=None)
    for name in ("model.safetensors", "ranges.json"):
        whole, killed = (tmp_path / one / "round-02" / name for one in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
    assert read_records(tmp_path / "whole")[-1].val == read_records(tmp_path / "killed")[-1].val


def test_an_average_that_lives_across_rounds_is_measured_as_int8_too(tmp_path: Path) -> None:
    model = small()
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    for round in gossamer.rounds(
        model, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST, state={"average": average}
    ):
        train(model)
        average.update_parameters(model)
        measured = loss(average)
        with round.in_float():
            in_float = loss(average)
        assert (measured != in_float) == round.quantised
        round.record(loss=measured, model=average)
    assert read_records(tmp_path)[-1].val == measured
    assert type(average.module[0]) is nn.Linear


def test_a_loop_that_was_left_leaves_a_plain_network(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST):
        train(model)
        if round.quantised:
            assert type(model[0]) is not nn.Linear
            break
    assert [type(layer) for layer in model] == [type(layer) for layer in small()]


def test_the_best_epoch_s_ranges_can_be_put_back(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST):
        train(model)
        best = copy.deepcopy(model.state_dict()), round.ranges, loss(model)
        train(model)
        model.load_state_dict(best[0])
        round.ranges = best[1]
        assert loss(model) == best[2]
        round.record(loss=loss(model))
    assert load_ranges(tmp_path, -1) == best[1]


# Torch itself makes one where it traces such a function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_network_is_trained_for_int8(tmp_path: Path) -> None:
    model = small()
    compiled: Any = torch.compile(model, backend="eager")
    for round in gossamer.rounds(compiled, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST):
        train(compiled)
        measured = loss(compiled)
        assert measured == loss(model)
        with round.in_float():
            assert (loss(compiled) != measured) == round.quantised
        round.record(loss=measured)


def untrained(model: nn.Module) -> None:
    pass


def in_evaluation(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.eval()(INPUTS).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("train_so", [untrained, in_evaluation])
def test_a_round_that_was_not_trained_for_it_is_refused(train_so: Any, tmp_path: Path) -> None:
    model = small()

    def job() -> None:
        for round in gossamer.rounds(model, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST):
            train_so(model) if round.quantised else train(model)
            round.record(loss=1.0, untrained=True)

    with pytest.raises(ConfigurationError, match="round 1 is one of quantised_rounds, but none of its layers was"):
        job()
    assert len(read_records(tmp_path)) == 1


def test_which_rounds_are_the_last_has_to_be_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give target_sparsity or rounds too"):
        gossamer.rounds(small(), folder=tmp_path, stop=Stop(max_drop=0.1), retraining=LAST)
    stop = Stop(max_drop=100.0, rounds=2)
    for round in gossamer.rounds(
        model := small(), folder=tmp_path, stop=stop, retraining=Retraining(quantised_rounds=2)
    ):
        train(model)
        round.record(loss=loss(model))
    assert [record.quantised for record in read_records(tmp_path)] == [False, True, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantised_rounds": -1}, "quantised_rounds is -1; expected a whole number, 0"),
        ({"quantised_rounds": 1.5}, "quantised_rounds is 1.5; expected a whole number, 0"),
        ({"quantised_rounds": 1, "replicates": 2}, "expected one of them"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Retraining(**given)


def test_the_choice_is_kept_with_the_run(tmp_path: Path) -> None:
    run(tmp_path, LAST)
    message = (
        r"round 3 in .* was trained for int8, and is to be trained in float. .* remove the folders round-03 and later"
    )
    with pytest.raises(ConfigurationError, match=message):
        run(tmp_path, Retraining())
    assert Retraining.from_tables(read(tmp_path)) == LAST
    run(tmp_path, LAST)


def test_the_last_round_of_a_finished_run_can_be_trained_again_for_int8(tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(tmp_path / "at once", LAST, rounds=2)
    run(tmp_path / "later", Retraining(), rounds=2)
    versions = read(tmp_path / "later")["versions"]
    with pytest.raises(ConfigurationError, match=r"round 2 in .* was trained in float, and is to be trained for int8"):
        run(tmp_path / "later", LAST, rounds=2)
    shutil.rmtree(tmp_path / "later" / "round-02")
    run(tmp_path / "later", LAST, rounds=2)
    for name in ("model.safetensors", "ranges.json"):
        one, other = (tmp_path / folder / "round-02" / name for folder in ("at once", "later"))
        assert one.read_bytes() == other.read_bytes()
    assert read(tmp_path / "later")["method"]["quantised_rounds"] == 1
    assert read(tmp_path / "later")["versions"] == versions


def test_a_checkpoint_of_a_round_in_float_is_none_of_one_for_int8(tmp_path: Path) -> None:
    found = {name: state_of_round(tmp_path / name, one) for name, one in (("float", Retraining()), ("int8", LAST))}
    with pytest.raises(CheckpointError, match="its ranges are missing"):
        state_of_round(tmp_path / "int8", LAST, found["float"])
    with pytest.raises(CheckpointError, match="its ranges are those of a quantised round"):
        state_of_round(tmp_path / "float", Retraining(), found["int8"])


def test_ranges_from_somebody_else_are_verified(tmp_path: Path) -> None:
    run(tmp_path, LAST)
    assert load_ranges(tmp_path, -1).keys() == {"0.weight", "3.weight"}
    with pytest.raises(CheckpointError, match=r"round 1 .* was trained in float"):
        load_ranges(tmp_path, 1)
    path = tmp_path / "round-03" / "ranges.json"
    path.write_text(path.read_text().replace("high", "higher"))
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_ranges(tmp_path, -1)


def test_a_sparse_network_is_retrained_for_int8_as_it_is(tmp_path: Path) -> None:
    masks, found = retrained_as_it_is(tmp_path, LAST)
    assert all(torch.equal(found[name], mask) for name, mask in masks.items())
