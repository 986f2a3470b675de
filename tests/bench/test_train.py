"""`gossamer bench train` measures what it says."""

from pathlib import Path

import pytest
import torch

from gossamer.bench import train as bench_train
from gossamer.errors import ConfigurationError
from gossamer.tasks import DataError, find_task


@pytest.fixture(autouse=True)
def _as_before() -> object:
    yield
    torch.set_flush_denormal(False)


@pytest.mark.slow
def test_a_step_an_epoch_and_images_a_second_belong_together() -> None:
    result = bench_train.run("digits", passes=3, steps=2)
    assert result["data"] == "real"
    assert (result["batch"], result["steps"], result["epoch_steps"]) == (64, 2, 1197 // 64)
    step = result["step_seconds"]
    assert 0 < step["min"] <= step["median"] <= step["max"]
    assert result["examples_per_second"] == pytest.approx(64 / step["median"])
    assert result["epoch_seconds"] == pytest.approx(step["median"] * (1197 // 64))
    assert result["machine"]["torch"] == torch.__version__


def test_noise_has_the_shape_of_the_data() -> None:
    photographs = bench_train.stand_in("resnet-20")
    assert photographs.inputs.shape == (45_000, 3, 32, 32)
    assert photographs.batch(slice(2))[0].dtype == torch.float32
    text = bench_train.stand_in("char-gpt")
    assert text.inputs.shape == text.targets.shape == ((948_085 - 129) // 64 + 1, 128)


def test_noise_trains() -> None:
    result = bench_train.run("resnet-20", passes=1, steps=1)
    assert result["data"] == "noise"
    assert result["epoch_steps"] == 351
    assert result["precision"] in ("float32", "bfloat16")


def test_noise_is_like_the_real_data(real_data: Path) -> None:
    real, noise = find_task("char-gpt").data(real_data).train, bench_train.stand_in("char-gpt")
    assert noise.inputs.shape == real.inputs.shape
    assert noise.inputs.dtype == real.inputs.dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_name": "lenet-300-100"}, "no stand-in for the data of 'lenet-300-100'; give --data"),
        ({"task_name": "lenet"}, "there is no task 'lenet'"),
        ({"passes": 0}, "got 0 passes of 40 steps"),
        ({"steps": -1}, "got 5 passes of -1 steps"),
    ],
)
def test_mistakes(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        bench_train.run(**arguments)  # type: ignore[arg-type]


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file train-00000"):
        bench_train.run("resnet-20", tmp_path)
