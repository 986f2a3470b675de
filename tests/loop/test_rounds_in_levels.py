"""Rounds that are trained with weights in a few levels, around loops of one's own."""

import copy
import hashlib
import itertools
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rounded_loop import (
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

import gossamer
from gossamer import Retraining, Stop
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.configuration import read
from gossamer.loop.folder import load_ranges
from gossamer.loop.records import read_records

LAST = Retraining(quantised_rounds=1, levels=2)
WEIGHTS = ("0.weight", "3.weight")


def multiples(weight: torch.Tensor, levels: int) -> bool:
    """Whether the weight is whole multiples, up to this one, of one number: exactly, as fractions."""
    magnitudes = [float(value).as_integer_ratio() for value in np.unique(np.abs(weight.numpy())) if value]
    denominator = max(below for _, below in magnitudes)
    numbers = [above * (denominator // below) for above, below in magnitudes]
    return max(numbers) // int(np.gcd.reduce(np.array(numbers, object))) <= levels


def test_what_is_kept_is_in_levels_and_what_rounds_to_zero_is_gone(tmp_path: Path) -> None:
    model = run(tmp_path, LAST)
    before, last = read_records(tmp_path)[-2:]
    assert (before.quantised, before.levels, before.rounded_to_zero) == (False, None, 0)
    assert (last.quantised, last.levels) == (True, 2)
    # 20% of what is left, and what rounds to zero.
    planned = -(-108 * 512 // 1000)
    assert last.rounded_to_zero > 0
    assert last.kept == planned - last.rounded_to_zero
    weights, masks = load_file(tmp_path / "round-03" / "model.safetensors"), gossamer.load_masks(tmp_path, -1)
    assert weights.keys() == small().state_dict().keys()
    for name in WEIGHTS:
        assert torch.equal(weights[name] != 0, masks[name])
        assert multiples(weights[name], 2)
        assert not multiples(load_file(tmp_path / "round-02" / "model.safetensors")[name], 2)
    assert sum(int(mask.sum()) for mask in masks.values()) == last.kept
    # The numbers are those of the network in levels, which is an ordinary one.
    assert [type(layer) for layer in model] == [type(layer) for layer in small()]
    assert loss(model) == last.val != last.metrics["float_loss"]
    again = small()
    gossamer.load_round(tmp_path, -1, again)
    assert loss(again) == last.val
    gossamer.check(again)
    gossamer.check(model)


def test_rounds_before_are_those_of_a_run_without(tmp_path: Path) -> None:
    require_same_before(tmp_path, LAST)
    assert "levels" not in (tmp_path / "without" / "config.toml").read_text()
    assert not (tmp_path / "with" / "round-03" / "ranges.json").exists()


def test_later_rounds_keep_what_is_left_of_those_before(tmp_path: Path) -> None:
    run(tmp_path, Retraining(quantised_rounds=3, levels=1), rounds=3)
    records = read_records(tmp_path)
    assert [record.levels for record in records] == [None, 1, 1, 1]
    for before, record in itertools.pairwise(records):
        planned = -(-108 * 8**record.round // 10**record.round)
        assert record.kept == min(before.kept, planned) - record.rounded_to_zero
        masks = [gossamer.load_masks(tmp_path, one.round) for one in (before, record)]
        assert not any((masks[1][name] & ~masks[0][name]).any() for name in WEIGHTS)


@pytest.mark.parametrize(
    "retraining",
    [
        Retraining("weight-rewind", quantised_rounds=2, levels=2),
        Retraining("fine-tune", rewind_steps=4, quantised_rounds=1, levels=3),
        Retraining("weight-rewind", rewind_to_step=2, quantised_rounds=1, levels=1),
        Retraining("linear-lr-restart", quantised_rounds=9, levels=5),
    ],
    ids=str,
)
@pytest.mark.parametrize("killed_at", [(2, 3), (1, 5), (2, 0)])
def test_every_method_has_them_and_goes_on_inside_them(
    retraining: Retraining, killed_at: tuple[int, int], tmp_path: Path
) -> None:
    job = partial(run_with_checkpoints, retraining=retraining, lives_on=True)
    job(tmp_path / "whole", killed_at=None)
    try:
        job(tmp_path / "killed", killed_at=killed_at)
    except Killed:
        job(tmp_path / "killed", killed_at=None)
    for name in ("model.safetensors", "masks.safetensors", "state.safetensors"):
        whole, killed = (tmp_path / one / "round-02" / name for one in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes(), name
    assert read_records(tmp_path / "whole")[-1].val == read_records(tmp_path / "killed")[-1].val


def test_after_an_error_a_round_can_be_recorded_again(tmp_path: Path) -> None:
    def job(folder: Path, fails: bool) -> None:
        for round in gossamer.rounds(model := small(), folder=folder, stop=Stop(rounds=1), retraining=LAST):
            train(model)
            if fails and round.number == 1:
                (folder / "round-01").write_text("")
                round.beside = lambda destination: 1 / 0
                with pytest.raises(ZeroDivisionError):
                    round.record(loss=loss(model))
                (folder / "round-01").unlink(missing_ok=True)
                round.beside = None
            round.record(loss=loss(model))

    torch.manual_seed(1)
    job(tmp_path / "once", fails=False)
    torch.manual_seed(1)
    job(tmp_path / "twice", fails=True)
    once, twice = (read_records(tmp_path / name)[-1] for name in ("once", "twice"))
    assert once.rounded_to_zero == twice.rounded_to_zero > 0
    assert once.sha256["model.safetensors"] == twice.sha256["model.safetensors"]


def test_an_average_is_kept_in_levels(tmp_path: Path) -> None:
    model = small()
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    for round in gossamer.rounds(
        model, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST, state={"average": average}
    ):
        for _ in range(3):
            train(model, 2)
            average.update_parameters(model)
        measured = loss(average)
        round.record(loss=measured, model=average)
    weights = load_file(tmp_path / "round-01" / "model.safetensors")
    assert all(multiples(weights[name], 2) for name in WEIGHTS)
    again = small()
    gossamer.load_round(tmp_path, -1, again)
    assert loss(again) == measured


def test_the_best_epoch_s_levels_can_be_put_back(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST):
        train(model)
        best = copy.deepcopy(model.state_dict()), round.ranges, loss(model)
        train(model)
        assert not round.quantised or round.ranges != best[1]
        model.load_state_dict(best[0])
        round.ranges = best[1]
        assert loss(model) == best[2]
        round.record(loss=loss(model))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_network_is_trained_in_levels(tmp_path: Path) -> None:
    model = small()
    compiled: Any = torch.compile(model, backend="eager")
    for round in gossamer.rounds(compiled, folder=tmp_path, stop=Stop(rounds=1), retraining=LAST):
        train(compiled)
        measured = loss(compiled)
        assert measured == loss(model)
        round.record(loss=measured)
    assert all(multiples(load_file(tmp_path / "round-01" / "model.safetensors")[name], 2) for name in WEIGHTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": 0, "quantised_rounds": 1}, "levels is 0; expected a whole number from 1 to 127"),
        ({"levels": 128, "quantised_rounds": 1}, "levels is 128; expected a whole number from 1 to 127"),
        ({"levels": 2.5, "quantised_rounds": 1}, r"levels is 2\.5; expected a whole number from 1 to 127"),
        ({"levels": 4}, "got levels=4 and no quantised_rounds; expected quantised_rounds=1 or more too"),
        ({"levels": 4, "quantised_rounds": 1, "replicates": 2}, "expected one of them"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Retraining(**given)


def test_the_choice_is_kept_with_the_run(tmp_path: Path) -> None:
    run(tmp_path, LAST)
    for other, words in (
        (Retraining(), "in float"),
        (Retraining(quantised_rounds=1), "for int8"),
        (Retraining(quantised_rounds=1, levels=3), "in 3 levels"),
    ):
        with pytest.raises(ConfigurationError, match=f"round 3 in .* was trained in 2 levels, and is to be .*{words}"):
            run(tmp_path, other)
    assert Retraining.from_tables(read(tmp_path)) == LAST
    with pytest.raises(CheckpointError, match="was trained in 2 levels, and has no ranges"):
        load_ranges(tmp_path, -1)
    run(tmp_path, LAST)


def test_the_last_round_of_a_finished_run_can_be_trained_again_in_levels(tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(tmp_path / "at once", LAST, rounds=2)
    run(tmp_path / "later", Retraining(), rounds=2)
    shutil.rmtree(tmp_path / "later" / "round-02")
    run(tmp_path / "later", LAST, rounds=2)
    one, other = (tmp_path / folder / "round-02" / "model.safetensors" for folder in ("at once", "later"))
    assert one.read_bytes() == other.read_bytes()
    assert read(tmp_path / "later")["method"]["levels"] == 2


def test_a_checkpoint_of_a_round_for_int8_is_none_of_one_in_levels(tmp_path: Path) -> None:
    int8 = state_of_round(tmp_path / "int8", Retraining(quantised_rounds=1))
    with pytest.raises(CheckpointError, match=r"the step of 0\.weight has shape"):
        state_of_round(tmp_path / "levels", LAST, int8)


def test_a_record_of_the_version_before_is_read(tmp_path: Path) -> None:
    """Which knew nothing of levels: its seal is over what it states."""
    run(tmp_path, Retraining(), rounds=1)
    for path in tmp_path.glob("round-*/round.json"):
        stated = json.loads(path.read_text())
        assert (stated.pop("levels"), stated.pop("rounded_to_zero"), stated.pop("format")) == (None, 0, 3)
        seal = stated["sha256"].pop("round.json")
        stated["format"] = 2
        stated["sha256"]["round.json"] = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
        assert stated["sha256"]["round.json"] != seal
        path.write_text(json.dumps(stated))
    found = [(record.format, record.levels, record.trained) for record in read_records(tmp_path)]
    assert found == [(2, None, "in float")] * 2
    run(tmp_path, Retraining(), rounds=1)


def test_a_sparse_network_is_retrained_in_levels_as_it_is(tmp_path: Path) -> None:
    masks, found = retrained_as_it_is(tmp_path, LAST)
    assert not any((found[name] & ~mask).any() for name, mask in masks.items())
