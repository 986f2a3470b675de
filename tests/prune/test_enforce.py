"""Zeros stay zero: whatever steps on the weights, and without a trace in the user's model."""

import copy
import gc
import io
import shutil
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Optimizer

import gossamer
from gossamer.errors import PrunedWeightError
from gossamer.prune.attach import AttachedMask
from gossamer.prune.enforce import attach_masks, attached_masks, detach_masks

Prune = Callable[..., dict[str, Tensor]]
Make = Callable[[Iterable[nn.Parameter]], Optimizer]


def make(kind: type[Optimizer], **arguments: Any) -> Make:
    return lambda parameters: kind(parameters, **arguments)


OPTIMIZERS: dict[str, Make] = {
    "SGD": make(torch.optim.SGD, lr=0.05),
    "SGD momentum": make(torch.optim.SGD, lr=0.05, momentum=0.9),
    "SGD nesterov": make(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "SGD maximize": make(torch.optim.SGD, lr=0.001, momentum=0.9, maximize=True),
    "Adam": make(torch.optim.Adam, lr=0.01),
    "Adam amsgrad": make(torch.optim.Adam, lr=0.01, amsgrad=True, weight_decay=0.01),
    "AdamW": make(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "NAdam": make(torch.optim.NAdam, lr=0.01, weight_decay=0.01),
    "RAdam": make(torch.optim.RAdam, lr=0.01, weight_decay=0.01),
    "Adamax": make(torch.optim.Adamax, lr=0.01, weight_decay=0.01),
    "RMSprop": make(torch.optim.RMSprop, lr=0.01, weight_decay=0.01),
    "RMSprop centered": make(torch.optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "Adagrad": make(torch.optim.Adagrad, lr=0.05, weight_decay=0.01, initial_accumulator_value=0.1),
    "Adadelta": make(torch.optim.Adadelta, lr=1.0, weight_decay=0.01),
    "ASGD": make(torch.optim.ASGD, lr=0.05, weight_decay=0.01, t0=0),
    "Rprop": make(torch.optim.Rprop, lr=0.01),
}
for_loop = {f"{name}, for-loop": lambda p, m=m: _set(m(p), foreach=False) for name, m in OPTIMIZERS.items()}
foreach = {f"{name}, foreach": lambda p, m=m: _set(m(p), foreach=True) for name, m in OPTIMIZERS.items()}
fused = {
    f"{name}, fused": lambda p, m=OPTIMIZERS[name]: _set(m(p), foreach=False, fused=True)
    for name in ("SGD", "SGD momentum", "SGD nesterov", "Adam", "Adam amsgrad", "AdamW", "Adagrad")
}
VARIANTS: dict[str, Make] = {**for_loop, **foreach, **fused}


def _set(optimizer: Optimizer, **arguments: Any) -> Optimizer:
    """The same optimizer in another implementation."""
    group = {k: v for k, v in optimizer.param_groups[0].items() if k not in ("params", "foreach", "fused")}
    return type(optimizer)(optimizer.param_groups[0]["params"], **_arguments(type(optimizer), group), **arguments)


def _arguments(kind: type[Optimizer], group: dict[str, Any]) -> dict[str, Any]:
    accepted = kind.__init__.__code__.co_varnames[: kind.__init__.__code__.co_argcount]
    return {name: value for name, value in group.items() if name in accepted}


class Net(nn.Module):
    """A convolution, a normalisation and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 2 * 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(images)).relu().flatten(1))


def batches(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(8, 2, 4, 4, generator=generator).to(dtype), torch.randint(0, 3, (8,), generator=generator)


def train(
    model: nn.Module, optimizer: Optimizer, steps: int = 3, seed: int = 0, after: Callable[[], None] = lambda: None
) -> None:
    dtype = next(model.parameters()).dtype
    for images, labels in batches(steps, seed, dtype):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        after()


def assert_zero(model: nn.Module, masks: dict[str, Tensor], *optimizers: Optimizer) -> None:
    """The oracle of the invariant, without gossamer: every weight, gradient and slot of a weight's shape."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    looked_at = 0
    for name, mask in masks.items():
        parameter = parameters[name]
        tensors = [parameter.detach(), parameter.grad]
        for optimizer in optimizers:
            tensors += [s for s in optimizer.state.get(parameter, {}).values() if isinstance(s, Tensor) and s.dim()]
        for tensor in tensors:
            if tensor is not None and tensor.shape == mask.shape:
                dense = tensor.to_dense() if tensor.is_sparse else tensor
                assert dense[~mask].abs().sum().item() == 0, name
                assert not torch.signbit(dense[~mask]).any(), f"{name} holds -0.0"
                looked_at += int((~mask).sum())
    assert looked_at > 0


def reference(
    make_optimizer: Make,
    before: Net,
    masks: dict[str, Tensor],
    steps: int,
    optimizer_state: dict[str, Any] | None = None,
    clip: float | None = None,
) -> dict[str, Tensor]:
    """The method by hand: hidden weights, masks multiplied into the forward pass, the same optimizer on the hidden."""
    model = copy.deepcopy(before)
    hidden = dict(model.named_parameters())
    optimizer = make_optimizer(hidden.values())
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    dtype = next(iter(hidden.values())).dtype

    def effective() -> dict[str, Tensor]:
        return {name: p * masks[name] if name in masks else p for name, p in hidden.items()}

    for images, labels in batches(steps, 1, dtype):
        optimizer.zero_grad()
        functional.cross_entropy(functional_call(model, effective(), images), labels).backward()
        if clip is not None:
            norm = sum(p.grad.double().square().sum() for p in hidden.values()).sqrt()
            for p in hidden.values():
                p.grad.mul_(min(1.0, clip / (float(norm) + 1e-6)))
        optimizer.step()
    return {name: tensor.detach() for name, tensor in effective().items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_weight_gradient_and_slots_are_zero_after_every_step(variant: str, prune: Prune) -> None:
    model = Net()
    optimizer = VARIANTS[variant](model.parameters())
    train(model, optimizer)
    masks = prune(model, 0.5)
    assert_zero(model, masks)
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))
    gossamer.check(model, optimizer)
    masks = prune(model, 0.2, masks=masks)
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))
    gossamer.check(model, optimizer)
    assert sum(int((p != 0).sum()) for n, p in model.named_parameters() if n in masks) == sum(
        int(mask.sum()) for mask in masks.values()
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_equals_masks_multiplied_into_the_forward_pass(variant: str, prune: Prune) -> None:
    """With an optimizer that lived through the cut and still remembers what was pruned."""
    model = Net().double()
    optimizer = VARIANTS[variant](model.parameters())
    train(model, optimizer)
    before, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    masks = prune(model, 0.4)
    expected = reference(VARIANTS[variant], before, masks, 5, state)
    train(model, optimizer, 5, seed=1)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_plain_sgd_equals_the_reference_to_the_last_bit(prune: Prune) -> None:
    model = Net()
    before = copy.deepcopy(model)
    masks = prune(model, 0.4)
    expected = reference(OPTIMIZERS["SGD nesterov"], before, masks, 5)
    train(model, OPTIMIZERS["SGD nesterov"](model.parameters()), 5, seed=1)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach(), expected[name]), name


