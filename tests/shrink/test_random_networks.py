"""Random sparse networks of every kind: the outputs stay, and nothing ever grows."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.shrink import Shrunk, shrink

SEEDS = st.integers(0, 2**32 - 1)
DENSITIES = st.sampled_from([0.02, 0.05, 0.1, 0.2, 0.5])
ACTIVATIONS = st.sampled_from([nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.ELU, nn.Hardswish, nn.LeakyReLU])


def sparse(model: nn.Module, density: float, seed: int) -> nn.Module:
    """The model in evaluation mode with random weights, most of them zero, and random statistics."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                kept = torch.rand(module.weight.shape, generator=generator) < density
                module.weight.copy_(draw(module.weight, -1, 1) * kept)
                if module.bias is not None:
                    module.bias.copy_(draw(module.bias, -1, 1))
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, -1, 1),
                    (module.bias, -1, 1),
                    (module.running_mean, -1, 1),
                    (module.running_var, 0.25, 2),
                ):
                    assert tensor is not None
                    tensor.copy_(draw(tensor, low, high))
                module.weight[torch.rand(len(module.weight), generator=generator) < 0.1] = 0
    return model.eval()


def verify(model: nn.Module, *shape: int) -> Shrunk:
    """Shrinks the model and compares it on inputs that it was not shrunk with."""
    generator = torch.Generator().manual_seed(0)
    shrunk = shrink(model, torch.randn(2, *shape, generator=generator))
    inputs = torch.randn(16, *shape, generator=generator) * 3
    with torch.no_grad():
        difference = (shrunk.model(inputs) - model(inputs)).abs().max()
    assert difference < 1e-5
    assert shrunk.parameters <= shrunk.parameters_before
    assert shrunk.parameters == sum(parameter.numel() for parameter in shrunk.model.parameters())
    if not any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules()):
        # (A depthwise convolution that has one channel left is an ordinary one, of which more can be concluded.)
        assert shrink(shrunk.model, inputs).units_removed == 0
    return shrunk


@given(seed=SEEDS, density=DENSITIES, widths=st.lists(st.integers(1, 12), min_size=2, max_size=5), bias=st.booleans())
def test_perceptrons(seed: int, density: float, widths: list[int], bias: bool) -> None:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    model = sparse(nn.Sequential(*layers[:-1]), density, seed)
    shrunk = verify(model, widths[0])
    # Independently: what stays has a path from an input and a path to an output. If nothing does, one unit stays.
    weights = [layer.weight.detach().numpy() != 0 for layer in model if isinstance(layer, nn.Linear)]
    for index, layer in enumerate(shrunk.layers[:-1]):
        from_inputs = np.ones(widths[0], bool)
        for weight in weights[: index + 1]:
            from_inputs = (weight & from_inputs).any(1)
        to_outputs = np.ones(widths[-1], bool)
        for weight in reversed(weights[index + 1 :]):
            to_outputs = (weight.T & to_outputs).any(1)
        assert layer.outputs == max(1, (from_inputs & to_outputs).sum())


@given(seed=SEEDS, density=DENSITIES, activation=ACTIVATIONS)
def test_perceptrons_with_normalisation(seed: int, density: float, activation: type[nn.Module]) -> None:
    model = nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(12, 10), nn.BatchNorm1d(10), activation()),
        *(nn.Linear(10, 8, bias=False), nn.BatchNorm1d(8), activation(), nn.Dropout(0.5)),
        nn.Linear(8, 3),
    )
    verify(sparse(model, density, seed), 1, 3, 4)


