"""Networks written by hand, of which it is known which units must go, where their constants go, and what stays."""

import copy
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.shrink import ShrinkError, Shrunk, shrink
from gossamer.shrink.outputs import tolerance


def removed(shrunk: Shrunk) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Layer's name -> (unused, constant) units."""
    return {layer.name: (layer.unused, layer.constant) for layer in shrunk.layers}


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Fails the test that is still inside after so long, instead of waiting for ever."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: pytest.fail(f"not finished after {seconds} s"))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fill(parameter: Tensor | None, values: object) -> None:
    assert parameter is not None
    with torch.no_grad():
        parameter.copy_(torch.tensor(values).reshape(parameter.shape))


def in_sixteenths(*shape: int) -> Tensor:
    """Random numbers whose products with a few digits add up exactly, in whichever order a processor's kernel does."""
    return (16 * torch.randn(*shape)).round() / 16


def mlp() -> nn.Sequential:
    """3 inputs, 4 hidden units, 2 outputs. Input 1 and hidden 2 are not read; hidden 1 is always relu(-1) = 0, and
    hidden 3 always relu(2) = 2."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    fill(model[0].weight, [[1.0, 0, 2], [0, 0, 0], [5, 0, 5], [0, 0, 0]])
    fill(model[0].bias, [0.5, -1, 1, 2])
    fill(model[2].weight, [[3.0, 7, 0, 10], [-1, 7, 0, 20]])
    fill(model[2].bias, [0.25, 0.75])
    return model


def test_unused_and_constant_units_go_and_constants_are_folded() -> None:
    model = mlp()
    shrunk = shrink(model, in_sixteenths(8, 3))
    assert removed(shrunk) == {"0": ((2,), (1, 3)), "2": ((), ())}
    smaller = shrunk.model
    assert isinstance(smaller, nn.Sequential)
    assert smaller[0].weight.tolist() == [[1.0, 0.0, 2.0]]
    assert smaller[0].bias.tolist() == [0.5]
    assert smaller[2].weight.tolist() == [[3.0], [-1.0]]
    assert smaller[2].bias.tolist() == [20.25, 40.75]
    assert (shrunk.parameters_before, shrunk.parameters) == (26, 8)
    # Those that are not zero, without the biases.
    assert (shrunk.weights_before, shrunk.weights) == (10, 4)
    assert (smaller[0].in_features, smaller[0].out_features, smaller[2].in_features) == (3, 1, 1)
    assert shrunk.difference == 0.0
    assert shrunk.layers[0].unused_inputs == (1,)


def test_unused_inputs_are_cut_out_on_request_only() -> None:
    shrunk = shrink(mlp(), in_sixteenths(8, 3), select_unused_inputs=True)
    assert shrunk.parameters == 7
    assert shrunk.model[0].index.tolist() == [0, 2]
    assert shrunk.model[0].layer.weight.tolist() == [[1.0, 2.0]]
    assert shrunk.difference == 0.0


def test_the_model_that_was_given_is_not_changed() -> None:
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    shrink(model, torch.randn(8, 3))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_removal_makes_the_next_possible() -> None:
    """Through both directions: a unit is unused once its only reader is gone, and constant once its only input is."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    fill(model[0].weight, [[0.0, 0], [1, 1]])  # Unit 0 is 1.5, unit 1 is read by unit 1 only, which nobody reads.
    fill(model[0].bias, [1.5, 0])
    fill(model[2].weight, [[2.0, 0], [0, 1], [1, 1]])
    fill(model[2].bias, [1.0, 0, 0])
    fill(model[4].weight, [[1.0, 0, 0], [2, 0, 0]])
    fill(model[4].bias, [0.0, 1])
    shrunk = shrink(model, torch.randn(4, 2))
    # The output is constant: every layer keeps one unit, since there are no layers without.
    assert [layer.outputs for layer in shrunk.layers] == [1, 1, 2]
    assert shrunk.model(torch.randn(3, 2)).tolist() == [[4.0, 9.0]] * 3


