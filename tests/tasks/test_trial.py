"""Tasks that cannot be trained as they are: one line that says what is expected, before anything is trained."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gossamer.job.compress import compress
from gossamer.loop.records import read_records
from gossamer.loop.stop import Stop
from gossamer.tasks import SGD, Data, Examples, Metric, OneCycle, Recipe, Task, TaskError

INPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS.abs()[:, :3].argmax(1)
GOOD = Examples(INPUTS, TARGETS)
PASSED_OVER = torch.where(torch.arange(40) % 9 == 0, 7, TARGETS)
EMPTY = Examples(INPUTS[:0], TARGETS[:0])


class Output(nn.Module):
    """Wraps the outputs of a network, as libraries do."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.wrap = wrap

    def forward(self, inputs: Tensor) -> Any:
        return self.wrap(self.layers(inputs))


def own_task(**changes: Any) -> Task:
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=OneCycle(peak=0.1), optimizer=SGD())
    data = Data(GOOD, GOOD, GOOD)
    task = Task("own", "", lambda: Output(lambda outputs: outputs), lambda folder: data, recipe)
    return replace(task, **changes)


def giving(data: Any) -> dict[str, Any]:
    return {"data": lambda folder: data}


def targets(split: str, values: Tensor) -> dict[str, Any]:
    return giving(replace(Data(GOOD, GOOD, GOOD), **{split: Examples(INPUTS, values)}))


def recipe(loss: Callable[[Tensor, Tensor], Any]) -> dict[str, Any]:
    return {"recipe": replace(own_task().recipe, loss=loss)}


MISTAKES = {
    "a data set": (giving(TensorDataset(INPUTS, TARGETS)), "its data are a TensorDataset; expected .*Data"),
    "a tuple": (giving((GOOD, GOOD, GOOD)), "its data are a tuple"),
    "a split that is a tuple": (
        giving(Data(GOOD, (INPUTS, TARGETS), GOOD)),
        "the validation split is a tuple",
    ),
    "no validation split": (giving(Data(GOOD, None, GOOD)), "the validation split is nothing"),
    "a validation split left out": (
        {"data": lambda folder: Data(GOOD)},  # type: ignore[call-arg]
        "making its data failed: TypeError: .*'validation'; expected .*Data",
    ),
    "lists": (
        giving(Data(GOOD, GOOD, Examples(INPUTS.tolist(), TARGETS.tolist()))),  # type: ignore[arg-type]
        "the inputs of the test split are a list",
    ),
    "no training examples": (giving(Data(EMPTY, GOOD, GOOD)), "the train split has no examples"),
    "no validation examples": (giving(Data(GOOD, EMPTY, GOOD)), "the validation split has no examples"),
    "no test examples": (giving(Data(GOOD, GOOD, EMPTY)), "the test split has no examples"),
    "classes from one": (
        targets("train", TARGETS + 1),
        "targets of the train split are 1 to 3, .* 3 outputs; .* 0 to 2",
    ),
    "other classes when judged": (targets("test", TARGETS + 1), "targets of the test split are 1 to 3"),
    "negative classes": (targets("validation", TARGETS - 1), "targets of the validation split are -1 to 1"),
    "other classes of a module": (
        {**targets("train", PASSED_OVER), **recipe(nn.CrossEntropyLoss())},
        "targets of the train split are 0 to 7",
    ),
    "other classes of a keyword": (
        {**targets("train", PASSED_OVER), **recipe(functools.partial(F.cross_entropy, label_smoothing=0.1))},
        "targets of the train split are 0 to 7",
    ),
    "an output object": (
        {"model": lambda: Output(lambda outputs: SimpleNamespace(logits=outputs))},
        "the loss fails on the train split: .*returns a SimpleNamespace: .* such as outputs.logits",
    ),
    "an output tuple": (
        {"model": lambda: Output(lambda outputs: (outputs, None))},
        "the loss fails on the train split: .*returns a tuple",
    ),
    "inputs that do not fit": (
        {"model": lambda: nn.Sequential(nn.Linear(5, 3))},
        "the network fails on the train split: RuntimeError",
    ),
    "no network": ({"model": lambda: None}, "its model is a NoneType; expected a torch.nn.Module"),
    "a network that fails": ({"model": lambda: nn.Linear(-1, 3)}, "making its model failed: RuntimeError"),
    "a loss for each example": (recipe(lambda o, t: F.cross_entropy(o, t, reduction="none")), r"loss is shape \(8,\)"),
    "a loss that is no tensor": (recipe(lambda o, t: 1.0), "loss is a float"),
    "a loss of other targets": (recipe(F.mse_loss), "the loss fails on the train split: "),
    "a score that is no tensor": (
        {"metric": Metric("own", "higher", lambda o, t: 1.0)},  # type: ignore[arg-type, return-value]
        "score of the metric own is a float",
    ),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_task_that_cannot_be_trained(mistake: str, tmp_path: Path) -> None:
    changes, message = MISTAKES[mistake]
    with pytest.raises(TaskError, match=message) as raised:
        compress(own_task(**changes), folder=tmp_path / "run", stop=Stop(rounds=1))
    assert "\n" not in str(raised.value)
    assert read_records(tmp_path / "run") == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        targets("train", torch.where(torch.arange(40) % 9 == 0, -100, TARGETS)),
        {**targets("train", PASSED_OVER), **recipe(nn.CrossEntropyLoss(ignore_index=7))},
        {**targets("train", PASSED_OVER), **recipe(functools.partial(F.cross_entropy, ignore_index=7))},
        {
            **targets("train", F.one_hot(TARGETS, 3).float()),
            "metric": Metric("own", "lower", lambda o, t: o[:, 0].abs()),
        },
        {
            **recipe(lambda o, t: F.mse_loss(o[:, 0], t.float())),
            "metric": Metric("own", "lower", lambda o, t: o[:, 0].abs()),
        },
    ],
    ids=[
        "classes",
        "classes that are passed over",
        "passed over by a module",
        "passed over as a keyword says",
        "shares of classes",
        "numbers",
    ],
)
def test_what_is_right_is_trained(changes: dict[str, Any], tmp_path: Path) -> None:
    assert len(compress(own_task(**changes), folder=tmp_path / "run", stop=Stop(rounds=1))) == 2


