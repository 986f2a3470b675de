# ruff: noqa: PT012  A loop over rounds is one statement of the user, whatever its length.
"""Every strategy against what the paper says of it: learning rates by hand, weights by a loop written out."""

import json
import tomllib
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
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.rewind.strategies import STRATEGIES, Schedule, restart_scale

RATES = [0.2, 0.3, 0.1, 0.1, 0.02, 0.02]
T = len(RATES)


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 4)).double()


def data(number: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * number + step)
    inputs = torch.randn(16, 6, generator=generator).double()
    return inputs, inputs[:, :4].argmax(1)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=1e-3)


def run(folder: Path, model: nn.Module | None = None, total: int = T, **arguments: Any) -> list[list[float]]:
    """The user's own loop with one optimizer for all rounds; returns the learning rates of every round."""
    model = model or small()
    optimizer = sgd(model)
    trace = []
    for round in gossamer.rounds(model, folder=folder, state={"optimizer": optimizer}, **of_rounds(**arguments)):
        model.train()
        rates = round.schedule(total).rates(lambda step: RATES[step])
        for index, rate in enumerate(rates):
            optimizer.param_groups[0]["lr"] = rate
            inputs, labels = data(round.number, index)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        assert round.steps == len(rates)
        round.record(accuracy=0.5)
        trace.append(rates)
    return trace


# --- learning rates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"method": "lr-rewind"}, [0.2, 0.3, 0.1, 0.1, 0.02, 0.02]),
        ({"method": "lr-rewind", "rewind_steps": 4}, [0.1, 0.1, 0.02, 0.02]),
        ({"method": "lr-rewind", "rewind_to_step": 5}, [0.02]),
        ({"method": "weight-rewind"}, [0.2, 0.3, 0.1, 0.1, 0.02, 0.02]),
        ({"method": "weight-rewind", "rewind_to_step": 1}, [0.3, 0.1, 0.1, 0.02, 0.02]),
        ({"method": "weight-rewind", "rewind_steps": 3}, [0.1, 0.02, 0.02]),
        ({"method": "fine-tune"}, [0.02] * 6),
        ({"method": "fine-tune", "rewind_steps": 2}, [0.02] * 2),
        ({"method": "reinit"}, [0.2, 0.3, 0.1, 0.1, 0.02, 0.02]),
        ({"method": "low-lr-weight-rewind", "rewind_to_step": 2}, [0.02] * 4),
        # t = T, so that the scale is 1: from the highest rate on a line to zero.
        ({"method": "linear-lr-restart"}, [0.3, 0.25, 0.2, 0.15, 0.1, 0.05]),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("one_shot", [False, True], ids=["iterative", "one-shot"])
def test_learning_rates(arguments: dict[str, Any], expected: list[float], one_shot: bool, tmp_path: Path) -> None:
    dense, *others = run(tmp_path, target_sparsity=0.36, one_shot=one_shot, **arguments)
    assert dense == RATES
    assert len(others) == (1 if one_shot else 2)
    for rates in others:
        assert rates == pytest.approx(expected, abs=1e-15)
    kept = [json.loads(line)["kept"] for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert kept == ([100, 64] if one_shot else [100, 80, 64])


def test_every_strategy_has_its_rates_checked_above() -> None:
    checked = test_learning_rates.pytestmark[1].args[1]
    assert {arguments["method"] for arguments, _ in checked} == set(STRATEGIES)


@pytest.mark.parametrize("arguments", [(0,), (-1,), (4, 0)])
def test_a_schedule_has_steps(arguments: tuple[int, ...], tmp_path: Path) -> None:
    round = next(iter(gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1))))
    with pytest.raises(ConfigurationError, match=r"total_steps is .* and steps_per_epoch .*; expected at least 1"):
        round.schedule(*arguments)
    assert len(round.schedule(1, 1)) == 1


