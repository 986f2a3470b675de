"""The CIFAR ResNets: sizes as published, somebody else's trained weights, the recipe, and sparse training steps."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.prune.enforce import attach_masks, check
from gossamer.prune.prunable import count_parameters, prunable_weights
from gossamer.prune.select import keep_largest
from gossamer.tasks import TASKS, Examples, Metric, evaluate, initial_model, train
from gossamer.tasks.cifar10 import CIFAR10, standardised
from gossamer.tasks.cifar_resnet import CifarResNet, PaddedShortcut
from gossamer.tasks.hub_images import load_split

WEIGHTS = "resnet20-12fca82f.th"


@pytest.mark.parametrize(
    ("depth", "parameters"),
    # As counted by everybody for option A: 0.27M, 0.46M, 0.66M, 0.85M in He et al., table 6.
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)],
)
def test_sizes_as_published(depth: int, parameters: int) -> None:
    assert count_parameters(CifarResNet(depth, shortcut="padding")) == parameters


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018)])
def test_projections_add_one_convolution_a_stage(depth: int, parameters: int) -> None:
    model = CifarResNet(depth)
    projections = {16 * 16: 16, 16 * 32: 32, 32 * 64: 64}  # weights -> channels of their BatchNorm
    assert count_parameters(model) == parameters + sum(projections) + 2 * sum(projections.values())
    weights = prunable_weights(model)
    assert len(weights) == depth + 3
    assert {"conv1.weight", "linear.weight", "layer1.0.shortcut.0.weight"} < set(weights)
    # Everything but BatchNorm's two vectors a convolution and the ten biases.
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert sum(weight.numel() for weight in weights.values()) == count_parameters(model) - vectors


@pytest.mark.parametrize("name", ["resnet-20", "resnet-56"])
def test_the_descriptions_say_what_is_pruned(name: str) -> None:
    task = TASKS[name]
    count = sum(weight.numel() for weight in prunable_weights(task.model()).values())
    assert f"{count:,} prunable weights" in task.description
    assert isinstance(task.model.__doc__, str)
    assert f"{count:,} of them prunable" in task.model.__doc__


def test_images_shrink_as_channels_grow() -> None:
    model = CifarResNet(8)
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


def test_padding() -> None:
    inputs = torch.arange(2 * 4 * 4).float().view(1, 2, 4, 4)
    outputs = PaddedShortcut()(inputs)
    assert outputs.shape == (1, 4, 2, 2)
    assert outputs[0].tolist() == [
        [[0, 0], [0, 0]],
        [[0, 2], [8, 10]],
        [[16, 18], [24, 26]],
        [[0, 0], [0, 0]],
    ]


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_depths_that_do_not_exist(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth is {depth}; expected 6n"):
        CifarResNet(depth)


@pytest.mark.slow
def test_weights_trained_by_somebody_else_reach_their_documented_accuracy(real_data: Path) -> None:
    """91.73% of the test images: an oracle for the files' pixels and labels and for the network alike."""
    path = real_data / "weights" / WEIGHTS
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("12fca82f")
    # The only pickle that is read: its bytes are those of a known file.
    content = torch.load(path, map_location="cpu", weights_only=False)
    model = CifarResNet(20, shortcut="padding").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.load_state_dict({name.removeprefix("module."): value for name, value in content["state_dict"].items()})
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    test = replace(load_split(CIFAR10, real_data, "test"), prepare=lambda images: (images / 255 - mean) / deviation)
    assert evaluate(model, test, Metric(), batch_size=500) == pytest.approx(0.9173, abs=1e-9)


def learning_rates(steps: int) -> list[float]:
    """The schedule written by hand: 182 epochs of `steps` steps."""
    return [0.1] * (91 * steps) + [0.01] * (45 * steps) + [0.001] * (46 * steps)


@pytest.mark.parametrize("name", ["resnet-20", "resnet-56"])
def test_the_recipe_is_the_papers(name: str) -> None:
    recipe = TASKS[name].recipe
    seen: list[float] = []

    class Recording(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            seen.extend(group["lr"] for group in self.param_groups)

    model = nn.Linear(4, 2)
    watched = replace(
        recipe,
        optimizer=lambda model: Recording(model.parameters()),
        batch_size=5,
        augment=None,
        channels_last=False,
    )
    examples = Examples(torch.randn(10, 4), torch.zeros(10).long())
    list(train(model, watched.optimizer(model), watched, examples, seed=0, precision="float32"))
    assert seen == pytest.approx(learning_rates(steps=2))
    assert recipe.batch_size == 128
    model = CifarResNet(8)
    (group,) = recipe.optimizer(model).param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 2e-4, False)
    assert len(group["params"]) == len(list(model.parameters()))


def photographs(count: int) -> Examples:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Examples(inputs, torch.randint(10, (count,), generator=generator), standardised)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pruned_weights_stay_zero_through_training(precision: str) -> None:
    task = TASKS["resnet-20"]
    recipe = replace(task.recipe, batch_size=8)
    model = initial_model(task, seed=0)
    assert model.get_parameter("layer2.0.conv1.weight").is_contiguous(memory_format=torch.channels_last)
    weights = prunable_weights(model)
    masks = keep_largest(weights, 100_000)
    attach_masks(model, weights, masks)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = recipe.optimizer(model)
    list(train(model, optimizer, recipe, photographs(16), seed=0, epochs=1, precision=precision))  # type: ignore[arg-type]
    check(model, optimizer)
    for name, weight in weights.items():
        assert weight.dtype == torch.float32
        assert not weight[~masks[name]].any()
        assert (weight != before[name])[masks[name]].any()
    assert sum(int((weight != 0).sum()) for weight in weights.values()) <= 100_000


def test_bfloat16_and_float32_agree_on_the_gradient() -> None:
    """At the first step, where twenty layers' roundings add up: 0.96 is measured, chance would be 0.00."""
    model = initial_model(TASKS["resnet-20"], seed=0)
    inputs, targets = photographs(32).batch(slice(None))
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs = model(inputs.contiguous(memory_format=torch.channels_last))
        F.cross_entropy(outputs.float(), targets).backward()
        gradients.append(torch.cat([gradient_of(parameter).flatten() for parameter in model.parameters()]))
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.9


def gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_widths_may_be_others() -> None:
    narrow = CifarResNet(8, widths=(8, 16, 32))
    # The stem; 3x3 convolutions and the projection of each stage's only block; the linear layer.
    stages = 2 * 576 + 64, 1152 + 2304 + 128, 4608 + 9216 + 512
    assert sum(weight.numel() for weight in prunable_weights(narrow).values()) == 216 + sum(stages) + 320
    assert narrow(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
