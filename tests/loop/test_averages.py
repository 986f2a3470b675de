"""Rounds that are measured, and kept, as an average of the network in training: EMA, SWA."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import gossamer
from gossamer.errors import ConfigurationError, GossamerWarning

INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(5))
LABELS = INPUTS[:, :3].argmax(1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, after: Callable[[], None] = lambda: None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    model.train()
    for batch in torch.randperm(64).split(16):
        optimizer.zero_grad()
        functional.cross_entropy(model(INPUTS[batch]), LABELS[batch]).backward()
        optimizer.step()
        after()


def loss(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return functional.cross_entropy(model(INPUTS), LABELS).item()


def averaged(model: nn.Module) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)


class Attribute:
    """As timm and ema-pytorch have it: an object around a copy, and the model in training beside it."""

    def __init__(self, model: nn.Module) -> None:
        self.online_model = model
        self.ema_model = copy.deepcopy(model)

    def update(self) -> None:
        with torch.no_grad():
            new_state = self.online_model.state_dict()
            for name, mean in self.ema_model.state_dict().items():
                new = new_state[name]
                mean.copy_(mean * 0.5 + new * 0.5 if mean.is_floating_point() else new)


class Shadows:
    """As torch_ema and diffusers have it: a list of tensors, without buffers."""

    def __init__(self, model: nn.Module) -> None:
        self.shadow_params = [parameter.detach().clone() for parameter in model.parameters()]

    def update(self, model: nn.Module) -> None:
        for mean, new in zip(self.shadow_params, model.parameters(), strict=True):
            mean.mul_(0.5).add_(new.detach(), alpha=0.5)

    def copy_to(self, model: nn.Module) -> None:
        with torch.no_grad():
            for mean, parameter in zip(self.shadow_params, model.parameters(), strict=True):
                parameter.copy_(mean)


def of_round(folder: Path, number: int) -> nn.Module:
    model = network()
    gossamer.load_round(folder, number, model)
    return model


def assert_zeros(tensors: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    for name, mask in masks.items():
        assert int((tensors[name] != 0).sum()) == int((tensors[name][mask] != 0).sum()) > 0


def cases(model: nn.Module, kind: str) -> tuple[Any, Callable[[], None], nn.Module]:
    """An average, how it is brought up to date, and the network in it."""
    if kind == "AveragedModel":
        average = averaged(model)
        return average, lambda: average.update_parameters(model), average.module
    if kind == "deepcopy":
        mean = copy.deepcopy(model)
        around = Attribute(model)
        around.ema_model = mean
        return mean, around.update, mean
    wrapper = Attribute(model)
    return wrapper, wrapper.update, wrapper.ema_model


@pytest.mark.parametrize("made", ["once", "in every round"])
@pytest.mark.parametrize("kind", ["AveragedModel", "deepcopy", "wrapper"])
def test_what_was_measured_is_what_is_kept(kind: str, made: str, tmp_path: Path) -> None:
    model = network()
    whole_run = cases(model, kind) if made == "once" else None
    measured = []
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=3)):
        average, update, inside = whole_run or cases(model, kind)
        train(model, update)
        assert loss(model) != loss(inside)
        measured.append(loss(inside))
        round.record(loss=measured[-1], model=average)
        stored = load_file(tmp_path / f"round-{round.number:02d}" / "model.safetensors")
        for name, tensor in inside.state_dict().items():
            assert torch.equal(stored[name], tensor), name
            assert torch.equal(model.state_dict()[name], tensor), name
        assert_zeros(stored, dict(round.masks))
        gossamer.check(inside, masks=round.masks)
    assert [loss(of_round(tmp_path, number)) for number in range(4)] == measured
    assert loss(model) == measured[-1]


def test_the_next_cut_begins_with_what_was_kept(tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)):
        if round.number == 0:
            average = copy.deepcopy(model)
            train(model)
            with torch.no_grad():
                average[0].weight.copy_(torch.arange(1.0, 49.0).reshape(8, 6))
                average[3].weight.copy_(torch.arange(49.0, 73.0).reshape(3, 8))
            round.record(model=average)
        else:
            # The smaller half of 72 numbers: all but the last twelve of the first layer.
            assert model[0].weight.detach().flatten().tolist() == [0.0] * 36 + list(range(37, 49))
            assert torch.equal(model[3].weight, average[3].weight)
            train(model)


@pytest.mark.filterwarnings("error")
def test_shadow_parameters(tmp_path: Path) -> None:
    model = network()
    shadows = Shadows(model)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        train(model, lambda: shadows.update(model))
        mean = copy.deepcopy(model)
        shadows.copy_to(mean)
        round.record(loss=loss(mean), model=shadows)
        assert loss(of_round(tmp_path, round.number)) == loss(mean)
        names = [name for name, _ in model.named_parameters()]
        assert_zeros(dict(zip(names, shadows.shadow_params, strict=True)), dict(round.masks))


def test_an_average_with_remains_of_what_was_pruned_is_pruned_and_told(tmp_path: Path) -> None:
    model = network()
    average = averaged(model)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model, lambda: average.update_parameters(model))
        if round.number == 0:
            round.record(loss=1.0)
        else:
            with pytest.warns(
                GossamerWarning, match=r"1[0-9] pruned weights of the AveragedModel that round 1 recorded"
            ):
                round.record(loss=1.0, model=average)
            gossamer.check(average, masks=round.masks)


def test_swa_with_its_own_statistics(tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        average = AveragedModel(model)
        train(model, lambda: average.update_parameters(model))  # noqa: B023
        update_bn(INPUTS.split(16), average)
        value = loss(average)
        round.record(loss=value, model=average)
        assert loss(of_round(tmp_path, round.number)) == value


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_resumed_with_the_same_bits(stop: int, tmp_path: Path) -> None:
    def loop(folder: Path, stops: bool = False) -> None:
        model = network()
        average = averaged(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for round in gossamer.rounds(
            model, folder=folder, state={"optimizer": optimizer, "average": average}, stop=gossamer.Stop(rounds=3)
        ):
            for batch in torch.randperm(64).split(16):
                optimizer.zero_grad()
                functional.cross_entropy(model(INPUTS[batch]), LABELS[batch]).backward()
                optimizer.step()
                average.update_parameters(model)
            round.record(loss=loss(average), model=average.module)
            model.train()
            if stops and round.number == stop:
                return

    loop(tmp_path / "whole")
    loop(tmp_path / "parts", stops=True)
    torch.rand(3)
    loop(tmp_path / "parts")
    for number in range(4):
        for name in ("model.safetensors", "masks.safetensors", "state.safetensors"):
            file = Path(f"round-{number:02d}") / name
            assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file


def test_a_teacher_in_the_state_is_left_alone(tmp_path: Path) -> None:
    model = network()
    teacher = copy.deepcopy(model)
    before = copy.deepcopy(teacher.state_dict())
    for round in gossamer.rounds(model, folder=tmp_path, state={"teacher": teacher}, stop=gossamer.Stop(rounds=2)):
        train(model)
        round.record(loss=1.0, model=copy.deepcopy(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_the_model_itself_may_be_named(tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model)
        round.record(loss=loss(model), model=model)


@pytest.mark.parametrize("wrong", [nn.Linear(6, 8), "average", 1.0, nn.Sequential(nn.Linear(6, 9))])
def test_what_is_no_average_of_the_model(wrong: Any, tmp_path: Path) -> None:
    model = network()
    round = next(gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    train(model)
    with pytest.raises(ConfigurationError, match="holds no parameters of the names and shapes of the Sequential"):
        round.record(loss=1.0, model=wrong)
    round.record(loss=1.0)


def test_another_network_is_not_recorded_as_an_average_of_an_untrained_one(tmp_path: Path) -> None:
    round = next(gossamer.rounds(network(), folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    other = network()
    train(other)
    with pytest.raises(ConfigurationError, match="bit for bit"):
        round.record(loss=loss(other), model=other)


def test_replicates_have_an_average_of_their_own(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    for round in gossamer.rounds(
        model, folder=tmp_path, stop=gossamer.Stop(rounds=1), retraining=gossamer.Retraining(replicates=2)
    ):
        for _ in round.replicates():
            train(model)
        if round.number == 1:
            with pytest.raises(ConfigurationError, match="the average of its replicates, and not with another model"):
                round.record(loss=1.0, model=copy.deepcopy(model))
        round.record(loss=1.0)


def test_what_is_changed_after_recording_is_told_and_undone(tmp_path: Path) -> None:
    """As by a context that puts an average into the model to measure it, and takes it out again."""
    model = network()
    kept: dict[str, Tensor] = {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for round in gossamer.rounds(
            model, folder=tmp_path, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)
        ):
            if round.number == 1:
                assert torch.equal(model[3].bias, kept["3.bias"])
            train(model)
            trained = copy.deepcopy(model.state_dict())
            with torch.no_grad():
                model[0].weight.mul_(2)
                model[3].bias.add_(1)
            kept = copy.deepcopy(model.state_dict())
            round.record(loss=loss(model))
            model.load_state_dict(trained)
    assert [str(warning.message).partition(" The")[0] for warning in told] == [
        f"0.weight was changed after round {number} was recorded." for number in (0, 1)
    ]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