def convolutions(padding: int, shift: float) -> nn.Sequential:
    """Channel 1 of the first convolution is the constant relu(shift); the second one reads it."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=padding))
    fill(model[0].bias, [0.1, shift, 0.3])
    with torch.no_grad():
        model[0].weight[1] = 0
    return model


def test_a_constant_channel_is_folded_where_there_is_no_padding() -> None:
    model = convolutions(padding=0, shift=2.0)
    shrunk = shrink(model, torch.randn(2, 1, 8, 8))
    assert removed(shrunk)["0"] == ((), (1,))
    expected = model[2].bias + 2 * model[2].weight[:, 1].sum((1, 2))
    torch.testing.assert_close(shrunk.model[2].bias, expected)


def test_a_constant_channel_stays_where_padding_makes_a_border() -> None:
    shrunk = shrink(convolutions(padding=1, shift=2.0), torch.randn(2, 1, 8, 8))
    assert removed(shrunk)["0"] == ((), ())
    assert shrunk.parameters == shrunk.parameters_before


def test_a_channel_of_zeros_goes_in_spite_of_padding() -> None:
    shrunk = shrink(convolutions(padding=1, shift=-2.0), torch.randn(2, 1, 8, 8))
    assert removed(shrunk)["0"] == ((), (1,))


@pytest.mark.parametrize(("tap", "goes"), [((1, 1), True), ((0, 1), False), ((1, 2), False)])
def test_padding_does_not_matter_to_the_middle_of_a_kernel(tap: tuple[int, int], goes: bool) -> None:
    model = convolutions(padding=1, shift=2.0)
    with torch.no_grad():
        model[2].weight[:, 1] = 0
        model[2].weight[:, 1, tap[0], tap[1]] = 1.5
    shrunk = shrink(model, torch.randn(2, 1, 8, 8))
    assert removed(shrunk)["0"] == ((), (1,) if goes else ())


def test_circular_padding_keeps_a_constant_constant() -> None:
    model = convolutions(padding=1, shift=2.0)
    model[2] = nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular")
    assert removed(shrink(model, torch.randn(2, 1, 8, 8)))["0"] == ((), (1,))


@pytest.mark.parametrize(
    ("pooling", "goes"),
    [
        (nn.MaxPool2d(3, 2, padding=1), True),
        (nn.AvgPool2d(2), True),
        (nn.AvgPool2d(3, 2, padding=1), False),  # Counts the zeros around the image.
        (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), True),
        (nn.AvgPool2d(2, divisor_override=3), False),
        (nn.AdaptiveAvgPool2d(3), True),
    ],
)
def test_constants_go_through_pooling_and_flatten(pooling: nn.Module, goes: bool) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 1, 6, 6)
    front = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Sigmoid(), pooling, nn.Flatten())
    with torch.no_grad():
        front[0].weight[2] = 0
        features = front(images).shape[1]
    model = nn.Sequential(*front, nn.Linear(features, 4))
    shrunk = shrink(model, images)
    assert removed(shrunk)["0"] == ((), (2,) if goes else ())
    assert shrunk.layers[1].inputs == (features * 2 // 3 if goes else features)
    assert shrunk.difference < 1e-6


class Residual(nn.Module):
    """x = a(input); x = relu(x + c(relu(b(x)))); linear(mean(x)). All convolutions are 1x1 of three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.linear = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.a(images)
        inside = F.relu(self.b(stream), inplace=True)
        inside = self.c(inside)
        inside += stream
        return self.linear(F.relu(inside, inplace=True).mean(dim=(2, 3)))


def test_a_channel_of_a_sum_stays_while_one_of_its_terms_is_used() -> None:
    model = Residual()
    with torch.no_grad():
        model.c.weight[1] = 0  # One term is constant, the other one is not.
    assert removed(shrink(model, torch.randn(2, 2, 4, 4))) == dict.fromkeys(["a", "b", "c", "linear"], ((), ()))


