# ruff: noqa: PT012  A loop over rounds is one statement of the user, whatever its length.
"""The loop of rounds, through the public surface, against the method written out by hand."""

import gc
import itertools
import json
import pickletools
import random
import re
import shutil
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flat import of_rounds
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import gossamer
from gossamer.errors import (
    CheckpointError,
    ConfigurationError,
    GossamerError,
    NothingToPruneError,
    PrunedWeightError,
    TrainingDivergedError,
)
from gossamer.loop.plan import Plan
from gossamer.loop.records import read_records

RATES = [0.2, 0.2, 0.1, 0.1, 0.02, 0.02]
"""The schedule that every round replays."""


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 4))


def data(number: int, step: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * number + step)
    inputs = torch.randn(16, 6, generator=generator).to(dtype)
    return inputs, inputs[:, :4].argmax(1)


def train(model: nn.Module, number: int, optimizer: torch.optim.Optimizer | None = None) -> None:
    """From the first learning rate to the last."""
    dtype = next(model.parameters()).dtype
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=1e-3)
    model.train()
    for step, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        inputs, labels = data(number, step, dtype)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the lock and what differs by nature, the ledger of the time it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "cost.json", "ledger.jsonl")
    }


def results(folder: Path) -> dict[str, object]:
    """What a run computed: everything but the time it took (and what says so)."""
    found: dict[str, object] = {}
    for name, content in files(folder).items():
        if name.endswith((".jsonl", ".json")):
            lines = [json.loads(line) for line in content.splitlines()]
            for line in lines:
                line.pop("seconds")
                line["sha256"].pop("round.json", None)
            found[name] = lines
        else:
            found[name] = content
    return found


# --- the method ---------------------------------------------------------------------------------------------------


def by_hand(model: nn.Module, target: float, keep_momentum: bool) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """The method in thirty lines: hidden weights, masks in the forward pass, a sort in numpy. (masks, state) a round.

    Pruned hidden weights are moved by weight decay and momentum as they please; nobody ever sees them again.
    """
    hidden = dict(model.named_parameters())
    prunable = ["0.weight", "3.weight"]
    total = sum(hidden[name].numel() for name in prunable)
    masks = {name: torch.ones_like(hidden[name], dtype=torch.bool) for name in prunable}
    rounds = []
    velocity = {name: torch.zeros_like(p) for name, p in hidden.items()}
    for number, kept in enumerate(Plan(total, target_sparsity=target)):
        if number > 0:
            magnitudes = np.concatenate([(hidden[n].detach().abs() * masks[n]).numpy().ravel() for n in prunable])
            magnitudes[~np.concatenate([masks[n].numpy().ravel() for n in prunable])] = -1
            flat = np.zeros(total, bool)
            flat[np.argsort(-magnitudes, kind="stable")[:kept]] = True
            parts = np.split(flat, [hidden[prunable[0]].numel()])
            masks = {n: torch.from_numpy(p).reshape(hidden[n].shape) for n, p in zip(prunable, parts, strict=True)}
        if not keep_momentum:
            velocity = {name: torch.zeros_like(p) for name, p in hidden.items()}
        for step, rate in enumerate(RATES):
            inputs, labels = data(number, step, torch.float64)
            effective = {name: p * masks[name] if name in masks else p for name, p in hidden.items()}
            loss = functional.cross_entropy(functional_call(model, effective, inputs), labels)
            gradients = torch.autograd.grad(loss, list(hidden.values()))
            with torch.no_grad():
                for (name, weight), gradient in zip(hidden.items(), gradients, strict=True):
                    velocity[name] = 0.9 * velocity[name] + gradient + 1e-3 * weight
                    weight -= rate * velocity[name]
        state = {n: t * masks[n] if n in masks else t.clone() for n, t in model.state_dict().items()}
        rounds.append((masks, state))
    return rounds


@pytest.mark.parametrize("keep_momentum", [False, True], ids=["fresh optimizer", "one optimizer for all rounds"])
def test_a_whole_run_is_the_method_written_by_hand(keep_momentum: bool, tmp_path: Path) -> None:
    expected = by_hand(small().double().train(), 0.85, keep_momentum)
    model = small().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=1e-3)
    count = 0
    for round in gossamer.rounds(model, target_sparsity=0.85, folder=tmp_path):
        train(model, round.number, optimizer if keep_momentum else None)
        masks, state = expected[round.number]
        assert_same(dict(round.masks), masks)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-12)
        round.record(accuracy=0.5)
        count += 1
    assert count == len(expected) == 10
    for number, (masks, state) in enumerate(expected):
        again = small(9).double()
        gossamer.load_round(tmp_path, number, again)
        assert_same(gossamer.load_masks(tmp_path, number), masks)
        for name, tensor in again.state_dict().items():
            torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-12)


def test_the_counts_of_every_round_are_the_plan_s(tmp_path: Path) -> None:
    model = small()
    kept = []
    for round in gossamer.rounds(model, target_sparsity=0.95, folder=tmp_path):
        train(model, round.number)
        left = int((model[0].weight != 0).sum() + (model[3].weight != 0).sum())
        assert left == round.kept == sum(int(mask.sum()) for mask in round.masks.values())
        assert round.prunable == 100
        assert round.parameters == 100 + 14 + 20
        assert round.density == round.kept / 100
        assert round.sparsity == pytest.approx(1 - round.kept / 100)
        kept.append(left)
    assert kept == [100, 80, 64, 52, 41, 33, 27, 21, 17, 14, 11, 9, 7, 6, 5]
    gossamer.check(model)


def test_the_table_has_one_line_a_round(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, seed=5, stop=gossamer.Stop(rounds=2)):
        record = round.record(untrained=True, accuracy=0.9 - round.number / 10, loss=1.5, test_accuracy=0.8)
        assert round.result is record
        lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
        assert [line["round"] for line in lines] == list(range(round.number + 1))
    assert [line["kept"] for line in lines] == [100, 80, 64]
    assert [line["density"] for line in lines] == [1.0, 0.8, 0.64]
    assert [line["val"] for line in lines] == [0.9, 0.8, 0.7]
    assert [line["test"] for line in lines] == [0.8, 0.8, 0.8]
    assert [line["metric"] for line in lines] == ["accuracy"] * 3
    assert [line["lr_rewound_to"] for line in lines] == [None, 0, 0]
    assert [line["weights_rewound_to"] for line in lines] == [None] * 3
    assert all(line["seed"] == 5 and line["prunable"] == 100 and line["parameters"] == 134 for line in lines)
    assert all(line["seconds"] >= 0 for line in lines)
    assert lines[0]["metrics"] == {"accuracy": 0.9, "loss": 1.5, "test_accuracy": 0.8}


