"""Networks of torch by how they are called and in which precision they are."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from export.onnx_graphs import assert_same, ops, run_sparse
from small_run import printed, refused
from torch import Tensor

from gossamer.tasks.own_task import call_own_function

OWN = """
import torch
from torch import nn

class Layered(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 512), nn.Linear(512, 64)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight[torch.rand(layer.weight.shape) < 0.95] = 0

class Several(Layered):
    def forward(self, *inputs):
        return self.second(torch.relu(self.first(inputs[0]) + self.first(inputs[1])))

class Named(Layered):
    def forward(self, x, *, scale=1.0, twice=False, **more):
        y = self.second(torch.relu(self.first(x))) * scale
        return {"y": 2 * y if twice else y, "z": y + more["parts"]["b"]}

class EachAlone(Layered):
    def forward(self, *inputs):
        return torch.stack([self.second(torch.relu(self.first(row))) for row in inputs[0]])

class Typed(Layered):
    def forward(self, x):
        return self.second(torch.relu(self.first(x.double())))

class Untyped(Layered):
    def forward(self, x):
        return self.second(torch.relu(self.first(x)) + torch.linspace(0, 1, 512))

def several():
    return Several(), (torch.randn(3, 64), torch.randn(3, 64))

def several_single():
    return Several(), [torch.randn(1, 64), torch.randn(1, 64)]

def named():
    return Named(), {"x": torch.randn(3, 64), "twice": True, "parts": {"b": torch.randn(3, 64)}}

def each_alone():
    return EachAlone(), torch.randn(4, 64)

def one_alone():
    return EachAlone(), torch.randn(1, 64)

def convolutions():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 96, 3), nn.BatchNorm2d(96), nn.ReLU(), nn.Conv2d(96, 96, 3), nn.ReLU())
    with torch.no_grad():
        for place in (0, 3):
            network[place].weight[torch.rand(network[place].weight.shape) < 0.97] = 0
    return network, torch.randn(4, 8, 20, 20)

def half():
    network, images = convolutions()
    return network.half(), images.half()

def bfloat16():
    network, images = convolutions()
    return network.bfloat16(), images.bfloat16()

def double():
    network, images = convolutions()
    return network.double(), images.double()

def by_default():
    torch.set_default_dtype(torch.float64)
    return Untyped(), torch.randn(3, 64)

def typed():
    return Typed().double(), torch.randn(3, 64)

def nothing_to_call_with():
    return Several(), {"x": object()}
"""

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def examples(own: Path, function: str) -> tuple[torch.nn.Module, object]:
    torch.manual_seed(1)
    made = call_own_function(f"{own}:{function}", "")
    assert isinstance(made, tuple)
    network, inputs = made
    return network.eval(), inputs


def first_axes(model: onnx.ModelProto) -> list[int | str]:
    axes = [value.type.tensor_type.shape.dim[0] for value in model.graph.input]
    return [axis.dim_value or axis.dim_param for axis in axes]


def by_hand(network: torch.nn.Module, *inputs: Tensor) -> Tensor:
    hidden = sum(F.linear(x, network.first.weight, network.first.bias) for x in inputs)
    return F.linear(F.relu(hidden), network.second.weight, network.second.bias).detach()  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["several", "several_single"])
def test_any_number_of_positional_inputs(function: str, own: Path) -> None:
    network, _ = examples(own, function)
    output = printed("export", f"{own}:{function}", "-o", own.with_suffix(".onnx"))
    assert "fixed" not in output
    model = onnx.load(own.with_suffix(".onnx"))
    assert first_axes(model) == ["batch", "batch"]
    assert "SparseMatMul" in ops(model)
    for batch in (1, 5):
        inputs = [torch.randn(batch, 64), torch.randn(batch, 64)]
        feed = {value.name: x.numpy() for value, x in zip(model.graph.input, inputs, strict=True)}
        assert_same(run_sparse(model, feed), [by_hand(network, *inputs).numpy()])


def test_inputs_by_name_in_dictionaries_and_constants_among_them(own: Path) -> None:
    network, _ = examples(own, "named")
    printed("export", f"{own}:named", "-o", own.with_suffix(".onnx"))
    model = onnx.load(own.with_suffix(".onnx"))
    assert [value.name for value in model.graph.input] == ["x", "parts_b"]
    assert first_axes(model) == ["batch", "batch"]
    x, b = torch.randn(5, 64), torch.randn(5, 64)
    y = by_hand(network, x)
    got = run_sparse(model, {"x": x.numpy(), "parts_b": b.numpy()})
    assert_same(got, [(2 * y).numpy(), (y + b).numpy()])


@pytest.mark.slow
@pytest.mark.parametrize(("function", "number"), [("each_alone", 4), ("one_alone", 1)])
def test_a_batch_that_the_network_fixes_is_told(function: str, number: int, own: Path) -> None:
    output = " ".join(printed("export", f"{own}:{function}", "-o", own.with_suffix(".onnx")).split())
    assert "the number of examples too: its forward takes the number of examples for a constant" in output
    assert first_axes(onnx.load(own.with_suffix(".onnx"))) == [number]


@pytest.mark.parametrize("function", ["half", "bfloat16", "double"])
def test_other_precisions_become_fp32(function: str, own: Path) -> None:
    network, images = examples(own, function)
    assert isinstance(images, Tensor)
    output = " ".join(printed("export", f"{own}:{function}", "-o", own.with_suffix(".onnx")).split())
    kind = {"half": "float16", "double": "float64"}.get(function, function)
    assert f"the network is {kind}: the file takes, computes and returns fp32; in its own precision it" in output
    model = onnx.load(own.with_suffix(".onnx"))
    assert "SparseConv" in ops(model)
    with torch.no_grad():
        expected = network.double()(images.double()).numpy()
    (got,) = run_sparse(model, {model.graph.input[0].name: images.float().numpy()})
    assert got.dtype == np.float32
    assert_same([got], [expected])


def test_a_program_whose_numbers_are_doubles(own: Path) -> None:
    before = torch.get_default_dtype()
    try:
        output = printed("export", f"{own}:by_default", "-o", own.with_suffix(".onnx"))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert "the network is float64" in output
    assert "SparseMatMul" in ops(onnx.load(own.with_suffix(".onnx")))


def test_a_network_that_names_types_itself_keeps_them(own: Path) -> None:
    network, x = examples(own, "typed")
    output = " ".join(printed("export", f"{own}:typed", "-o", own.with_suffix(".onnx")).split())
    assert "it stays float64" in output
    assert "its weight is of type double" in output
    assert isinstance(x, Tensor)
    with torch.no_grad():
        expected = network(x).numpy()
    assert_same(run_sparse(onnx.load(own.with_suffix(".onnx")), {"x": x.numpy()}), [expected], tolerance=1e-12)


def test_what_no_network_is_called_with(own: Path) -> None:
    message = refused("export", f"{own}:nothing_to_call_with", "-o", own.with_suffix(".onnx"))
    assert "by the names of forward's parameters) in a dictionary" in message
