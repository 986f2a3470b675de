"""Layers that round while they are trained: what changes in a network, and what does not."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.prune.prunable import prunable_weights
from gossamer.quantise.fake import FakeQuantisation
from gossamer.quantise.network import require_roundable
from gossamer.quantise.scheme import rounded_input, rounded_weight


def quantisation(model: nn.Module) -> FakeQuantisation:
    return FakeQuantisation(model, prunable_weights(model))


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))


def images(seed: int = 1) -> Tensor:
    return torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def by_hand(model: nn.Sequential, inputs: Tensor) -> Tensor:
    """The network of `small`, each layer's inputs rounded in the range of this batch."""
    convolution, linear = model[0], model[4]
    values = rounded_input(inputs, inputs.min(), inputs.max())
    hidden = functional.conv2d(values, rounded_weight(convolution.weight, 0), convolution.bias)
    hidden = model[3](model[2](model[1](hidden)))
    values = rounded_input(hidden, hidden.detach().min(), hidden.detach().max())
    return functional.linear(values, rounded_weight(linear.weight, 0), linear.bias)


def test_layers_round_their_weights_and_inputs_and_pass_gradients_on() -> None:
    model, other = small(), small()
    with quantisation(model).attached():
        found = model(images())
        found.square().sum().backward()
    expected = by_hand(other, images())
    expected.square().sum().backward()
    assert torch.equal(found, expected)
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert same.grad is not None
        torch.testing.assert_close(one.grad, same.grad)


def test_ranges_move_in_training_and_stay_in_evaluation() -> None:
    model = small()
    fake = quantisation(model)
    seen = []
    with fake.attached():
        assert torch.equal(model.eval()(images()), model(images()))  # without a range: not rounded, no error
        assert fake.ranges == {}
        model.train()
        for seed in range(3):
            model(images(seed))
            seen.append((images(seed).min().item(), images(seed).max().item()))
        after = fake.ranges
        model.eval()(10 * images())
        assert fake.ranges == after
    found = after["0.weight"]
    assert found.low == pytest.approx(sum(low for low, _ in seen) / 3)
    assert found.high == pytest.approx(sum(high for _, high in seen) / 3)


def test_after_a_hundred_batches_the_range_moves_by_a_hundredth() -> None:
    model = nn.Linear(2, 1)
    fake = quantisation(model)
    with fake.attached():
        for _ in range(100):
            model(torch.tensor([[0.0, 1.0]]))
        model(torch.tensor([[-1.0, 2.0]]))
        model(torch.tensor([[-1.0, 2.0]]))
    low = -1 + 0.99**2
    assert fake.ranges["weight"].low == pytest.approx(low, rel=1e-4)
    assert fake.ranges["weight"].high == pytest.approx(1 - low, rel=1e-4)


def test_a_network_keeps_its_keys_parameters_and_classes() -> None:
    model = small()
    before, parameters = {name: one.clone() for name, one in model.state_dict().items()}, list(model.parameters())
    with quantisation(model).attached():
        assert model.state_dict().keys() == before.keys()
        assert all(one is same for one, same in zip(model.parameters(), parameters, strict=True))
        assert isinstance(model[0], nn.Conv2d)
        assert model[0].weight is parameters[0]
        assert repr(model) == repr(small())
    assert [type(layer) for layer in model] == [type(layer) for layer in small()]
    assert vars(model[0]).keys() == vars(small()[0]).keys()
    assert torch.equal(model.eval()(images()), small().eval()(images()))


def test_after_an_error_it_is_as_before() -> None:
    model = small()
    with pytest.raises(RuntimeError), quantisation(model).attached():
        model(torch.zeros(1, 7, 6, 6))
    assert "weight" not in vars(model[0])
    assert type(model[0]) is nn.Conv2d


def test_what_is_interrupted_computes_in_float() -> None:
    model = small().eval()
    plain = model(images())
    fake = quantisation(model)
    with fake.attached():
        copied = copy.deepcopy(model)
        with fake.interrupted():
            assert torch.equal(model(images()), plain)
            assert torch.equal(copied(images()), plain)
        assert not torch.equal(model(images()), plain)
        assert not torch.equal(copied(images()), plain)


