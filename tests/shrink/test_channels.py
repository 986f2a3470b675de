"""Channels cut out by their norm: which ones go, that the network stays whole, and the command."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_run import printed, refused, small_run
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.shrink import ShrinkError, load_shrunk, remove_channels, save_shrunk, shrink
from gossamer.tasks import find_task
from gossamer.tasks.cifar_resnet import CifarResNet

pytest.importorskip("torch_pruning")


def test_the_channels_of_the_smallest_norm_go() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([5.0, 0.1, 4.0, 0.2]).reshape(4, 1, 1, 1)
        model[0].bias[:] = 0
        model[2].weight[:] = 1
    inputs = torch.randn(3, 1, 2, 2)
    slimmed = remove_channels(shrink(model, inputs), inputs, 0.5)
    assert slimmed.model[0].weight.flatten().tolist() == [5.0, 4.0]
    assert slimmed.model[2].weight.shape == (2, 2, 1, 1)
    # The outputs are the caller's, who expects as many as there were.
    assert slimmed.untouched == ("2",)
    assert (slimmed.removed, slimmed.parameters_before, slimmed.parameters) == (2, 18, 10)
    assert len(model[0].weight) == 4
    slimmed = remove_channels(shrink(model, inputs), inputs, 0.25)
    assert slimmed.model[0].weight.flatten().tolist() == pytest.approx([5.0, 4.0, 0.2])


@pytest.mark.parametrize("shortcut", ["projection", "padding"])
def test_residual_networks_stay_whole(shortcut: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CifarResNet(8, shortcut).eval()  # type: ignore[arg-type]
    inputs = torch.randn(2, 3, 16, 16)
    slimmed = remove_channels(shrink(model, inputs), inputs, 0.5)
    assert slimmed.parameters < 0.8 * slimmed.parameters_before
    sizes = {layer.name: layer.after for layer in slimmed.layers}
    assert sizes["linear"] == 10
    # What is added has to fit; a padding of 16 channels to 32 is nothing that channels could be taken out of.
    other = "conv1" if shortcut == "padding" else "layer1.0.shortcut.0"
    assert sizes["layer1.0.conv2"] == sizes[other]
    assert (sizes["conv1"] == 16) == (shortcut == "padding")
    save_shrunk(tmp_path / "small.safetensors", slimmed)
    loaded = load_shrunk(tmp_path / "small.safetensors", CifarResNet(8, shortcut))  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(loaded(inputs), slimmed.model(inputs))


def test_what_was_asked_for_is_checked() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    inputs = torch.randn(2, 4)
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="expected a number between 0 and 1"):
            remove_channels(shrink(model, inputs), inputs, share)


class Divided(nn.Module):
    def __init__(self, divisor: Callable[[int], object]) -> None:
        super().__init__()
        self.convolution, self.head, self.divisor = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1), divisor

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.convolution(images)) / self.divisor(self.convolution.out_channels - 2)
        return outputs


@pytest.mark.parametrize(
    ("divisor", "message"),
    [
        (lambda left: torch.tensor(float(left)), "gives outputs that are not finite; remove fewer"),
        (lambda left: 1 / left, r"cannot be cut out of this Divided \(ZeroDivisionError"),
    ],
    ids=["infinite", "fails"],
)
def test_a_network_that_cannot_be_without_its_channels(divisor: Callable[[int], object], message: str) -> None:
    model, inputs = Divided(divisor).eval(), torch.randn(2, 1, 3, 3)
    with pytest.raises(ShrinkError, match=message):
        remove_channels(shrink(model, inputs), inputs, 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("channels") / "run"
    small_run(folder)
    return folder


def test_the_command_says_what_it_cost_and_writes_the_network(run: Path, tmp_path: Path) -> None:
    options = ("--structure", "channel", "--channels", 0.25, "-o", tmp_path / "small.safetensors")
    text = printed("shrink", run, "--round", 0, *options)
    assert "0 units removed exactly, then " in text
    assert "without any retraining" in text
    assert "channels that had to stay: classes" in text
    smaller = load_shrunk(tmp_path / "small.safetensors", find_task("digits").model())
    parameters = sum(parameter.numel() for parameter in smaller.parameters())
    assert f"parameters 22,602 -> 22,602 -> {parameters:,}" in text
    assert parameters < 16_000


def test_mistakes_are_explained(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "expected exact or channel" in refused("shrink", run, "--structure", "blocks")
    assert "go together" in refused("shrink", run, "--structure", "channel")
    assert "go together" in refused("shrink", run, "--channels", 0.5)
    both = ("--structure", "channel", "--channels", 0.5)
    assert "leave one out" in refused("shrink", run, *both, "--select-inputs")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    assert "pip install 'gossamer[structured]'" in refused("shrink", run, *both)
