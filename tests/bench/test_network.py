"""Networks from files: what is built computes what the lines say, and a line that says nothing sensible is named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from export.onnx_graphs import Array, assert_same, run_dense
from onnx import numpy_helper
from torch import Tensor

from gossamer.bench.network import build, find_network, known_networks, read
from gossamer.errors import ConfigurationError

PICTURES = """
# A network with every kind of layer that works on images.
image    input   3x10x9
stem     conv    image    outputs=8 kernel=3 stride=2 relu dense   # stays dense

pooled   maxpool stem     kernel=2 stride=1 padding=0
inner    conv    pooled   outputs=8 kernel=3 groups=2 residual=pooled gelu
last     conv    inner    outputs=6 kernel=3 padding=0
average  average last
classes  linear  average  outputs=4
"""
TOKENS = """
tokens    input     5x8
query     linear    tokens          outputs=8
key       linear    tokens          outputs=8 relu
value     linear    tokens          outputs=8
attention attention query,key,value heads=2
mixed     linear    attention       outputs=8 residual=tokens
hidden    normalise mixed
"""


def constants(model: onnx.ModelProto) -> dict[str, Tensor]:
    return {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}


def draw(*shape: int) -> Array:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def test_images_are_computed_as_the_lines_say() -> None:
    model = build(read("pictures", PICTURES), 0.5)
    image = draw(1, 3, 10, 9)
    w = constants(model)
    stem = F.relu(F.conv2d(torch.from_numpy(image), w["stem.weight"], w["stem.bias"], stride=2, padding=1))
    pooled = F.max_pool2d(stem, 2, 1)
    inner = F.gelu(F.conv2d(pooled, w["inner.weight"], w["inner.bias"], padding=1, groups=2) + pooled)
    last = F.conv2d(inner, w["last.weight"], w["last.bias"])
    classes = F.linear(last.mean((2, 3)), w["classes.weight"], w["classes.bias"])
    assert classes.shape == (1, 4)
    assert_same(run_dense(model, {"image": image}), [classes.numpy()])


def test_attention_is_computed_as_the_lines_say() -> None:
    model = build(read("tokens", TOKENS), 0.5)
    tokens = draw(1, 5, 8)
    w = constants(model)

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    given = torch.from_numpy(tokens)
    parts = (linear("query", given), F.relu(linear("key", given)), linear("value", given))
    heads = [part.view(1, 5, 2, 4).transpose(1, 2) for part in parts]
    attention = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(1, 5, 8)
    hidden = F.layer_norm(linear("mixed", attention) + given, (8,), eps=1e-12)
    assert_same(run_dense(model, {"tokens": tokens}), [hidden.numpy()])


def test_so_many_weights_are_zero_and_a_dense_layer_has_none() -> None:
    text = "image input 64x4x4\nstem conv image outputs=128 dense\nnext conv stem outputs=256 kernel=3"
    w = constants(build(read("wide", text), 0.1))
    assert int((w["stem.weight"] == 0).sum()) == 0
    # 294,912 weights, each kept with probability 0.1: the share is within five standard deviations.
    assert float((w["next.weight"] != 0).float().mean()) == pytest.approx(0.1, abs=5 * (0.09 / 294_912) ** 0.5)


def test_blocks_of_four_input_channels_are_kept_or_pruned_as_one() -> None:
    text = "image input 64x4x4\nstem conv image outputs=126 dense\nnext conv stem outputs=256 kernel=3"
    kept = constants(build(read("wide", text), 0.1, structure="1x4"))["next.weight"] != 0
    # The last block has two channels.
    blocks = F.pad(kept, (0, 0, 0, 0, 0, 2)).unflatten(1, (32, 4))
    assert torch.equal(blocks[:, :-1].any(2), blocks[:, :-1].all(2))
    assert torch.equal(blocks[:, -1, 0], blocks[:, -1, 1])
    # 73,728 blocks, each kept with probability 0.1.
    assert float(blocks.any(2).float().mean()) == pytest.approx(0.1, abs=5 * (0.09 / 73_728) ** 0.5)


def test_a_seed_decides_every_byte() -> None:
    network = read("pictures", PICTURES)
    first, again, other = (build(network, 0.5, seed).SerializeToString(deterministic=True) for seed in (0, 0, 1))
    assert first == again != other


# Published numbers of weights, the classifier's included, biases and normalisation not.
WEIGHTS = {"resnet-50": 25_502_912, "mobilenet-v1": 4_209_088, "vgg-16": 138_344_128, "resnet-20": 270_896}


@pytest.mark.parametrize("name", ["mobilenet-v1", "resnet-20", "resnet-50"])
def test_networks_that_come_along_have_the_published_number_of_weights(name: str) -> None:
    weights = [w for w in constants(build(find_network(name), 1.0)).values() if w.dim() > 1]
    assert sum(w.numel() for w in weights) == WEIGHTS[name]


def test_every_network_that_comes_along_can_be_read() -> None:
    assert known_networks() == ["bert-base-block", "mobilenet-v1", "resnet-20", "resnet-50", "vgg-16"]
    assert all(len(find_network(name).layers) > 5 for name in known_networks())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("next", "a name, a kind and what the layer reads"),
        ("next pool image", "no kind 'pool'; expected input, conv, linear"),
        ("next conv elsewhere outputs=4", "no layer 'elsewhere' above"),
        ("image conv image outputs=4", "a second layer 'image'"),
        ("next conv image", "conv needs outputs="),
        ("next conv image outputs=0", "outputs must be a whole number of at least 1"),
        ("next conv image outputs=4 stride=-1", "stride must be"),
        ("next conv image outputs=99999999999", "outputs must be"),
        ("next conv image outputs=4 tanh", "conv has no setting 'tanh'"),
        ("next conv image outputs=4 relu gelu", "conv has no setting 'gelu'"),
        ("next maxpool image kernel=2 stride=2 relu", "maxpool has no setting 'relu'"),
        ("next conv image outputs=4 residual=later", "no layer 'later' above"),
        ("next attention image heads=1", "attention reads 3 layers"),
        ("next input 3", "channels x height x width or tokens x features"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(line: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^mine, line 3: ") as refused:
        read("mine", f"# a comment\nimage input 3x8x8\n{line}\n")
    assert complaint in str(refused.value)
    assert f"got: {line}" in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("next conv image outputs=4 kernel=11 padding=0", "layer next: its kernel is larger than the image"),
        ("next conv image outputs=4 groups=2", "layer next: 2 groups do not divide 3 inputs"),
        ("next conv image outputs=4 residual=image", "layer next: its output is"),
        ("flat flatten image\nnext conv flat outputs=4", "layer next: it reads flat of 2 axes; expected 4"),
    ],
)
def test_layers_that_do_not_fit_are_named(lines: str, complaint: str) -> None:
    network = read("mine", f"image input 3x8x8\n{lines}\n")
    with pytest.raises(ConfigurationError, match=complaint):
        build(network, 0.5)


@pytest.mark.parametrize("density", [0, -0.1, 1.1, float("nan")])
def test_a_density_that_is_none_is_refused(density: float) -> None:
    with pytest.raises(ConfigurationError, match="expected more than 0 and at most 1"):
        build(read("pictures", PICTURES), density)


def test_what_is_no_file_of_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no network 'resnet-51'; expected one of bert-base-block"):
        find_network("resnet-51")
    binary = tmp_path / "network.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="is no text"):
        find_network(str(binary))
    with pytest.raises(ConfigurationError, match="expected an input line and then at least one layer"):
        read("empty", "# nothing\n")
