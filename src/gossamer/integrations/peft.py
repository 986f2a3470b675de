"""Adapters of peft (LoRA and its relatives) on a pruned network: merged, and trained, so that its zeros stay.

What an adapter adds to a weight is dense: of the product of LoRA's two matrices the masks of a 90% sparse network take
most. Merging with the masks is exact for a network that was trained with them: `mask_adapters` lets each adapter add
its product only where the weight is kept, from the first step on.

Source: the sparse adapters of SQFT (Munoz, Yuan, Jain, "SQFT: Low-cost Model Adaptation in Low-precision Sparse
Foundation Models", EMNLP 2024), which compute (W + (B A) * M) x.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from gossamer.arguments import require_kind
from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.model.whole import require_plain
from gossamer.prune.enforce import attach_masks, attached_masks

INSIDE = ("base_layer", "original_module")
"""What peft's modules call the one of the network that they stand for."""
COPY = "modules_to_save"
"""What they call the copies that are trained in its place, one for each adapter."""
METHODS = ("lora", "loha", "lokr")
"""The methods of peft that add a product to the weight and do nothing else."""
LAYERS = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")
"""Their layers for which the product of a weight of its own shape is what they add."""


def merge(model: nn.Module, masks: Mapping[str, Tensor] | None = None, adapters: list[str] | None = None) -> nn.Module:
    """Merges the adapters into the pruned network under them, and keeps its zeros.

        model = get_peft_model(pruned, LoraConfig(...))     # pruned: by gossamer.rounds, or from gossamer.load_round
        mask_adapters(model)
        train(model)
        merged = merge(model)
        gossamer.check(merged)

    The masks are attached to the merged network, so that it can be trained on. How much they take of what the adapters
    add is measured; if that was not taken during training already (`mask_adapters`), a warning tells it.

    Args:
        model: as peft's `get_peft_model` or `PeftModel.from_pretrained` returns it.
        masks: by weight name, True where the weight is kept; the names are the network's with or without the adapters
            (`gossamer.load_masks`). Default: the masks attached to the model.
        adapters: the names of those that are merged; all active ones by default.

    Returns:
        The network without adapters, which is the one that was given to peft.

    Raises:
        ConfigurationError: the model has no adapters that can be merged, no masks are known or one does not fit, or a
            weight is quantized (QLoRA).
    """
    network = _network_of(model)
    masks = _masks_of(model, network, masks)
    told = {*masks} - {f"{path}.weight" for path, layer in _layers(network) if _is_masked(layer)}
    pruned = {name: _weight(network, name).detach().to("cpu", copy=True) for name in masks}
    merged: nn.Module = model.merge_and_unload(safe_merge=True, adapter_names=adapters)  # type: ignore[operator]
    weights = dict(merged.named_parameters(remove_duplicate=False))
    taken, added = _taken(weights, pruned, {name: masks[name] for name in masks if name in told})
    attach_masks(merged, {name: weights[name] for name in masks}, masks)
    if taken > 0:
        warnings.warn(
            f"the masks took {taken / added:.1%} of what the adapters add to the {len(told)} pruned tensors (by "
            f"norm), so that the zeros stay: the merged network is not the one that was trained. Measure it anew, and "
            f"train it on if it lost too much; nothing is lost with gossamer.integrations.peft.mask_adapters(model) "
            f"before the adapters are trained.",
            GossamerWarning,
            stacklevel=2,
        )
    return merged


