import hashlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.errors import TrainingDivergedError
from gossamer.tasks import (
    SGD,
    AdamW,
    DataError,
    Examples,
    Metric,
    OneCycle,
    Recipe,
    Steps,
    Task,
    derived_seed,
    describe,
    evaluate,
    initial_model,
    train,
)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3)
    )


def noise(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


RECIPE = Recipe(
    epochs=4,
    batch_size=16,
    learning_rate=OneCycle(peak=0.1),
    optimizer=SGD(nesterov=True, weight_decay=1e-3),
    augment=noise,
)
TASK = Task(name="toy", description="", model=network, data=lambda _: pytest.fail("not asked for"), recipe=RECIPE)


def toy_examples(count: int = 70) -> Examples:
    generator = torch.Generator().manual_seed(5)
    return Examples(torch.randn(count, 1, 6, 6, generator=generator), torch.randint(3, (count,), generator=generator))


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    slots = [slot for parameter in model.parameters() for slot in optimizer.state[parameter].values()]
    return [*model.state_dict().values(), *slots]


def trained(seed: int = 0, recipe: Recipe = RECIPE, **arguments: int) -> list[Tensor]:
    model = initial_model(replace(TASK, recipe=recipe), seed=0)
    optimizer = recipe.optimizer(model)
    list(train(model, optimizer, recipe, toy_examples(), seed=seed, **arguments))
    return state(model, optimizer)


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_the_same_seed_gives_the_same_bits() -> None:
    first = trained()
    torch.rand(7)  # whatever else the process has drawn
    assert same(first, trained())


@pytest.mark.parametrize("changed", [{"seed": 1}, {"round_number": 1}, {"epochs": 3}])
def test_seed_round_and_schedule_matter(changed: dict[str, int]) -> None:
    assert not same(trained(), trained(**changed))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("optimizer", [SGD(nesterov=True), AdamW()])
@pytest.mark.parametrize("stop", [1, 3])
def test_resuming_equals_not_having_stopped(stop: int, optimizer: SGD | AdamW, channels_last: bool) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, channels_last=channels_last)
    task = replace(TASK, recipe=recipe)
    model = initial_model(task, seed=0)
    before = recipe.optimizer(model)
    for report in itertools.islice(train(model, before, recipe, toy_examples(), seed=0, round_number=2), stop):
        epochs_done = report.epochs_done
    torch.manual_seed(123)
    resumed = initial_model(task, seed=99)
    resumed.load_state_dict(model.state_dict())
    after = recipe.optimizer(resumed)
    after.load_state_dict(before.state_dict())
    list(train(resumed, after, recipe, toy_examples(), seed=0, round_number=2, first_epoch=epochs_done))
    assert same(state(resumed, after), trained(recipe=recipe, round_number=2))


def test_equals_a_loop_written_by_hand() -> None:
    """Plain SGD on a linear model without anything random but the order, in numpy."""
    recipe = Recipe(
        epochs=2, batch_size=4, learning_rate=lambda progress: 0.1 * (1 - progress), optimizer=SGD(0.5), loss=F.mse_loss
    )
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    generator = np.random.default_rng(3)
    inputs, targets = generator.normal(size=(10, 2)).astype("f"), generator.normal(size=(10, 1)).astype("f")
    examples = Examples(torch.from_numpy(inputs), torch.from_numpy(targets))
    reports = list(train(model, recipe.optimizer(model), recipe, examples, seed=8, round_number=1))

    weight, velocity, losses = np.array([[0.5, 0.5]]), np.zeros((1, 2)), []
    for epoch in range(2):
        bits = int.from_bytes(hashlib.blake2b(f"8/1/{epoch}/order".encode(), digest_size=8).digest(), "big") >> 1
        order = torch.randperm(10, generator=torch.Generator().manual_seed(bits)).numpy()
        for step, rows in enumerate((order[:4], order[4:8])):  # the last two are left out
            error = inputs[rows] @ weight.T - targets[rows]
            losses.append((error**2).mean())
            velocity = 0.5 * velocity + 2 * error.T @ inputs[rows] / 4
            weight = weight - 0.1 * (1 - (2 * epoch + step) / 4) * velocity
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-5)
    np.testing.assert_allclose([report.loss for report in reports], np.reshape(losses, (2, 2)).mean(1), rtol=1e-5)
    assert [report.epochs_done for report in reports] == [1, 2]