def test_a_loop_that_records_nothing_still_keeps_its_rounds(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        train(model, round.number)
    record = gossamer.load_round(tmp_path, -1, small(3))
    assert (record.round, record.val, record.metric) == (2, None, None)


def test_the_model_s_state_keys_and_hooks_stay(tmp_path: Path) -> None:
    model = small()
    before = [(type(m), sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    keys = list(model.state_dict())
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        train(model, round.number)
    assert list(model.state_dict()) == keys
    assert [
        (type(m), sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()
    ] == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own, of torch's internals.
def test_a_compiled_model_runs_as_the_plain_one(tmp_path: Path) -> None:
    plain, compiled = small(), torch.compile(small(), backend="aot_eager")
    for name, model in (("plain", plain), ("compiled", compiled)):
        for round in gossamer.rounds(model, folder=tmp_path / name, stop=gossamer.Stop(rounds=2)):
            train(model, round.number)
    for file in ("config.toml", "round-02/masks.safetensors"):
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "compiled" / file).read_bytes()
    gossamer.load_round(tmp_path / "compiled", 1, plain)


def test_a_scope_holds_for_the_whole_run(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(
        model, folder=tmp_path, scope=gossamer.Scope(exclude=["3"]), stop=gossamer.Stop(rounds=3)
    ):
        train(model, round.number)
        assert round.prunable == 60
        assert list(round.masks) == ["0.weight"]
    assert bool((model[3].weight != 0).all())


def test_a_pruned_model_begins_a_new_run_dense(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path / "first", stop=gossamer.Stop(rounds=3)):
        train(model, round.number)
    for round in gossamer.rounds(model, folder=tmp_path / "second", stop=gossamer.Stop(rounds=1)):
        train(model, round.number)
        left = int((model[0].weight != 0).sum() + (model[3].weight != 0).sum())
        assert left == round.kept


@pytest.mark.filterwarnings("ignore:16 of 40 prunable weights are frozen")
def test_frozen_layers_tied_layers_and_embeddings(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False))
    model[2].weight = model[0].weight
    model[1].weight.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for round in gossamer.rounds(
        model, folder=tmp_path, scope=gossamer.Scope(embeddings=True), stop=gossamer.Stop(rounds=3)
    ):
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(model(torch.arange(6)), torch.arange(6)).backward()
            optimizer.step()
        assert round.prunable == 40
        assert int((model[0].weight != 0).sum() + (model[1].weight != 0).sum()) == round.kept
    fresh = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False))
    fresh[2].weight = fresh[0].weight
    gossamer.load_round(tmp_path, 3, fresh)
    assert fresh[2].weight is fresh[0].weight
    assert_same(state_of(fresh), state_of(model))


def test_replaced_parameters_are_held_from_the_next_round_on(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=4)):
        train(model, round.number)
        if round.number in (0, 2):
            model.load_state_dict(state_of(model), assign=True)
        round.record()
        assert int((model[0].weight != 0).sum() + (model[3].weight != 0).sum()) == round.kept
    gossamer.check(model)