def test_clipping_sees_the_norm_of_the_masked_network(prune: Prune) -> None:
    model = Net().double()
    before = copy.deepcopy(model)
    masks = prune(model, 0.3)
    expected = reference(OPTIMIZERS["SGD momentum"], before, masks, 4, clip=0.05)
    optimizer = OPTIMIZERS["SGD momentum"](model.parameters())
    for images, labels in batches(4, 1, torch.float64):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        assert norm > 0.05
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12)


def test_adafactor_and_muon_keep_zeros(prune: Prune) -> None:
    """Their slots are factors or their updates mix the weights of a layer: the reference does not apply."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    matrices = [model[0].weight, model[2].weight]
    optimizers: list[Optimizer] = [torch.optim.Adafactor(model.parameters(), lr=0.01)]
    if hasattr(torch.optim, "Muon"):
        optimizers.append(torch.optim.Muon(matrices, lr=0.01))
    masks: dict[str, Tensor] | None = None
    for density in (0.6, 0.3):
        masks = prune(model, density, masks=masks)
        for optimizer in optimizers:
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.randn(7, 6)).square().sum().backward()
                optimizer.step()
                assert_zero(model, masks, optimizer)
    gossamer.check(model)


class Normalised(Optimizer):
    """Momentum of which every step has length one: what the slot holds at one position moves all the others."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            slot = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            slot.mul_(0.9).add_(parameter.grad)
            parameter.sub_(0.1 * slot / slot.norm())


