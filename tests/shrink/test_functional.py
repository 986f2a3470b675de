"""Layers that hand their tensors to torch's functions in a forward pass of their own: as small as its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.shrink import ShrinkError, load_shrunk, save_shrunk, shrink


class NormAct(nn.BatchNorm2d):
    """BatchNorm with an activation in it, as timm has it."""

    def forward(self, input: Tensor) -> Tensor:
        statistics = (self.running_mean, self.running_var)
        return F.relu(F.batch_norm(input, *statistics, self.weight, self.bias, self.training, 0.1, self.eps))


class OwnLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, bias=self.bias)


class OtherEps(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=0.5).relu()


class OtherWeight(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        assert self.weight is not None
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight * 2, self.bias, eps=self.eps).relu()


class Regularised(nn.BatchNorm2d):
    """Its weight is read by somebody else too."""

    def forward(self, input: Tensor) -> Tensor:
        assert self.weight is not None
        normal = F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return normal.relu() + self.weight.sum()


def network(norm: nn.Module, linear: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    """Of the four channels of its convolution the second is zero, of the six hidden units the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.Flatten(), linear(64, 6), nn.ReLU(), linear(6, 3)).eval()
    state: dict[str, Any] = {
        name: torch.rand(tensor.shape).to(tensor.dtype) for name, tensor in model.state_dict().items()
    }
    state["0.weight"][1] = 0
    state["3.weight"][0] = 0
    model.load_state_dict(state)
    return model


IMAGES = torch.randn(3, 2, 6, 6)


@pytest.mark.parametrize("affine", [True, False])
def test_as_torch_s_layers(affine: bool, tmp_path: Path) -> None:
    torch_s = shrink(network(nn.Sequential(nn.BatchNorm2d(4, affine=affine), nn.ReLU())), IMAGES)
    model = network(NormAct(4, affine=affine), OwnLinear)
    shrunk = shrink(model, IMAGES)
    assert shrunk.not_understood == ()
    assert (shrunk.units_removed, shrunk.parameters) == (torch_s.units_removed, torch_s.parameters)
    assert [layer.removed for layer in shrunk.layers[:2]] == [1, 1]
    torch.testing.assert_close(shrunk.model(IMAGES), model(IMAGES))
    save_shrunk(tmp_path / "small.safetensors", shrunk)
    again = load_shrunk(tmp_path / "small.safetensors", network(NormAct(4, affine=affine), OwnLinear))
    assert torch.equal(again(IMAGES), shrunk.model(IMAGES))


@pytest.mark.parametrize("kind", [OtherEps, OtherWeight, Regularised])
def test_what_is_computed_otherwise_stays(kind: type[nn.BatchNorm2d]) -> None:
    model = network(kind(4))
    shrunk = shrink(model, IMAGES)
    assert shrunk.layers[0].removed == 0
    assert any("batch_norm" in told for told in shrunk.not_understood)
    torch.testing.assert_close(shrunk.model(IMAGES), model(IMAGES))


def test_a_network_that_returns_nan() -> None:
    with pytest.raises(ShrinkError, match="Sequential returns NaN for the example inputs"):
        shrink(network(NormAct(4)), IMAGES * torch.inf)


class Tied(nn.Module):
    """One layer is called twice, or two layers share their weight."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.first, self.second = OwnLinear(5, 5), OwnLinear(5, 5)
        if shared:
            self.second.weight = self.first.weight
        else:
            self.second = self.first
        with torch.no_grad():
            self.first.weight[2] = 0

    def forward(self, input: Tensor) -> Tensor:
        return self.second(self.first(input).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("shared", [True, False])
def test_layers_that_are_used_twice_stay(shared: bool) -> None:
    model = Tied(shared).eval()
    shrunk = shrink(model, torch.randn(4, 5))
    assert shrunk.parameters == shrunk.parameters_before
    torch.testing.assert_close(shrunk.model(IMAGES[..., :5]), model(IMAGES[..., :5]))