def test_every_step_has_its_learning_rate_in_every_group() -> None:
    seen: list[list[float]] = []

    class Recording(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            seen.append([group["lr"] for group in self.param_groups])

    recipe = Recipe(
        epochs=2,
        batch_size=5,
        learning_rate=Steps(first=1.0, milestones=(0.5, 0.75)),
        optimizer=lambda model: Recording([{"params": [p]} for p in model.parameters()], lr=7.0),
    )
    model = nn.Linear(36, 3)
    examples = toy_examples(21)
    flat = Examples(examples.inputs.flatten(1), examples.targets)
    list(train(model, recipe.optimizer(model), recipe, flat, seed=0))
    assert seen == [pytest.approx([rate] * 2) for rate in (1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01)]


def test_rewinding_to_the_middle_replays_the_rest() -> None:
    model = network()
    reports = list(train(model, RECIPE.optimizer(model), RECIPE, toy_examples(), seed=0, first_epoch=3))
    assert [report.epochs_done for report in reports] == [4]
    # 70 examples make 4 steps of 16; the last of 16 steps.
    assert reports[0].learning_rate == RECIPE.learning_rate(15 / 16)


@given(count=st.integers(1, 50), batch_size=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_an_epoch_has_full_batches_of_different_examples(count: int, batch_size: int) -> None:
    batches: list[list[float]] = []

    def watch(inputs: Tensor, generator: torch.Generator) -> Tensor:
        batches.append(inputs.flatten().tolist())
        return inputs

    recipe = Recipe(1, batch_size, lambda _: 0.0, SGD(), augment=watch)
    examples = Examples(torch.arange(count).float()[:, None], torch.zeros(count, dtype=torch.long))
    model = nn.Linear(1, 2)
    list(train(model, recipe.optimizer(model), recipe, examples, seed=0))
    full = min(batch_size, count)
    assert [len(batch) for batch in batches] == [full] * (count // full)
    assert len({example for batch in batches for example in batch}) == full * (count // full)


def test_stored_inputs_are_augmented_and_then_prepared() -> None:
    seen: list[tuple[torch.dtype, float]] = []

    class Watching(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append((inputs.dtype, float(inputs.max())))
            return super().forward(inputs)

    model = Watching(1, 2)
    examples = Examples(torch.full((8, 1), 10, dtype=torch.uint8), torch.zeros(8).long(), lambda x: x.float() / 10)
    recipe = Recipe(1, 8, lambda _: 0.1, SGD(), augment=lambda inputs, _: inputs + 10)
    list(train(model, recipe.optimizer(model), recipe, examples, seed=0))
    evaluate(model, examples, Metric())
    assert seen == [(torch.float32, 2.0), (torch.float32, 1.0)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(bad: float) -> None:
    examples = toy_examples()
    examples.inputs[3] = bad
    model = network()
    with pytest.raises(TrainingDivergedError, match=r"epoch 1 of 4, round 5.*learning rate"):
        list(train(model, RECIPE.optimizer(model), RECIPE, examples, seed=0, round_number=5))


def test_bfloat16_layers_leave_float32_weights() -> None:
    model = network()
    optimizer = RECIPE.optimizer(model)
    (*_, last) = train(model, optimizer, RECIPE, toy_examples(), seed=0, precision="bfloat16")
    assert math.isfinite(last.loss)
    assert all(tensor.dtype == torch.float32 for tensor in model.parameters())
    assert not same(state(model, optimizer)[:1], trained()[:1])


@pytest.mark.parametrize("first_epoch", [-1, 5])
def test_epochs_outside_the_schedule(first_epoch: int) -> None:
    model = network()
    with pytest.raises(ValueError, match="expected 0 to 4"):
        next(train(model, RECIPE.optimizer(model), RECIPE, toy_examples(), seed=0, first_epoch=first_epoch))


@pytest.mark.parametrize(("first_step", "fits"), [(-1, False), (0, True), (3, True), (4, False)])
def test_steps_outside_the_epoch(first_step: int, fits: bool) -> None:
    model = network()
    reports = train(model, RECIPE.optimizer(model), RECIPE, toy_examples(), seed=0, first_step=first_step)
    if fits:
        assert next(reports).epochs_done == 1
    else:
        with pytest.raises(ValueError, match=f"first_step is {first_step}; expected 0 to 3, the steps of an epoch"):
            next(reports)


def test_steps_that_are_left_out_are_those_of_the_first_epoch() -> None:
    rates: list[int] = []

    def rate(step: int) -> float:
        rates.append(step)
        return 0.1

    model = network()
    list(
        train(
            model,
            RECIPE.optimizer(model),
            RECIPE,
            toy_examples(),
            seed=0,
            first_epoch=2,
            first_step=3,
            learning_rate=rate,
        )
    )
    assert rates == [11, 12, 13, 14, 15]


def test_a_mistake_that_explains_itself_comes_as_it_is() -> None:
    def refuse() -> nn.Module:
        raise DataError("get it from there")

    with pytest.raises(DataError, match=r"^get it from there$"):
        initial_model(replace(TASK, model=refuse), seed=0)


def test_no_examples() -> None:
    model = network()
    with pytest.raises(ValueError, match="no examples to train on"):
        next(train(model, RECIPE.optimizer(model), RECIPE, toy_examples(0), seed=0))
    with pytest.raises(ValueError, match="no examples to evaluate on"):
        evaluate(model, toy_examples(0), Metric())


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50))
@settings(max_examples=20, deadline=None)
def test_the_score_is_the_mean_over_all_examples_whatever_the_batches(count: int, batch_size: int) -> None:
    model = network().eval()
    examples = toy_examples(count)
    with torch.no_grad():
        expected = (model(examples.inputs).argmax(1) == examples.targets).double().mean()
    assert evaluate(model, examples, Metric(), batch_size=batch_size) == pytest.approx(float(expected))


def test_evaluation_leaves_the_model_as_it_was() -> None:
    model = network().train()
    model[1].eval()  # a layer that its user froze
    before = [tensor.clone() for tensor in model.state_dict().values()]
    evaluate(model, toy_examples(), Metric())
    assert model.training
    assert model[0].training
    assert not model[1].training
    assert same(before, list(model.state_dict().values()))


def test_an_output_that_is_not_a_number_is_noticed() -> None:
    model = network()
    nn.init.constant_(model[5].weight, math.nan)
    with pytest.raises(TrainingDivergedError, match="accuracy of the model is nan"):
        evaluate(model, toy_examples(), Metric())


def test_initial_weights_follow_the_seed_alone() -> None:
    first = initial_model(TASK, seed=4)
    torch.rand(3)
    assert same(list(first.state_dict().values()), list(initial_model(TASK, seed=4).state_dict().values()))
    assert not torch.equal(first[5].weight, initial_model(TASK, seed=5)[5].weight)


def test_derived_seeds() -> None:
    # printf '1/2/order' | b2sum -l 64 -> the hexadecimal number; shifted right by one bit.
    assert derived_seed(1, 2, "order") == int("d4a3edd839de03de", 16) >> 1
    assert len({derived_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


@pytest.mark.parametrize("field", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -3, 1.5, True])
def test_recipes_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value!r}; expected a whole number"):
        replace(RECIPE, **{field: value})


def test_a_recipe_is_described_in_plain_values() -> None:
    assert describe(RECIPE) == {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": "OneCycle(peak=0.1, warm_up=0.2, first=0.0, last=0.0)",
        "optimizer": "SGD(momentum=0.9, nesterov=True, weight_decay=0.001)",
        "loss": "cross_entropy",
        "augment": "noise",
        "bfloat16": False,
        "channels_last": False,
    }