def test_a_schedule_maps_steps_to_steps() -> None:
    assert list(Schedule(5)) == [0, 1, 2, 3, 4]
    assert list(Schedule(5, 3)) == [3, 4]
    assert list(Schedule(5, 3, "last")) == [4, 4]
    assert Schedule(5, 3, "last")[0] == Schedule(5, 3)[-1] == 4
    assert Schedule(5, 1)[1:3] == [2, 3]
    with pytest.raises(IndexError):
        Schedule(5, 3)[2]
    with pytest.raises(ConfigurationError, match=r"rates\(rate\)"):
        list(Schedule(5, 0, "linear"))


def test_the_scale_of_a_linear_restart_is_that_of_the_cut(tmp_path: Path) -> None:
    # Weights 3, 4, 0.6, 0.8 lose the last two: |W - W'| = 1, |W| = sqrt(26), s = 1/2.
    assert restart_scale(26**0.5, 1.0, 0.5, 0.0) == pytest.approx(1 / (13**0.5))
    assert restart_scale(26**0.5, 1.0, 0.5, 0.75) == 0.75
    # Weights that are all zero, and a cut that removes none, change nothing: the time alone decides.
    assert restart_scale(0.0, 0.0, 0.2, 0.1) == 0.1
    assert restart_scale(1.0, 0.0, 0.0, 0.1) == 0.1
    # Less is never cut than the smallest magnitudes; another criterion may cut more, and 1 is the most.
    assert restart_scale(1.0, 0.9, 0.5, 0.1) == 1.0
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0, 0.6, 0.8]]))
    rates: list[float] = []
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        target_sparsity=0.5,
        cut=gossamer.Cut(one_shot=True),
        retraining=gossamer.Retraining(method="linear-lr-restart", rewind_steps=1),
    ):
        # No step is taken, so the weights stay as they are.
        rates = round.schedule(T).rates(lambda step: RATES[step])
    assert rates == pytest.approx([0.3 / 13**0.5], rel=1e-6)


# --- weights ------------------------------------------------------------------------------------------------------


def by_hand(method: str, k: int, rewound: tuple[str, ...], cuts: list[int]) -> list[tuple[Any, dict[str, Tensor]]]:
    """Rewinding written out, as in the paper's code: hidden weights, masks in the forward pass, a sort in numpy, and a
    checkpoint of everything after step k of the dense training. (masks, state) a round.

    A pruned hidden weight is moved by weight decay and momentum as it pleases; nobody ever sees it again.
    """
    model = small().train()
    hidden, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    prunable = ["0.weight", "3.weight"]
    masks = {name: torch.ones_like(hidden[name], dtype=torch.bool) for name in prunable}
    velocity = {name: torch.zeros_like(p) for name, p in hidden.items()}
    checkpoint: Any = None
    rounds = []
    for number, kept in enumerate(cuts):
        steps = list(range(T))
        if number > 0:
            magnitudes = np.concatenate([(hidden[n].detach().abs() * masks[n]).numpy().ravel() for n in prunable])
            magnitudes[~np.concatenate([masks[n].numpy().ravel() for n in prunable])] = -1
            flat = np.zeros(100, bool)
            flat[np.argsort(-magnitudes, kind="stable")[:kept]] = True
            parts = np.split(flat, [hidden[prunable[0]].numel()])
            masks = {n: torch.from_numpy(p).reshape(hidden[n].shape) for n, p in zip(prunable, parts, strict=True)}
            steps = steps[k:] if method == "weight-rewind" else [T - 1] * (T - k)
            with torch.no_grad():
                for name, value in checkpoint[0].items():
                    hidden[name].copy_(value)
                if "statistics" in rewound:
                    for name, value in checkpoint[1].items():
                        buffers[name].copy_(value)
            if "optimizer" in rewound:
                velocity = {name: value.clone() for name, value in checkpoint[2].items()}
        for index, step in enumerate(steps):
            if number == 0 and step == k:
                checkpoint = [{n: v.detach().clone() for n, v in kind.items()} for kind in (hidden, buffers, velocity)]
            inputs, labels = data(number, index)
            effective = {name: p * masks[name] if name in masks else p for name, p in hidden.items()}
            loss = functional.cross_entropy(functional_call(model, effective, inputs), labels)
            gradients = torch.autograd.grad(loss, list(hidden.values()))
            with torch.no_grad():
                for (name, weight), gradient in zip(hidden.items(), gradients, strict=True):
                    velocity[name] = 0.9 * velocity[name] + gradient + 1e-3 * weight
                    weight -= RATES[step] * velocity[name]
        state = {n: t * masks[n] if n in masks else t.clone() for n, t in model.state_dict().items()}
        rounds.append((masks, state))
    return rounds


