"""Padding, interpolation and splitting by functions: what stays constant behind them, worked out by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.explain.paths import count_paths
from gossamer.explain.unit_graph import unit_graph
from gossamer.shrink import Shrunk, shrink
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand

Step = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """Two convolutions of kernel 3 without padding; channel 1 of the first is the constant relu(shift)."""

    def __init__(self, step: Step, shift: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 3)
        self.step = step
        with torch.no_grad():
            self.first.weight[1] = 0
            assert self.first.bias is not None
            self.first.bias.copy_(torch.tensor([0.1, shift, 0.3]))

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.step(self.first(images).relu()))  # type: ignore[no-any-return]


def constants_removed(step: Step, shift: float, side: int = 8) -> tuple[int, ...]:
    """The constant channels of the first layer that went; what is left computes the same for images of other sizes."""
    model = Between(step, shift)
    shrunk = shrink(model, torch.randn(2, 1, side, side))
    assert shrunk.not_understood == ()
    for other in (7, 8, 9, 12):
        images = torch.randn(3, 1, other, other)
        torch.testing.assert_close(shrunk.model(images), model(images))
    return shrunk.layers[0].constant


def even(images: Tensor) -> Tensor:
    """Padded with zeros to a side that is even, as TensorFlow's "same" does it."""
    odd = int(images.shape[-1]) % 2
    return F.pad(images, (0, odd, 0, odd))


def bordered(images: Tensor) -> Tensor:
    """Padded only if the image is small."""
    return F.pad(images, [1, 1, 1, 1]) if images.shape[2] < 7 else images


PADDINGS: list[tuple[Step, float, bool]] = [
    # A zero stays one; two beside zeros is no constant.
    (lambda images: F.pad(images, (1, 1, 1, 1)), -1.0, True),
    (lambda images: F.pad(images, (1, 1, 1, 1)), 2.0, False),
    (lambda images: F.pad(images, (0, 0, 2, 0)), 2.0, False),
    (nn.ZeroPad2d(1), -1.0, True),
    (nn.ZeroPad2d((0, 1, 0, 1)), 2.0, False),
    # It is one beside twos, beside which a zero is none.
    (lambda images: F.pad(images, (1, 1), value=2.0), 2.0, True),
    (lambda images: F.pad(images, (1, 1), "constant", 2), -1.0, False),
    (nn.ConstantPad2d(1, 2.0), 2.0, True),
    (nn.ConstantPad2d(1, 2.0), -1.0, False),
    # Pixels that are repeated are the same as they are.
    (lambda images: F.pad(images, (1, 1, 2, 2), mode="reflect"), 2.0, True),
    (lambda images: F.pad(images, (1, 1, 2, 2), "replicate"), 2.0, True),
    (lambda images: F.pad(images, (1, 1, 2, 2), mode="circular"), 2.0, True),
    (nn.ReflectionPad2d(1), 2.0, True),
    (nn.ReplicationPad2d(1), 2.0, True),
    (nn.CircularPad2d(1), 2.0, True),
    # By a number that the size decides: images of 8 pixels, 6 here, are not padded, those of 9 are.
    (even, -1.0, True),
    (even, 2.0, False),
    (bordered, -1.0, True),
    # Interpolation.
    (lambda images: F.interpolate(images, scale_factor=2.0), 2.0, True),
    (lambda images: F.interpolate(images, size=images.shape[-2:], mode="bilinear"), 2.0, True),
    (lambda images: F.interpolate(images, (9, 9), mode="bicubic"), 2.0, True),
    (nn.Upsample(scale_factor=2, mode="bilinear"), 2.0, True),
    (nn.UpsamplingNearest2d(scale_factor=2), 2.0, True),
]


@pytest.mark.parametrize(("step", "shift", "goes"), PADDINGS)
def test_what_stays_constant(step: Step, shift: float, goes: bool) -> None:
    assert constants_removed(step, shift) == ((1,) if goes else ())


def test_the_constant_of_a_padded_channel_is_folded() -> None:
    shrunk = shrink(Between(nn.ReplicationPad2d(1), 2.0), torch.randn(2, 1, 8, 8))
    second = Between(nn.ReplicationPad2d(1), 2.0).second
    assert second.bias is not None
    torch.testing.assert_close(shrunk.model.second.bias, second.bias + 2 * second.weight[:, 1].sum((1, 2)))  # type: ignore


class Widening(nn.Module):
    """A residual sum whose shortcut has channels of zeros before and after its own: 0 and 3 of 4 (He et al.'s A)."""

    def __init__(self, dead: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.block, self.last = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1)
        with torch.no_grad():
            self.first.weight[1] = 0
            assert self.first.bias is not None
            self.first.bias.copy_(torch.tensor([0.5, -1.0]))
            for channel in dead:
                self.block.weight[channel] = 0
                assert self.block.bias is not None
                self.block.bias[channel] = 0

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images).relu()
        return self.last(self.block(features) + F.pad(features[:, :, ::1, ::1], (0, 0, 0, 0, 1, 1)))  # type: ignore


def widened(dead: tuple[int, ...]) -> Shrunk:
    model = Widening(dead)
    shrunk = shrink(model, torch.randn(2, 1, 4, 4))
    images = torch.randn(3, 1, 5, 5)
    torch.testing.assert_close(shrunk.model(images), model(images))
    return shrunk