def test_weights_that_came_back_to_life_end_the_run(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(PrunedWeightError, match=r"0\.weight is 1"):
        for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
            if round.number == 1:
                nn.init.ones_(model[0].weight)
            round.record(untrained=True)
    assert gossamer.load_round(tmp_path, -1, small()).round == 0


def test_a_layer_that_vanished_is_an_error(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(ConfigurationError, match=r"3\.weight is no longer a parameter"):
        for _ in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
            model[3] = nn.Linear(10, 5)


# --- resuming -----------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """What stops a loop from the inside."""


def stochastic_loop(
    folder: Path, stop: Callable[[int, str], None] = lambda number, place: None, channels_last: bool = False
) -> nn.Module:
    """A loop that draws from every global generator, with an optimizer and a schedule that live across rounds."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(16, 3)
    )
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5)
    images = torch.randn(40, 2, 4, 4)
    for round in gossamer.rounds(
        model,
        target_sparsity=0.6,
        folder=folder,
        state={"optimizer": optimizer, "schedule": schedule},
        seed=0,
        settings={"dropout": 0.2},
    ):
        for batch in torch.randperm(40).split(8):
            stop(round.number, "training")
            noise = random.gauss(0, 0.1) + torch.from_numpy(np.random.randn(len(batch), 2, 4, 4)).float() * 0.1
            inputs = images[batch] + noise
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), batch % 3).backward()
            optimizer.step()
            schedule.step()
        stop(round.number, "before recording")
        round.record(accuracy=0.5 + torch.rand(()).item() / 10)
        stop(round.number, "after recording")
    return model


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    torch.set_num_threads(1)
    stochastic_loop(folder)
    return results(folder)


def test_the_same_loop_gives_the_same_bytes(uninterrupted: dict[str, object], tmp_path: Path) -> None:
    stochastic_loop(tmp_path)
    assert results(tmp_path) == uninterrupted
    assert len([name for name in uninterrupted if name.endswith("model.safetensors")]) == 6


@pytest.mark.parametrize("place", ["training", "before recording", "after recording"])
@pytest.mark.parametrize("number", range(6))
def test_interrupted_in_any_round_it_ends_with_the_same_bytes(
    number: int, place: str, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    def stop(current: int, where: str) -> None:
        if (current, where) == (number, place):
            raise Interrupted

    with pytest.raises(Interrupted):
        stochastic_loop(tmp_path, stop)
    torch.rand(7)  # What the process does in between is its own affair.
    stochastic_loop(tmp_path)
    assert results(tmp_path) == uninterrupted


def test_interrupted_after_every_round(uninterrupted: dict[str, object], tmp_path: Path) -> None:
    def stop(current: int, where: str) -> None:
        if where == "after recording":
            raise Interrupted

    for _ in range(6):
        with pytest.raises(Interrupted):
            stochastic_loop(tmp_path, stop)
    stochastic_loop(tmp_path)
    assert results(tmp_path) == uninterrupted


def test_channels_last_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def stop(current: int, where: str) -> None:
        if (current, where) == (2, "training"):
            raise Interrupted

    stochastic_loop(tmp_path / "whole", channels_last=True)
    with pytest.raises(Interrupted):
        stochastic_loop(tmp_path / "parts", stop, channels_last=True)
    stochastic_loop(tmp_path / "parts", channels_last=True)
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_restored_slots_lie_in_memory_as_their_weights_do(tmp_path: Path) -> None:
    def loop() -> tuple[nn.Module, torch.optim.Optimizer]:
        # Of one entry along an axis, a file does not say how the axis lies.
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters())
        for round in gossamer.rounds(
            model, folder=tmp_path, state={"optimizer": optimizer}, stop=gossamer.Stop(rounds=1)
        ):
            optimizer.zero_grad()
            model(torch.ones(2, 3, 4, 4)).sum().backward()
            optimizer.step()
            round.record()
        return model, optimizer

    loop()
    model, optimizer = loop()
    assert not model[0].weight.is_contiguous()  # type: ignore[index]
    for weight in (model[0].weight, model[1].weight):  # type: ignore[index]
        for name in ("exp_avg", "exp_avg_sq"):
            assert optimizer.state[weight][name].stride() == weight.stride()


def test_a_loop_that_was_left_keeps_no_model_alive(tmp_path: Path) -> None:
    """Its memory is free at once, not only when Python looks for circles of references."""

    def left() -> "weakref.ref[nn.Module]":
        model = nn.Linear(4, 3)
        for _ in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
            break
        return weakref.ref(model)

    gc.collect()
    gc.disable()
    try:
        assert left()() is None
    finally:
        gc.enable()


def test_leaving_the_loop_with_break_and_coming_back(tmp_path: Path) -> None:
    numbers = []
    for _ in range(4):
        model = small()
        for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
            train(model, round.number)
            round.record(accuracy=0.5)
            numbers.append(round.number)
            break
    assert numbers == [0, 1, 2, 3]
    assert list(gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=3))) == []


def test_a_finished_run_runs_nothing_and_hands_back_its_model(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
        train(model, round.number)
    before = files(tmp_path)
    again = small(5)
    assert list(gossamer.rounds(again, folder=tmp_path, stop=gossamer.Stop(rounds=3))) == []
    assert_same(state_of(again), state_of(model))
    gossamer.check(again)
    assert files(tmp_path) == before


def test_an_interrupted_round_leaves_the_rounds_before_it(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
        train(model, round.number)
        if round.number == 2:
            break
        round.record()
    assert sorted(path.name for path in tmp_path.glob("round-*")) == ["round-00", "round-01"]
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 2


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        round.record(untrained=True)
        break
    (tmp_path / "round-01.tmp").mkdir()
    (tmp_path / "round-01.tmp" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "rounds.jsonl.tmp").write_bytes(b"half")
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        round.record(untrained=True)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_table_that_lags_behind_is_mended(tmp_path: Path) -> None:
    for round in gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        round.record(untrained=True)
    table = (tmp_path / "rounds.jsonl").read_bytes()
    for content in (None, b"", table.splitlines(keepends=True)[0], b"\xff\xfe", table[:-5]):
        (tmp_path / "rounds.jsonl").unlink()
        if content is not None:
            (tmp_path / "rounds.jsonl").write_bytes(content)
        assert list(gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=2))) == []
        assert (tmp_path / "rounds.jsonl").read_bytes() == table


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.AdamW(p, lr=0.01), lambda p: torch.optim.LBFGS(p, lr=0.3, max_iter=3)],
    ids=["AdamW", "LBFGS"],
)
def test_optimizers_go_on_where_they_were(make: Callable[[Any], torch.optim.Optimizer], tmp_path: Path) -> None:
    def loop(folder: Path, last: int) -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        torch.manual_seed(1)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        optimizer = make(model.parameters())
        for round in gossamer.rounds(
            model, folder=folder, state={"optimizer": optimizer}, stop=gossamer.Stop(rounds=3)
        ):
            for step in range(3):

                def closure(number: int = round.number, step: int = step) -> Tensor:
                    optimizer.zero_grad()
                    inputs, labels = data(number, step)
                    loss = functional.cross_entropy(model(inputs), labels)
                    loss.backward()
                    return loss

                optimizer.step(closure)
            round.record()
            if round.number == last:
                break
        return model

    loop(tmp_path / "whole", 99)
    for last in (0, 2, 99):
        loop(tmp_path / "parts", last)
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_state_must_be_able_to_save_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"state\['data'\] is a list; expected an object with state_dict"):
        gossamer.rounds(small(), folder=tmp_path, state={"data": [1]}, stop=gossamer.Stop(rounds=1))


def test_an_optimizer_of_another_shape_does_not_fit_the_state(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for round in gossamer.rounds(model, folder=tmp_path, state={"optimizer": optimizer}, stop=gossamer.Stop(rounds=2)):
        round.record(untrained=True)
        break
    other = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    with pytest.raises(CheckpointError, match=r"state of round 0 .* does not fit 'optimizer'"):
        list(gossamer.rounds(model, folder=tmp_path, state={"optimizer": other}, stop=gossamer.Stop(rounds=2)))


def test_state_that_holds_what_cannot_be_stored_says_where(tmp_path: Path) -> None:
    class Odd:
        def state_dict(self) -> dict[str, object]:
            return {"items": [1, {2}]}

        def load_state_dict(self, state: dict[str, object]) -> None:
            raise AssertionError(state)

    with pytest.raises(CheckpointError, match=r"\['objects'\]\['odd'\]\['items'\]\[1\] is a set"):
        for round in gossamer.rounds(small(), folder=tmp_path, state={"odd": Odd()}, stop=gossamer.Stop(rounds=1)):
            round.record(untrained=True)
    assert not list(tmp_path.glob("round-*"))


# --- stopping -----------------------------------------------------------------------------------------------------


def run_with(
    values: list[float], folder: Path, name: str = "accuracy", **arguments: Any
) -> tuple[nn.Module, list[int]]:
    """A run whose rounds are recorded with these values."""
    model = small()
    numbers = []
    for round in gossamer.rounds(model, folder=folder, **of_rounds(**arguments)):
        train(model, round.number)
        round.record(**{name: values[round.number]})
        numbers.append(round.number)
    return model, numbers


def left(model: nn.Module) -> int:
    return int((model[0].weight != 0).sum() + (model[3].weight != 0).sum())  # type: ignore[index]


def test_max_drop_stops_after_the_first_loss_too_many_and_leaves_the_smallest_allowed(tmp_path: Path) -> None:
    model, numbers = run_with([0.9, 0.91, 0.89, 0.85, 0.9], tmp_path, max_drop=0.01)
    assert numbers == [0, 1, 2, 3]
    assert left(model) == 64
    other = small(8)
    gossamer.load_round(tmp_path, 2, other)
    assert_same(state_of(model), state_of(other))
    gossamer.check(model)


def test_max_drop_may_leave_the_dense_network(tmp_path: Path) -> None:
    model, numbers = run_with([0.9, 0.5], tmp_path, max_drop=0.01)
    assert numbers == [0, 1]
    assert left(model) == 100


def test_max_drop_of_a_metric_that_should_be_low(tmp_path: Path) -> None:
    assert run_with([2.0, 1.0, 2.1, 2.2], tmp_path / "a", "loss", max_drop=0.1)[1] == [0, 1, 2, 3]
    assert run_with([2.0, 2.1, 2.2], tmp_path / "b", "regret", max_drop=0.1, better="lower")[1] == [0, 1, 2]
    assert run_with([2.0, 2.1, 1.8], tmp_path / "c", "joy", max_drop=0.1, better="higher")[1] == [0, 1, 2]


def test_max_drop_goes_on_and_stops_the_same_after_an_interruption(tmp_path: Path) -> None:
    values = [0.9, 0.91, 0.89, 0.85, 0.9]
    for expected in ([0, 1, 2, 3], []):
        model, numbers = run_with(values, tmp_path, max_drop=0.01)
        assert numbers == expected
        assert left(model) == 64


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"rounds": 2}, [0, 1, 2]),
        ({"rounds": 1, "max_drop": 0.01}, [0, 1]),
        ({"rounds": 9, "max_drop": 0.01}, [0, 1, 2, 3, 4]),
        ({"target_sparsity": 0.3, "max_drop": 0.01}, [0, 1, 2]),
        ({"target_sparsity": 0.9, "rounds": 2}, [0, 1, 2]),
        ({"target_sparsity": 0.9, "rounds": 1, "per_round": 0.9}, [0, 1]),
        ({"target_sparsity": 0.99, "rounds": 99, "max_drop": 0.5, "per_round": 0.9}, [0, 1, 2]),
    ],
    ids=str,
)
def test_the_first_stopping_rule_ends_the_run(arguments: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    assert run_with([0.9, 0.9, 0.9, 0.9, 0.7, 0.9], tmp_path, **arguments)[1] == expected


def test_max_drop_needs_a_metric(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"round 0 recorded no metric, but max_drop decides by one"):
        for round in gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(max_drop=0.01)):
            round.record(test_accuracy=0.9)
    with pytest.raises(ConfigurationError, match=r"round 0 recorded no metric, but max_drop decides by one"):
        list(gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(max_drop=0.01)))
    assert not list(tmp_path.glob("round-*"))


def test_max_drop_needs_a_metric_whose_direction_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'joy' is better; pass better='higher' or better='lower'"):
        run_with([0.9, 0.9], tmp_path, "joy", max_drop=0.01)
    with pytest.raises(ConfigurationError, match="'joy' is better"):
        gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(max_drop=0.01, metric="joy"))


def test_the_named_metric_decides_and_must_be_recorded(tmp_path: Path) -> None:
    model = small()
    numbers = []
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(max_drop=0.01, metric="f1")):
        round.record(untrained=True, accuracy=0.9 - round.number, f1=[0.8, 0.8, 0.5][round.number])
        numbers.append(round.number)
    assert numbers == [0, 1, 2]
    assert left(model) == 80
    with pytest.raises(ConfigurationError, match=r"round 0 recorded \['accuracy'\]; expected 'f1' among them"):
        for round in gossamer.rounds(small(), folder=tmp_path / "other", stop=gossamer.Stop(rounds=1, metric="f1")):
            round.record(untrained=True, accuracy=0.9)


def test_all_rounds_are_judged_by_the_metric_of_the_dense_one(tmp_path: Path) -> None:
    model = small()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(max_drop=0.01)):
        if round.number == 0:
            round.record(untrained=True, accuracy=0.9, loss=0.5)
        else:
            round.record(untrained=True, loss=0.95, accuracy=0.2)
    assert round.number == 1
    assert left(model) == 100
    assert round.result is not None
    assert (round.result.metric, round.result.val) == ("accuracy", 0.2)


def test_recording_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="round 0 was recorded already"):
        for round in gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1)):
            round.record(untrained=True, accuracy=0.9)
            round.record(untrained=True, accuracy=0.9)
    assert gossamer.load_round(tmp_path, -1, small()).val == 0.9


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_a_metric_that_is_not_finite_ends_the_run_and_keeps_the_last_good_round(bad: float, tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"accuracy of round 1 is (nan|inf)"):
        run_with([0.9, bad], tmp_path, rounds=3)
    assert gossamer.load_round(tmp_path, -1, small()).round == 0
    assert run_with([0.9, 0.8, 0.7, 0.6], tmp_path, rounds=3)[1] == [1, 2, 3]


@pytest.mark.parametrize("bad", ["high", None, [1, 2], torch.ones(2)])
def test_a_metric_that_is_no_number_is_refused(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"accuracy is .*; expected a number"):
        run_with([bad], tmp_path, rounds=1)
    assert not list(tmp_path.glob("round-*"))


def test_numbers_of_numpy_and_torch_are_metrics(tmp_path: Path) -> None:
    run_with([np.float32(0.5), torch.tensor(0.25)], tmp_path, rounds=1)
    assert gossamer.load_round(tmp_path, 1, small()).val == 0.25


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["0.weight", "0.bias", "1.weight"])
def test_weights_that_are_not_finite_end_the_run_and_keep_the_last_good_round(
    bad: float, place: str, tmp_path: Path
) -> None:
    model = small()
    with pytest.raises(TrainingDivergedError, match=rf"{re.escape(place)} is not finite after round 1"):
        for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
            if round.number == 1:
                parameter = model.get_parameter(place)
                with torch.no_grad():
                    parameter.view(-1)[parameter.view(-1).abs().argmax()] = bad
            round.record(untrained=True, accuracy=0.9)
    assert gossamer.load_round(tmp_path, -1, small()).round == 0


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_weights_that_were_never_initialised_are_named_before_anything_is_trained(bad: float, tmp_path: Path) -> None:
    model = small()
    with torch.no_grad():
        model[1].bias[2] = bad  # As `to_empty` may leave it, if no layer is asked to fill it.
    with pytest.raises(TrainingDivergedError, match=r"1\.bias is not finite before round 0: it was not initialised"):
        next(gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    assert not list(tmp_path.glob("round-*"))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_frozen_weights_of_eight_bits_are_kept_beside_those_that_are_pruned(dtype: torch.dtype, tmp_path: Path) -> None:
    model = small()
    model.base = torch.nn.Module()
    given = torch.linspace(-3, 3, 24).to(dtype)
    model.base.weight = torch.nn.Parameter(given.clone(), requires_grad=False)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        round.record(untrained=True, accuracy=0.9)
    model.base.weight.data = torch.zeros(24).to(dtype)
    gossamer.load_round(tmp_path, 1, model)
    assert torch.equal(model.base.weight.float(), given.float())


def test_statistics_that_are_not_a_number_end_the_run(tmp_path: Path) -> None:
    model = small()
    model[1].running_mean[3] = float("nan")
    with pytest.raises(TrainingDivergedError, match=r"1\.running_mean is not finite"):
        list(gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))


def test_an_attention_mask_of_infinities_is_no_divergence(tmp_path: Path) -> None:
    model = small()
    model.register_buffer("mask", torch.full((3, 3), -float("inf")).triu(1))
    list(gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    again = small(1)
    again.register_buffer("mask", torch.zeros(3, 3))
    gossamer.load_round(tmp_path, -1, again)
    assert torch.equal(again.mask, model.mask)


# --- bad arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "when to stop was not said"),
        ({"target_sparsity": 0.0}, "target_sparsity is 0.0; expected"),
        ({"target_sparsity": 1.0}, "target_sparsity is 1.0; expected"),
        ({"target_sparsity": 95}, "target_sparsity is 95; expected"),
        ({"target_sparsity": float("nan")}, "target_sparsity is nan; expected"),
        ({"rounds": 0}, "rounds is 0; expected at least 1"),
        ({"rounds": 1, "per_round": 20}, "per_round is 20; expected"),
        ({"max_drop": -1}, "max_drop is -1; expected"),
        ({"max_drop": float("inf")}, "max_drop is inf; expected"),
        ({"max_drop": 0.1, "better": "more"}, "better is 'more'; expected"),
        ({"rounds": 1, "scope": gossamer.Scope(include=["nothing"])}, "include pattern 'nothing' matches no parameter"),
        ({"target_sparsity": 0.001}, "rounds to no weight at all"),
        ({"rounds": 1, "settings": {"path": Path("x")}}, "a setting cannot be written"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_anything_is_written(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        gossamer.rounds(small(), folder=tmp_path / "run", **of_rounds(**arguments))
    assert not (tmp_path / "run").exists()


def test_a_model_without_prunable_weights(tmp_path: Path) -> None:
    with pytest.raises(NothingToPruneError, match="BatchNorm1d has no prunable weights"):
        gossamer.rounds(nn.BatchNorm1d(3), folder=tmp_path, stop=gossamer.Stop(rounds=1))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_of_no_weights_is_nothing_to_prune(tmp_path: Path) -> None:
    with pytest.raises(NothingToPruneError):
        gossamer.rounds(nn.Linear(0, 3), target_sparsity=0.5, folder=tmp_path)


def test_a_model_whose_state_is_no_tensor_is_refused_at_once(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> object:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    with pytest.raises(CheckpointError, match=r"holds a dict under _extra_state; expected tensors only"):
        gossamer.rounds(Odd(2, 2), folder=tmp_path, stop=gossamer.Stop(rounds=1))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigurationError, match="cannot make the folder"):
            gossamer.rounds(small(), folder=folder, stop=gossamer.Stop(rounds=1))


def test_a_folder_of_another_configuration_is_refused_and_left_untouched(tmp_path: Path) -> None:
    for round in gossamer.rounds(
        small(), folder=tmp_path, seed=1, settings={"epochs": 5}, stop=gossamer.Stop(rounds=3)
    ):
        round.record(untrained=True)
        if round.number == 1:
            break
    before = files(tmp_path)
    wider = nn.Sequential(nn.Linear(6, 11), nn.BatchNorm1d(11), nn.Tanh(), nn.Linear(11, 4))
    optimizer = torch.optim.SGD(wider.parameters(), lr=1)
    right: dict[str, Any] = {"rounds": 3, "seed": 1, "settings": {"epochs": 5}}
    for wrong, shown in [
        ({"rounds": 4}, r"rounds\.rounds: the folder's run has 3, this one has 4"),
        ({"target_sparsity": 0.9}, r"rounds\.target_sparsity: the folder's run has nothing, this one has 0\.9"),
        ({"per_round": 0.1}, r"rounds\.per_round: the folder's run has 0\.2, this one has 0\.1"),
        ({"seed": 2}, r"rounds\.seed: the folder's run has 1, this one has 2"),
        ({"settings": {"epochs": 6}}, r"settings\.epochs: the folder's run has 5, this one has 6"),
        ({"settings": {}}, r"settings\.epochs: the folder's run has 5, this one has nothing"),
        ({"scope": gossamer.Scope(exclude=["3"])}, r"scope\.exclude: the folder's run has \[\], this one has \['3'\]"),
        ({"state": {"optimizer": optimizer}}, r"method\.state: .*\['optimizer'\]"),
        ({"model": wider}, r"model\.weights\.0\.weight: the folder's run has \[10, 6\], this one has \[11, 6\]"),
    ]:
        arguments = {"model": small(), "folder": tmp_path, **right, **wrong}
        with pytest.raises(ConfigurationError, match=shown):
            list(gossamer.rounds(**of_rounds(**arguments)))
        assert files(tmp_path) == before
    assert [round.number for round in gossamer.rounds(small(), folder=tmp_path, **of_rounds(**right))] == [2, 3]


def test_rounds_without_a_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "round-00").mkdir()
    with pytest.raises(CheckpointError, match=r"holds rounds but no config\.toml"):
        gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1))


def test_a_loop_that_was_left_lets_go_of_the_folder(tmp_path: Path) -> None:
    reference = small()
    for round in gossamer.rounds(reference, folder=tmp_path / "whole", stop=gossamer.Stop(rounds=2)):
        train(reference, round.number)
        round.record(accuracy=0.5)
    left = gossamer.rounds(small(), folder=tmp_path / "left", stop=gossamer.Stop(rounds=2))
    for round in left:
        if round.number == 1:
            break
        round.record(untrained=True, accuracy=0.25)
    shutil.rmtree(tmp_path / "left" / "round-00")
    model = small()
    for again in gossamer.rounds(model, folder=tmp_path / "left", stop=gossamer.Stop(rounds=2)):
        train(model, again.number)
        again.record(accuracy=0.5)
    assert torch.equal(model[0].weight, reference[0].weight)
    # The loop that was left is over, and says so.
    with pytest.raises(ConfigurationError, match=r"a later call of gossamer\.rounds goes on in .*left, so this loop"):
        round.record(accuracy=0.25)
    with pytest.raises(ConfigurationError, match="this loop has ended"):
        next(left)
    assert list(left) == []
    assert [record.val for record in read_records(tmp_path / "left")] == [0.5, 0.5, 0.5]


def test_a_loop_inside_the_loop_of_the_same_folder_is_not_silent(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="this loop has ended"):
        for _ in gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1)):
            assert len(list(gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1)))) == 2


def test_a_snapshot_that_is_due_in_a_loop_that_was_left_is_not_taken(tmp_path: Path) -> None:
    model = small()
    arguments: dict[str, Any] = {"method": "weight-rewind", "rewind_to_step": 4, "rounds": 1, "folder": tmp_path}
    left = gossamer.rounds(model, **of_rounds(**arguments))
    round = next(left)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.step()
    again = gossamer.rounds(model, **of_rounds(**arguments))
    next(again)
    for _ in range(3):
        optimizer.step()
    assert not (tmp_path / "snapshot.safetensors").exists()
    with pytest.raises(ConfigurationError, match="this loop has ended"):
        round.take_snapshot()
    optimizer.step()
    assert (tmp_path / "snapshot.safetensors").exists()


def test_another_thread_that_is_at_work_in_the_folder_is_not_interrupted(tmp_path: Path) -> None:
    entered, done = threading.Event(), threading.Event()
    finished: list[int] = []

    def work() -> None:
        for round in gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1)):
            entered.set()
            done.wait(60)
            finished.append(round.number)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(60)
    try:
        with pytest.raises(ConfigurationError, match="is in use already, by this very process"):
            next(gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    finally:
        done.set()
        thread.join()
    assert finished == [0, 1]
    # A thread that has ended holds nothing.
    iterator = gossamer.rounds(small(1), folder=tmp_path / "other", stop=gossamer.Stop(rounds=2))
    thread = threading.Thread(target=lambda: next(iterator))
    thread.start()
    thread.join()
    assert len(list(gossamer.rounds(small(1), folder=tmp_path / "other", stop=gossamer.Stop(rounds=2)))) == 3


# --- what is in the folder ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9)
    for round in gossamer.rounds(model, folder=folder, state={"optimizer": optimizer}, stop=gossamer.Stop(rounds=2)):
        train(model, round.number, optimizer)
        round.record(accuracy=0.9)
    return folder


def test_the_files_of_a_run(finished: Path) -> None:
    inside = ["masks.safetensors", "model.safetensors", "round.json", "state.safetensors"]
    expected = ["config.toml", *(f"round-0{n}/{file}" for n in range(3) for file in inside), "rounds.jsonl"]
    assert list(files(finished)) == expected


def test_nothing_in_a_run_folder_is_a_pickle(finished: Path) -> None:
    for name, content in files(finished).items():
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), name
        assert not zipfile.is_zipfile(finished / name), name
        with pytest.raises(ValueError, match=r"at position|pickle exhausted|opcode|expected"):
            list(pickletools.genops(content))


def test_the_model_file_is_read_by_safetensors_alone(finished: Path) -> None:
    from safetensors.torch import load_file

    model = small()
    assert set(load_file(finished / "round-02" / "model.safetensors")) == set(model.state_dict())
    model.load_state_dict(load_file(finished / "round-02" / "model.safetensors"))
    gossamer.check(model, masks=gossamer.load_masks(finished, 2))


def test_masks_take_one_bit_a_weight(finished: Path) -> None:
    from safetensors.torch import load_file

    packed = load_file(finished / "round-02" / "masks.safetensors")
    assert {name: (p.dtype, tuple(p.shape)) for name, p in packed.items()} == {
        "0.weight": (torch.uint8, (8,)),
        "3.weight": (torch.uint8, (5,)),
    }


def test_load_round_brings_back_each_round_and_holds_its_masks(finished: Path) -> None:
    for number, kept in ((0, 100), (1, 80), (2, 64), (1, 80), (-1, 64), (-3, 100)):
        model = small(4)
        record = gossamer.load_round(finished, number, model)
        assert record.round == number % 3
        assert left(model) == record.kept == kept
        train(model, 0)
        assert left(model) == kept
    gossamer.load_round(str(finished), 1, model)
    assert left(model) == 80
    assert_same(gossamer.load_masks(str(finished), -2), gossamer.load_masks(finished, 1))


def test_loading_the_dense_round_into_a_pruned_model_frees_its_weights(finished: Path) -> None:
    model = small()
    gossamer.load_round(finished, 2, model)
    gossamer.load_round(finished, 0, model)
    train(model, 0)
    assert left(model) == 100


@pytest.mark.parametrize("number", [3, -4, 100])
def test_a_round_that_is_not_there(number: int, finished: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"has no round {number}; it holds 3 rounds, 0 to 2"):
        gossamer.load_round(finished, number, small())


def test_a_folder_without_rounds(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match="holds no finished round"):
            gossamer.load_round(folder, 0, small())
        with pytest.raises(CheckpointError, match="holds no finished round"):
            gossamer.load_masks(folder, 0)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (nn.Linear(6, 10), "it lacks weight"),
        (nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 5)), r"3\.weight has shape"),
        (nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10)), r"it has 3\.weight, which the model lacks"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_left_alone(model: nn.Module, problem: str, finished: Path) -> None:
    before = state_of(model)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors does not fit the model: .*{problem}"):
        gossamer.load_round(finished, 1, model)
    assert_same(state_of(model), before)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_load_round_into_a_wrapped_model(wrap: Callable[[nn.Module], nn.Module], finished: Path) -> None:
    model = small(6)
    gossamer.load_round(finished, 2, wrap(model))
    assert left(model) == 64


def test_load_round_into_another_type_and_memory_format(finished: Path) -> None:
    model = small(6).to(torch.bfloat16)
    gossamer.load_round(finished, 2, model)
    assert model[0].weight.dtype == torch.bfloat16
    gossamer.check(model)


# --- damage -------------------------------------------------------------------------------------------------------


def copy_of(folder: Path, destination: Path) -> Path:
    for name, content in files(folder).items():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        (destination / name).write_bytes(content)
    return destination


def resume(folder: Path) -> list[gossamer.Round]:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9)
    return list(gossamer.rounds(model, folder=folder, state={"optimizer": optimizer}, stop=gossamer.Stop(rounds=2)))


def damages(content: bytes) -> Iterator[tuple[str, bytes | None]]:
    yield "removed", None
    yield "emptied", b""
    yield "halved", content[: len(content) // 2]
    yield "cut by a byte", content[:-1] if not content.endswith(b"\n") else content[:-2]
    yield "lengthened", content + b"x"
    yield "another file", b"\x80\x04N."
    for position in range(0, len(content), max(1, len(content) // 25)):
        yield f"bit {position}", content[:position] + bytes([content[position] ^ 2]) + content[position + 1 :]


@pytest.mark.parametrize("name", ["model.safetensors", "masks.safetensors", "state.safetensors", "round.json"])
def test_a_damaged_file_of_the_last_round_is_named(name: str, finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    path = folder / "round-02" / name
    intact = path.read_bytes()
    for how, content in damages(intact):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        before = files(folder)
        with pytest.raises(CheckpointError, match=rf"round-02/{re.escape(name)} is damaged"):
            resume(folder)
            pytest.fail(f"{name} {how} went unnoticed by rounds")
        if name != "state.safetensors":
            with pytest.raises(CheckpointError, match=rf"round-02/{re.escape(name)} is damaged"):
                gossamer.load_round(folder, 2, small())
                pytest.fail(f"{name} {how} went unnoticed by load_round")
        assert files(folder) == before
        path.write_bytes(intact)
    assert resume(folder) == []


def test_removing_the_damaged_rounds_repeats_them(finished: Path, tmp_path: Path) -> None:
    """What the message tells the user to do."""
    folder = copy_of(finished, tmp_path)
    (folder / "round-01" / "state.safetensors").write_bytes(b"x")
    for name in ("round-01", "round-02"):
        shutil.rmtree(folder / name)
    assert [round.number for round in resume(folder)] == [1, 2]


def test_a_round_missing_between_others_is_named(finished: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        folder = copy_of(finished, tmp_path / str(number))
        shutil.rmtree(folder / f"round-0{number}")
        for action in (resume, lambda f: gossamer.load_round(f, 0, small())):
            with pytest.raises(CheckpointError, match=rf"round-0{number} is missing, but later rounds are there"):
                action(folder)


def test_folders_that_are_no_rounds_are_left_alone(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    for name in ("round-1", "round-001", "round-02.bak", "round-²", "round-", "round-٣", "rounds"):
        (folder / name).mkdir()
    (folder / "notes.txt").write_text("mine")
    assert resume(folder) == []
    assert gossamer.load_round(folder, -1, small()).round == 2
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"rounds = 3\n", b"\xff", b"[rounds]\nrounds = ", b"[" * 5000])
def test_a_damaged_configuration_is_refused(content: bytes, finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    (folder / "config.toml").write_bytes(content)
    before = files(folder)
    with pytest.raises(GossamerError, match=re.escape(str(folder))):
        resume(folder)
    assert files(folder) == before
    (folder / "config.toml").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.toml"):
        resume(folder)


# Hostile files carry the right checksums: whoever writes them can compute those too.


def rewrite(folder: Path, name: str, write: Callable[[Path], None]) -> None:
    from dataclasses import replace

    from gossamer.loop.record import RoundRecord
    from gossamer.storage.files import sha256

    path = folder / "round-02" / name
    write(path)
    record = RoundRecord.from_json((folder / "round-02" / "round.json").read_text(), "test")
    record = replace(record, sha256={**record.sha256, name: sha256(path)}).sealed()
    (folder / "round-02" / "round.json").write_text(record.to_json() + "\n")


def hostile_models() -> dict[str, dict[str, Tensor]]:
    right = small().state_dict()
    return {
        "nothing": {},
        "a tensor less": {name: t for name, t in right.items() if name != "3.bias"},
        "a tensor more": {**right, "surprise": torch.ones(2)},
        "another shape": {**right, "0.weight": torch.ones(6, 10)},
        "another number of dimensions": {**right, "0.weight": torch.ones(60)},
        "no dimension": {**right, "0.weight": torch.tensor(1.0)},
    }


@pytest.mark.parametrize("kind", hostile_models())
def test_a_hostile_model_file(kind: str, finished: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = copy_of(finished, tmp_path)
    rewrite(folder, "model.safetensors", lambda path: save_file(hostile_models()[kind], path))
    for action in (resume, lambda f: gossamer.load_round(f, 2, small())):
        with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit the model"):
            action(folder)


def test_a_model_file_that_is_no_safetensors(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    rewrite(folder, "model.safetensors", lambda path: path.write_bytes(b"x" * 100) and None)
    for action in (resume, lambda f: gossamer.load_round(f, 2, small())):
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
            action(folder)


def test_a_mask_of_a_weight_that_is_not_in_the_model(finished: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(finished, tmp_path)
    packed = load_file(finished / "round-02" / "masks.safetensors")
    shapes = json.dumps({"0.weight": [10, 6], "other.weight": [4, 10]})
    tensors = {"0.weight": packed["0.weight"], "other.weight": packed["3.weight"]}
    rewrite(folder, "masks.safetensors", lambda path: save_file(tensors, path, metadata={"shapes": shapes}))
    with pytest.raises(CheckpointError, match=r"masks\.safetensors has a mask for other\.weight, which does not fit"):
        gossamer.load_round(folder, 2, small())


def hostile_masks() -> dict[str, tuple[dict[str, Tensor], dict[str, str] | None]]:
    a, b = torch.full((8,), 255, dtype=torch.uint8), torch.full((5,), 255, dtype=torch.uint8)
    a[7] = 15
    right = {"0.weight": [10, 6], "3.weight": [4, 10]}

    def with_shapes(shapes: object) -> tuple[dict[str, Tensor], dict[str, str]]:
        return {"0.weight": a, "3.weight": b}, {"shapes": json.dumps(shapes)}

    return {
        "no metadata": ({"0.weight": a, "3.weight": b}, None),
        "other metadata": ({"0.weight": a, "3.weight": b}, {"x": "y"}),
        "no JSON": ({"0.weight": a, "3.weight": b}, {"shapes": "]"}),
        "deep JSON": ({"0.weight": a, "3.weight": b}, {"shapes": "[" * 100_000}),
        "a list": with_shapes([1, 2]),
        "a number": with_shapes(5),
        "no masks": with_shapes({}),
        "one mask": with_shapes({"0.weight": [10, 6]}),
        "an unknown weight": with_shapes({**right, "surprise": [4, 10]}),
        "everything kept": with_shapes(right),
        "a wrong shape": with_shapes({**right, "0.weight": [6, 10]}),
        "a larger shape": with_shapes({**right, "0.weight": [10, 60]}),
        "a negative shape": with_shapes({**right, "0.weight": [-10, -6]}),
        "fractions": with_shapes({**right, "0.weight": [10.0, 6.0]}),
        "text": with_shapes({**right, "0.weight": "10,6"}),
        "nothing for a shape": with_shapes({**right, "0.weight": None}),
        "a huge shape": with_shapes({**right, "0.weight": [2**62, 2**62]}),
        "floats": ({"0.weight": a.float(), "3.weight": b}, {"shapes": json.dumps(right)}),
        "bits past the end": (
            {"0.weight": torch.full_like(a, 255), "3.weight": b},
            {"shapes": json.dumps(right)},
        ),
    }


@pytest.mark.parametrize("kind", hostile_masks())
def test_a_hostile_mask_file(kind: str, finished: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = copy_of(finished, tmp_path)
    tensors, metadata = hostile_masks()[kind]
    rewrite(folder, "masks.safetensors", lambda path: save_file(tensors, path, metadata=metadata))
    for action in (resume, lambda f: gossamer.load_round(f, 2, small())):
        with pytest.raises(CheckpointError, match=r"masks\.safetensors|the masks of round 2"):
            action(folder)


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        7,
        {},
        {"objects": {}},
        {"objects": [], "random": None},
        {"objects": {"optimizer": None}, "random": {}},
        {"objects": {"optimizer": {}}, "random": {}},
        {"objects": {"optimizer": {"state": {}, "param_groups": []}}, "random": {}},
        {"objects": {"optimizer": {"state": 5, "param_groups": 6}}, "random": {}},
        {"objects": {"optimizer": "right"}, "random": {}},
        {"objects": {"optimizer": "right"}, "random": None},
        {"objects": {"optimizer": "right"}, "random": {"python": 1, "numpy": 2, "torch": 3, "cuda": []}},
        {"objects": {"optimizer": "right"}, "random": {"python": (3, (1, 2), None), "numpy": {}, "torch": "x"}},
    ],
    ids=str,
)
def test_a_hostile_state_file(state: Any, finished: Path, tmp_path: Path) -> None:
    from gossamer.storage import state as states

    folder = copy_of(finished, tmp_path)
    if isinstance(state, dict) and isinstance(state.get("objects"), dict):
        right = states.load(finished / "round-02" / "state.safetensors")["objects"]
        state = {**state, "objects": right if state["objects"].get("optimizer") == "right" else state["objects"]}
    rewrite(folder, "state.safetensors", lambda path: states.save(path, state))
    with pytest.raises(CheckpointError, match="the state of round 2"):
        resume(folder)


def test_a_round_under_another_number(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    (folder / "round-02").rename(folder / "round-03")
    (folder / "round-01").rename(folder / "round-02")
    (folder / "round-03").rename(folder / "round-01")
    with pytest.raises(CheckpointError, match=r"round-01/round\.json is damaged: it says round 2"):
        resume(folder)


def test_the_order_of_keys_does_not_matter(finished: Path, tmp_path: Path) -> None:
    """A record that another program wrote anew, with its entries sorted."""
    folder = copy_of(finished, tmp_path)
    path = folder / "round-02" / "round.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=2))
    assert resume(folder) == []


@pytest.mark.slow
def test_every_combination_of_small_networks_and_targets_ends_on_its_target(tmp_path: Path) -> None:
    """A whole run without training, for many sizes: the counts in the model are those of the plan."""
    for number, (width, target) in enumerate(itertools.product([1, 2, 3, 7], [0.5, 0.7, 0.9])):
        model = nn.Linear(width, 5, bias=False)
        kept = []
        for round in gossamer.rounds(model, target_sparsity=target, folder=tmp_path / str(number)):
            kept.append(int((model.weight != 0).sum()))
            assert kept[-1] == round.kept
        assert kept == list(Plan(5 * width, target_sparsity=target))


def test_a_metric_of_unknown_direction_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = nn.Linear(8, 8)
    with pytest.raises(ConfigurationError, match="better='higher'"):
        for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(max_drop=0.1)):
            round.record(untrained=True, usefulness=0.5)
    assert not list(tmp_path.glob("round-*"))
    # The mended call is not taken for another run.
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(max_drop=0.1, rounds=1, better="higher")):
        round.record(untrained=True, usefulness=0.5)
    assert [path.name for path in sorted(tmp_path.glob("round-*"))] == ["round-00", "round-01"]
