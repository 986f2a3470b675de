"""Shrunk networks in files: they come back as they were, and what does not fit is refused."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gossamer.errors import CheckpointError
from gossamer.shrink import SelectedInputs, load_shrunk, save_shrunk, shrink
from gossamer.storage.state import digest_of


class Network(nn.Module):
    """Convolution, BatchNorm, a view that says its size, two linear layers, the second without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.hidden, self.classes = nn.Linear(16, 6), nn.Linear(6, 3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.norm(self.convolution(images))), 2)
        return self.classes(self.hidden(features.view(-1, 16)).sigmoid())


def sparse_network() -> Network:
    model = Network().eval()
    with torch.no_grad():
        model.convolution.weight[1] = 0
        model.hidden.weight[2] = 0
        model.classes.weight[:, 4] = 0
    return model


def test_a_network_comes_back(tmp_path: Path) -> None:
    images = torch.randn(4, 2, 6, 6)
    shrunk = shrink(sparse_network(), images)
    assert [layer.outputs for layer in shrunk.layers] == [3, 4, 3]
    save_shrunk(tmp_path / "small.safetensors", shrunk)
    loaded = load_shrunk(tmp_path / "small.safetensors", Network())
    assert isinstance(loaded, torch.fx.GraphModule)
    assert torch.equal(loaded(images), shrunk.model(images))
    assert loaded.classes.bias is not None  # Of the constant sigmoid(bias) of hidden unit 2.


def test_selected_inputs_come_back(tmp_path: Path) -> None:
    def fresh() -> nn.Sequential:
        return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))

    model, inputs = fresh(), torch.randn(3, 5)
    with torch.no_grad():
        model[0].weight[:, [0, 3]] = 0
    shrunk = shrink(model, inputs, select_unused_inputs=True)
    save_shrunk(tmp_path / "small.safetensors", shrunk)
    loaded = load_shrunk(tmp_path / "small.safetensors", fresh())
    assert isinstance(loaded[0], SelectedInputs)
    assert loaded[0].index.tolist() == [1, 2, 4]
    torch.testing.assert_close(loaded(inputs), model(inputs))


def test_the_file_holds_tensors_and_text_only(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    shrunk = shrink(sparse_network(), torch.randn(4, 2, 6, 6))
    save_shrunk(path, shrunk)
    tensors = load_file(path)
    assert sum(tensors[name].numel() for name, _ in shrunk.model.named_parameters()) == shrunk.parameters
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("content", [None, b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", b"\xff" * 64])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "small.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="expected a file written by gossamer shrink"):
        load_shrunk(path, Network())


def test_ordinary_weights_are_refused(tmp_path: Path) -> None:
    save_file(Network().state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="no shrunk network"):
        load_shrunk(tmp_path / "weights.safetensors", Network())


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(16, 6)),
        nn.Linear(16, 6),
    ],
)
def test_another_model_is_refused(tmp_path: Path, model: nn.Module) -> None:
    save_shrunk(tmp_path / "small.safetensors", shrink(sparse_network(), torch.randn(4, 2, 6, 6)))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_shrunk(tmp_path / "small.safetensors", model)


def test_another_kernel_is_refused(tmp_path: Path) -> None:
    save_shrunk(tmp_path / "small.safetensors", shrink(sparse_network(), torch.randn(4, 2, 6, 6)))
    other = Network()
    other.convolution = nn.Conv2d(2, 4, 1)
    with pytest.raises(CheckpointError, match=r"convolution\.weight has shape \(3, 2, 3, 3\)"):
        load_shrunk(tmp_path / "small.safetensors", other)


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.PReLU(4), nn.Linear(4, 2))
    save_shrunk(tmp_path / "small.safetensors", shrink(network, torch.randn(3, 5)))
    other = nn.Sequential(nn.Linear(5, 4), nn.PReLU(1), nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match=r"1\.weight has shape \(4,\), the model's \(1,\)"):
        load_shrunk(tmp_path / "small.safetensors", other)


def fresh() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


def with_selection(index: Tensor, path: Path) -> Path:
    """A file whose first layer reads the features of `index`, in a network that reads three of five."""
    model = fresh()
    with torch.no_grad():
        model[0].weight[:, [0, 3]] = 0
    shrunk = shrink(model, torch.randn(3, 5), select_unused_inputs=True)
    shrunk.model[0].index = index
    save_shrunk(path, shrunk)
    return path


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([1, 2]),
        torch.tensor([1, 2, 3, 4]),
        torch.tensor([[1, 2, 4]]),
        torch.tensor([1, 2, 4], dtype=torch.int32),
        torch.tensor([1.0, 2.0, 4.0]),
        torch.tensor([-1, 2, 4]),
        torch.tensor([1, 2, 5]),
    ],
    ids=["too few", "too many", "another shape", "int32", "float", "below the first", "past the last"],
)
def test_a_selection_that_does_not_fit(index: Tensor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        load_shrunk(with_selection(index, tmp_path / "small.safetensors"), fresh())


def test_any_damage_is_noticed(tmp_path: Path) -> None:
    """One bit, anywhere in the file: refused, or in what holds nothing (spaces of the header)."""
    path = with_selection(torch.tensor([1, 2, 4]), tmp_path / "small.safetensors")
    whole, inputs = path.read_bytes(), torch.randn(2, 5)
    expected = load_shrunk(path, fresh())(inputs)
    places = torch.randint(8 * len(whole), (300,), generator=torch.Generator().manual_seed(0)).tolist()
    refused = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = load_shrunk(path, fresh())
        except CheckpointError:
            refused += 1
        else:
            assert torch.equal(found(inputs), expected)
    assert refused > 290


def test_a_file_of_another_format(tmp_path: Path) -> None:
    path = with_selection(torch.tensor([1, 2, 4]), tmp_path / "small.safetensors")
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        text = json.loads(file.metadata()["gossamer.shrunk"])["text"]
    assert json.loads(text)["format"] == 3
    for format, message in ((4, "of another format than 3; read it with the gossamer that wrote it"), ("2", "damaged")):
        other = json.dumps(json.loads(text) | {"format": format})
        entry = json.dumps({"text": other, "blake2b": digest_of(other, tensors)})
        save_file(tensors, path, metadata={"gossamer.shrunk": entry})
        with pytest.raises(CheckpointError, match=message):
            load_shrunk(path, fresh())
    save_file(tensors, path, metadata={"gossamer.shrunk": text})
    with pytest.raises(CheckpointError, match="it has no digest, as files of earlier versions"):
        load_shrunk(path, fresh())


def test_a_shrunk_file_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder"):
        load_shrunk(tmp_path, fresh())
    path = with_selection(torch.tensor([1, 2, 4]), tmp_path / "small.safetensors")
    (tmp_path / "link.safetensors").symlink_to(path)
    assert load_shrunk(tmp_path / "link.safetensors", fresh()) is not None
