"""Rounds trained several times and averaged, against averages worked out by hand or by slow references."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from flat import of_compress, of_rounds
from torch import Tensor, nn

import gossamer
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.job.training import DenseRound, Training
from gossamer.loop.configuration import read
from gossamer.loop.folder import read_state
from gossamer.loop.normalisation import recompute_statistics
from gossamer.loop.records import REPLICATES, read_ledger
from gossamer.loop.stop import Stop
from gossamer.rewind.strategies import Retraining
from gossamer.storage import state as states
from gossamer.tasks import SGD, Data, EpochReport, Examples, OneCycle, Recipe, Task, initial_model, train


def linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.zero_()
    return layer


def test_the_round_ends_with_the_mean_of_its_replicates_and_its_mask(tmp_path: Path) -> None:
    model = linear([[4, 3], [2, 1]])
    begins = []
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        stop=gossamer.Stop(rounds=1),
        cut=gossamer.Cut(per_round=0.5),
        retraining=gossamer.Retraining(replicates=3),
    ):
        for replicate in round.replicates():
            begins.append((round.number, replicate, model.weight.tolist()))
            if round.number == 1:
                with torch.no_grad():
                    model.weight += torch.tensor([[1.0, -2.0], [0.0, 0.0]]) * (replicate + 1)
                    model.bias += torch.tensor([3.0, 0.5]) * (replicate + 1)
        round.record(untrained=round.number == 0, accuracy=0.5)
    cut = [[4, 3], [0, 0]]
    assert begins == [(0, 0, [[4, 3], [2, 1]]), (1, 0, cut), (1, 1, cut), (1, 2, cut)]
    # (5 + 6 + 7) / 3, (1 - 1 - 3) / 3; (3 + 6 + 9) / 3, (0.5 + 1 + 1.5) / 3
    assert model.weight.tolist() == [[6, -1], [0, 0]]
    assert model.bias.tolist() == [6, 1]
    again = linear([[0, 0], [0, 0]])
    assert gossamer.load_round(tmp_path, 1, again).kept == 2
    assert again.weight.tolist() == [[6, -1], [0, 0]]
    assert not (tmp_path / REPLICATES).exists()


def test_momentum_is_that_of_replicate_0_and_each_replicate_begins_with_that_of_the_round(tmp_path: Path) -> None:
    """Least squares by SGD with momentum, in float64, beside the same in numpy."""
    generator = np.random.default_rng(0)
    inputs, slopes = generator.normal(size=(8, 6)), generator.normal(size=6)
    targets = inputs @ slopes
    rounds_, replicates, steps, rate, momentum = 3, 3, 10, 0.05, 0.9

    def order(round_number: int, replicate: int) -> np.ndarray:
        return np.random.default_rng([round_number, replicate]).integers(8, size=steps)

    def trained(
        weight: np.ndarray, velocity: np.ndarray, mask: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        for row in rows:
            gradient = 2 * (inputs[row] @ weight - targets[row]) * inputs[row] * mask
            velocity = momentum * velocity + gradient
            weight = weight - rate * velocity
        return weight, velocity

    weight, velocity, mask = np.full(6, 0.1) * np.arange(6), np.zeros(6), np.ones(6)
    expected = []
    for number in range(rounds_ + 1):
        if number > 0:
            kept = math.ceil(6 * 0.7**number)
            mask = (np.argsort(np.argsort(-np.abs(weight) * mask)) < kept).astype(float)
        begin = weight * mask, velocity * mask
        ended = [trained(*begin, mask, order(number, replicate)) for replicate in range(replicates if number else 1)]
        weight, velocity = np.mean([end for end, _ in ended], axis=0), ended[0][1]
        expected.append((weight, mask))

    model = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).double() * 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        state={"optimizer": optimizer},
        stop=gossamer.Stop(rounds=rounds_),
        cut=gossamer.Cut(per_round=0.3),
        retraining=gossamer.Retraining(replicates=replicates),
    ):
        for replicate in round.replicates():
            for row in order(round.number, replicate):
                optimizer.zero_grad()
                (model(torch.tensor(inputs[row])) - targets[row]).square().sum().backward()
                optimizer.step()
                gossamer.check(model) if round.number else None
        round.record(loss=1.0)
        weights, kept_there = expected[round.number]
        np.testing.assert_array_equal(round.masks["weight"].numpy()[0], kept_there == 1)
        np.testing.assert_allclose(model.weight.detach().numpy()[0], weights, rtol=1e-9, atol=1e-12)
    assert [cost.steps for cost in read_ledger(tmp_path)] == [10, 30, 30, 30]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.2), nn.Linear(30, 5))


def data(folder: Path | None) -> Data:
    inputs = torch.randn(120, 20, generator=torch.Generator().manual_seed(0))
    return Data(*(Examples(part, part[:, :5].argmax(1)) for part in inputs.split([80, 20, 20])))


RECIPE = Recipe(epochs=3, batch_size=20, learning_rate=OneCycle(peak=0.1), optimizer=SGD())
TASK = Task("tiny", "", network, data, RECIPE)


def weights_of(folder: Path, number: int) -> dict[str, Tensor]:
    model = network()
    gossamer.load_round(folder, number, model)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("fresh_optimizer", [False, True])
def test_the_built_in_job_averages_what_three_separate_trainings_come_to(fresh_optimizer: bool, tmp_path: Path) -> None:
    compress(
        TASK,
        folder=tmp_path / "run",
        stop=Stop(rounds=1),
        retraining=Retraining(replicates=3),
        training=Training(seed=4, fresh_optimizer=fresh_optimizer),
    )
    dense = initial_model(TASK, 4)
    optimizer = RECIPE.optimizer(dense)
    splits = data(None)
    list(train(dense, optimizer, RECIPE, splits.train, seed=4))
    masks = gossamer.load_masks(tmp_path / "run", 1)
    ends = []
    for replicate in range(3):
        model = copy.deepcopy(dense)
        own = RECIPE.optimizer(model)
        if not fresh_optimizer:
            own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for parameter, kept in zip((model[0].weight, model[4].weight), masks.values(), strict=True):
            with torch.no_grad():
                parameter *= kept
                if not fresh_optimizer:
                    own.state[parameter]["momentum_buffer"] *= kept
            parameter.register_hook(lambda gradient, kept=kept: gradient * kept)
        list(train(model, own, RECIPE, splits.train, seed=4, round_number=1, replicate=replicate))
        ends.append({name: parameter.detach().double() for name, parameter in model.named_parameters()})
    assert not torch.equal(ends[0]["0.weight"], ends[1]["0.weight"])
    found = weights_of(tmp_path / "run", 1)
    for name in ends[0]:
        torch.testing.assert_close(found[name], sum(end[name] for end in ends).div(3).float(), rtol=1e-6, atol=1e-7)
    # Four batches of 20; the hidden layer's mean is linear in the inputs, so it is that of all of them.
    hidden = splits.train.inputs @ found["0.weight"].T + found["0.bias"]
    torch.testing.assert_close(found["1.running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-5)


def test_one_replicate_is_a_round_without_any(tmp_path: Path) -> None:
    compress(TASK, folder=tmp_path / "plain", stop=Stop(rounds=2))
    compress(TASK, folder=tmp_path / "one", stop=Stop(rounds=2), retraining=Retraining(replicates=1))
    assert "replicates" not in read(tmp_path / "one")["method"]
    for number in range(3):
        plain, one = weights_of(tmp_path / "plain", number), weights_of(tmp_path / "one", number)
        assert all(torch.equal(plain[name], one[name]) for name in plain)
    assert torch.equal(
        read_state(tmp_path / "one", 2)["random"]["torch"], read_state(tmp_path / "plain", 2)["random"]["torch"]
    )


def test_another_number_is_refused_and_a_dense_network_is_shared(tmp_path: Path) -> None:
    compress(TASK, folder=tmp_path / "one", stop=Stop(rounds=1))
    with pytest.raises(ConfigurationError, match=r"method\.replicates: the folder's run has nothing, this one has 2"):
        compress(TASK, folder=tmp_path / "one", stop=Stop(rounds=1), retraining=Retraining(replicates=2))
    compress(
        TASK,
        folder=tmp_path / "two",
        stop=Stop(rounds=1),
        retraining=Retraining(replicates=2),
        dense=DenseRound(taken_from=tmp_path / "one"),
    )
    with pytest.raises(ConfigurationError, match=r"method\.replicates: the folder's run has 2, this one has nothing"):
        compress(TASK, folder=tmp_path / "two", stop=Stop(rounds=1))
    one, two = weights_of(tmp_path / "one", 0), weights_of(tmp_path / "two", 0)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_stopped_every_other_epoch_the_job_comes_to_the_same(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    class Stopping(Callback):
        epochs = 0

        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            told.append((round.number, report.epochs_done, report.epochs))
            self.epochs += 1
            if self.epochs == 2:
                raise Interrupted

    def run(folder: Path, *callbacks: Callback) -> None:
        compress(
            TASK,
            folder=folder,
            callbacks=callbacks,
            stop=Stop(rounds=2),
            retraining=Retraining(replicates=2),
            training=Training(seed=1, checkpoint_seconds=0),
        )

    told: list[tuple[int, int, int]] = []
    run(tmp_path / "whole")
    stops = 0
    while stops < 40:
        try:
            run(tmp_path / "run", Stopping())
            break
        except Interrupted:
            stops += 1
    # 3 epochs of the dense round, 2 x 3 of each of the others; what is repeated is told again.
    assert stops >= 15 // 2
    later = [(number, done, 6) for number in (1, 2) for done in range(1, 7)]
    assert sorted(set(told)) == [(0, 1, 3), (0, 2, 3), (0, 3, 3), *later]
    files = [f"round-0{number}/{name}.safetensors" for number in range(3) for name in ("model", "state", "masks")]
    for name in files:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert [cost.steps for cost in read_ledger(tmp_path / "run")] == [12, 24, 24]
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_a_state_of_a_later_replicate_without_the_earlier_ones_is_an_error(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    class Stopping(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            if round.number == 1 and report.epochs_done == 4:
                raise Interrupted

    arguments = {"folder": tmp_path, "rounds": 1, "replicates": 2, "checkpoint_seconds": 0.0}
    with pytest.raises(Interrupted):
        compress(TASK, callbacks=(Stopping(),), **of_compress(**arguments))
    (tmp_path / REPLICATES).unlink()
    with pytest.raises(
        CheckpointError, match=r"is of replicate 1 of round 1, but replicates\.safetensors does not hold"
    ):
        compress(TASK, **of_compress(**arguments))


def test_the_ledger_counts_every_replicate_and_the_pass_for_the_statistics(tmp_path: Path) -> None:
    compress(TASK, folder=tmp_path, stop=Stop(rounds=1), retraining=Retraining(replicates=3, rewind_epochs=2))
    dense, averaged = read_ledger(tmp_path)
    assert dense.work is not None
    assert averaged.work is not None
    assert (dense.steps, averaged.steps) == (12, 3 * 8)
    assert (dense.work.epochs, averaged.work.epochs) == (3, 6)
    forward = 2 * (20 * 30 + 30 * 5)
    training = dense.work.training_flops / dense.work.epochs
    assert averaged.work.training_flops == 6 * training + 80 * forward


def loop(model: nn.Module, folder: Path, **arguments: int) -> Iterator[gossamer.Round]:
    return iter(gossamer.rounds(model, folder=folder, **of_rounds(rounds=1, **arguments)))


def test_a_loop_that_trains_once_is_told_so(tmp_path: Path) -> None:
    rounds = loop(linear([[4, 3], [2, 1]]), tmp_path, replicates=2)
    next(rounds).record(untrained=True, accuracy=0.5)
    round = next(rounds)
    with pytest.raises(ConfigurationError, match=r"round 1 has 2 replicates to average, and not all of them"):
        round.record(untrained=True, accuracy=0.5)
    replicates = round.replicates()
    next(replicates)
    with pytest.raises(ConfigurationError, match="not all of them were trained"):
        round.record(untrained=True, accuracy=0.5)
    with pytest.raises(ConfigurationError, match="called before in round 1"):
        next(round.replicates())


def test_replicates_that_end_with_the_same_weights_are_an_error(tmp_path: Path) -> None:
    model = linear([[4, 3], [2, 1]])
    rounds = loop(model, tmp_path, replicates=2)
    next(rounds).record(untrained=True, accuracy=0.5)
    with pytest.raises(ConfigurationError, match="replicates 0 and 1 of round 1 ended with the same weights"):  # noqa: PT012
        for _ in next(rounds).replicates():
            with torch.no_grad():
                model.weight *= 2


def test_batch_norm_needs_batches(tmp_path: Path) -> None:
    rounds = loop(network(), tmp_path, replicates=2)
    next(rounds).record(untrained=True, accuracy=0.5)
    with pytest.raises(ConfigurationError, match=r"pass round\.replicates\(batches=\.\.\.\)"):
        next(next(rounds).replicates())


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_impossible_numbers(number: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"replicates is .*; expected a whole number, 1"):
        gossamer.rounds(
            nn.Linear(4, 4),
            folder=tmp_path,
            stop=gossamer.Stop(rounds=1),
            retraining=gossamer.Retraining(replicates=number),
        )


def test_a_loop_left_after_a_replicate_goes_on_with_the_next(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def run(folder: Path, stop_after: int | None) -> tuple[list[int], Tensor]:
        model, seen = linear([[4, 3], [2, 1]]), []
        torch.manual_seed(3)
        for round in gossamer.rounds(
            model,
            folder=folder,
            stop=gossamer.Stop(rounds=1),
            cut=gossamer.Cut(per_round=0.5),
            retraining=gossamer.Retraining(replicates=3),
        ):
            for replicate in round.replicates():
                seen.append(replicate)
                if round.number == 1 and replicate == stop_after:
                    raise Interrupted
                with torch.no_grad():
                    model.weight += torch.rand(2, 2) * (model.weight != 0)
            round.record(accuracy=0.5)
        return seen, model.weight.detach().clone()

    _, expected = run(tmp_path / "whole", None)
    for stop_after in (1, 2):
        with pytest.raises(Interrupted):
            run(tmp_path / f"{stop_after}", stop_after)
        seen, weight = run(tmp_path / f"{stop_after}", None)
        assert seen == list(range(stop_after, 3))
        assert torch.equal(weight, expected)
    with pytest.raises(Interrupted):
        run(tmp_path / "damaged", 1)
    file = tmp_path / "damaged" / REPLICATES
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match its digest"):
        run(tmp_path / "damaged", None)


class Layers(nn.Module):
    """What has statistics, and what could disturb them."""

    def __init__(self) -> None:
        super().__init__()
        self.usual = nn.BatchNorm1d(3)
        self.cumulative = nn.BatchNorm1d(3, momentum=None)
        self.frozen = nn.BatchNorm1d(3)
        self.without = nn.BatchNorm1d(3, track_running_stats=False)
        self.instances = nn.InstanceNorm1d(3, track_running_stats=True)
        self.twice = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> "Layers":
        super().train(mode)
        self.frozen.training = False
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        dropped = self.dropout(inputs)
        for layer in (self.usual, self.cumulative, self.frozen, self.without, self.instances, self.twice):
            layer(dropped)
        return self.twice(2 * dropped)


def test_statistics_are_the_plain_mean_over_batches_whatever_the_momentum() -> None:
    batches = [torch.randn(size, 3, 7) * 2 + 1 for size in (5, 9, 4)]
    model = Layers()
    for layer in model.children():
        if hasattr(layer, "running_mean") and layer.running_mean is not None:
            nn.init.constant_(layer.running_mean, 100.0)
    model.train()
    model.dropout.eval()
    before = torch.get_rng_state()
    recompute_statistics(model, iter(batches))
    assert torch.equal(before, torch.get_rng_state())
    arrays = [batch.double().numpy() for batch in batches]
    mean = np.mean([array.mean((0, 2)) for array in arrays], axis=0)
    variance = np.mean([array.var((0, 2), ddof=1) for array in arrays], axis=0)
    of_instances = np.mean([array.var(2, ddof=1).mean(0) for array in arrays], axis=0)
    for layer, expected_mean, expected_variance in (
        (model.usual, mean, variance),
        (model.cumulative, mean, variance),
        (model.instances, mean, of_instances),
        (model.twice, 1.5 * mean, 2.5 * variance),
    ):
        np.testing.assert_allclose(layer.running_mean.numpy(), expected_mean, rtol=1e-5)
        np.testing.assert_allclose(layer.running_var.numpy(), expected_variance, rtol=1e-5)
    assert model.frozen.running_mean.tolist() == [100.0] * 3
    assert [model.usual.momentum, model.cumulative.momentum, model.instances.momentum] == [0.1, None, 0.1]
    assert [model.usual.num_batches_tracked.item(), model.twice.num_batches_tracked.item()] == [3, 6]
    assert (model.training, model.usual.training, model.frozen.training, model.dropout.training) == (
        True,
        True,
        False,
        False,
    )


def test_a_model_without_statistics_is_left_alone() -> None:
    def never() -> Iterator[Tensor]:
        raise AssertionError("batches were asked for")
        yield torch.empty(0)

    recompute_statistics(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), never())


def test_statistics_of_no_batches_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match="there is no batch"):
        recompute_statistics(nn.BatchNorm1d(3), [])


def interrupted_after_the_first_replicate(folder: Path) -> None:
    class Interrupted(Exception):
        pass

    class Stopping(Callback):
        def epoch_finished(self, round: gossamer.Round, report: EpochReport) -> None:
            if round.number == 1 and report.epochs_done == 4:
                raise Interrupted

    with pytest.raises(Interrupted):
        compress(TASK, folder=folder, callbacks=(Stopping(),), stop=Stop(rounds=1), retraining=Retraining(replicates=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "x"}, r"holds no trained replicates \(count is 'x'; expected a whole number\); remove it"),
        ({"total": {}}, "the replicates in .* do not fit"),
        ({"first_model": {}}, "does not fit the model: it lacks"),
        ({"first_objects": {}}, "do not fit"),
    ],
)
def test_replicates_from_somebody_else_are_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    interrupted_after_the_first_replicate(tmp_path)
    saved = states.load(tmp_path / REPLICATES)
    assert (saved["round"], saved["count"]) == (1, 1)
    # Two are trained, so that only the average is left to be made.
    states.save(tmp_path / REPLICATES, saved | {"count": 2} | change)
    with pytest.raises(CheckpointError, match=message):
        compress(TASK, folder=tmp_path, stop=Stop(rounds=1), retraining=Retraining(replicates=2))


@pytest.mark.parametrize("more", [{"surprise": torch.ones(2)}, {"0.bias": torch.ones(3)}], ids=["name", "shape"])
def test_replicates_of_another_network_are_named(more: dict[str, Tensor], tmp_path: Path) -> None:
    interrupted_after_the_first_replicate(tmp_path)
    saved = states.load(tmp_path / REPLICATES)
    states.save(tmp_path / REPLICATES, saved | {"count": 2, "total": saved["total"] | more})
    with pytest.raises(CheckpointError, match="do not fit the model"):
        compress(TASK, folder=tmp_path, stop=Stop(rounds=1), retraining=Retraining(replicates=2))


def test_replicates_that_a_crash_left_of_another_round_are_removed(tmp_path: Path) -> None:
    interrupted_after_the_first_replicate(tmp_path)
    states.save(tmp_path / REPLICATES, states.load(tmp_path / REPLICATES) | {"round": 0, "count": 2})
    compress(TASK, folder=tmp_path, stop=Stop(rounds=1), retraining=Retraining(replicates=2))
    assert not (tmp_path / REPLICATES).exists()
    assert [cost.steps for cost in read_ledger(tmp_path)] == [12, 24]
