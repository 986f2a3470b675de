"""Metrics over a whole set, torchmetrics' among them, against values computed by hand or by scikit-learn."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gossamer.errors import ConfigurationError, TrainingDivergedError
from gossamer.job.compress import compress
from gossamer.loop.stop import Stop
from gossamer.tasks import SGD, Data, Examples, Loaded, Metric, OneCycle, Recipe, Task, TaskError, evaluate
from gossamer.tasks.evaluation import measure

INPUTS = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(50) % 3
MEMORY = Examples(INPUTS, TARGETS)
SPLITS = {"memory": MEMORY, "dataset": Loaded(TensorDataset(INPUTS, TARGETS), batch_size=7)}
LOADER = DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=9, shuffle=True)


class Sum:
    """Of what it is given."""

    higher_is_better = False

    def __init__(self) -> None:
        self.total = 0.0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.total += float(outputs.sum()) + float(targets.sum())

    def compute(self) -> float:
        return self.total


@pytest.mark.parametrize("split", SPLITS)
def test_an_object_measures_the_whole_set_anew_each_time(split: str) -> None:
    metric = Metric.over_set("sum", Sum)
    expected = float(INPUTS.sum()) + float(TARGETS.sum())
    for _ in range(2):
        assert evaluate(nn.Identity(), SPLITS[split], metric, batch_size=8) == pytest.approx(expected, abs=1e-4)
    assert (metric.name, metric.better) == ("sum", "lower")


def test_a_mean_over_batches_of_different_sizes_is_one_over_examples() -> None:
    by_size = Metric("score", score=lambda outputs, targets: (outputs.argmax(1) == targets).float())
    expected = float((INPUTS.argmax(1) == TARGETS).float().mean())
    for split in (MEMORY, Loaded(LOADER), SPLITS["dataset"]):
        assert evaluate(nn.Identity(), split, by_size) == pytest.approx(expected)


@pytest.mark.parametrize("split", SPLITS)
def test_torchmetrics_fit_as_they_are(split: str) -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    sklearn = pytest.importorskip("sklearn.metrics")
    f1 = Metric.over_set("f1", lambda: classification.MulticlassF1Score(3))
    found = evaluate(nn.Identity(), SPLITS[split], f1, batch_size=8)
    assert found == pytest.approx(sklearn.f1_score(TARGETS, INPUTS.argmax(1), average="macro"))
    auc = Metric.over_set("auc", lambda: classification.MulticlassAUROC(3))
    probabilities = INPUTS.softmax(1).numpy().astype(np.float64)
    expected = sklearn.roc_auc_score(TARGETS, probabilities / probabilities.sum(1, keepdims=True), multi_class="ovr")
    assert evaluate(nn.Identity(), SPLITS[split], auc, batch_size=8) == pytest.approx(expected, abs=1e-6)
    assert (f1.better, auc.better) == ("higher", "higher")
    assert Metric.over_set("calibration", lambda: classification.MulticlassCalibrationError(3)).better == "lower"


class Masks(nn.Module):
    """Outputs by name, as networks that segment have them."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": images, "aux": images}


def test_mean_intersection_over_union() -> None:
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    scores = torch.zeros(2, 2, 1, 4)
    scores[:, 1] = torch.tensor([[[1.0, 1, -1, -1]], [[1.0, -1, -1, -1]]])
    targets = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 0, 0]]])
    metric = Metric.over_set(
        "miou",
        lambda: segmentation.MeanIoU(num_classes=2, input_format="index"),
        better="higher",
        given=lambda outputs, targets: (outputs["out"].argmax(1), targets),
    )
    # In the first image 2 of 3 and 1 of 2 pixels agree, in the second 2 of 3 and 1 of 2.
    assert evaluate(Masks(), Examples(scores, targets), metric) == pytest.approx((2 / 3 + 1 / 2) / 2)


class Several:
    def __init__(self, computed: Any) -> None:
        self.computed = computed

    def update(self, outputs: Any, targets: Any) -> None:
        pass

    def compute(self) -> Any:
        return self.computed


def test_of_several_numbers_one_decides_and_the_finite_ones_are_recorded() -> None:
    computed = {"map_50": torch.tensor(0.75), "classes": torch.tensor([1, 2]), "map": 0.5, "none": math.nan}
    metric = Metric.over_set("map", lambda: Several(computed), better="higher")
    found = measure(nn.Identity(), MEMORY, metric)
    assert found == {"map": 0.5, "map_50": 0.75}
    assert next(iter(found)) == "map"


@pytest.mark.parametrize(
    ("computed", "message"),
    [
        ({"a": 1.0}, "the metric map computed a; expected a number, or several with 'map' among them"),
        ({}, "the metric map computed nothing"),
        (torch.ones(3), r"the metric map is a Tensor of shape \(3,\); expected a number"),
        (None, "the metric map is None; expected a number"),
    ],
)
def test_what_is_no_number(computed: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        evaluate(nn.Identity(), MEMORY, Metric.over_set("map", lambda: Several(computed), better="higher"))


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_not_finite_has_diverged(split: str) -> None:
    class Broken(nn.Module):
        def forward(self, inputs: Tensor) -> Any:
            return SimpleNamespace(), (inputs, {"deep": [inputs / 0 * 0]})

    with pytest.raises(TrainingDivergedError, match="the map of the model is nan"):
        evaluate(Broken(), SPLITS[split], Metric.over_set("map", lambda: Several(0.5), better="higher"))
    with pytest.raises(TrainingDivergedError, match="the map of the model is inf"):
        evaluate(nn.Identity(), SPLITS[split], Metric.over_set("map", lambda: Several(math.inf), better="higher"))


def test_which_direction_is_better_is_told_by_the_metric_of_a_collection_or_by_the_name() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    collection = pytest.importorskip("torchmetrics").MetricCollection

    def make() -> Any:
        return collection(
            {"own": classification.MulticlassCalibrationError(3), "other": classification.MulticlassF1Score(3)},
            prefix="val_",
        )

    assert (Metric.over_set("val_own", make).better, Metric.over_set("val_other", make).better) == ("lower", "higher")
    assert Metric.over_set("mean_iou", lambda: Several(1.0)).better == "higher"
    assert Metric.over_set("val_loss", lambda: Several(1.0)).better == "lower"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Several(1.0), "nothing says whether the metric own is better when higher or lower"),
        (lambda: SimpleNamespace(update=len), "the metric own is a SimpleNamespace; expected an object with update"),
    ],
)
def test_objects_that_do_not_do(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Metric.over_set("own", make)


def test_a_run_is_judged_by_a_metric_of_the_whole_set(tmp_path: Path) -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    metric = Metric.over_set("f1", lambda: classification.MulticlassF1Score(3))
    recipe = Recipe(2, 10, OneCycle(peak=0.1), SGD())
    data = Data(TensorDataset(INPUTS, TARGETS), MEMORY, LOADER)
    task = Task("own", "", lambda: nn.Linear(3, 3), lambda folder: data, recipe, metric)
    records = compress(task, folder=tmp_path, stop=Stop(max_drop=1.0, rounds=1))
    assert [record.metric for record in records] == ["f1", "f1"]
    assert [set(record.metrics) for record in records] == [{"f1", "test_f1"}] * 2
    # The same examples in another order.
    assert [record.val for record in records] == pytest.approx([record.test for record in records])
