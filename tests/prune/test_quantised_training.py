"""Quantisation-aware training of a network that is pruned, with torch's own modules: zeros go through it as zeros."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional

import gossamer
from gossamer.errors import CheckpointError, NothingToPruneError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

LAYERS = ["1.weight", "5.weight", "7.weight"]


@pytest.fixture(autouse=True)
def engine() -> Iterator[None]:
    torch.manual_seed(0)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    yield
    torch.backends.quantized.engine = before


def network(affine: bool = False) -> nn.Module:
    """Fused and prepared: a convolution with its BatchNorm (ConvBnReLU2d), LinearReLU, Linear."""
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU()]
    model = nn.Sequential(quantization.QuantStub(), *layers, nn.Linear(8, 3), quantization.DeQuantStub()).train()
    quantization.fuse_modules_qat(model, [["1", "2", "3"], ["5", "6"]], inplace=True)
    settings = quantization.get_default_qat_qconfig("fbgemm")
    if affine:
        weights = quantization.FakeQuantize.with_args(
            observer=quantization.MovingAverageMinMaxObserver,
            dtype=torch.qint8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
        )
        settings = quantization.QConfig(settings.activation, weights)
    model.qconfig = settings  # type: ignore[assignment]
    found: nn.Module = quantization.prepare_qat(model)
    return found


def prune(model: nn.Module, folder: Path, stop: int | None = None) -> nn.Module:
    inputs = torch.linspace(-1, 2, 32 * 16).sin().reshape(32, 1, 4, 4)
    targets = torch.arange(32) % 3
    for round in gossamer.rounds(model, folder=folder, stop=gossamer.Stop(rounds=2), cut=gossamer.Cut(per_round=0.5)):
        if round.number == stop:
            break
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        round.record(loss=1.0)
    return model


def zeros_of(weight: Tensor) -> Any:
    """Where a quantized weight stands for zero, by its integers and zero points."""
    points = weight.q_zero_point() if "tensor" in str(weight.qscheme()) else weight.q_per_channel_zero_points().numpy()
    shape = (-1, *[1] * (weight.dim() - 1))
    return weight.int_repr().numpy() == (points if isinstance(points, int) else points.reshape(shape))


@pytest.mark.parametrize("affine", [False, True], ids=["symmetric", "affine"])
def test_zeros_are_zeros_of_the_converted_network(affine: bool, tmp_path: Path) -> None:
    model = network(affine)
    assert list(gossamer.prunable_weights(model)) == LAYERS
    prune(model, tmp_path)
    masks = gossamer.load_masks(tmp_path, -1)
    assert sum(int(mask.sum()) for mask in masks.values()) == (36 + 512 + 24) // 4
    for name, mask in masks.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        faked = layer.weight_fake_quant(layer.weight).detach().numpy()
        assert np.count_nonzero(faked[~mask.numpy()]) == 0
    if affine:
        assert any(int(module.zero_point) != 0 for name, module in model.named_modules() if name.endswith("fake_quant"))
    converted = quantization.convert(model.eval())
    for name, mask in masks.items():
        assert zeros_of(converted.get_submodule(name.removesuffix(".weight")).weight())[~mask.numpy()].all()
    # That network has no weights that could be set to zero.
    with pytest.raises(NothingToPruneError):
        gossamer.prunable_weights(converted)


def test_a_round_comes_back_into_a_network_whose_observers_have_seen_nothing(tmp_path: Path) -> None:
    """Observers and scales of channels are empty, or of one number, until the first batch."""
    model = prune(network(), tmp_path)
    fresh = network()
    gossamer.load_round(tmp_path, -1, fresh)
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)


def test_statistics_of_another_size_do_not_fit(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False))
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        round.record(loss=1.0, untrained=True)
    other = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(4, affine=False))
    before = other[0].weight.detach().clone()
    with pytest.raises(CheckpointError, match=r"1\.running_mean has shape \(3,\), the model's \(4,\)"):
        gossamer.load_round(tmp_path, -1, other)
    assert torch.equal(other[0].weight, before)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_run_goes_on_with_the_same_bits(stop: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = prune(network(), tmp_path / "whole")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", gossamer.GossamerWarning)
        prune(network(), tmp_path / "parts", stop)
        parts = prune(network(), tmp_path / "parts")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor), name


def test_a_layer_that_fakes_its_own_weights(tmp_path: Path) -> None:
    """As brevitas, torchao and papers' code have it: a subclass of Linear that rounds its weight on the way."""

    class Rounded(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            scale = self.weight.detach().abs().max() / 7
            rounded = (self.weight / scale).round() * scale
            # The gradient passes straight through, so that one comes to pruned weights too.
            return functional.linear(inputs, self.weight + (rounded - self.weight).detach(), self.bias)

    model = nn.Sequential(Rounded(6, 8), nn.Tanh(), Rounded(8, 3))
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2), cut=gossamer.Cut(per_round=0.5)):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().sum().backward()
            optimizer.step()
        assert sum(int((layer.weight != 0).sum()) for layer in (model[0], model[2])) == round.kept
        round.record(loss=1.0)


@pytest.mark.slow
def test_the_layers_of_torchao(tmp_path: Path) -> None:
    qat = pytest.importorskip("torchao.quantization.qat")
    quantize = pytest.importorskip("torchao.quantization").quantize_
    settings = qat.IntxFakeQuantizeConfig(torch.int4, group_size=8)
    model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 8))
    quantize(model, qat.QATConfig(weight_config=settings, step="prepare"))
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 16)).square().sum().backward()
            optimizer.step()
        round.record(loss=1.0)
    gossamer.check(model)
    masks = gossamer.load_masks(tmp_path, -1)
    assert list(masks) == ["0.weight", "2.weight"]
