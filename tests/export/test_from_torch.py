"""Networks of torch as people write them: masks, outputs in dictionaries, sizes that do not change."""

from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from command_line import gossamer
from export.onnx_graphs import assert_same, ops, run_sparse
from small_run import printed, refused
from torch import Tensor, nn
from torch.nn.utils import prune

from gossamer.export.costs import EverythingSparse
from gossamer.export.dense import to_dense
from gossamer.export.exporting import Exported, export
from gossamer.export.from_torch import to_onnx
from gossamer.export.source import Source
from gossamer.export.twin import Twin

SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


def exported(network: nn.Module, inputs: list[Tensor], path: Path) -> Exported:
    traced = to_onnx(network.eval(), inputs)
    names = [value.name for value in traced.model.graph.input]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    source = Source("a network", traced.model, (feed,), "examples", Twin(network, traced.modules))
    return export(source, path, costs=SPARSE)


@pytest.mark.parametrize("slope", [0.01, 0.2, -0.25, 2.5])
def test_leaky_relu_is_part_of_its_layer(slope: float, tmp_path: Path) -> None:
    """A convolution, a depthwise one, and a linear layer, each with zeros."""
    torch.manual_seed(0)
    leaky = nn.LeakyReLU(slope)
    layers = [nn.Conv2d(6, 8, 3), leaky, nn.Conv2d(8, 8, 3, groups=8), leaky, nn.Flatten(), nn.Linear(32, 5), leaky]
    network = nn.Sequential(*layers)
    for layer in network:
        if not isinstance(layer, (nn.LeakyReLU, nn.Flatten)):
            prune.l1_unstructured(layer, "weight", amount=0.5)
    found = exported(network, [torch.randn(3, 6, 6, 6)], tmp_path / "m.onnx")
    assert [layer.form for layer in found.layers] == ["sparse"] * 3
    assert "LeakyRelu" not in ops(onnx.load(tmp_path / "m.onnx"), "")
    dense = to_dense(onnx.load(tmp_path / "m.onnx"))
    assert ops(dense, "").count("LeakyRelu") == 3


def test_masks_of_torch_prune_become_zeros(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    prune.l1_unstructured(network[0], "weight", amount=0.9)
    prune.random_unstructured(network[3], "weight", amount=0.5)
    prune.l1_unstructured(network[3], "weight", amount=0.5)  # a second mask over the first
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(3, 8, 4, 4)
    convolution, linear = (network[place].weight_orig * network[place].weight_mask for place in (0, 3))
    hidden = F.relu(F.conv2d(images, convolution, network[0].bias, padding=1)).flatten(1)
    expected = F.linear(hidden, linear, network[3].bias).detach().numpy()

    layers = exported(network, [images], tmp_path / "m.onnx").layers

    assert [(layer.name, layer.form) for layer in layers] == [("0", "sparse"), ("3", "sparse")]
    assert [layer.kept for layer in layers] == [int(weight.count_nonzero()) for weight in (convolution, linear)]
    model = onnx.load(tmp_path / "m.onnx")
    assert_same(run_sparse(model, {model.graph.input[0].name: images.numpy()}), [expected])
    # The caller's network is as it was, masks and all.
    assert prune.is_pruned(network[0])
    assert prune.is_pruned(network[3])
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Returning(nn.Module):
    """Returns its layer's result and its input in some arrangement."""

    def __init__(self, arrangement: str) -> None:
        super().__init__()
        self.arrangement = arrangement
        self.layer = nn.Linear(16, 8)
        with torch.no_grad():
            self.layer.weight[:, ::2] = 0

    def forward(self, x: Tensor) -> object:
        y = self.layer(x)
        return {
            "dictionary": {"y": y, "more": {"later": x + 2, "earlier": x + 1}},
            "nested": (y, [x + 2, (x + 1,)]),
            "number": (y, 3),
        }[self.arrangement]


@pytest.mark.parametrize("arrangement", ["dictionary", "nested"])
def test_outputs_in_dictionaries_and_tuples_of_tuples(arrangement: str, tmp_path: Path) -> None:
    network = Returning(arrangement)
    x = torch.randn(5, 16)
    exported(network, [x], tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert ops(model) == ["SparseMatMul"]
    expected = [F.linear(x, network.layer.weight, network.layer.bias).detach(), x + 2, x + 1]
    assert_same(run_sparse(model, {"x": x.numpy()}), [value.numpy() for value in expected])


OWN = """
import torch
from torch import nn

class Returning(nn.Module):
    def forward(self, x):
        return x + 1, "text"

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
    def __deepcopy__(self, memo):
        raise TypeError("not to be copied")

def text():
    return Returning(), torch.randn(4, 4)

def uncopied():
    return Hidden(), torch.randn(4, 4)
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [("text", "the network returns str; expected tensors"), ("uncopied", "torch cannot copy a Hidden")],
)
def test_what_cannot_be_exported_is_one_line(function: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    refusal = refused("export", f"{tmp_path}/own.py:{function}", "-o", tmp_path / "m.onnx")
    assert message in refusal
    assert "\n" not in refusal
    assert not (tmp_path / "m.onnx").exists()


FIXED = """
import torch
from torch import nn

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 32)
        self.offsets = nn.Parameter(torch.randn(4, 32))
        with torch.no_grad():
            self.layer.weight[:, ::2] = 0

class OneOfEach(Fixed):
    def forward(self, x):
        return self.layer(x) + self.offsets

class TwoBatches(Fixed):
    def forward(self, x, memory):
        return self.layer(x) @ self.layer(memory).T

class Scaled(Fixed):
    def forward(self, x, scale):
        return self.layer(x) * scale

def fixed():
    return OneOfEach(), torch.randn(4, 16)

def batches():
    return TwoBatches(), (torch.randn(4, 16), torch.randn(7, 16))

def scalar():
    return Scaled(), (torch.randn(4, 16), torch.tensor(2.0))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("function", "first"), [("fixed", [4]), ("batches", [4, 7]), ("scalar", ["batch", None])])
def test_first_axes_that_are_fixed_or_missing(function: str, first: list[int | str | None], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FIXED)
    printed("export", f"{tmp_path}/own.py:{function}", "-o", tmp_path / "m.onnx")
    axes = [value.type.tensor_type.shape.dim for value in onnx.load(tmp_path / "m.onnx").graph.input]
    found = [(sizes[0].dim_value or sizes[0].dim_param) if sizes else None for sizes in axes]
    assert [size if isinstance(size, int) or size is None else "batch" for size in found] == first


def test_a_first_try_that_failed_is_not_told(tmp_path: Path) -> None:
    """Two batches of different sizes: torch reports on standard error that their axes cannot be one."""
    (tmp_path / "own.py").write_text(FIXED)
    finished = gossamer(tmp_path, "export", "own.py:batches", "-o", "m.onnx")
    assert (finished.returncode, finished.stderr) == (0, "")