def test_the_first_step_after_a_cut_does_not_feel_the_momentum_of_what_was_pruned() -> None:
    layer = nn.Linear(2, 1, bias=False)
    optimizer = Normalised(layer.parameters())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[5.0, 1.0]]))
    (layer.weight * torch.tensor([[3.0, 40.0]])).sum().backward()
    optimizer.step()
    attach_masks(layer, gossamer.prunable_weights(layer), {"weight": torch.tensor([[True, False]])})
    before = layer.weight[0, 0].item()
    layer.zero_grad()
    layer.weight.sum().backward()
    optimizer.step()
    # Alone, the weight that is left makes a step of the whole length.
    assert layer.weight[0, 0].item() == pytest.approx(before - 0.1, abs=1e-6)
    assert layer.weight[0, 1].item() == 0


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_equals_lbfgs_on_the_weights_that_are_left(search: str | None, prune: Prune) -> None:
    """The oracle knows of no pruned weights at all: its variables are the vector of the kept ones."""
    inputs, targets = torch.randn(30, 6, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=5, line_search_fn=search)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.mse_loss(model(inputs), targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.step(closure)
    masks = prune(model, 0.5)
    left = {name: masks.get(name, torch.ones_like(p, dtype=torch.bool)) for name, p in model.named_parameters()}
    vector = torch.cat([p.detach()[left[name]] for name, p in model.named_parameters()]).requires_grad_()
    oracle = torch.optim.LBFGS([vector], lr=0.5, max_iter=4, history_size=5, line_search_fn=search)

    def spread() -> dict[str, Tensor]:
        parts = vector.split([int(mask.sum()) for mask in left.values()])
        return {
            name: torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, part)
            for (name, mask), part in zip(left.items(), parts, strict=True)
        }

    def oracle_closure() -> Tensor:
        oracle.zero_grad()
        loss = functional.mse_loss(functional_call(model, spread(), inputs), targets)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        oracle.step(oracle_closure)
        assert_zero(model, masks)
        gossamer.check(model, optimizer)
        for name, expected in spread().items():
            torch.testing.assert_close(model.get_parameter(name).detach(), expected.detach(), rtol=1e-7, atol=1e-9)


def test_lbfgs_goes_on_undisturbed_when_another_model_is_pruned(prune: Prune) -> None:
    inputs = torch.randn(30, 6, dtype=torch.float64)

    def run(disturb: bool) -> Tensor:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        prune(model, 0.5)
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (model(inputs) - inputs[:, :2]).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
            if disturb:
                prune(nn.Linear(3, 3))
        return model[0].weight.detach().clone()

    assert torch.equal(run(disturb=True), run(disturb=False))


