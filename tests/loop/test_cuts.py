"""Criteria, allocations and structures through the rounds: sizes, configuration, resuming, the command line."""

import itertools
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flat import of_rounds
from small_run import printed, refused
from torch import Tensor, nn
from torch.nn import functional

import gossamer
from gossamer.errors import ConfigurationError
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.plan import Plan
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.tasks import find_task

METHODS = [
    {"criterion": "random"},
    {"criterion": "lamp"},
    {"criterion": "taylor"},
    {"allocation": "uniform"},
    {"allocation": "erk"},
    {"allocation": {"0.weight": 0.4, "2.weight": 0.1}},
    {"structure": "2:4"},
    {"criterion": "lamp", "allocation": "erk", "structure": "2:4"},
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        # So that raw magnitudes and those in proportion to the layer's disagree.
        model[2].weight.mul_(3)
    return model


def batch(number: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(number))
    return inputs, inputs[:, :4].argmax(1)


def train(model: nn.Module, number: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for step in range(5):
        optimizer.zero_grad()
        inputs, targets = batch(10 * number + step)
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def run(folder: Path, method: dict[str, object], stop_after: int | None = None) -> list[dict[str, Tensor]]:
    """Three cuts to 20%; the masks of every round that was finished in this call."""
    model = network()

    def losses() -> Iterator[Tensor]:
        for number in range(3):
            inputs, targets = batch(1000 + number)
            yield functional.cross_entropy(model(inputs), targets)

    if method.get("criterion") == "taylor":
        method = {**method, "losses": losses}
    found = []
    for round in gossamer.rounds(
        model, folder=folder, target_sparsity=0.8, seed=3, **of_rounds(per_round=0.42, **method)
    ):  # type: ignore[arg-type]
        train(model, round.number)
        round.record(loss=1.0)
        gossamer.check(model) if round.number else None
        found.append({name: mask.clone() for name, mask in round.masks.items()})
        if round.number == stop_after:
            break
    return found


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_sizes_are_exact_and_nothing_regrows_and_an_interruption_changes_nothing(
    method: dict[str, object], tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", method)
    plan = Plan(192, 0.42, 0.8)
    assert [sum(int(mask.sum()) for mask in masks.values()) for masks in whole] == list(plan)
    for before, after in itertools.pairwise(whole):
        assert not any((after[name] & ~before[name]).any() for name in after)
    run(tmp_path / "parts", method, stop_after=1)
    rest = run(tmp_path / "parts", method)
    for expected, found in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name in ("config.toml", f"round-{plan.last:02d}/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_methods_differ(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(index), method) for index, method in enumerate([{}, *METHODS])]
    # Over all rounds: on so small a network two methods may end at the same few weights.
    flat = {
        tuple(torch.cat([mask.reshape(-1) for found in rounds for mask in found.values()]).tolist()) for rounds in runs
    }
    assert len(flat) == len(runs)


def test_the_last_round_has_the_densities_that_were_given(tmp_path: Path) -> None:
    model = network()
    densities = {"0.weight": 0.3, "2.weight": 0.11}
    *_, last = gossamer.rounds(model, folder=tmp_path, cut=gossamer.Cut(allocation=densities))
    # 128 x 0.3 = 38.4 and 64 x 0.11 = 7.04, without another word on when to end.
    assert [int(mask.sum()) for mask in last.masks.values()] == [38, 7]


def test_another_method_does_not_continue_the_run(tmp_path: Path) -> None:
    run(tmp_path, {}, stop_after=0)
    recorded = tomllib.loads((tmp_path / "config.toml").read_text())["method"]
    assert [recorded[name] for name in ("criterion", "allocation", "structure")] == [
        "magnitude",
        "global",
        "unstructured",
    ]
    for method in METHODS:
        with pytest.raises(ConfigurationError, match=r"method\."):
            run(tmp_path, method)


def test_mistakes_are_found_before_anything_is_written(tmp_path: Path) -> None:
    for mistake, message in (
        ({"criterion": "best"}, "there is no criterion 'best'"),
        ({"allocation": "fair"}, "there is no allocation 'fair'"),
        ({"structure": "round"}, "there is no structure 'round'"),
        ({"criterion": "taylor"}, "pass losses="),
        ({"structure": "2:4", "target_sparsity": 0.4}, "at least 0.5"),
        ({"allocation": {"0.weight": 0.5}}, "no density for 2.weight"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            gossamer.rounds(network(), folder=tmp_path / "run", **of_rounds(**{"rounds": 3, **mistake}))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_whole_channels_keep_no_more_than_planned(tmp_path: Path) -> None:
    scope = gossamer.Scope(exclude=("2",))
    for round in gossamer.rounds(
        network(),
        folder=tmp_path,
        target_sparsity=0.7,
        scope=scope,
        cut=gossamer.Cut(per_round=0.4, structure="channels"),
    ):
        mask = round.masks["0.weight"]
        assert all(row.all() or not row.any() for row in mask)
    # 30% of 128 weights are 39: four channels of eight.
    assert round.kept == 32


@pytest.mark.parametrize("criterion", ["taylor", "random"])
def test_a_task_is_cut_by_every_criterion(criterion: str, tmp_path: Path) -> None:
    task = find_task("digits")
    records = [
        compress(
            task,
            folder=tmp_path / name,
            stop=Stop(target_sparsity=0.9),
            cut=Cut(per_round=0.9, criterion=criterion),
            training=Training(epochs=1),
        )
        for name in "ab"
    ]
    assert records[0][-1].kept == round(0.1 * records[0][-1].prunable + 0.5)
    assert records[0][-1].val == records[1][-1].val


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    names = [name for name, _ in gossamer.prunable_weights(find_task("digits").model()).items()]
    policy.write_text("[densities]\n" + "".join(f'"{name}" = 0.05\n' for name in names))
    common = ("compress", "digits", "--epochs", 1, "--per-round", 0.95)
    printed(*common, "--out", tmp_path / "a", "--allocation", policy, "--criterion", "lamp")
    masks = gossamer.load_masks(tmp_path / "a", -1)
    for mask in masks.values():
        assert int(mask.sum()) == round(0.05 * mask.numel())
    printed(*common, "--out", tmp_path / "b", "--structure", "2:4", "--rounds", 1)
    for mask in gossamer.load_masks(tmp_path / "b", -1).values():
        if mask.dim() == 2 and mask.shape[1] % 4 == 0:
            assert (mask.reshape(len(mask), -1, 4).sum(2) <= 2).all()
    for option, value, message in (
        ("--criterion", "best", "expected one of magnitude"),
        ("--allocation", "fair", "expected one of global"),
        ("--structure", "odd", "expected one of unstructured"),
        ("--allocation", tmp_path / "none.toml", "cannot read densities"),
    ):
        assert message in refused(*common, "--out", tmp_path / "c", "--rounds", 1, option, value)
