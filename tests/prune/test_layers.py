"""Which parameters of a layer are weights, which axis counts what, and what ends a hook that computes one."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from gossamer.prune.layers import Kind, computed_tensors, has_outputs_second, is_transformers_linear, kind_of


class Table(nn.Embedding):
    pass


class Conv1D(nn.Module):
    """Of no library: its name alone says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))


class OfTransformers(Conv1D):
    pass


OfTransformers.__name__ = "Conv1D"
OfTransformers.__module__ = "transformers.pytorch_utils"


class Experts(nn.Module):
    """Matrices of several experts, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stacked = nn.Parameter(torch.ones(2, 3, 4))
        self.plain = nn.Parameter(torch.ones(3, 4))


class ExpertsOfTransformers(Experts):
    pass


ExpertsOfTransformers.__module__ = "transformers.models.own.modeling_own"


class OwnExperts(ExpertsOfTransformers):
    pass


OwnExperts.__module__ = "transformers.models.own.modeling_own"


@pytest.mark.parametrize(
    ("module", "attribute", "kind"),
    [
        (nn.Linear(2, 3), "weight", "weight"),
        (nn.Linear(2, 3), "bias", "other"),
        (nn.Linear(2, 3), "adapter", "own"),
        (nn.Conv1d(2, 3, 1), "weight", "weight"),
        (nn.ConvTranspose3d(2, 3, 1), "weight", "weight"),
        (nn.Bilinear(2, 3, 4), "weight", "weight"),
        (nn.Embedding(3, 2), "weight", "table"),
        (nn.EmbeddingBag(3, 2), "weight", "table"),
        (Table(3, 2), "other", "own"),
        (nn.MultiheadAttention(4, 2), "in_proj_weight", "weight"),
        (nn.MultiheadAttention(4, 2, kdim=3, vdim=3), "k_proj_weight", "weight"),
        (nn.MultiheadAttention(4, 2), "in_proj_bias", "other"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), "bias_k", "other"),
        (nn.MultiheadAttention(4, 2), "own", "own"),
        (nn.LSTM(2, 3), "weight_ih_l0", "weight"),
        (nn.GRUCell(2, 3), "weight_hh", "weight"),
        (nn.LSTM(2, 3), "bias_ih_l0", "other"),
        (nn.LSTM(2, 3), "own", "own"),
        (nn.BatchNorm2d(3), "weight", "other"),
        (nn.LayerNorm(3), "bias", "other"),
        (nn.GroupNorm(1, 3), "own", "own"),
        (nn.RMSNorm(3), "weight", "other"),
        (nn.PReLU(), "weight", "other"),
        (Conv1D(), "weight", "own"),
        (OfTransformers(), "weight", "weight"),
        (Experts(), "stacked", "own"),
        (ExpertsOfTransformers(), "stacked", "own"),
        (OwnExperts(), "stacked", "weight"),
        (OwnExperts(), "plain", "own"),
        (Experts(), "stacked_bias", "other"),
        (Experts(), "bias", "other"),
        (Experts(), "unbiased", "own"),
        (Experts(), "bias_table", "own"),
        (spectral_norm(nn.Linear(2, 3)), "weight_orig", "source"),
        (spectral_norm(nn.Linear(2, 3)), "bias", "other"),
        (parametrizations.weight_norm(nn.Linear(2, 3)).parametrizations.weight, "original0", "source"),
    ],
)
def test_what_a_parameter_is_to_its_layer(module: nn.Module, attribute: str, kind: Kind) -> None:
    assert kind_of(module, attribute) == kind


def test_transformers_linear_layers_are_known_by_name_and_library() -> None:
    assert is_transformers_linear(OfTransformers())
    assert not is_transformers_linear(Conv1D())
    assert not is_transformers_linear(nn.Linear(2, 3))


@pytest.mark.parametrize(
    ("module", "attribute", "second"),
    [
        (nn.Linear(2, 3), "weight", False),
        (nn.Conv2d(2, 4, 3, groups=2), "weight", False),
        (nn.ConvTranspose2d(2, 4, 3), "weight", True),
        (nn.ConvTranspose2d(2, 4, 3, groups=2), "weight", None),
        (nn.Bilinear(2, 3, 4), "weight", None),
        (OfTransformers(), "weight", True),
        (Conv1D(), "weight", False),
        (Experts(), "stacked", False),
        (Experts(), "plain", False),
        (ExpertsOfTransformers(), "stacked", None),
        (OwnExperts(), "stacked", None),
        (OwnExperts(), "plain", False),
        (ExpertsOfTransformers(), "plain", False),
        (ExpertsOfTransformers(), "absent", False),
        (nn.ConvTranspose2d(2, 4, 3), "adapter", False),
    ],
)
def test_which_axis_counts_outputs(module: nn.Module, attribute: str, second: bool | None) -> None:
    assert has_outputs_second(module, attribute) is second


def hooked(suffix: str) -> nn.Module:
    """As a library leaves a layer whose weight it computes before every forward pass."""
    module = nn.Linear(2, 3)
    weight = module._parameters.pop("weight")
    assert weight is not None
    module.register_parameter(f"weight{suffix}", nn.Parameter(weight.detach()))
    module.weight = weight.detach()  # type: ignore[assignment]
    return module


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (nn.Linear(2, 3), {}),
        (prune.identity(nn.Linear(2, 3), "weight"), {"weight": "torch.nn.utils.prune.remove"}),
        (spectral_norm(nn.Linear(2, 3)), {"weight": "torch.nn.utils.remove_spectral_norm"}),
        (hooked("_g"), {"weight": "torch.nn.utils.remove_weight_norm"}),
        (hooked("_raw"), {"weight": "the function that undoes it"}),
        (hooked("_of_somebody"), {"weight": "the function that undoes it"}),
        (
            parametrizations.weight_norm(nn.Linear(2, 3)),
            {"weight": "torch.nn.utils.parametrize.remove_parametrizations"},
        ),
    ],
)
def test_what_ends_a_computed_weight(module: nn.Module, found: dict[str, str]) -> None:
    assert computed_tensors(module) == found