def test_a_copy_rounds_in_the_same_range_and_leaves_it_alone() -> None:
    model = small()
    fake = quantisation(model)
    with fake.attached():
        model(images())
        copied = torch.optim.swa_utils.AveragedModel(model)
        after = fake.ranges
        copied.train()(10 * images())
        assert fake.ranges == after
        copied.module.load_state_dict(model.state_dict())
        assert torch.equal(copied.eval()(images()), model.eval()(images()))
        twice = copy.deepcopy(copied)
    assert type(copied.module[0]) is nn.Conv2d
    assert type(twice.module[0]) is nn.Conv2d


def test_an_average_from_before_rounds_too() -> None:
    model = small()
    average = copy.deepcopy(model)
    with quantisation(model).attached([average]):
        model(images())
        average.load_state_dict(model.state_dict())
        assert torch.equal(average.eval()(images()), model.eval()(images()))
    assert type(average[0]) is nn.Conv2d


def test_what_is_pickled_is_the_plain_network() -> None:
    model = small().eval()
    plain, file = model(images()), io.BytesIO()
    with quantisation(model).attached():
        torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert type(loaded[0]) is nn.Conv2d
    assert torch.equal(loaded(images()), plain)


def test_a_state_goes_on_to_the_same_bits() -> None:
    models = small(), small()
    fakes = [quantisation(model) for model in models]
    with fakes[0].attached():
        for seed in range(3):
            models[0](images(seed))
        models[1].load_state_dict(models[0].state_dict())
        fakes[1].load_state_dict(fakes[0].state_dict())
        expected = models[0](images(3))
    with fakes[1].attached():
        assert torch.equal(models[1](images(3)), expected)
    assert fakes[0].ranges == fakes[1].ranges
    with pytest.raises(KeyError):
        quantisation(nn.Linear(2, 2)).load_state_dict(fakes[0].state_dict())


def test_ranges_of_an_earlier_moment_can_be_put_back() -> None:
    model = small()
    fake = quantisation(model)
    with fake.attached():
        model(images())
        before, expected = fake.ranges, model.eval()(images())
        model.train()[1].momentum = 0.0
        model(5 * images())
        fake.ranges = before
        assert fake.ranges == before
        assert torch.equal(model.eval()(images()), expected)


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9), 0),
        (nn.Conv3d(2, 3, 2, padding=1), (1, 2, 4, 4, 4), 0),
        (nn.Conv2d(2, 3, 2, padding=1, padding_mode="circular"), (1, 2, 4, 4), 0),
        (nn.ConvTranspose2d(4, 3, 2), (1, 4, 5, 5), 1),
        (nn.ConvTranspose1d(4, 6, 2, groups=2), (1, 4, 5), 1),
        (nn.Linear(4, 3), (2, 7, 4), 0),
    ],
)
def test_weights_are_rounded_by_output_channel(layer: Any, shape: tuple[int, ...], axis: int) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    plain = copy.deepcopy(layer)
    with quantisation(layer).attached():
        found = layer(input=values)
    with torch.no_grad():
        plain.weight.copy_(rounded_weight(plain.weight, axis))
    assert torch.equal(found, plain(rounded_input(values, values.min(), values.max())))


def test_linear_layers_of_transformers() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    torch.manual_seed(0)
    layer = pytorch_utils.Conv1D(3, 4)
    values = torch.randn(2, 4)
    with quantisation(layer).attached():
        found = layer(values)
    expected = rounded_input(values, values.min(), values.max()) @ rounded_weight(layer.weight, 1) + layer.bias
    torch.testing.assert_close(found, expected)