@pytest.mark.parametrize(
    ("dead", "first", "block"),
    [
        # Channel 1 of the first layer is zero, and channel 2 of the sum, where it goes, is zero with it.
        ((2,), (1,), (2,)),
        # Something else is added to it.
        ((1,), (), ()),
        # The shortcut's code goes on adding channels 0 and 3.
        ((0, 3), (), ()),
        ((0, 2, 3), (1,), (2,)),
    ],
)
def test_padded_channels_move_the_others(dead: tuple[int, ...], first: tuple[int, ...], block: tuple[int, ...]) -> None:
    layers = {layer.name: layer.constant for layer in widened(dead).layers}
    assert layers == {"first": first, "block": block, "last": ()}


def test_paths_through_padded_channels() -> None:
    """1 path to each of the two channels; block: 2 x 4 connections; shortcut: 1 each; last: 2 readers of each of 4."""
    model = Widening(()).eval()
    with torch.no_grad():
        for layer in (model.first, model.block, model.last):
            layer.weight.fill_(1)
    graph = unit_graph(understand(trace(model, (torch.randn(2, 1, 4, 4),))))
    assert graph is not None
    assert count_paths(graph).total == (2 * 4 + 2) * 2


class Split(nn.Module):
    """The first half of four channels goes round the second convolution."""

    def __init__(self, split: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.middle, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(2, 3, 1), nn.Conv2d(5, 2, 1)
        self.split = split
        with torch.no_grad():
            self.first.weight[2] = 0
            self.middle.weight[:, 1] = 0

    def forward(self, images: Tensor) -> Tensor:
        left, right = self.split(self.first(images))
        return self.last(torch.cat([left, self.middle(right)], dim=1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "split",
    [
        lambda features: features.chunk(2, 1),
        lambda features: torch.split(features, 2, dim=1),
        lambda features: features.split([2, features.shape[1] - 2], dim=1),
        lambda features: tuple(torch.tensor_split(features, 2, dim=1)),
    ],
)
def test_parts_of_a_split_are_known(split: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    """All channels stay, since the code says how many there are; what the constant one carries is folded, and paths are
    those of its parts."""
    model = Split(split).eval()
    shrunk = shrink(model, torch.randn(2, 1, 6, 6))
    assert shrunk.not_understood == ()
    # Of the middle layer, which reads a constant alone, one unit stays, since there are no layers without any.
    assert {layer.name: layer.removed for layer in shrunk.layers} == {"first": 0, "middle": 2, "last": 0}
    graph = unit_graph(understand(trace(model, (torch.randn(2, 1, 6, 6),))))
    assert graph is not None
    # 9 weights into each of channels 0, 1 and 3; 0 and 1 are read by the last layer, 2 alone by the middle one.
    assert count_paths(graph).total == 2 * 9 * 2


def test_a_split_of_which_not_all_is_known_stays_as_it_is() -> None:
    model = Split(lambda features: torch.stack(features.chunk(2, 1)).unbind())  # type: ignore[arg-type]
    shrunk = shrink(model, torch.randn(2, 1, 6, 6))
    assert any("chunk" in description for description in shrunk.not_understood)


class SqueezeAndExcitation(nn.Module):
    """Channels times weights of their own; channel 1 of the image's features is zero, channel 2's weight is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.weigh, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1)
        with torch.no_grad():
            self.first.weight[1] = 0
            self.weigh.weight[2] = 0
            assert self.first.bias is not None
            assert self.weigh.bias is not None
            self.first.bias[1] = 0
            self.weigh.bias[2] = -5

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        weights = F.relu6(self.weigh(F.adaptive_avg_pool2d(features, 1)))
        return self.last(weights * features)  # type: ignore[no-any-return]


def test_a_product_of_different_shapes() -> None:
    """Channel 1 is zero and so is its product, and nothing but the weights of all channels reads it; channel 2 is read
    by these too."""
    model = SqueezeAndExcitation()
    shrunk = shrink(model, torch.randn(2, 1, 6, 6))
    assert shrunk.not_understood == ()
    assert {layer.name: layer.removed for layer in shrunk.layers} == {"first": 1, "weigh": 1, "last": 0}
    images = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(shrunk.model(images), model(images))


class Derived(nn.Conv2d):
    """Another way to be made, and nothing else: as transformers' EfficientNet has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, groups=channels)
        self.depth_multiplier = 1


class Otherwise(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight - weight.mean(), bias)


def test_a_layer_of_a_derived_class() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), Derived(3), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        model[2].weight[:, 1] = 0
    shrunk = shrink(model, torch.randn(2, 1, 8, 8))
    assert shrunk.layers[0].unused == (1,)
    smaller = shrunk.model
    assert isinstance(smaller, nn.Sequential)
    assert isinstance(smaller[1], Derived)
    assert smaller[1].groups == 2


def test_a_layer_of_a_class_that_computes_something_else() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), Otherwise(3, 3, 1), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        model[1].weight[:, 1] = 0
    shrunk = shrink(model, torch.randn(2, 1, 8, 8))
    assert shrunk.units_removed == 0
    assert len(shrunk.not_understood) > 0


def test_a_size_of_the_batch_decides_nothing() -> None:
    """What depends on the number of examples is left as one piece."""

    class ByBatch(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features * 2 if features.shape[0] > 2 else features

    model = nn.Sequential(nn.Linear(3, 4), ByBatch(), nn.Linear(4, 2))
    shrunk = shrink(model, torch.randn(2, 3))
    assert shrunk.not_understood == ("1 (ByBatch)",)
    inputs = torch.randn(8, 3)
    torch.testing.assert_close(shrunk.model(inputs), model(inputs))
