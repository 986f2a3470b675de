"""Whose tensors a function computes with: layers whose forward pass is their own, but hands their tensors to torch's
function, as timm's BatchNorm with an activation and its linear layers do."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from gossamer.shrink.operations import BatchNorm

TENSORS = ("weight", "bias", "running_mean", "running_var")
PARAMETERS: dict[Callable[..., Any], tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}
"""Function -> names of what it takes, in order; torch's own layers hold their tensors under the same names."""


def called_layer(node: fx.Node, model: nn.Module) -> tuple[str, nn.Linear | BatchNorm] | None:
    """The layer of the model, with its name, that a function computes as torch's class would, in evaluation mode; None
    if it is given other tensors than that layer's, or if somebody else reads one of them."""
    names = PARAMETERS.get(node.target) if node.op == "call_function" else None  # type: ignore[arg-type]
    if names is None:
        return None
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    first = given.get("running_mean" if "running_mean" in names else "weight")
    if not isinstance(first, fx.Node) or first.op != "get_attr":
        return None
    name = str(first.target).rpartition(".")[0]
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear if node.target is F.linear else BatchNorm):
        return None
    if not all(_is_its_own(given.get(tensor), module, name, tensor) for tensor in TENSORS if tensor in names):
        return None
    if isinstance(module, nn.Linear):
        return name, module
    as_torch_does = given.get("training", False) is False and given.get("eps", 1e-5) == module.eps
    return (name, module) if as_torch_does else None


def _is_its_own(given: Any, module: nn.Module, name: str, tensor: str) -> bool:
    """Whether what is given is the tensor that the module holds under this name, and is read there alone."""
    if getattr(module, tensor, None) is None:
        return given is None
    if not isinstance(given, fx.Node) or given.op != "get_attr" or given.target != f"{name}.{tensor}":
        return False
    reads = [node for node in given.graph.nodes if node.op == "get_attr" and node.target == given.target]
    return reads == [given] and len(given.users) == 1


def owners_of_parameters(model: nn.Module) -> Counter[int]:
    """How many modules hold each parameter's memory."""
    modules = {id(module): module for module in model.modules()}.values()
    return Counter(
        parameter.data_ptr()
        for module in modules
        for parameter in module._parameters.values()
        if parameter is not None and parameter.numel()
    )