def test_a_channel_of_a_sum_goes_if_all_terms_are_constant_and_the_constants_add_up() -> None:
    model = Residual()
    with torch.no_grad():
        model.a.weight[1], model.c.weight[1] = 0, 0
        model.a.bias[1], model.c.bias[1] = 2.0, 3.0
    shrunk = shrink(model, torch.randn(2, 2, 4, 4))
    assert removed(shrunk) == {"a": ((), (1,)), "b": ((), ()), "c": ((), (1,)), "linear": ((), ())}
    bias_b = model.b.bias + 2 * model.b.weight[:, 1, 0, 0]
    torch.testing.assert_close(shrunk.model.b.bias, bias_b)
    torch.testing.assert_close(shrunk.model.linear.bias, model.linear.bias + 5 * model.linear.weight[:, 1])
    assert type(shrunk.model) is Residual


def test_a_loop_that_feeds_only_itself_goes() -> None:
    """Channel 1 of the stream is read by unit 1 of the block only, which adds to channel 1 of the stream only."""
    model = Residual()
    with torch.no_grad():
        model.linear.weight[:, 1] = 0
        model.b.weight[:, 1] = 0
        model.b.weight[1, 1] = 1
        model.c.weight[:, 1] = 0
        model.c.weight[1, 1] = 1
    shrunk = shrink(model, torch.randn(2, 2, 4, 4))
    assert removed(shrunk) == {"a": ((1,), ()), "b": ((1,), ()), "c": ((1,), ()), "linear": ((), ())}


def test_a_block_without_effect_is_reduced_to_its_constant() -> None:
    model = Residual()
    with torch.no_grad():
        model.c.weight.zero_()
    shrunk = shrink(model, torch.randn(2, 2, 4, 4))
    assert removed(shrunk)["b"] == ((1, 2), ())  # One is kept.
    assert shrunk.difference < 1e-6


def test_the_shift_of_a_normalisation_is_a_constant() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 2, 3, bias=False))
    with torch.no_grad():
        model[0].weight[0] = 0
        fill(model[1].bias, [3.0, 0, -1])
        fill(model[1].running_mean, [2.0, 0, 0])
        fill(model[1].running_var, [4.0 - 1e-5, 1, 1])
        fill(model[1].weight, [1.0, 1, 0])  # A scale of zero makes channel 2 the constant relu(-1) = 0.
    shrunk = shrink(model, torch.randn(2, 2, 9))
    assert removed(shrunk)["0"] == ((), (0, 2))
    assert shrunk.model[1].num_features == 1
    # relu((0 - 2) / sqrt(4) + 3) = 2: the layer gets a bias, which it did not have.
    torch.testing.assert_close(shrunk.model[3].bias, 2 * model[3].weight[:, 0].sum(1))


def test_depthwise_convolutions_shrink_with_their_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[1].weight[0] = 0  # Constant: the bias.
        model[3].weight[:, 2] = 0  # Unused.
    shrunk = shrink(model, torch.randn(2, 1, 6, 6))
    assert removed(shrunk) == {"0": ((2,), (0,)), "3": ((), ())}
    assert (shrunk.model[1].groups, shrunk.model[1].weight.shape) == (2, (2, 1, 3, 3))


def test_around_what_is_not_understood_everything_stays() -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)
    )
    with torch.no_grad():
        for index in (0, 2, 4, 6):
            model[index].weight[0] = 0
    shrunk = shrink(model, torch.randn(8, 3))
    # A unit goes between the two only.
    assert [layer.outputs for layer in shrunk.layers] == [4, 3, 4, 2]
    assert shrunk.not_understood == ("1 (LayerNorm)", "5 (LayerNorm)")


def test_grouped_convolutions_stay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for layer in model:
            layer.weight[0] = 0
    shrunk = shrink(model, torch.randn(2, 1, 4, 4))
    assert shrunk.parameters == shrunk.parameters_before
    assert shrunk.not_understood == ("1 (Conv2d)",)


