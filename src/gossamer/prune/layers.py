"""The layers that gossamer knows: which of their parameters are weights, and which axis of a weight is which."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from gossamer.model.sharded import own_class

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
SOURCES_OF_HOOKS = ("_orig", "_g", "_v", "_raw")
"""What a hook that computes `weight` before every forward pass calls the parameters that it computes it from:
torch.nn.utils.prune and spectral_norm, weight_norm, dropout of weights."""

Kind = Literal["weight", "table", "source", "other", "own"]
"""The multiplicative weight of a known layer; an embedding table; what another tensor is computed from; a bias or
normalisation of a known layer; a parameter of a layer that is not known."""


def kind_of(module: nn.Module, attribute: str) -> Kind:
    """What the parameter (or computed tensor) of this name is to the module that owns it."""
    if isinstance(module, ParametrizationList) or attribute in _sources(module):
        return "source"
    if isinstance(module, EMBEDDINGS):
        return "table" if attribute == "weight" else "own"
    if isinstance(module, (*CONVOLUTIONS, nn.Linear, nn.Bilinear)) or is_transformers_linear(module):
        return _kind(attribute, weights=("weight",), others=("bias",))
    if isinstance(module, nn.MultiheadAttention):
        return _kind(attribute, weights=ATTENTION_WEIGHTS, others=("in_proj_bias", "bias_k", "bias_v"))
    if isinstance(module, RECURRENT):
        return "weight" if attribute.startswith("weight_") else "other" if attribute.startswith("bias_") else "own"
    if isinstance(module, (*NORMALISATIONS, nn.PReLU)):
        return _kind(attribute, weights=(), others=("weight", "bias"))
    # Those of stacked experts have two axes.
    if "bias" in attribute.split("_")[-1:]:
        return "other"
    return "weight" if _is_stacked_by_transformers(module, attribute) else "own"


def computed_tensors(module: nn.Module) -> dict[str, str]:
    """Tensors that the module computes from parameters anew, at every look or before every forward pass, each with the
    function that ends this and leaves a parameter."""
    found = dict.fromkeys(getattr(module, "parametrizations", {}), "torch.nn.utils.parametrize.remove_parametrizations")
    for attribute, value in vars(module).items():
        sources = [suffix for suffix in SOURCES_OF_HOOKS if f"{attribute}{suffix}" in module._parameters]
        if isinstance(value, Tensor) and (sources or kind_of(module, attribute) == "weight"):
            found[attribute] = _ends_a_hook(module, attribute, sources)
    return found


def is_transformers_linear(module: nn.Module) -> bool:
    """transformers' `Conv1D` is a linear layer with its weight transposed; known by name, without importing it."""
    return any(
        kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.") for kind in type(module).__mro__
    )


def _is_stacked_by_transformers(module: nn.Module, attribute: str) -> bool:
    """Whether the parameter holds the matrices of several experts, one behind the other, as transformers stacks them:
    most of the weights of a mixture of experts."""
    parameter = module._parameters.get(attribute)
    of_experts = any(
        kind.__name__.endswith("Experts") and kind.__module__.startswith("transformers.")
        for kind in type(module).__mro__
    )
    return of_experts and parameter is not None and parameter.dim() == 3


def has_outputs_second(module: nn.Module, attribute: str) -> bool | None:
    """Whether the weight's first axis counts inputs and its second outputs; None if it has no such two axes.

    Of a parameter of a layer that is not known the first axis counts outputs and the second inputs, as in torch's
    layers.
    """
    if _is_stacked_by_transformers(module, attribute):
        # One matrix for each expert; some models have its inputs first, others its outputs.
        return None
    if kind_of(module, attribute) == "own":
        parameter = module._parameters.get(attribute)
        stacked = parameter is not None and parameter.dim() > 2
        return None if stacked and own_class(module).__module__.startswith("transformers.") else False
    transposed = isinstance(module, _ConvNd) and module.transposed
    grouped = isinstance(module, _ConvNd) and module.groups > 1
    if isinstance(module, nn.Bilinear) or (transposed and grouped):
        return None
    return transposed or is_transformers_linear(module)


def _kind(attribute: str, weights: tuple[str, ...], others: tuple[str, ...]) -> Kind:
    return "weight" if attribute in weights else "other" if attribute in others else "own"


def _sources(module: nn.Module) -> set[str]:
    return {
        f"{attribute}{suffix}"
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
        for suffix in SOURCES_OF_HOOKS
    }


def _ends_a_hook(module: nn.Module, attribute: str, sources: list[str]) -> str:
    if f"{attribute}_mask" in module._buffers:
        return "torch.nn.utils.prune.remove"
    if "_g" in sources:
        return "torch.nn.utils.remove_weight_norm"
    if "_orig" in sources:
        return "torch.nn.utils.remove_spectral_norm"
    return "the function that undoes it"
