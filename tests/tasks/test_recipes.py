"""The built-in tasks as they are documented and recorded: with another recipe, a run is another run."""

import pytest
import torch
from torch import nn

from gossamer.tasks import SGD, TASKS, AdamW, OneCycle, Recipe, Steps, Task, describe
from gossamer.tasks.built_in import BUILT_IN
from gossamer.tasks.cifar10 import CIFAR10
from gossamer.tasks.digits import TEST_EXAMPLES, VALIDATION_EXAMPLES
from gossamer.tasks.hub_images import LARGEST_ENCODED_IMAGE
from gossamer.tasks.mnist import BLACK, MNIST

STEPS = "Steps(first=0.1, milestones=(0.5, 0.7472527472527473), factor=0.1)"
NESTEROV = "SGD(momentum=0.9, nesterov=True, weight_decay={})"
RESIDUAL = {
    "epochs": 182,
    "batch_size": 128,
    "learning_rate": STEPS,
    "optimizer": "SGD(momentum=0.9, nesterov=False, weight_decay=0.0002)",
    "loss": "cross_entropy",
    "augment": "cropped_and_flipped",
    "bfloat16": True,
    "channels_last": True,
}
PASSED = (30 / 90, 60 / 90, 80 / 90)
IMAGENET = {
    "epochs": 90,
    "batch_size": 1024,
    "learning_rate": f"WarmUp(then=Steps(first=0.4, milestones={PASSED}, factor=0.1), share={5 / 90})",
    "optimizer": "SelectiveSGD(momentum=0.9, nesterov=True, weight_decay=0.0001)",
    "loss": "cross_entropy",
    "augment": "none",
    "bfloat16": True,
    "channels_last": True,
}
RECIPES: dict[str, dict[str, object]] = {
    "digits": {
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": "OneCycle(peak=0.1, warm_up=0.2, first=0.0, last=0.0)",
        "optimizer": NESTEROV.format(0.002),
        "loss": "cross_entropy(label_smoothing=0.1)",
        "augment": "jittered",
        "bfloat16": False,
        "channels_last": False,
    },
    "lenet-300-100": {
        "epochs": 15,
        "batch_size": 128,
        "learning_rate": "OneCycle(peak=0.1, warm_up=0.2, first=0.0, last=0.0)",
        "optimizer": NESTEROV.format(0.0002),
        "loss": "cross_entropy",
        "augment": "shifted",
        "bfloat16": False,
        "channels_last": False,
    },
    "lenet-5": {
        "epochs": 8,
        "batch_size": 128,
        "learning_rate": "OneCycle(peak=0.05, warm_up=0.2, first=0.0, last=0.0)",
        "optimizer": NESTEROV.format(0.0002),
        "loss": "cross_entropy",
        "augment": "shifted",
        "bfloat16": True,
        "channels_last": True,
    },
    "resnet-20": RESIDUAL,
    "resnet-56": RESIDUAL,
    "char-gpt": {
        "epochs": 4,
        "batch_size": 32,
        "learning_rate": "OneCycle(peak=0.004, warm_up=0.1, first=0.0, last=0.0)",
        "optimizer": "AdamW(betas=(0.9, 0.99), weight_decay=0.1)",
        "loss": "mean_nats",
        "augment": "none",
        "bfloat16": True,
        "channels_last": False,
    },
    "image-folder-resnet-18": IMAGENET,
    "image-folder-resnet-50": IMAGENET,
    "text-classification": {
        "epochs": 4,
        "batch_size": 32,
        "learning_rate": "WarmUp(then=Linear(peak=0.0005, last=0.0), share=0.1)",
        "optimizer": "AdamW(betas=(0.9, 0.999), weight_decay=0.01)",
        "loss": "cross_entropy",
        "augment": "none",
        "bfloat16": True,
        "channels_last": False,
    },
    "shapes-detector": {
        "epochs": 6,
        "batch_size": 16,
        "learning_rate": "OneCycle(peak=0.004, warm_up=0.2, first=0.0, last=0.0)",
        "optimizer": "AdamW(betas=(0.9, 0.99), weight_decay=0.05)",
        "loss": "DetectionLoss(side=96)",
        "augment": "none",
        "bfloat16": True,
        "channels_last": True,
    },
}
OTHERS = {
    "digits": ("accuracy", "higher", 0.03, "1,797 real 8x8 digits"),
    "lenet-300-100": ("accuracy", "higher", 0.03, "266,200 prunable weights"),
    "lenet-5": ("accuracy", "higher", 0.015, "430,500 prunable weights"),
    "resnet-20": ("accuracy", "higher", None, "271,152 prunable weights"),
    "resnet-56": ("accuracy", "higher", None, "851,760 prunable weights"),
    "char-gpt": ("loss", "lower", 4e-5, "819,200 prunable weights"),
    "image-folder-resnet-18": ("accuracy", "higher", None, "your folder of images"),
    "image-folder-resnet-50": ("accuracy", "higher", None, "your folder of images"),
    "text-classification": ("accuracy", "higher", 5e-5, "a small BERT"),
    "shapes-detector": ("mAP", "higher", 4e-5, "1,206,896 prunable weights"),
}