@pytest.mark.parametrize(
    "variant", ["SGD nesterov, for-loop", "SGD momentum, foreach", "AdamW, foreach", "Adam, fused"]
)
def test_grad_scaler(variant: str, prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    optimizer = VARIANTS[variant](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for images, labels in batches(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert_zero(model, masks, optimizer)
    gossamer.check(model)
    assert scaler.get_scale() == 1024.0


def test_grad_scaler_finds_no_infinity_at_pruned_positions(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    pruned = ~masks["head.weight"]
    model.head.weight.register_hook(lambda gradient: gradient.masked_fill(pruned, float("inf")))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = model.head.weight.detach().clone()
    for images, labels in batches(1):
        scaler.scale(functional.cross_entropy(model(images), labels)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 8.0
    assert not torch.equal(model.head.weight, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("variant", ["SGD nesterov, foreach", "Adam, for-loop", "AdamW, fused", "RMSprop, foreach"])
def test_gradients_at_pruned_positions_that_are_not_finite(variant: str, bad: float, prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    pruned = ~masks["conv.weight"]
    model.conv.weight.register_hook(lambda gradient: gradient.masked_fill(pruned, bad))
    optimizer = VARIANTS[variant](model.parameters())
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_gradient_accumulation(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    for step, (images, labels) in enumerate(batches(6)):
        functional.cross_entropy(model(images), labels).backward()
        assert_zero(model, masks)
        if step % 3 == 2:
            optimizer.step()
            assert_zero(model, masks, optimizer)
            optimizer.zero_grad(set_to_none=False)
    gossamer.check(model)


def test_gradients_written_by_hand_are_stopped_at_the_step(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        assert_zero(model, masks, optimizer)
    gossamer.check(model)


def test_slots_that_were_loaded_from_before_the_cut(prune: Prune) -> None:
    model = Net()
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    train(model, optimizer)
    dense = copy.deepcopy(optimizer.state_dict())
    masks = prune(model, 0.5)
    train(model, optimizer, 1)
    optimizer.load_state_dict(dense)
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))


def test_several_optimizers_on_one_model(prune: Prune) -> None:
    model = Net()
    first = torch.optim.SGD(model.conv.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    second = torch.optim.AdamW([*model.norm.parameters(), *model.head.parameters()], lr=0.1)
    train(model, first, 1)
    train(model, second, 1)
    masks = prune(model, 0.5)
    for images, labels in batches(3):
        model.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        first.step()
        second.step()
        assert_zero(model, masks, first, second)
    gossamer.check(model)


def test_a_group_of_parameters_added_after_the_first_step(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    train(model, optimizer, 1)
    optimizer.add_param_group({"params": list(model.conv.parameters())})
    for images, labels in batches(3):
        functional.cross_entropy(model(images), labels).backward()
        model.conv.weight.grad = torch.ones_like(model.conv.weight)
        optimizer.step()
        assert_zero(model, masks, optimizer)


def test_parameters_swapped_for_others_in_a_group(prune: Prune) -> None:
    """As many as before, but not the same."""
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    masks = prune(nn.Sequential(first, second), 0.5)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.1, momentum=0.9)
    first(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["params"] = list(second.parameters())
    for _ in range(2):
        second.weight.grad = torch.ones_like(second.weight)
        optimizer.step()
    assert second.weight.detach()[~masks["1.weight"]].abs().sum() == 0


def test_frozen_layers_are_pruned_and_stay_so_when_they_thaw(prune: Prune) -> None:
    model = Net()
    model.conv.requires_grad_(False)
    masks = prune(model, 0.5)
    assert not model.conv.weight.requires_grad
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))
    model.conv.requires_grad_(True)
    for images, labels in batches(2):
        functional.cross_entropy(model(images), labels).backward()
        assert_zero(model, masks)
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))


def test_weights_tied_as_one_parameter(prune: Prune) -> None:
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6, bias=False))
    model[1].weight = model[0].weight
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(model(torch.arange(6)), torch.arange(6).flip(0)).backward()
        optimizer.step()
        assert_zero(model, masks, optimizer)
        assert_zero(model, {"1.weight": masks["0.weight"]}, optimizer)
    gossamer.check(model)


def test_weights_tied_as_two_parameters_on_one_memory(prune: Prune) -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False))
    model[2].weight = nn.Parameter(model[0].weight.data)
    masks = prune(model, 0.5)
    assert list(masks) == ["0.weight"]
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    both = {"0.weight": masks["0.weight"], "2.weight": masks["0.weight"]}
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        assert_zero(model, both)
        optimizer.step()
        assert_zero(model, both, optimizer)
    gossamer.check(model)
    model[2].weight.grad = torch.ones(4, 4)
    with pytest.raises(PrunedWeightError, match=r"2\.weight\.grad is 1"):
        gossamer.check(model)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        make(torch.optim.SparseAdam, lr=0.1),
        make(torch.optim.SGD, lr=0.1),
        make(torch.optim.SGD, lr=0.1, momentum=0.9),
        make(torch.optim.Adagrad, lr=0.1),
    ],
    ids=["SparseAdam", "SGD", "SGD momentum", "Adagrad"],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # Adagrad makes its own sparse tensors.
