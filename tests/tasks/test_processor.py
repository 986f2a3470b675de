"""What is asked of the processor at hand."""

import importlib.util
import platform

import pytest
import torch
from torch import nn

from gossamer.errors import ConfigurationError
from gossamer.tasks import TASKS, processor


def test_on_the_cpu_the_model_runs_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert processor.fastest_forward(model, "cpu") is model


def test_on_a_gpu_that_torch_compiles_for_the_model_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    # No GPU is certain to be here.
    model = nn.Linear(2, 2)
    monkeypatch.setattr(torch, "compile", lambda model, mode: (model, mode))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert processor.fastest_forward(model, "cuda") is model
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "triton" or None)
    assert processor.fastest_forward(model, torch.device("cuda")) == (model, "reduce-overhead")
    assert processor.fastest_forward(model, "cpu") is model


def test_memory_is_kept_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert processor.keep_freed_memory() is False


@pytest.mark.parametrize("name", ["cpu", "cuda", "cud", "cuda:x"])
def test_devices_by_name(name: str) -> None:
    if name == "cpu" or (name == "cuda" and torch.cuda.is_available()):
        assert processor.find_device(name) == torch.device(name)
    else:
        with pytest.raises(ConfigurationError, match=f"device is '{name}'"):
            processor.find_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a GPU has is its own affair")
def test_without_a_gpu_there_is_no_bfloat16_on_one() -> None:
    assert processor.has_bfloat16("cuda") is False


def test_bfloat16_only_where_recipe_and_processor_want_it() -> None:
    expected = "bfloat16" if processor.has_bfloat16("cpu") else "float32"
    assert processor.precision(TASKS["resnet-20"].recipe, "cpu") == expected
    assert processor.precision(TASKS["digits"].recipe, "cpu") == "float32"
    assert processor.precision(TASKS["resnet-20"].recipe, torch.device("meta")) == "float32"