def mask_adapters(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> list[RemovableHandle]:
    """Lets every adapter add its product only where the weight is kept, from now on, so that merging loses nothing.

    Call it after the adapters were made or loaded, and again in every round if the network is pruned while they train
    (`round.masks`). Layers that are trained as a whole beside the adapters (`modules_to_save`) get the masks of theirs.
    It costs one dense product a layer and step, of the size of the layer's own.

    Args:
        model: as peft's `get_peft_model` or `PeftModel.from_pretrained` returns it.
        masks: see `merge`.

    Returns:
        Handles; `remove()` of each ends it.

    Raises:
        ConfigurationError: as `merge`; or an adapter does more than add a product (DoRA), or has dropout, which is
            drawn anew for each product.
    """
    network = _network_of(model)
    masks = _masks_of(model, network, masks)
    layers: dict[nn.Module, Tensor] = {}
    for path, layer in _layers(network):
        for name in [name for name in masks if name.rpartition(".")[0] == path]:
            _refuse_other_products(path, layer)
            layers[layer] = masks[name]
    copies = {
        name: (_plain(name), weight)
        for name, weight in network.named_parameters(remove_duplicate=False)
        if COPY in name.split(".") and _plain(name) in masks
    }
    attach_masks(
        network,
        {name: weight for name, (_, weight) in copies.items()},
        {name: masks[plain] for name, (plain, _) in copies.items()},
    )
    for layer in layers:
        for key, hook in list(layer._forward_hooks.items()):
            if isinstance(hook, _MaskedProduct):
                del layer._forward_hooks[key]
    return [layer.register_forward_hook(_MaskedProduct(mask)) for layer, mask in layers.items()]


class _MaskedProduct:
    """The hook of a layer with adapters that takes back what they added where the weight is pruned."""

    def __init__(self, kept: Tensor) -> None:
        self.kept = kept

    def __call__(self, layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if layer.disable_adapters or layer.merged:
            return output
        base = layer.get_base_layer()
        self.kept = self.kept.to(base.weight.device)
        for adapter in _products(layer):
            product = layer.get_delta_weight(adapter).to(base.weight.dtype)
            beside = {"weight": product.masked_fill(self.kept, 0)}
            if getattr(base, "bias", None) is not None:
                beside["bias"] = torch.zeros_like(base.bias)
            output = output - functional_call(base, beside, inputs)
        return output


def _network_of(model: nn.Module) -> nn.Module:
    """The network that the adapters were put on."""
    require_kind("model", model, nn.Module, "a model of peft")
    if not hasattr(model, "merge_and_unload"):
        raise ConfigurationError(
            f"a {type(model).__name__} has no adapters that can be merged; expected what peft.get_peft_model or "
            f"PeftModel.from_pretrained returned, with LoRA or a method of its kind (prompts are no weights)"
        )
    # What get_peft_model returns, or the tuner inside it (LoraModel).
    tuner: Any = model
    network: nn.Module = tuner.get_base_model() if hasattr(tuner, "get_base_model") else tuner.model
    return network


def _plain(name: str) -> str:
    """The name of a module or parameter as it is in the network without adapters."""
    parts = [part for part in name.split(".") if part not in INSIDE]
    if COPY in parts:
        # The name of the adapter follows.
        at = parts.index(COPY)
        del parts[at : at + 2]
    return ".".join(parts)


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of peft around those of the network, each with its plain name."""
    for path, module in network.named_modules():
        if hasattr(module, "adapter_layer_names") and "base_layer" in module._modules:
            yield _plain(path), module


def _weight(network: nn.Module, name: str) -> Tensor:
    """The network's own weight of a plain name, not what is trained in its place. Around some layers
    (nn.MultiheadAttention) peft replaces the parameter by a tensor that is none.

    Raises:
        ConfigurationError: there is none.
    """
    *path, attribute = name.split(".")
    module: Any = _innermost(network)
    for part in path:
        module = _innermost(getattr(module, part, None))
    weight = getattr(module, attribute, None)
    if not isinstance(weight, Tensor):
        raise ConfigurationError(f"there is a mask for {name}, which is no weight of {type(network).__name__}")
    return weight


def _innermost(module: Any) -> Any:
    while isinstance(module, nn.Module) and (inner := next((i for i in INSIDE if i in module._modules), None)):
        module = module._modules[inner]
    return module


def _masks_of(model: nn.Module, network: nn.Module, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The masks by plain name, those of the adapters' own weights left out."""
    given, masks = masks is not None, attached_masks(model) if masks is None else masks
    replaced = [path for path, layer in _layers(network) if isinstance(_innermost(layer), nn.MultiheadAttention)]
    if not masks or (replaced and not given):
        why = f"peft replaces the weights of {replaced[0]}" if replaced else "no masks are attached to it"
        raise ConfigurationError(
            f"which masks this {type(model).__name__} has is not known ({why}); expected adapters on a network that "
            f"gossamer pruned or loaded (gossamer.load_round, before peft.get_peft_model), or its masks: "
            f"masks=gossamer.load_masks(folder, -1)"
        )
    within = next(f"{path}." if path else "" for path, module in model.named_modules() if module is network)
    own = {
        f"{path}.{name}"
        for path, layer in model.named_modules()
        for name, _ in layer.named_parameters()
        if name.partition(".")[0] in getattr(layer, "adapter_layer_names", ()) and not name.startswith(COPY)
    }
    named = {_plain(name.removeprefix(within)): mask for name, mask in masks.items() if name not in own}
    for name, mask in named.items():
        _require_unquantized(name, _weight(network, name), mask)
    return named


def _require_unquantized(name: str, weight: Tensor, mask: Tensor) -> None:
    require_plain(name, weight)
    if not weight.is_floating_point() or weight.shape != mask.shape:
        raise ConfigurationError(
            f"{name} holds {weight.dtype} of shape {tuple(weight.shape)}; expected floating-point numbers of its "
            f"mask's shape {tuple(mask.shape)}. If it is quantized (QLoRA), load the pruned network unquantized "
            f"(gossamer.load_round), put the trained adapters on it (PeftModel.from_pretrained), and merge them there."
        )


def _taken(
    weights: Mapping[str, Tensor], pruned: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> tuple[float, float]:
    """Norm of what was added where the masks prune, and of all that was added."""
    taken = added = 0.0
    for name, mask in masks.items():
        squares = (weights[name].detach().cpu().double() - pruned[name].double()).square()
        taken += float(squares.masked_fill(mask.cpu(), 0).sum())
        added += float(squares.sum())
    return taken**0.5, added**0.5


def _is_masked(layer: nn.Module) -> bool:
    return any(isinstance(hook, _MaskedProduct) for hook in layer._forward_hooks.values())


def _products(layer: Any) -> Iterator[str]:
    """The active adapters that the layer has."""
    own = {name for attribute in layer.adapter_layer_names for name in getattr(layer, attribute, ())}
    yield from (adapter for adapter in layer.active_adapters if adapter in own)


def _refuse_other_products(path: str, layer: Any) -> None:
    kind = type(layer)
    method = kind.__module__.removeprefix("peft.tuners.").removesuffix(".layer")
    variants = [type(variant).__name__ for variant in getattr(layer, "lora_variant", {}).values()]
    if method not in METHODS or kind.__name__ not in LAYERS or variants:
        raise ConfigurationError(
            f"the adapter of {path} ({', '.join(variants) or f'{kind.__name__} of {method}'}) may do more than add a "
            f"product to the weight; expected LoRA, LoHa or LoKr without extensions. Train it as it is, and merge it "
            f"with the masks (gossamer.integrations.peft.merge), which says how much they take."
        )
    shares = [module.p for module in getattr(layer, "lora_dropout", {}).values() if isinstance(module, nn.Dropout)]
    for attribute in ("rank_dropout", "module_dropout"):
        shares += getattr(layer, attribute, {}).values()
    if any(shares):
        raise ConfigurationError(
            f"the adapter of {path} has a dropout of {max(shares)}; expected none, for what is dropped is drawn anew "
            f"for each product. Make the adapters without it (lora_dropout=0)."
        )
