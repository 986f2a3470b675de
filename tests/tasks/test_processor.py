import torch
from torch import nn

from gossamer.tasks import TASKS, processor


def test_on_the_cpu_the_model_runs_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert processor.fastest_forward(model, "cpu") is model


def test_bfloat16_only_where_recipe_and_processor_want_it() -> None:
    expected = "bfloat16" if processor.has_bfloat16("cpu") else "float32"
    assert processor.precision(TASKS["resnet-20"].recipe, "cpu") == expected
    assert processor.precision(TASKS["digits"].recipe, "cpu") == "float32"
    assert processor.precision(TASKS["resnet-20"].recipe, torch.device("meta")) == "float32"