class Branches(nn.Module):
    """Two convolutions side by side, and a view that says how many features there are."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 3)
        self.linear = nn.Linear(5 * 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        both = torch.cat([self.left(images), self.right(images)], dim=1)
        return self.linear(F.max_pool2d(both.relu(), 2).view(-1, 20))


def test_a_number_of_features_in_the_code_is_left_open() -> None:
    model = Branches()
    with torch.no_grad():
        model.right.weight[1] = 0
    shrunk = shrink(model, torch.randn(2, 1, 6, 6))
    assert removed(shrunk) == {"left": ((), ()), "right": ((), (1,)), "linear": ((), ())}
    assert isinstance(shrunk.model, torch.fx.GraphModule)
    images = torch.randn(5, 1, 6, 6)
    torch.testing.assert_close(shrunk.model(images), model(images), rtol=0, atol=1e-6)
    # Without a removed unit the model stays of its class.
    assert type(shrink(Branches(), images).model) is Branches


class AsksForChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        return self.second(features) / features.shape[1]


def test_channels_that_the_code_counts_stay() -> None:
    model = AsksForChannels()
    with torch.no_grad():
        model.first.weight[0] = 0
    shrunk = shrink(model, torch.randn(2, 1, 4, 4))
    assert shrunk.parameters == shrunk.parameters_before


class Rows(nn.Module):
    """Makes one row of every image, in one of several ways."""

    def __init__(self, rows: Callable[[Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.rows = rows
        self.first, self.second = nn.Conv2d(1, 3, 1), nn.Linear(features, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.rows(self.first(images)))


@pytest.mark.parametrize(
    ("rows", "features", "goes"),
    [
        (lambda values: values.flatten(1), 12, True),
        (lambda values: values.view(values.size(0), -1), 12, True),
        (lambda values: values.view(values.shape[0], -1), 12, True),
        (lambda values: values[:, :, 1:].flatten(1), 6, True),
        (lambda values: values[:, :, 1].flatten(1), 6, False),
        (lambda values: values.flatten(1) * values.size(1), 12, False),
        (lambda values: values.reshape(values.size(0), values.size(1) * 4), 12, False),
        (lambda values: values.reshape(values.size(0), values.size()[1] * 4), 12, False),
        (lambda values: values.reshape(values.size(0), values.size(-3) * 4), 12, False),
        (lambda values: values.reshape(values.size()[0], -1), 12, True),
        (lambda values: (values + torch.zeros(values.size())).flatten(1), 12, False),
        (lambda values: values.flatten(values.dim() - 3), 12, False),
        (lambda values: values.mean(values.dim() - 1).flatten(1), 6, False),
        (lambda values: torch.cat([values, values], values.dim() - 3).flatten(1), 24, False),
        (lambda values: values.contiguous().flatten(1), 12, True),
        (lambda values: F.dropout(values, 0.5, training=False).flatten(1), 12, True),
        (lambda values: (values * values).flatten(1), 12, True),
        (lambda values: (values - values).flatten(1), 12, True),
        (lambda values: values.permute(0, 2, 3, 1).flatten(1), 12, True),
        (lambda values: values.permute(1, 0, 2, 3).permute(1, 0, 2, 3).flatten(1), 12, False),
        (lambda values: values.mean((2, 3)), 3, True),
        (lambda values: values.mean(1).flatten(1), 4, False),
        (lambda values: values.mean(-1, keepdim=True).flatten(1), 6, True),
        (lambda values: torch.cat([values, values], 1).flatten(1), 24, True),
        (lambda values: torch.cat([values, values], -1).flatten(1), 24, True),
        (lambda values: torch.cat([values, values]).flatten(1), 12, False),
        (lambda values: torch.stack([values, values], 1).flatten(1), 24, False),
        (lambda values: (2 / values.exp()).flatten(1), 12, True),
        (lambda values: (values / 2).flatten(1), 12, True),
    ],
    ids=[
        "flatten",
        "size of the batch",
        "shape",
        "slice",
        "one row",
        "size of the channels",
        "channels counted",
        "channels counted among all sizes",
        "channels counted from the end",
        "the batch counted among all sizes",
        "all sizes",
        "from a computed axis on",
        "mean of a computed axis",
        "twice along a computed axis",
        "contiguous",
        "dropout",
        "a product with itself",
        "a difference to itself",
        "channels last",
        "the batch second",
        "mean of the image",
        "mean of the channels",
        "mean of a row",
        "twice the channels",
        "twice the columns",
        "twice the batch",
        "stacked",
        "divided by it",
        "divided",
    ],
)
def test_what_is_understood_of_sizes_and_slices(rows: Callable[[Tensor], Tensor], features: int, goes: bool) -> None:
    torch.manual_seed(0)
    model = Rows(rows, features)
    with torch.no_grad():
        model.first.weight[1] = 0
    shrunk = shrink(model, torch.randn(2, 1, 2, 2))
    assert removed(shrunk)["first"] == ((), (1,) if goes else ())
    assert shrunk.difference < 1e-6


class SharedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.layer(inputs).relu())


def test_a_layer_that_is_called_twice_stays() -> None:
    model = SharedLayer()
    with torch.no_grad():
        model.layer.weight[0] = 0
    assert shrink(model, torch.randn(4, 3)).parameters == 12


def test_tied_weights_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    model[2].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[0] = 0
    shrunk = shrink(model, torch.randn(4, 3))
    assert shrunk.model[2].weight is shrunk.model[0].weight
    assert shrunk.parameters == shrunk.parameters_before


class RereadsWhatItChanged(nn.Module):
    """The first layer's output is read again, by a layer of its own, after ReLU has changed it in place."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change
        self.first, self.second, self.third = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.first(inputs)
        positive = self.change(features)
        return self.second(positive) + self.third(features)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: F.relu(values, inplace=True),
        torch.relu_,
        lambda values: values.relu_(),
        nn.ReLU(inplace=True),
        lambda values: torch.flatten(values, 1).relu_(),
    ],
    ids=["inplace=True", "function", "method", "module", "view"],
)
def test_values_that_are_changed_in_place_and_read_again_stay(change: Callable[[Tensor], Tensor]) -> None:
    model = RereadsWhatItChanged(change)
    with torch.no_grad():
        model.first.weight[0] = 0
        model.first.bias[0] = -1
    shrunk = shrink(model, torch.randn(4, 3))
    assert shrunk.difference == 0.0
    assert shrunk.parameters == shrunk.parameters_before
    # Not changed in place, the unit is a constant to both readers: 0 to one, -1 to the other.
    other = RereadsWhatItChanged(F.relu)
    other.load_state_dict(model.state_dict())
    assert removed(shrink(other, torch.randn(4, 3)))["first"] == ((), (0,))