@pytest.mark.parametrize(
    ("method", "k", "rewound"),
    [
        ("weight-rewind", 0, None),
        ("weight-rewind", 1, None),
        ("weight-rewind", 4, ()),
        ("weight-rewind", 2, ("optimizer",)),
        ("weight-rewind", 2, ("statistics",)),
        ("low-lr-weight-rewind", 3, None),
    ],
)
def test_weight_rewinding_is_the_paper_s_written_by_hand(
    method: str, k: int, rewound: tuple[str, ...] | None, tmp_path: Path
) -> None:
    parts = ("optimizer", "statistics") if rewound is None else rewound
    expected = by_hand(method, k, parts, [100, 80, 64, 60])
    run(tmp_path, target_sparsity=0.4, method=method, rewind_to_step=k, rewound=rewound)
    for number, (masks, state) in enumerate(expected):
        again = small(9)
        gossamer.load_round(tmp_path, number, again)
        found = gossamer.load_masks(tmp_path, number)
        assert all(torch.equal(found[name], masks[name]) for name in masks)
        for name, tensor in again.state_dict().items():
            torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-12)


def test_the_lottery_ticket_begins_with_its_first_weights(tmp_path: Path) -> None:
    """open_lth's semantics on four weights: the smallest *trained* magnitudes go, the others get their first values."""
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[5.0, -1.0, 2.0, 4.0]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    began = []
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        stop=gossamer.Stop(rounds=2),
        cut=gossamer.Cut(per_round=0.3),
        retraining=gossamer.Retraining(method="weight-rewind"),
    ):
        began.append(model.weight.detach().flatten().tolist())
        change = [[4.5, 2.0, 0.0, 2.0], [3.0, 1.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]][round.number]
        model.weight.grad = torch.tensor([change])
        optimizer.step()
    # After training: 0.5, -3, 2, 2 -> the first goes. Then 0, -2.5, 2, 4 -> the third.
    assert began == [[5, -1, 2, 4], [0, -1, 2, 4], [0, -1, 0, 4]]


@pytest.mark.parametrize(
    "fresh_model", [None, lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))]
)
def test_reinitialised_weights_are_new_and_keep_the_mask(fresh_model: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    ends: dict[int, Tensor] = {}
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        state={"optimizer": optimizer},
        stop=gossamer.Stop(rounds=2),
        retraining=gossamer.Retraining(method="reinit", fresh_model=fresh_model),
    ):
        if round.number > 0:
            kept = round.masks["0.weight"]
            assert bool((model[0].weight[~kept] == 0).all())
            # Nothing of the training is left: torch's first weights lie within 1 / sqrt(8).
            assert float(model[0].weight.detach().abs().max()) <= 8**-0.5
            assert not bool((model[0].weight.detach() == ends[round.number - 1])[kept].any())
            assert float(model[1].running_mean.abs().max()) == 0
            assert not optimizer.state
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.randn(16, 8)) ** 2).sum().backward()
            optimizer.step()
        ends[round.number] = model[0].weight.detach().clone()


def test_layers_that_cannot_be_drawn_anew_are_named_at_once(tmp_path: Path) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(4))

    model = nn.Sequential(nn.Linear(4, 4), Scale())
    with pytest.raises(ConfigurationError, match=r"1 \(Scale\) has parameters but no reset_parameters; pass fresh_mod"):
        gossamer.rounds(
            model, folder=tmp_path, stop=gossamer.Stop(rounds=1), retraining=gossamer.Retraining(method="reinit")
        )


