"""The ledger: operations counted by hand, sums, and when a compression pays for itself."""

import json
import math
from pathlib import Path

import pytest
import torch
from small_run import printed
from torch import Tensor, nn

import gossamer
from gossamer.errors import CheckpointError
from gossamer.job.compress import compress
from gossamer.loop.cost import Cost, Work, pays_after, read_cost, total
from gossamer.loop.records import read_ledger
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.rewind.strategies import Retraining
from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task
from gossamer.tasks.operations import count_operations


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 5))


def data(folder: Path | None) -> Data:
    inputs = torch.randn(120, 20, generator=torch.Generator().manual_seed(0))
    return Data(*(Examples(part, part[:, :5].argmax(1)) for part in inputs.split([80, 20, 20])))


RECIPE = Recipe(epochs=3, batch_size=20, learning_rate=OneCycle(peak=0.1), optimizer=SGD())
TASK = Task("tiny", "", model, data, RECIPE)

FORWARD = 2 * (20 * 30 + 30 * 5)
TRAINING = FORWARD + 2 * (20 * 30 + 30 * 5) + 2 * 30 * 5
"""The backward pass: the gradients of both weights, and of the hidden layer; the inputs need none."""


def test_operations_are_those_counted_by_hand() -> None:
    network = model()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    found = count_operations(network, RECIPE, data(None).train)
    drawn = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert (found.forward, found.training) == (FORWARD, TRAINING)
    assert (found.forward_of["0"], found.forward_of["3"]) == (1200, 300)
    masks = {"0.weight": torch.arange(600).reshape(30, 20) < 150, "3.weight": torch.ones(5, 30, dtype=torch.bool)}
    assert found.left(masks) == 1200 / 4 + 300


def test_a_convolution_counts_every_position() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 2))
    examples = Examples(torch.randn(4, 3, 6, 6), torch.zeros(4, dtype=torch.long))
    assert count_operations(network, RECIPE, examples).forward == 2 * (36 * 3 * 9 * 8 + 8 * 36 * 2)


class Assisted(nn.Module):
    """With a second head that is there in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.second = nn.Linear(20, 5), nn.Linear(20, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(inputs)
        return outputs + self.second(inputs) if self.training else outputs


def test_what_is_computed_in_training_only_is_counted_there() -> None:
    found = count_operations(Assisted(), RECIPE, data(None).train)
    # Forward, and the gradient of the weight, of both.
    assert (found.forward, found.training) == (200, 2 * 2 * 200)


def test_the_ledger_of_a_run(tmp_path: Path) -> None:
    compress(
        TASK,
        folder=tmp_path / "run",
        stop=Stop(rounds=2),
        cut=Cut(per_round=0.5),
        retraining=Retraining(method="lr-rewind", rewind_epochs=2),
    )
    costs = read_ledger(tmp_path / "run")
    assert [(cost.round, cost.method, cost.steps, cost.device) for cost in costs] == [
        (0, "dense", 12, "cpu"),
        (1, "lr-rewind", 8, "cpu"),
        (2, "lr-rewind", 8, "cpu"),
    ]
    works = [cost.work for cost in costs if cost.work is not None]
    assert [work.epochs for work in works] == [3, 2, 2]
    assert [work.training_flops for work in works] == [240 * TRAINING, 160 * TRAINING, 160 * TRAINING]
    assert works[0].inference_flops_left == FORWARD
    masks = gossamer.load_masks(tmp_path / "run", 2)
    left = 2 * sum(int(mask.sum()) for mask in masks.values())
    assert works[2].inference_flops_left == pytest.approx(left)
    assert all(cost.processor_seconds > 0 for cost in costs)
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [line["training_flops"] for line in lines] == [work.training_flops for work in works]
    assert all(line["energy_joules_estimate"] == 10 * line["processor_seconds"] for line in lines)
    shown = printed("show", tmp_path / "run")
    expected = 320 * TRAINING / (FORWARD - left)
    assert f"cost of the 2 rounds after the dense one: 4 epochs, {320 * TRAINING:.2e} FLOPs as if dense, 16 s" in shown
    assert f"round 2 pays for itself after {expected:.3g} inferences, if an operation costs the same" in shown


def test_sums_and_when_it_pays() -> None:
    work = Work(epochs=5, training_flops=600.0, inference_flops=10.0, inference_flops_left=10.0)
    costs = [
        Cost(0, "dense", "cpu", 10, 2.0, 4.0, work),
        Cost(1, "fine-tune", "cpu", 10, 3.0, 6.0, Work(1, 100.0, 10.0, 8.0)),
        Cost(2, "fine-tune", "cuda", 10, 3.0, 1.0, Work(1, 100.0, 10.0, 6.0)),
    ]
    bill = total(costs[1:])
    assert (bill.rounds, bill.steps, bill.wall_seconds, bill.processor_seconds) == (2, 20, 6.0, 7.0)
    assert (bill.epochs, bill.training_flops, bill.joules) == (2, 200.0, 6 * 10.0 + 3 * 400.0)
    assert pays_after(costs, 2) == 200 / 4
    assert pays_after(costs, 1) == 200 / 2
    assert pays_after(costs, 0) == math.inf
    unknown = [*costs[:2], Cost(2, "fine-tune", "cpu", 10, 3.0, 1.0)]
    assert total(unknown).training_flops is None
    assert pays_after(unknown, 1) is None


def test_a_number_that_is_none_is_not_written() -> None:
    for wrong in (math.inf, math.nan):
        with pytest.raises(ValueError, match="not JSON compliant"):
            Cost(0, "dense", "cpu", 10, wrong, 4.0).to_json()


def test_an_own_loop_has_a_ledger_too(tmp_path: Path) -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in gossamer.rounds(network, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        for _ in range(3):
            optimizer.step()
    assert [(cost.steps, cost.work) for cost in read_ledger(tmp_path)] == [(3, None), (3, None)]
    shown = printed("show", tmp_path)
    assert "cost of the 1 rounds after the dense one: 3 steps" in shown
    assert "pays for itself" not in shown


def test_runs_of_older_versions_have_none(tmp_path: Path) -> None:
    for _ in gossamer.rounds(model(), folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        pass
    for path in tmp_path.glob("round-*/cost.json"):
        path.unlink()
    assert read_ledger(tmp_path) == []
    assert "cost of" not in printed("show", tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"round": 0}', "\x00", "[" * 100_000])
def test_a_damaged_page_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "cost.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"cost\.json is damaged"):
        read_cost(tmp_path)


@pytest.mark.parametrize("number", ["Infinity", "NaN", "-1.0", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["epochs", "training_flops", "inference_flops", "inference_flops_left"])
def test_counted_work_that_is_no_number_is_damage(name: str, number: str, tmp_path: Path) -> None:
    cost = Cost(1, "lr-rewind", "cpu", 12, 1.5, 2.5, Work(3.0, 100.0, 10.0, 8.0))
    (tmp_path / "cost.json").write_text(cost.to_json())
    assert read_cost(tmp_path) == cost
    content = json.loads(cost.to_json())
    content["work"][name] = "here"
    (tmp_path / "cost.json").write_text(json.dumps(content).replace('"here"', number))
    with pytest.raises(CheckpointError, match=rf"cost\.json is damaged \((work\.)?{name} is .*; expected"):
        read_cost(tmp_path)
