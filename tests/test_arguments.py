"""Wrong types of arguments are one line that says what was expected; numbers are numbers, whoever holds them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flat import of_rounds
from torch import nn

import gossamer
from gossamer.errors import ConfigurationError
from gossamer.loop.configuration import read


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 4))


WRONG: dict[str, list[Any]] = {
    "target_sparsity": ["0.5", b"0.5", [0.5], True, np.array([0.5, 0.6]), 10**400, 1j],
    "max_drop": ["0.1", [1], True, float("inf")],
    "rounds": ["3", 3.0, True, [3], np.float64(2)],
    "per_round": ["0.2", [0.2], True],
    "criterion": [5, ["magnitude"], None],
    "allocation": [0.5, None, ["erk"], {"0.weight": "x"}, {3: 0.5}],
    "structure": [24, None, ["2:4"]],
    "losses": [5, [torch.tensor(1.0)]],
    "scope": ["conv", ["a"], 5],
    "metric": [5, ["accuracy"]],
    "better": [5, ["lower"], "up", np.array([1, 2])],
    "one_shot": ["no", 1, np.zeros(0), torch.tensor(True)],
    "state": [5, [1], {"a": 5}],
    "seed": ["0", 1.5],
    "settings": [5, [1], {"a": object()}],
    "method": [5, None, ["lr-rewind"]],
    "rewind_steps": ["3", 1.5, True],
    "rewind_to_epoch": ["3"],
    "rewound": ["optimizer", 5, [5]],
    "replicates": ["2", 2.0],
    "fresh_model": [5],
    "dense": [5],
    "origin": [5],
    "folder": [None, 5],
    "model": ["x", None, nn.Linear],
}


WITH: dict[str, dict[str, Any]] = {"better": {"max_drop": 0.1}, "rewound": {"method": "weight-rewind"}}
"""Without which it would not be looked at."""


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_type_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    for value in WRONG[name]:
        arguments: dict[str, Any] = {"model": network(), "folder": tmp_path / "run", "rounds": 1}
        arguments |= {
            "max_drop": {"max_drop": 0.1},
            "better": {"max_drop": 0.1},
            "rewound": {"method": "weight-rewind"},
        }.get(name, {})
        with pytest.raises(ConfigurationError, match="expected") as refused:
            gossamer.rounds(**of_rounds(**{**arguments, name: value}))
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "number",
    [np.float32(0.9), np.float16(0.9), np.float64(0.9), np.array(0.9), np.array(0.9, np.float32), torch.tensor(0.9)],
    ids=["float32", "float16", "float64", "array", "float32 array", "tensor"],
)
def test_a_share_is_read_as_it_was_typed(number: Any, tmp_path: Path) -> None:
    names = ("target_sparsity", "max_drop", "per_round")
    arguments: dict[str, Any] = dict.fromkeys(names, number)
    for _ in range(2):
        for round in gossamer.rounds(network(), folder=tmp_path, **of_rounds(**arguments)):
            round.record(accuracy=0.5, untrained=True)
    assert round.kept == 10
    stored = read(tmp_path)["rounds"]
    assert {name: stored[name] for name in names} == dict.fromkeys(names, 0.9)


@pytest.mark.parametrize(
    "whole", [np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)], ids=lambda it: str(type(it))
)
def test_whole_numbers(whole: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"rounds": whole, "seed": whole, "method": "weight-rewind", "rewind_to_step": whole}
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, **of_rounds(**options)):
        assert len(round.schedule(whole + 3, whole)) == (5 if round.number == 0 else 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.step()
        record = round.record(accuracy=0.5, untrained=True)
    assert (record.round, record.seed) == (2, 2)
    assert gossamer.load_round(tmp_path, whole, network()).round == 2
    assert list(gossamer.load_masks(tmp_path, whole)) == ["0.weight", "1.weight"]
    assert int(gossamer.keep_largest({"w": torch.arange(5.0)}, whole)["w"].sum()) == 2


def test_settings_with_numbers_of_numpy(tmp_path: Path) -> None:
    settings = {"rate": np.float32(0.1), "sizes": [np.int64(3), 4], "nested": {"decay": torch.tensor(0.5)}}
    gossamer.rounds(network(), folder=tmp_path, settings=settings, stop=gossamer.Stop(rounds=1))
    next(gossamer.rounds(network(), folder=tmp_path, settings=settings, stop=gossamer.Stop(rounds=1)))
    assert read(tmp_path)["settings"] == {"rate": 0.1, "sizes": [3, 4], "nested": {"decay": 0.5}}


def test_densities_with_numbers_of_numpy(tmp_path: Path) -> None:
    densities: Any = {"0.weight": np.float32(0.5), "1.weight": torch.tensor(0.25)}
    last = list(gossamer.rounds(network(), folder=tmp_path, cut=gossamer.Cut(per_round=0.5, allocation=densities)))[-1]
    assert {name: int(mask.sum()) for name, mask in last.masks.items()} == {"0.weight": 30, "1.weight": 10}


def test_patterns_of_any_list() -> None:
    """A generator gives its patterns once."""
    for patterns in (["0.*"], (name for name in ["0.*"]), np.array(["0.*"]), {"0.*"}):
        scope = gossamer.Scope(include=patterns, embeddings=np.bool_(True))  # type: ignore[arg-type]
        assert (scope.include, scope.embeddings) == (("0.*",), True)
    for wrong in ("0.*", np.array(1), torch.tensor(1), [1]):
        with pytest.raises(ConfigurationError, match="expected a list of name patterns"):
            gossamer.Scope(include=wrong)  # type: ignore[arg-type]


def record(folder: Path, **metrics: Any) -> gossamer.RoundRecord:
    return next(gossamer.rounds(network(), folder=folder, stop=gossamer.Stop(rounds=1))).record(
        untrained=True, **metrics
    )


def test_metrics_of_any_kind_of_number(tmp_path: Path) -> None:
    found = record(
        tmp_path,
        accuracy=np.float32(0.5),
        test_accuracy=torch.tensor(0.25),
        count=np.int64(3),
        one=np.array([2.0]),
        deep=torch.tensor([[1.5]], dtype=torch.bfloat16),
        eight_bits=torch.tensor(0.5).to(torch.float8_e4m3fn),
        sparse=torch.tensor([0.5]).to_sparse(),
    )
    assert found.metrics == {"accuracy": 0.5, "test_accuracy": 0.25, "count": 3, "one": 2, "deep": 1.5} | dict.fromkeys(
        ["eight_bits", "sparse"], 0.5
    )
    assert (found.val, found.test) == (0.5, 0.25)


def test_nested_metrics_are_flattened(tmp_path: Path) -> None:
    found = record(tmp_path / "a", val={"acc": 0.5, "of": {"dogs": np.float64(0.75)}}, test={"acc": 0.25})
    assert found.metrics == {"val/acc": 0.5, "val/of/dogs": 0.75, "test/acc": 0.25}
    assert (found.metric, found.val, found.test) == ("val/acc", 0.5, 0.25)
    # What is measured on test data never decides, however it is nested.
    found = record(tmp_path / "b", test={"acc": 0.25}, dev_acc=0.5, test_acc=0.125)
    assert (found.metric, found.val, found.test) == ("dev_acc", 0.5, 0.125)
    with pytest.raises(ConfigurationError, match="two metrics 'val/acc'"):
        record(tmp_path / "c", **{"val/acc": 0.5, "val": {"acc": 0.5}})


@pytest.mark.parametrize("value", ["0.9", None, [0.9], torch.ones(2), 1j, {"a": "b"}], ids=str)
def test_a_metric_that_is_no_number_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"accuracy(/a)? is .*; expected a number"):
        record(tmp_path, accuracy=value)


@pytest.mark.parametrize(
    ("total", "per_epoch"), [("3", None), (3.0, None), (None, None), (3, "2"), (3, 0), (0, None)], ids=str
)
def test_a_length_of_a_schedule_that_is_none_is_refused(total: Any, per_epoch: Any, tmp_path: Path) -> None:
    round = next(gossamer.rounds(network(), folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    with pytest.raises(ConfigurationError, match="at least 1"):
        round.schedule(total, per_epoch)


def test_the_other_functions() -> None:
    calls: list[Any] = [
        lambda: gossamer.load_round(5, 0, network()),  # type: ignore[arg-type]
        lambda: gossamer.load_masks(None, 0),  # type: ignore[arg-type]
        lambda: gossamer.check("model"),  # type: ignore[arg-type]
        lambda: gossamer.enforce(None),  # type: ignore[arg-type]
        lambda: gossamer.prunable_weights({}),  # type: ignore[arg-type]
        lambda: gossamer.keep_largest({"a": torch.ones(3)}, "2"),  # type: ignore[arg-type]
        lambda: gossamer.keep_largest({"a": [1, 2]}, 1),  # type: ignore[dict-item]
        lambda: gossamer.keep_largest([torch.ones(3)], 1),  # type: ignore[arg-type]
        lambda: gossamer.Scope(include=5),  # type: ignore[arg-type]
        lambda: gossamer.Scope(exclude=None),  # type: ignore[arg-type]
        lambda: gossamer.Scope(embeddings="yes"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="expected"):
            call()