def test_fine_tuning_leaves_the_weights(tmp_path: Path) -> None:
    model = small()
    ends: list[Tensor] = []
    for round in gossamer.rounds(
        model, folder=tmp_path, stop=gossamer.Stop(rounds=1), retraining=gossamer.Retraining(method="fine-tune")
    ):
        if ends:
            assert torch.equal(model[0].weight, ends[0] * round.masks["0.weight"])
        round.schedule(1)
        nn.init.normal_(model[0].weight)
        ends.append(model[0].weight.detach().clone())
        if round.number > 0:
            gossamer.enforce(model)


# --- snapshots ----------------------------------------------------------------------------------------------------


def test_a_second_optimizer_is_not_counted(tmp_path: Path) -> None:
    model, other = small(), nn.Linear(2, 2)
    first, second = sgd(model[0]), sgd(model[3])
    foreign = sgd(other)
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        stop=gossamer.Stop(rounds=1),
        retraining=gossamer.Retraining(method="weight-rewind", rewind_to_step=2),
    ):
        for _ in round.schedule(4):
            for optimizer in (foreign, first, second):
                optimizer.step()
        assert round.steps == len(round.schedule(4))


def test_rewound_in_epochs_needs_their_length(tmp_path: Path) -> None:
    model = small()
    optimizer = sgd(model)
    records = []
    for round in gossamer.rounds(
        model,
        folder=tmp_path / "a",
        stop=gossamer.Stop(rounds=1),
        retraining=gossamer.Retraining(method="weight-rewind", rewind_to_epoch=2),
    ):
        for _ in round.schedule(12, steps_per_epoch=4):
            optimizer.step()
        records.append((round.steps, round.record(untrained=True)))
    assert [steps for steps, _ in records] == [12, 4]
    assert (records[1][1].lr_rewound_to, records[1][1].weights_rewound_to) == (2.0, 2.0)
    with pytest.raises(ConfigurationError, match="how many steps 2 epochs are is not known"):
        for round in gossamer.rounds(
            model, folder=tmp_path / "b", stop=gossamer.Stop(rounds=1), retraining=gossamer.Retraining(rewind_epochs=2)
        ):
            round.schedule(12)


def test_a_loop_that_does_not_ask_for_its_learning_rates_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"round 1 of fine-tune trains with other learning rates"):
        for round in gossamer.rounds(
            small(), folder=tmp_path, stop=gossamer.Stop(rounds=1), retraining=gossamer.Retraining(method="fine-tune")
        ):
            round.record(untrained=True)
    assert gossamer.load_round(tmp_path, -1, small()).round == 0


def test_a_snapshot_that_was_never_taken_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no snapshot after step 3 of the dense round.*0 optimizer steps"):
        for round in gossamer.rounds(
            small(),
            folder=tmp_path,
            stop=gossamer.Stop(rounds=1),
            retraining=gossamer.Retraining(method="weight-rewind", rewind_to_step=3),
        ):
            round.record(untrained=True)
    with pytest.raises(ConfigurationError, match="3 steps are is not known"):
        for round in gossamer.rounds(
            small(),
            folder=tmp_path,
            stop=gossamer.Stop(rounds=1),
            retraining=gossamer.Retraining(method="weight-rewind", rewind_steps=3),
        ):
            round.record(untrained=True)


def test_an_optimizer_that_is_not_torch_s_takes_its_snapshot_by_hand(tmp_path: Path) -> None:
    model = small()
    early = None
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        stop=gossamer.Stop(rounds=1),
        retraining=gossamer.Retraining(method="weight-rewind", rewind_to_step=3),
    ):
        if round.number > 0:
            assert early is not None
            assert torch.equal(model[0].weight, early * round.masks["0.weight"])
        for step in round.schedule(5):
            if round.number == 0:
                nn.init.normal_(model[0].weight)
                if step == 2:
                    early = model[0].weight.detach().clone()
                    round.take_snapshot()
    assert (tmp_path / "round-00" / "snapshot.safetensors").exists()
    assert not (tmp_path / "snapshot.safetensors").exists()