class Standardised(nn.Conv2d):
    """A layer that does something of its own with its weight, as timm's do."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return super()._conv_forward(input, weight, self.bias)


def test_a_layer_s_own_forward_is_kept() -> None:
    torch.manual_seed(0)
    layer, values = Standardised(2, 3, 3), images()
    with quantisation(layer).attached():
        found = layer(values)
    weight = rounded_weight(layer.weight, 0)
    expected = functional.conv2d(
        rounded_input(values, values.min(), values.max()), weight - weight.mean((1, 2, 3), keepdim=True), layer.bias
    )
    assert torch.equal(found, expected)


@pytest.mark.slow
# Torch itself makes one where it traces such a function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_network_notices() -> None:
    model, other = small(), small()
    compiled = torch.compile(model, backend="aot_eager")
    plain = compiled(images())
    other(images())
    fakes = quantisation(model), quantisation(other)
    with fakes[0].attached(), fakes[1].attached():
        for seed in range(3):
            found, expected = compiled(images(seed)), other(images(seed))
            torch.testing.assert_close(found, expected)
    assert fakes[0].ranges.keys() == fakes[1].ranges.keys()
    assert not torch.equal(found, plain)
    torch.testing.assert_close(compiled.eval()(images()), other.eval()(images()))


def test_a_forward_pass_inside_a_backward_pass_moves_no_range() -> None:
    models = small(), small()
    fakes = [quantisation(model) for model in models]
    with fakes[0].attached(), fakes[1].attached():
        models[0](images()).sum().backward()
        result = checkpoint(models[1], images().requires_grad_(), use_reentrant=False)
        assert isinstance(result, Tensor)
        result.sum().backward()
    assert torch.equal(fakes[0].state_dict()["4.weight"], fakes[1].state_dict()["4.weight"])
    torch.testing.assert_close(models[0][0].weight.grad, models[1][0].weight.grad)


def test_mixed_precision() -> None:
    model = small()
    fake = quantisation(model)
    with fake.attached():
        with torch.autocast("cpu", torch.bfloat16):
            model(images()).float().sum().backward()
            found = model.eval()(images())
        torch.testing.assert_close(found.float(), model(images()), atol=0.1, rtol=0.1)
    assert model[0].weight.grad is not None
    half = small().bfloat16()
    with quantisation(half).attached():
        assert half(images().bfloat16()).dtype == torch.bfloat16


def test_a_whole_encoder_layer_is_not_computed_at_once() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    values = torch.randn(2, 5, 8)
    fake = quantisation(model)
    fast = torch.backends.mha.get_fastpath_enabled()
    with fake.attached():
        model(values)
        expected = model.eval()(values)
        with torch.no_grad():
            torch.testing.assert_close(model(values), expected)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert fake.ranges.keys() == {"linear1.weight", "linear2.weight"}
    with pytest.warns(GossamerWarning, match=r"2 of 4 .* self_attn.in_proj_weight, self_attn.out_proj.weight. Only"):
        require_roundable(model, prunable_weights(model))


def test_layers_that_cannot_round_are_named() -> None:
    model = nn.LSTM(3, 4)
    with pytest.raises(ConfigurationError, match=r"\(weight_ih_l0, weight_hh_l0\)"):
        require_roundable(model, prunable_weights(model))
    convolutions = small()
    require_roundable(convolutions, prunable_weights(convolutions))  # a warning would be an error


def test_tied_layers_have_a_range_each() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    fake = quantisation(model)
    with fake.attached():
        model(torch.randn(3, 4)).sum().backward()
    assert fake.ranges["0.weight"].low < 0 == fake.ranges["2.weight"].low


def test_layers_that_were_never_called() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    fake = quantisation(model)
    with fake.attached():
        with pytest.raises(ConfigurationError, match="none of its layers was called in training mode"):
            fake.require_trained(3)
        model["used"](torch.ones(1, 2))
        with pytest.warns(GossamerWarning, match=r"1 layers were not called in round 3, .*: unused\.weight"):
            fake.require_trained(3)
    assert fake.ranges.keys() == {"used.weight"}


def test_data_parallel_over_processes(tmp_path: Path) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, other = small(), small()
        parallel = nn.parallel.DistributedDataParallel(model)
        with quantisation(parallel).attached(), quantisation(other).attached():
            for seed in range(2):
                parallel(images(seed)).square().sum().backward()
                other(images(seed)).square().sum().backward()
        for one, same in zip(model.parameters(), other.parameters(), strict=True):
            assert one.grad is not None
            assert torch.equal(one.grad, same.grad)
    finally:
        distributed.destroy_process_group()
