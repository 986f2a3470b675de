"""What is said of a scope though nothing is wrong with it, and when."""

import pytest
import torch
from torch import nn

from gossamer import Scope
from gossamer.prune.prunable import prunable_weights
from gossamer.prune.remarks import remarks


class Own(nn.Module):
    """A parameter of a layer that is not known, with so many numbers."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(numbers // 2, 2))


def said(model: nn.Module, scope: Scope | None = None) -> list[str]:
    return list(remarks(model, scope or Scope(), prunable_weights(model, scope)))


def test_most_is_more_than_half() -> None:
    linear = nn.Linear(4, 5, bias=False)
    assert said(nn.Sequential(linear, Own(20))) == []
    (told,) = said(nn.Sequential(linear, Own(22)))
    assert told.startswith(
        "most of Sequential is outside the scope: 20 of 42 parameters are prunable, and 22 are in embeddings and "
        "layers that gossamer does not know: 1.table (22). To prune them"
    )
    assert told.endswith("that are to be pruned: include=['*', '1.table']")
    # What a pattern leaves out is left out on purpose.
    assert said(nn.Sequential(linear, Own(22)), Scope(exclude=["1.*"])) == []


def test_the_largest_are_named() -> None:
    linear = nn.Linear(1, 1, bias=False)
    (told,) = said(nn.Sequential(linear, Own(4), Own(10), Own(6)))
    assert ": 2.table (10), 3.table (6), 1.table (4). To prune" in told
    (told,) = said(nn.Sequential(linear, Own(4), Own(10), Own(6), Own(2)))
    assert ": 2.table (10), 3.table (6), 1.table (4), .... To prune" in told


def test_frozen_weights_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(2, 2))
    assert said(model) == []
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    (told,) = said(model)
    assert told.startswith("24 of 34 prunable weights are frozen (requires_grad=False): 0.weight, .... They are pruned")
    assert said(model, Scope(trainable_only=True)) == said(model, Scope(exclude=["0", "2"])) == []
    # Tied to one that is trained.
    model[1].weight = nn.Parameter(model[2].weight.data, requires_grad=True)
    assert said(model)[0].startswith("20 of 24 prunable weights are frozen (requires_grad=False): 0.weight. They")
    # Adapters are there to make up for it.
    model.add_module("lora_a", nn.Linear(2, 2))
    assert said(model) == []


class WithAdapter(nn.Linear):
    def __init__(self, name: str, *, weighted: bool) -> None:
        super().__init__(3, 3)
        adapter = nn.Linear(3, 2) if weighted else nn.Identity()
        self.add_module(name, adapter)


def test_adapters_beside_a_weight_are_told() -> None:
    (told,) = said(nn.Sequential(WithAdapter("lora_a", weighted=False), nn.Linear(3, 3)))
    assert told.startswith("1 prunable weights have adapters beside them (0.weight). What a trained adapter adds")
    assert "exclude=" not in told
    (told,) = said(nn.Sequential(WithAdapter("LoRA_b", weighted=True)))
    assert "The adapters' own weights are prunable too (0.LoRA_b.weight): exclude=['*lora*'] leaves them out." in told
    assert said(nn.Sequential(WithAdapter("flora", weighted=True))) == []


class Layer(nn.Module):
    """As peft wraps a layer."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.base_layer, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.adapter_layer_names = names


@pytest.mark.parametrize(("names", "told"), [(("lora_A",), 1), (("ia3_l",), 0), (("ia3_l", "hada_w1"), 1), ((), 0)])
def test_adapters_around_a_layer_are_told_if_they_add(names: tuple[str, ...], told: int) -> None:
    found = said(nn.Sequential(Layer(*names)))
    assert len(found) == told
    assert all("1 prunable weights have adapters beside them (0.base_layer.weight)" in one for one in found)