def test_a_damaged_snapshot_is_named(tmp_path: Path) -> None:
    run(tmp_path, rounds=3, method="weight-rewind", rewind_to_step=1)
    for number in (3, 2):
        for path in (tmp_path / f"round-0{number}").iterdir():
            path.unlink()
        (tmp_path / f"round-0{number}").rmdir()
    snapshot = tmp_path / "round-00" / "snapshot.safetensors"
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"snapshot\.safetensors is damaged"):
        run(tmp_path, rounds=3, method="weight-rewind", rewind_to_step=1)


# --- what a run says of itself -------------------------------------------------------------------------------------


def test_the_configuration_says_how_the_run_retrains(tmp_path: Path) -> None:
    run(tmp_path, rounds=1, method="low-lr-weight-rewind", rewind_steps=2, rewound=["statistics"])
    method = tomllib.loads((tmp_path / "config.toml").read_text())["method"]
    assert (method["retraining"], method["retrain_for"], method["rewound"]) == (
        "low-lr-weight-rewind",
        "2 steps",
        ["statistics"],
    )
    line = json.loads((tmp_path / "rounds.jsonl").read_text().splitlines()[1])
    assert (line["lr_rewound_to"], line["weights_rewound_to"]) == (5, 4)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"method": "fine-tune"}, r"method\.retraining.*'weight-rewind'.*'fine-tune'"),
        ({"method": "weight-rewind", "rewind_to_step": 2}, r"method\.rewind_to.*'1 steps'.*'2 steps'"),
        ({"method": "weight-rewind", "rewind_to_step": 1, "rewound": []}, r"method\.rewound.*nothing.*\[\]"),
    ],
)
def test_another_method_is_refused(other: dict[str, Any], named: str, tmp_path: Path) -> None:
    run(tmp_path, rounds=1, method="weight-rewind", rewind_to_step=1)
    with pytest.raises(ConfigurationError, match=named):
        run(tmp_path, rounds=1, **other)


def test_one_shot_is_recorded(tmp_path: Path) -> None:
    run(tmp_path, target_sparsity=0.9, one_shot=True)
    assert tomllib.loads((tmp_path / "config.toml").read_text())["rounds"]["one_shot"] is True
    with pytest.raises(ConfigurationError, match="one_shot"):
        run(tmp_path, target_sparsity=0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "no method 'magic'; expected one of lr-rewind, weight-rewind, fine-tune"),
        ({"rewind_steps": 3, "rewind_to_epoch": 1}, "got 3 steps and 1 epochs to rewind; give only one"),
        ({"rewind_steps": 0}, "at least 1"),
        ({"rewind_to_step": -1}, "got -1 steps to rewind; expected a whole number"),
        ({"rewound": ["optimizer"]}, "the weights stay and nothing goes back"),
        ({"method": "weight-rewind", "rewound": ["momentum"]}, "cannot rewind 'momentum'; expected some of optimizer"),
        ({"one_shot": True}, "one_shot cuts once, straight to target_sparsity"),
    ],
)
def test_mistakes_are_explained(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gossamer.rounds(small(), folder=tmp_path / "run", **of_rounds(rounds=2, **arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [{"rewind_steps": 7}, {"rewind_to_step": 6}])
def test_outside_the_schedule(arguments: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the (whole )?schedule (has|ends after) 6 steps"):
        run(tmp_path, rounds=1, method="weight-rewind", **arguments)


@pytest.mark.parametrize("schedule", [Schedule(5), Schedule(5, 3), Schedule(5, 2, "last")])
def test_torch_asks_for_one_rate_more(schedule: Schedule) -> None:
    def rate(step: int) -> float:
        return (0.1, 0.2, 0.3, 0.2, 0.1)[step]

    rates = schedule.rates(rate)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[step])
    used = []
    for _ in range(len(rates)):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert used == rates == [rate(step) for step in schedule]
    assert optimizer.param_groups[0]["lr"] == used[-1]
    with pytest.raises(IndexError):
        rates[len(rates) + 1]


def test_a_linear_restart_has_its_one_more_too() -> None:
    rates = Schedule(4, 0, "linear", 0.5).rates(lambda step: 0.8)
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert rates[4] == rates[-1] == rates[3]
    assert rates[1:3] == pytest.approx([0.3, 0.2])