class Block(nn.Module):
    """Two convolutions added to a shortcut, as in residual networks."""

    def __init__(self, channels_in: int, channels: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.activation = activation()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.activation(self.bn1(self.conv1(inputs)))
        features = self.bn2(self.conv2(features))
        features += self.shortcut(inputs)
        return self.activation(features)


class ResidualNetwork(nn.Module):
    def __init__(self, activation: type[nn.Module], padding: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=padding)
        self.blocks = nn.Sequential(
            Block(6, 6, 1, activation), Block(6, 8, 2, activation), nn.MaxPool2d(2), Block(8, 8, 1, activation)
        )
        self.classes = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(F.relu(self.stem(images), inplace=True))
        return self.classes(F.adaptive_avg_pool2d(features, 1).flatten(1))


@given(seed=SEEDS, density=DENSITIES, activation=ACTIVATIONS, padding=st.integers(0, 1))
@pytest.mark.slow
def test_residual_networks(seed: int, density: float, activation: type[nn.Module], padding: int) -> None:
    verify(sparse(ResidualNetwork(activation, padding), density, seed), 2, 9, 9)


@given(
    seed=SEEDS,
    density=DENSITIES,
    padding=st.sampled_from([0, 1, 2, "same"]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "circular", "replicate"]),
    pooling=st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(3, 2, padding=1), nn.AdaptiveAvgPool2d(2)]),
)
def test_convolutional_networks(
    seed: int, density: float, padding: int | str, stride: int, dilation: int, mode: str, pooling: nn.Module
) -> None:
    stride = 1 if padding == "same" else stride
    front = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.Conv2d(5, 6, 3, stride, padding, dilation, padding_mode=mode),
        nn.Tanh(),
        nn.Conv2d(6, 6, 3, groups=6, padding=1),
        nn.ReLU(),
        pooling,
        nn.Flatten(),
    )
    features = front(torch.zeros(1, 1, 11, 11)).shape[1]
    model = nn.Sequential(*front, nn.Linear(features, 7), nn.ReLU(), nn.Linear(7, 3))
    verify(sparse(model, density, seed), 1, 11, 11)


class Pyramid(nn.Module):
    """Padding by functions, a split, channels weighed by themselves, an interpolation, and two results."""

    def __init__(self, mode: str, value: float, amounts: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)
        self.depthwise, self.middle = nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(3, 5, 1)
        self.weigh, self.coarse, self.fine = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 3, 2, 1), nn.Conv2d(14, 3, 3)
        self.mode, self.value, self.amounts = mode, value, amounts

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        value = self.value if self.mode == "constant" else None
        features = F.pad(F.relu(self.norm(self.stem(images))), self.amounts, self.mode, value)
        left, right = self.depthwise(features).chunk(2, 1)
        joined = torch.cat([left, F.silu(self.middle(right))], 1)
        joined = joined * torch.sigmoid(self.weigh(F.adaptive_avg_pool2d(joined, 1)))
        coarse = F.relu(self.coarse(joined))
        fine = torch.cat([F.interpolate(coarse, size=joined.shape[-2:], mode="nearest"), joined], 1)
        odd = int(fine.shape[-1]) % 2
        return {"coarse": coarse, "fine": self.fine(F.pad(fine, (odd, 0, 0, odd)))}


@given(
    seed=SEEDS,
    density=DENSITIES,
    mode=st.sampled_from(["constant", "reflect", "replicate", "circular"]),
    value=st.sampled_from([0.0, 0.5]),
    amounts=st.tuples(*(st.integers(0, 2) for _ in range(4))),
    side=st.integers(8, 11),
)
@pytest.mark.slow
def test_pyramids(
    seed: int, density: float, mode: str, value: float, amounts: tuple[int, int, int, int], side: int
) -> None:
    model = sparse(Pyramid(mode, value, amounts), density, seed)
    generator = torch.Generator().manual_seed(0)
    shrunk = shrink(model, torch.randn(2, 2, side, side, generator=generator))
    assert shrunk.not_understood == ()
    for other in (side, side + 1):
        images = torch.randn(4, 2, other, other, generator=generator) * 3
        with torch.no_grad():
            expected, got = model(images), shrunk.model(images)
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name], tensor, rtol=1e-5, atol=1e-5)


class Sequences(nn.Module):
    """1-d convolutions side by side and multiplied, then a linear layer over the features of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv1d(3, 6, 3, padding=1), nn.Conv1d(3, 6, 3, padding=1)
        self.after = nn.Conv1d(12, 8, 3, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.hidden, self.classes = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, signals: Tensor) -> Tensor:
        left, right = torch.relu(self.left(signals)), torch.sigmoid(self.right(signals))
        both = torch.cat([left * right, 1 - 0.5 * right], dim=1)
        steps = self.norm(self.after(both)).relu().permute(0, 2, 1)
        return self.classes(F.silu(self.hidden(steps)).mean(1))


@given(seed=SEEDS, density=DENSITIES)
def test_sequences(seed: int, density: float) -> None:
    verify(sparse(Sequences(), density, seed), 3, 10)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything(density: float) -> None:
    shrunk = verify(sparse(ResidualNetwork(nn.ReLU, 1), density, 1), 2, 9, 9)
    outputs = {layer.outputs for layer in shrunk.layers[:-1]}
    assert outputs == ({1} if density == 0 else {6, 8})