def broken(**changes: Any) -> dict[str, Any]:
    return {"recipe": replace(own_task().recipe, **changes)}


FAILING: dict[str, tuple[dict[str, Any], str]] = {
    "no optimizer": (broken(optimizer=5), "making its optimizer failed: TypeError"),
    "no parameters": ({"model": nn.Identity}, "making its optimizer failed: ValueError"),
    "a rate that fails": (broken(learning_rate=lambda progress: 1 / 0), "its learning rate failed: ZeroDivisionError"),
    "a text as rate": (broken(learning_rate=lambda progress: "0.1"), "training failed: TypeError"),
    "a function that fails": (broken(augment=lambda inputs, generator: 1 / 0), "training failed: ZeroDivisionError"),
    "too few inputs": (broken(augment=lambda inputs, generator: inputs[:1]), "training failed: ValueError"),
    "no gradient": (broken(loss=lambda outputs, targets: torch.ones(())), "training failed: RuntimeError"),
    "a closure": (broken(optimizer=lambda model: torch.optim.LBFGS(model.parameters())), "training failed: TypeError"),
    "no score": ({"metric": Metric(score=lambda outputs, targets: torch.zeros(0))}, "accuracy is an empty tensor"),
}


@pytest.mark.parametrize("mistake", FAILING)
def test_what_fails_in_training_is_one_line(mistake: str, tmp_path: Path) -> None:
    changes, message = FAILING[mistake]
    with pytest.raises(TaskError, match=f"^own: .*{message}") as refused:
        compress(own_task(**changes), folder=tmp_path / "run", stop=Stop(rounds=1))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["name", "recipe", "metric"])
def test_a_task_of_other_parts_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match=f"task: {part} is a tuple; expected a"):
        own_task(**{part: ()})


def test_too_little_memory_is_no_mistake_of_the_task(tmp_path: Path) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        compress(own_task(**recipe(loss)), folder=tmp_path / "run", stop=Stop(rounds=1))


def test_the_trial_leaves_no_trace(tmp_path: Path) -> None:
    """Dropout and BatchNorm would show it: the bits are those of a model that was never tried."""
    draws: list[bool] = []

    class Watched(Output):
        def forward(self, inputs: Tensor) -> Any:
            draws.append(self.training)
            return super().forward(inputs)

    compress(own_task(model=lambda: Watched(lambda outputs: outputs)), folder=tmp_path / "run", stop=Stop(rounds=1))
    assert draws[:3] == [False, False, False]
    assert draws[3] is True


def test_whole_numbers_to_be_met_are_no_classes(tmp_path: Path) -> None:
    def squares(outputs: Tensor, goals: Tensor) -> Tensor:
        return (outputs - goals).square().mean(1)

    goals = (10 * INPUTS[:, :3]).round().long()
    task = own_task(
        **giving(Data(*[Examples(INPUTS, goals)] * 3)),
        recipe=replace(own_task().recipe, loss=lambda outputs, goals: squares(outputs, goals).mean() / 100),
        metric=Metric("distance", "lower", squares),
    )
    assert len(compress(task, folder=tmp_path / "run", stop=Stop(rounds=1))) == 2