def test_all_tasks_are_here() -> None:
    assert list(TASKS) == list(RECIPES) == list(OTHERS)


@pytest.mark.parametrize("name", RECIPES)
def test_how_a_task_is_trained(name: str) -> None:
    task = TASKS[name]
    metric, better, fine_tune_rate, said = OTHERS[name]
    assert describe(task.recipe) == RECIPES[name]
    assert (task.name, task.metric.name, task.metric.better) == (name, metric, better)
    assert task.recipe.fine_tune_rate == fine_tune_rate
    assert said in task.description
    assert (BUILT_IN[name].epochs, BUILT_IN[name].metric) == (task.recipe.epochs, task.metric.name)
    assert task.pretrained is False


def test_what_a_recipe_is_by_default() -> None:
    recipe = Recipe(1, 2, OneCycle(0.1), SGD())
    assert describe(recipe) == {
        "epochs": 1,
        "batch_size": 2,
        "learning_rate": "OneCycle(peak=0.1, warm_up=0.2, first=0.0, last=0.0)",
        "optimizer": "SGD(momentum=0.9, nesterov=False, weight_decay=0.0)",
        "loss": "cross_entropy",
        "augment": "none",
        "bfloat16": False,
        "channels_last": False,
    }
    assert (AdamW().betas, AdamW().weight_decay) == ((0.9, 0.99), 0.1)
    assert Steps(0.1, (0.5,)).factor == 0.1
    assert Task("own", "", lambda: nn.Linear(1, 1), lambda folder: pytest.fail("not asked"), recipe).pretrained is False


def test_optimizers_are_what_they_say() -> None:
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    sgd = SGD(momentum=0.5, nesterov=True, weight_decay=0.25)(model).defaults
    assert (sgd["lr"], sgd["momentum"], sgd["nesterov"], sgd["weight_decay"]) == (0.0, 0.5, True, 0.25)
    groups = AdamW(betas=(0.5, 0.75), weight_decay=0.25)(model).param_groups
    assert [(group["betas"], group["weight_decay"], group["lr"]) for group in groups] == [
        ((0.5, 0.75), 0.25, 0.0),
        ((0.5, 0.75), 0.0, 0.0),
    ]
    assert [[tuple(parameter.shape) for parameter in group["params"]] for group in groups] == [[(2, 4)], [(3, 4), (2,)]]


def test_data_sets_are_where_people_find_them() -> None:
    assert (MNIST.title, MNIST.hub_name, MNIST.folder_name, MNIST.image_column) == (
        "MNIST",
        "ylecun/mnist",
        "mnist",
        "image",
    )
    assert (MNIST.mode, MNIST.height, MNIST.width, MNIST.classes) == ("L", 28, 28, 10)
    assert (CIFAR10.title, CIFAR10.hub_name, CIFAR10.folder_name, CIFAR10.image_column) == (
        "CIFAR-10",
        "uoft-cs/cifar10",
        "cifar10",
        "img",
    )
    assert (CIFAR10.mode, CIFAR10.height, CIFAR10.width, CIFAR10.classes) == ("RGB", 32, 32, 10)
    assert (TEST_EXAMPLES, VALIDATION_EXAMPLES) == (400, 200)
    assert pytest.approx(-0.1307 / 0.3081) == BLACK
    assert LARGEST_ENCODED_IMAGE == 2**20


def test_digits_are_jittered_by_little() -> None:
    """A dot in the middle of an image stays within what turning, scaling and moving allow."""
    images = torch.full((500, 1, 8, 8), -1.0)
    images[:, :, 3:5, 3:5] = 1.0
    recipe = TASKS["digits"].recipe
    assert recipe.augment is not None
    moved = recipe.augment(images, torch.Generator().manual_seed(0)) + 1
    places = torch.arange(8) - 3.5
    weight = moved.sum((1, 2, 3))
    rows, columns = ((moved * places[shape]).sum((1, 2, 3)) / weight for shape in ((..., None), (None,)))
    for centre in (rows, columns):
        # Half a pixel: 0.125 of the four from the middle to the edge.
        assert 0.4 < float(centre.abs().max()) < 0.7
        assert abs(float(centre.mean())) < 0.05
    assert float(moved.min()) >= 0