class Decides(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.sum() > 0 else -inputs


def test_a_submodule_that_cannot_be_traced_is_left_in_one_piece() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Decides(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[0] = 0
        model[2].weight[0] = 0
    shrunk = shrink(model, torch.randn(4, 3))
    assert shrunk.not_understood == ("1 (Decides)",)
    assert removed(shrunk) == {"0": ((), ()), "2": ((), (0,)), "4": ((), ())}


class DecidesAfterALayer(nn.Module):
    """Has called a layer of its own, successfully, by the time that tracing fails."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.layer(inputs)
        return features if features.sum() > 0 else -features


def test_a_submodule_that_calls_a_layer_and_then_decides_is_left_in_one_piece() -> None:
    model = nn.Sequential(nn.Linear(3, 3), DecidesAfterALayer(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].weight[0] = 0
    with time_limit(20):
        shrunk = shrink(model, torch.randn(4, 3))
    assert shrunk.not_understood == ("1 (DecidesAfterALayer)",)
    assert removed(shrunk) == {"0": ((), ()), "2": ((), (0,)), "4": ((), ())}


def test_a_model_that_cannot_be_traced_is_an_error_that_says_so() -> None:
    with pytest.raises(ShrinkError, match=r"Decides cannot be traced with torch\.fx"):
        shrink(Decides(), torch.randn(4, 3))


def test_weights_that_are_not_finite_are_an_error_that_names_them() -> None:
    model = mlp()
    fill(model[2].bias, [float("inf"), 0])
    with pytest.raises(ShrinkError, match=r"2\.bias holds infinite or NaN"):
        shrink(model, torch.randn(4, 3))


def test_examples_have_to_be_tensors() -> None:
    with pytest.raises(ShrinkError, match="expected a tensor"):
        shrink(mlp(), [1.0])


class OptionalArgument(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()

    def forward(self, inputs: Tensor, factor: Tensor | None = None) -> Tensor:
        outputs = self.layers(inputs)
        return outputs if factor is None else outputs * factor


def test_arguments_that_are_left_out_take_their_defaults() -> None:
    shrunk = shrink(OptionalArgument(), torch.randn(4, 3))
    assert removed(shrunk)["layers.0"] == ((2,), (1, 3))
    both = shrink(OptionalArgument(), [torch.randn(4, 3), torch.randn(4, 2)])
    assert removed(both)["layers.0"] == ((2,), (1, 3))
    inputs, factor = torch.randn(4, 3), torch.randn(4, 2)
    torch.testing.assert_close(both.model(inputs, factor), shrunk.model(inputs) * factor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers(dtype: torch.dtype) -> None:
    shrunk = shrink(mlp().to(dtype), torch.randn(4, 3, dtype=dtype))
    assert removed(shrunk)["0"] == ((2,), (1, 3))
    assert {parameter.dtype for parameter in shrunk.model.parameters()} == {dtype}


def test_memory_format_and_frozen_weights_stay() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    with torch.no_grad():
        model[0].weight[1] = 0
    smaller = shrink(model, torch.randn(2, 3, 8, 8)).model
    assert smaller[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not smaller[0].weight.requires_grad
    assert smaller[2].weight.requires_grad


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_there_has_to_be_an_example(shape: tuple[int, int]) -> None:
    with pytest.raises(ShrinkError, match="expected at least one example"):
        shrink(mlp(), torch.randn(*shape))


class Returning(nn.Module):
    def __init__(self, arrange: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.layers, self.arrange = mlp(), arrange

    def forward(self, inputs: Tensor) -> object:
        return self.arrange(self, inputs)


def test_a_network_returns_a_tensor() -> None:
    with pytest.raises(ShrinkError, match="Returning returns a tuple without tensors; expected a tensor"):
        shrink(Returning(lambda model, inputs: (1, "two")), torch.randn(4, 3))


def test_what_a_trace_does_not_hold_is_an_error() -> None:
    with pytest.raises(ShrinkError, match=r"computes something else than its torch\.fx trace; .*random numbers"):
        shrink(Returning(lambda model, inputs: model.layers(inputs) + torch.rand(())), torch.randn(4, 3))


def test_a_forward_pass_that_depends_on_its_own_sizes_is_an_error() -> None:
    """What it reads of its layers besides their results, nobody sees."""
    model = Returning(lambda model, inputs: model.layers(inputs) * model.layers[0].out_features)
    with pytest.raises(ShrinkError, match=r"differ by .* on the examples; expected at most .* No model is returned"):
        shrink(model, torch.randn(4, 3))


def test_a_parameter_that_the_code_reads_itself_stays() -> None:
    model = Returning(lambda model, inputs: model.layers(inputs) + model.layers[0].weight[0, 0])
    shrunk = shrink(model, torch.randn(4, 3))
    assert [layer.name for layer in shrunk.layers] == ["layers.2"]
    assert shrunk.parameters == shrunk.parameters_before
    assert shrunk.difference == 0.0


def test_how_much_rounding_is_allowed() -> None:
    assert tolerance(0.0, torch.float32) == 1e-4
    assert tolerance(1.0, torch.float32) == 1e-4
    assert tolerance(20.0, torch.float32) == pytest.approx(2e-3)
    assert tolerance(0.5, torch.bfloat16) == pytest.approx(10 / 128)
    assert tolerance(4.0, torch.float16) == pytest.approx(4 * 10 / 1024)


def test_a_layer_whose_weight_is_no_parameter_stays() -> None:
    """Who computed it may do so again."""
    model = mlp()
    weight = model[0]._parameters.pop("weight")
    assert weight is not None
    model[0].weight = weight.detach()
    shrunk = shrink(model, torch.randn(4, 3))
    assert [layer.name for layer in shrunk.layers] == ["2"]
    assert shrunk.difference == 0.0
