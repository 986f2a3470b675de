"""A network that takes its inputs by name and returns a dictionary has the facts of the plain one inside it."""

from typing import Any

import torch
from torch import Tensor, nn

from gossamer.explain.explanation import explain_model
from gossamer.tasks import Examples, Loaded, Metric

INPUTS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS.sum(1) > 0).long()


def plain() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight[2:4] = 0
        model[2].weight[:, 4] = 0
    return model


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = plain()

    def forward(self, values: Tensor, labels: Tensor | None = None, scale: Tensor | None = None) -> dict[str, Any]:
        return {"loss": None, "logits": self.layers(values if scale is None else values * scale)}


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"scale": torch.ones(3), "values": INPUTS[index], "labels": LABELS[index]}


def right(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    return (outputs["logits"].argmax(1) == labels).float()


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() != 0 for name, tensor in model.named_parameters() if tensor.dim() > 1}


def test_facts_are_those_of_the_network_inside() -> None:
    model, inside = Named(), plain()
    found = explain_model(model, Loaded(Rows(), batch_size=7), Metric(score=right), masks_of(model), example=9)
    expected = explain_model(inside, Examples(INPUTS, LABELS), Metric(), masks_of(inside), example=9)
    for one, other in zip(found.dead_units.layers, expected.dead_units.layers, strict=True):
        assert one.layer == f"layers.{other.layer}"
        assert (one.unread, one.constant, one.silent) == (other.unread, other.constant, other.silent)
    assert found.dead_units.examples == expected.dead_units.examples == 24
    assert found.decision is not None
    assert expected.decision is not None
    assert (found.decision.margin, found.decision.decisive) == (expected.decision.margin, expected.decision.decisive)
    assert found.ablation is not None
    assert expected.ablation is not None
    assert [point.metric for point in found.ablation.points] == [point.metric for point in expected.ablation.points]
    assert found.fans is not None
    assert expected.fans is not None
    first, last = (layer.fan_in for layer in expected.fans.layers)
    # What the first layer reads is a product of two inputs, and reached through each.
    assert [layer.fan_in for layer in found.fans.layers] == [tuple(2 * fan for fan in first), last]