def test_sparse_gradients_of_embeddings(make_optimizer: Make, prune: Prune) -> None:
    model = nn.Sequential(nn.Embedding(6, 3, sparse=True))
    optimizer = make_optimizer(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        (model(torch.tensor([1, 2, 2, 5])) * torch.arange(1.0, 4.0)).sum().backward()
        optimizer.step()

    step()
    masks = prune(model, 0.5, gossamer.Scope(embeddings=True))
    for _ in range(3):
        step()
        assert model[0].weight.grad.is_sparse
        assert_zero(model, masks, optimizer)
    gossamer.check(model, optimizer)


def test_sparse_gradients_accumulate_as_they_would_without_masks(prune: Prune) -> None:
    model = nn.Sequential(nn.Embedding(6, 3, sparse=True))
    masks = prune(model, 0.5, gossamer.Scope(embeddings=True))["0.weight"]
    for rows in ([1, 2, 2], [5, 2]):
        model(torch.tensor(rows)).sum().backward()
    expected = torch.tensor([0.0, 1, 3, 0, 0, 1])[:, None].expand(6, 3) * masks
    assert torch.equal(model[0].weight.grad.to_dense(), expected)


def test_the_gradient_of_a_plain_sum(prune: Prune) -> None:
    """It arrives as one number expanded to the shape of the weight."""
    layer = nn.Linear(4, 4, bias=False)
    mask = prune(layer, 0.5)["weight"]
    layer.weight.sum().backward()
    assert torch.equal(layer.weight.grad, mask.float())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_memory_formats_are_left_alone(layout: torch.memory_format, prune: Prune) -> None:
    model = Net().to(memory_format=layout)
    stride = model.conv.weight.stride()
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))
    assert model.conv.weight.stride() == stride


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_moved_to_another_type_keeps_its_zeros(dtype: torch.dtype, prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    model.to(dtype)
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    train(model, optimizer, after=lambda: assert_zero(model, masks, optimizer))
    gossamer.check(model)
    assert {name: mask.tolist() for name, mask in attached_masks(model).items()} == {
        n: m.tolist() for n, m in masks.items()
    }


def test_replaced_parameters_are_noticed(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    model.load_state_dict(Net().state_dict(), assign=True)
    with pytest.raises(PrunedWeightError, match="no masks are attached"):
        gossamer.check(model)
    with pytest.raises(PrunedWeightError, match=r"conv\.weight is "):
        gossamer.check(model, masks=masks)


# --- the user's model stays as it was -------------------------------------------------------------------------------


def anatomy(model: nn.Module) -> list[object]:
    """Class, attributes and hooks of every module, and the keys of the state."""
    parts: list[object] = [list(model.state_dict())]
    for name, module in model.named_modules():
        hooks = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        parts.append((name, type(module), sorted(vars(module)), hooks, list(module._parameters), list(module._buffers)))
    return parts


def test_classes_attributes_hooks_and_state_keys_stay_as_they_were(prune: Prune) -> None:
    model = Net()
    before, identities = anatomy(model), [id(p) for p in model.parameters()]
    prune(model, 0.5)
    train(model, OPTIMIZERS["AdamW"](model.parameters()))
    assert anatomy(model) == before
    assert [id(p) for p in model.parameters()] == identities
    assert all(type(p) is nn.Parameter for p in model.parameters())


def test_a_deepcopy_is_an_ordinary_model_with_the_same_zeros(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    train(model, OPTIMIZERS["AdamW"](model.parameters()))
    copied = copy.deepcopy(model)
    assert_zero(copied, masks)
    gossamer.check(copied, masks=masks)
    with pytest.raises(PrunedWeightError, match="no masks are attached to this Net"):
        gossamer.check(copied)
    # The copy trains as any model does, and the original is not touched by it.
    train(copied, OPTIMIZERS["SGD"](copied.parameters()), 1)
    assert any(bool(copied.get_parameter(name).detach()[~mask].any()) for name, mask in masks.items())
    gossamer.check(model)


def test_a_deepcopy_of_model_and_optimizer_together(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    train(model, optimizer)
    copied, copied_optimizer = copy.deepcopy((model, optimizer))
    assert_zero(copied, masks, copied_optimizer)
    train(copied, copied_optimizer, 1)
    gossamer.check(model)


@pytest.mark.parametrize("what", ["state_dict", "model"])
def test_torch_save_and_load(what: str, prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    train(model, OPTIMIZERS["AdamW"](model.parameters()))
    file = io.BytesIO()
    torch.save(model.state_dict() if what == "state_dict" else model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=what == "state_dict")
    if what == "state_dict":
        assert list(loaded) == list(Net().state_dict())
        fresh = Net()
        fresh.load_state_dict(loaded)
        loaded = fresh
    gossamer.check(loaded, masks=masks)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_averages_of_a_pruned_model_keep_its_zeros(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    train(model, optimizer, after=lambda: average.update_parameters(model))
    assert_zero(average.module, masks)
    gossamer.check(average.module, masks=masks)
    gossamer.check(average, masks=masks)


def test_an_average_that_began_before_the_cut_is_found_out(prune: Prune) -> None:
    model = Net()
    average = torch.optim.swa_utils.AveragedModel(model)
    masks = prune(model, 0.5)
    train(model, OPTIMIZERS["SGD"](model.parameters()), after=lambda: average.update_parameters(model))
    with torch.no_grad():
        average.module.conv.weight.add_(1)
    with pytest.raises(PrunedWeightError, match=r"conv\.weight is 1 at "):
        gossamer.check(average.module, masks=masks)


COMPILER = any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++"))


@pytest.mark.parametrize(
    ("backend", "cut"),
    [
        ("eager", "before"),
        ("eager", "after"),
        ("aot_eager", "before"),
        ("aot_eager", "after"),
        pytest.param("inductor", "after", marks=pytest.mark.skipif(not COMPILER, reason="no C++ compiler")),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch.compile's own, of torch's internals.
def test_a_compiled_model(backend: str, cut: str, prune: Prune) -> None:
    torch._dynamo.reset()
    plain = Net()
    model = torch.compile(copy.deepcopy(plain), backend=backend)
    mine = [OPTIMIZERS["SGD nesterov"](m.parameters()) for m in (model, plain)]
    if cut == "after":
        train(model, mine[0], 1, seed=7)
        train(plain, mine[1], 1, seed=7)
    masks = prune(model, 0.5)
    assert list(masks) == ["conv.weight", "head.weight"]
    attach_masks(plain, gossamer.prunable_weights(plain), masks)
    train(model, mine[0], after=lambda: assert_zero(model._orig_mod, masks, mine[0]))
    train(plain, mine[1])
    gossamer.check(model)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # torch.compile's own, of torch's internals.
def test_a_compiled_optimizer_step(prune: Prune) -> None:
    torch._dynamo.reset()
    model = Net()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    masks: dict[str, Tensor] | None = None
    for density in (0.6, 0.3):
        masks = prune(model, density, masks=masks)
        for images, labels in batches(2):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            step()
            assert_zero(model, masks, optimizer)


@pytest.mark.filterwarnings("ignore")  # torch.export's own, of torch's internals.
def test_an_exported_model_computes_the_same(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    train(model, OPTIMIZERS["AdamW"](model.parameters()))
    model.eval()
    images = next(batches(1))[0]
    program = torch.export.export(model, (images,))
    assert torch.equal(program.module()(images), model(images))
    for name, mask in masks.items():
        assert program.state_dict[name].detach()[~mask].abs().sum() == 0


def test_data_parallel_over_processes(prune: Prune, tmp_path: Path) -> None:
    """One process here; two below."""
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(Net())
        optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
        train(model, optimizer, 1)
        masks = prune(model, 0.5)
        assert list(masks) == ["conv.weight", "head.weight"]
        train(model, optimizer, after=lambda: assert_zero(model.module, masks, optimizer))
        gossamer.check(model)
    finally:
        distributed.destroy_process_group()


TWO_PROCESSES = """
    import hashlib, os, sys
    import torch
    from torch import distributed, nn
    import gossamer
    from gossamer.prune.enforce import attach_masks

    def work(rank, folder):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
        model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        torch.manual_seed(rank)  # each process has its own data
        masks = None
        for density in (1.0, 0.5, 0.25):
            weights = gossamer.prunable_weights(model)
            masks = gossamer.keep_largest(weights, int(40 * density), masks)
            attach_masks(model, weights, masks)
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.randn(4, 6)).square().sum().backward()
                for name, weight in weights.items():
                    assert not weight.grad[~masks[name]].any(), name
                optimizer.step()
                gossamer.check(model, optimizer)
        assert sum(int((w != 0).sum()) for w in weights.values()) == 10
        parts = [*model.module.state_dict().values(), *masks.values()]
        digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
        with open(f"{folder}/digest{rank}", "w") as file:
            file.write(digest)
        distributed.destroy_process_group()

    folder = sys.argv[1]
    child = os.fork()
    if child == 0:
        work(1, folder)
        os._exit(0)
    work(0, folder)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_two_processes_of_data_parallel_training_stay_alike(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(TWO_PROCESSES), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "digest0").read_text() == (tmp_path / "digest1").read_text()


def test_a_dropped_model_leaves_nothing_behind(prune: Prune) -> None:
    from gossamer.prune import enforce

    gc.collect()
    optimizers = len(enforce._optimizers)
    model = Net()
    # A part of a model that leads to the whole is no reason to stay.
    model.conv.register_forward_hook(lambda module, inputs, outputs, whole=model: outputs + len(list(whole.children())))
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["SGD nesterov"](model.parameters())
    train(model, optimizer)
    whole, parameter, stepping = weakref.ref(model), weakref.ref(model.conv.weight), weakref.ref(optimizer)
    del model, optimizer
    gc.collect()
    assert whole() is None
    assert parameter() is None
    assert stepping() is None
    assert len(enforce._optimizers) == optimizers
    assert masks["conv.weight"].shape == (4, 2, 3, 3)


# --- enforce and check ----------------------------------------------------------------------------------------------


def test_check_names_the_weight_and_the_position() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    masks = {
        "0.weight": torch.tensor([[True, False], [True, True]]),
        "1.weight": torch.tensor([[True, True], [False, True]]),
    }
    attach_masks(model, gossamer.prunable_weights(model), masks)
    gossamer.check(model)
    with torch.no_grad():
        model[1].weight[1, 0] = -0.25
    with pytest.raises(PrunedWeightError, match=r"^1\.weight is -0\.25 at \[1, 0\].*1 of 1 pruned positions"):
        gossamer.check(model)
    with torch.no_grad():
        model[0].weight[0, 1] = float("nan")
    with pytest.raises(PrunedWeightError, match=r"^0\.weight is nan at \[0, 1\]"):
        gossamer.check(model)
    gossamer.enforce(model)
    gossamer.check(model)
    assert model[0].weight[0, 1] == 0


def test_check_names_the_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    attach_masks(model, gossamer.prunable_weights(model), {"0.weight": torch.tensor([[True, False], [True, True]])})
    model[0].weight.grad = torch.full((2, 2), 3.0)
    with pytest.raises(PrunedWeightError, match=r"^0\.weight\.grad is 3 at \[0, 1\]"):
        gossamer.check(model)
    gossamer.enforce(model)
    gossamer.check(model)
    assert model[0].weight.grad.tolist() == [[3, 0], [3, 3]]


def test_check_names_the_slot_of_an_optimizer_it_saw_stepping(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    train(model, optimizer)
    optimizer.state[model.head.weight]["exp_avg_sq"][~masks["head.weight"]] = 0.5
    with pytest.raises(PrunedWeightError, match=r"^AdamW's exp_avg_sq of head\.weight is 0\.5 at"):
        gossamer.check(model)
    gossamer.enforce(model)
    gossamer.check(model)
    assert_zero(model, masks, optimizer)


def test_check_looks_at_optimizers_it_is_given(prune: Prune) -> None:
    model = Net()
    optimizer = OPTIMIZERS["SGD momentum"](model.parameters())
    train(model, optimizer)
    prune(model, 0.5)
    for slots in optimizer.state.values():
        slots["momentum_buffer"].fill_(1)
    gossamer.check(model)  # It has not stepped since the cut.
    with pytest.raises(PrunedWeightError, match=r"SGD's momentum_buffer of conv\.weight"):
        gossamer.check(model, optimizer)
    gossamer.enforce(model, optimizer)
    gossamer.check(model, optimizer)


def test_check_names_a_slot_of_lbfgs(prune: Prune) -> None:
    model = nn.Linear(4, 2)
    prune(model, 0.5)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 4)) - 1).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    gossamer.check(model)
    optimizer.state[model.weight]["prev_flat_grad"].fill_(1)
    with pytest.raises(PrunedWeightError, match="LBFGS's prev_flat_grad of all weights is 1"):
        gossamer.check(model)


def test_check_without_masks_is_an_error_not_a_pass() -> None:
    with pytest.raises(PrunedWeightError, match="no masks are attached to this Net"):
        gossamer.check(Net())
    with pytest.raises(PrunedWeightError, match="no masks"):
        gossamer.check(Net(), masks={})


def test_check_with_masks_that_do_not_fit() -> None:
    with pytest.raises(PrunedWeightError, match=r"no parameter tail\.weight"):
        gossamer.check(Net(), masks={"tail.weight": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(PrunedWeightError, match=r"conv\.weight has shape \(4, 2, 3, 3\); expected \(2,\)"):
        gossamer.check(Net(), masks={"conv.weight": torch.ones(2, dtype=torch.bool)})


def test_enforce_after_a_step_that_torch_does_not_show(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    with pytest.raises(PrunedWeightError):
        gossamer.check(model)
    gossamer.enforce(model)
    assert_zero(model, masks)
    # What is kept, and what was never pruned, is left alone.
    assert bool((model.norm.weight == 2).all())
    gossamer.enforce(Net())


def test_release_makes_zeros_ordinary_weights(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    train(model, optimizer, 1)
    detach_masks(model.parameters())
    train(model, optimizer, 2)
    assert any(bool(model.get_parameter(name).detach()[~mask].any()) for name, mask in masks.items())
    with pytest.raises(PrunedWeightError, match="no masks"):
        gossamer.check(model)


def test_holding_again_replaces_the_mask(prune: Prune) -> None:
    layer = nn.Linear(4, 4, bias=False)
    prune(layer, 0.25)
    weights = gossamer.prunable_weights(layer)
    attach_masks(layer, weights, {"weight": torch.eye(4, dtype=torch.bool)})
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer.weight.sum().backward()
    optimizer.step()
    assert torch.equal(layer.weight != 0, torch.eye(4, dtype=torch.bool))
    assert len(layer.weight._post_accumulate_grad_hooks) == 1


def test_a_mask_goes_where_its_weight_is() -> None:
    # No other device is certain to be here.
    elsewhere = torch.device("meta")
    held = AttachedMask(torch.ones(2, dtype=torch.bool), 1)
    assert held.kept_on(torch.device("cpu")).tolist() == [True, True]
    assert held.kept_on(elsewhere).device == elsewhere


def test_an_unpruned_model_next_to_a_pruned_one_trains_as_ever(prune: Prune) -> None:
    torch.manual_seed(1)
    alone = Net()
    beside = copy.deepcopy(alone)
    train(alone, OPTIMIZERS["AdamW"](alone.parameters()))
    prune(Net(), 0.5)
    train(beside, OPTIMIZERS["AdamW"](beside.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), beside.parameters(), strict=True))


# --- optimizers of earlier rounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["SGD momentum", "AdamW", "Adagrad", "NAdam"])
def test_optimizers_of_earlier_rounds_that_are_still_alive(kind: str, prune: Prune) -> None:
    model, alive = Net(), []
    masks: dict[str, Tensor] | None = None
    for density in (0.8, 0.5, 0.2):
        alive.append(OPTIMIZERS[kind](model.parameters()))
        train(model, alive[-1])
        masks = prune(model, density, masks=masks)
        gossamer.check(model)
        train(model, alive[-1])
        gossamer.check(model)
        assert_zero(model, masks, alive[-1])


def test_at_a_cut_nothing_but_the_pruned_positions_of_slots_changes(prune: Prune) -> None:
    model = Net()
    masks = prune(model, 0.8)
    optimizers = [OPTIMIZERS[name](model.parameters()) for name in ("SGD nesterov", "Adam amsgrad", "Rprop", "ASGD")]
    for optimizer in optimizers:
        train(model, optimizer)
    before = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    masks = prune(model, 0.3, masks=masks)
    names = [name for name, _ in model.named_parameters()]
    cleared = 0
    for optimizer, state in zip(optimizers, before, strict=True):
        now = optimizer.state_dict()
        assert now["param_groups"] == state["param_groups"]
        for index, slots in state["state"].items():
            mask = masks.get(names[index])
            for name, slot in slots.items():
                found = now["state"][index][name]
                if isinstance(slot, Tensor) and mask is not None and slot.shape == mask.shape:
                    assert torch.equal(found, slot * mask)
                    cleared += int((slot[~mask] != 0).sum())
                else:
                    assert torch.equal(torch.as_tensor(found), torch.as_tensor(slot)), name
    assert cleared > 100


def test_two_optimizers_that_take_turns(prune: Prune) -> None:
    model = Net()
    masks: dict[str, Tensor] | None = None
    turns = [OPTIMIZERS["SGD nesterov"](model.parameters()), OPTIMIZERS["AdamW"](model.parameters())]
    for number, density in enumerate((0.9, 0.7, 0.5, 0.3, 0.2)):
        masks = prune(model, density, masks=masks)
        train(model, turns[number % 2])
        gossamer.check(model)
        train(model, turns[0])
        assert_zero(model, masks, turns[0])


@pytest.mark.parametrize("look", ["not at all", "check", "enforce"])
def test_lbfgs_begins_anew_after_a_cut_whatever_was_looked_at(look: str, prune: Prune) -> None:
    inputs = torch.randn(30, 6, dtype=torch.float64)

    def run(fresh: bool) -> Tensor:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        masks = prune(model, 0.8)
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (model(inputs) - inputs[:, :2]).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        prune(model, 0.4, masks=masks)
        if look == "check":
            gossamer.check(model)
        elif look == "enforce":
            gossamer.enforce(model)
        if fresh:
            optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
        optimizer.step(closure)
        return model[0].weight.detach().clone()

    torch.testing.assert_close(run(fresh=False), run(fresh=True), rtol=1e-12, atol=1e-12)


class Counting(Optimizer):
    """Keeps, beside each weight, how often it moved: a slot of the weight's shape that is no number of its training."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            moved = self.state[parameter].setdefault("moved", torch.full_like(parameter, 7, dtype=torch.int64))
            moved.add_(1)
            parameter.sub_(0.1 * parameter.grad)


def test_whole_numbers_in_a_slot_are_left_alone(prune: Prune) -> None:
    model = Net()
    prune(model, 0.5)
    optimizer = Counting(model.parameters())
    train(model, optimizer, 2)
    prune(model, 0.3)
    train(model, optimizer, 1)
    assert bool((optimizer.state[model.conv.weight]["moved"] == 10).all())
    gossamer.check(model, optimizer)
