"""Networks that return several tensors, in whatever holds them, and that are given some by name."""

import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.explain.unit_graph import unit_graph
from gossamer.model.nested import tensors_in
from gossamer.shrink import ShrinkError, Shrunk, load_shrunk, save_shrunk, shrink
from gossamer.shrink.outputs import compare, over_batches, worst
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand

INPUTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def filled(layer: nn.Linear, weight: object, bias: object) -> nn.Linear:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


Pair = namedtuple("Pair", "left right")


@dataclass
class Found:
    left: Tensor
    right: Tensor | None = None
    words: str = "no tensor"


class TwoHeads(nn.Module):
    """Of four hidden units, 0 is read by the left head, 1 by the right one, 2 by none, and 3 is always 2."""

    def __init__(self, arrange: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.hidden = filled(nn.Linear(3, 4), [[1.0, 0, 2], [0, 1, 0], [5, 0, 5], [0, 0, 0]], [0.5, -1, 1, 2])
        self.left = filled(nn.Linear(4, 2), [[3.0, 0, 0, 10], [-1, 0, 0, 20]], [0.25, 0.75])
        self.right = filled(nn.Linear(4, 1), [[0.0, 7, 0, 0]], [1.0])
        self.arrange = arrange

    def forward(self, inputs: Tensor, more: Tensor | None = None, *, doubled: bool = False) -> Any:
        hidden = self.hidden(inputs if more is None else inputs + more).relu()
        return self.arrange(self.left(hidden) * (2 if doubled else 1), self.right(hidden))


ARRANGED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple": lambda left, right: (left, right),
    "list": lambda left, right: [left, right],
    "dict": lambda left, right: {"left": left, "right": right},
    "ordered": lambda left, right: OrderedDict(left=left, right=right),
    "named tuple": lambda left, right: Pair(left, right),
    "dataclass": lambda left, right: Found(left, right),
    "nested": lambda left, right: {"boxes": [left, (right, None)], "loss": None, "again": left},
    "dataclass within": lambda left, right: (Found(left), {"right": Found(right)}),
}


@pytest.mark.parametrize("arrange", ARRANGED.values(), ids=ARRANGED)
def test_units_go_whatever_holds_the_outputs(arrange: Callable[[Tensor, Tensor], Any]) -> None:
    model = TwoHeads(arrange).eval()
    shrunk = shrink(model, INPUTS)
    hidden, *heads = shrunk.layers
    assert (hidden.unused, hidden.constant) == ((2,), (3,))
    assert not any(head.removed for head in heads)
    assert shrunk.not_understood == ()
    assert shrunk.model.left.bias.tolist() == [20.25, 40.75]  # type: ignore[union-attr]
    expected, got = model(INPUTS), shrunk.model(INPUTS)
    assert type(got) is type(expected)
    for one, other in zip(tensors_in(expected), tensors_in(got), strict=True):
        torch.testing.assert_close(one, other)
    graph = unit_graph(understand(trace(model, (INPUTS,))))
    assert graph is not None
    # Both units of the left head, and that of the right one, behind three inputs and four hidden units.
    assert {vertex for vertex, _ in graph.outputs} == {7, 8, 9}


def test_a_head_that_is_not_returned_is_unused() -> None:
    shrunk = shrink(TwoHeads(lambda left, right: {"left": left, "right": None}), INPUTS)
    assert (shrunk.layers[0].unused, shrunk.layers[0].constant) == ((1, 2), (3,))


def test_nothing_but_numbers_is_refused() -> None:
    with pytest.raises(ShrinkError, match="TwoHeads returns a dict without tensors; expected a tensor, or several"):
        shrink(TwoHeads(lambda left, right: {"size": left.shape[0]}), INPUTS)


def test_arguments_by_name() -> None:
    model = TwoHeads(ARRANGED["dict"])
    shrunk = shrink(model, {"more": INPUTS, "inputs": INPUTS})
    assert shrunk.units_removed == 2
    torch.testing.assert_close(shrunk.model(INPUTS, INPUTS)["left"], model(INPUTS, INPUTS)["left"])
    # Those that are not given take their defaults, and can be given to what was made.
    torch.testing.assert_close(shrunk.model(INPUTS, doubled=True)["left"], model(INPUTS, doubled=True)["left"])


class FlattenedByNumber(TwoHeads):
    """Says the number of hidden units, so that what is made of it is a graph."""

    def forward(self, inputs: Tensor, more: Tensor | None = None, *, doubled: bool = False) -> Any:
        hidden = self.hidden(inputs).relu().view(-1, 4)
        return {"left": self.left(hidden), "right": self.right(hidden)}


def test_a_file_of_such_a_network(tmp_path: Path) -> None:
    model = FlattenedByNumber(ARRANGED["dict"])
    shrunk = shrink(model, {"inputs": INPUTS})
    assert len(shrunk.open_sizes) == 1
    save_shrunk(tmp_path / "small.safetensors", shrunk)
    loaded = load_shrunk(tmp_path / "small.safetensors", FlattenedByNumber(ARRANGED["dict"]))
    for found in (shrunk.model(inputs=INPUTS), loaded(inputs=INPUTS)):
        torch.testing.assert_close(found["left"], model(INPUTS)["left"])


def test_every_output_is_compared_by_its_own_size() -> None:
    """A thousandth is rounding beside outputs of a million, and none beside outputs of one."""
    expected = [torch.tensor([1e6, 1.0]), torch.ones(2), torch.tensor([3, 4])]
    near, far = torch.tensor([1e6 + 1, 1.0]), torch.ones(2) + 1e-3
    found = worst(compare(expected, [near, *expected[1:]]))
    assert (found.largest, found.largest_output, found.allowed) == (1.0, 1e6, 100.0)
    found = worst(compare(expected, [near, far, expected[2]]))
    assert (found.largest, found.allowed) == (pytest.approx(1e-3, rel=1e-3), 1e-4)
    found = worst(over_batches([compare(expected, expected), compare(expected, [*expected[:2], torch.tensor([3, 5])])]))
    assert (found.largest, found.largest_output) == (1.0, 4.0)
    not_a_number = [torch.tensor([1e6, torch.nan]), *expected[1:]]
    assert math.isnan(worst(compare(expected, not_a_number)).largest)
    with pytest.raises(ShrinkError, match=r"the outputs have the shapes \[\(2,\)\]; expected .*, as before"):
        compare(expected, [near])


class Keeping(nn.Module):
    """Keeps what it computed for images of a size, as the heads of YOLO do."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 1)
        self.shape: torch.Size | None = None
        self.columns: Tensor | None = None
        with torch.no_grad():
            self.head.weight[:, 1] = 0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.head(self.features(images))
        if self.shape != found.shape[2:]:
            self.shape, self.columns = found.shape[2:], torch.arange(int(found.shape[3])).float()
        assert self.columns is not None
        return {"found": found, "moved": found + self.columns}


def test_what_a_forward_pass_keeps_is_not_what_tracing_made_of_it() -> None:
    torch.manual_seed(0)
    model = Keeping().eval()
    shrunk = shrink(model, torch.randn(2, 1, 8, 8))
    assert model.columns is None
    assert {layer.name: layer.unused for layer in shrunk.layers} == {"features": (1,), "head": ()}
    for side in (8, 8, 11):
        images = torch.randn(3, 1, side, side)
        torch.testing.assert_close(shrunk.model(images)["moved"], model(images)["moved"])


def removed(shrunk: Shrunk) -> dict[str, int]:
    return {layer.name: layer.removed for layer in shrunk.layers if layer.removed}


def test_transformers_mobilenet_v2() -> None:
    """Returns a `ModelOutput`, pads by `F.pad` as far as the image's size asks for, and has a filter of zeros in every
    convolution of kernel 3, behind which nothing is added (its running mean and shift are zero)."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    configuration = transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.25, num_labels=3, tf_padding=True)
    model = transformers.MobileNetV2ForImageClassification(configuration).eval()
    dead = {}
    for name, module in model.named_modules():
        if name.endswith("conv_3x3.convolution") or name.endswith("first_conv.convolution"):
            dead[name] = 1
            with torch.no_grad():
                module.weight[1] = 0
    shrunk = shrink(model, torch.randn(2, 3, 32, 32))
    assert shrunk.not_understood == ()
    # The depthwise ones keep as many channels as the layers before them, of which each loses the same one.
    before = {name.replace("conv_3x3", "expand_1x1") for name in dead if "stem" not in name}
    assert {name for name in removed(shrunk) if "first_conv" in name or "expand" in name} == before | {
        name for name in dead if "first_conv" in name
    }
    for side in (32, 33, 47):
        images = torch.randn(2, 3, side, side)
        with torch.no_grad():
            torch.testing.assert_close(shrunk.model(images).logits, model(images).logits)
    assert type(shrunk.model) is type(model)
