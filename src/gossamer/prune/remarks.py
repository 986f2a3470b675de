"""What a user should know about a scope before anything is trained, though nothing is wrong with it."""

from collections.abc import Iterator, Mapping

from torch import nn

from gossamer.model.wrappers import unwrap
from gossamer.prune.prunable import count_parameters, left_out
from gossamer.prune.scope import Scope

MOST_NAMED = 3


def remarks(model: nn.Module, scope: Scope, weights: Mapping[str, nn.Parameter]) -> Iterator[str]:
    """Sentences about the prunable weights of a model."""
    yield from _most_is_left_out(model, scope, weights)
    yield from _adapters_beside(model, weights)


def _most_is_left_out(model: nn.Module, scope: Scope, weights: Mapping[str, nn.Parameter]) -> Iterator[str]:
    """Told if more than half of all parameters could be pruned and are not, though no pattern leaves them out."""
    outside = left_out(model, scope, weights)
    count = sum(parameter.numel() for parameter in outside.values())
    parameters = count_parameters(model)
    if 2 * count > parameters:
        prunable = sum(weight.numel() for weight in weights.values())
        largest = sorted(outside, key=lambda name: -outside[name].numel())[:MOST_NAMED]
        named = ", ".join(f"{name} ({outside[name].numel():,})" for name in largest)
        yield (
            f"most of {type(unwrap(model)).__name__} is outside the scope: {prunable:,} of {parameters:,} parameters "
            f"are prunable, and {count:,} are in embeddings and layers that gossamer does not know: {named}"
            f"{', ...' if len(outside) > MOST_NAMED else ''}. To prune them, name them in the scope's include, beside "
            f"the layers that are to be pruned"
        )


def _adapters_beside(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[str]:
    """What a merged adapter adds to a pruned weight is dense."""
    model = unwrap(model)
    beside = [name for name in weights if _is_base(model, name)]
    if not beside:
        return
    own = [name for name in weights if name not in beside and _is_adapter_name(name)]
    also = f" The adapters' own weights are prunable too ({own[0]}): exclude=['*lora*'] leaves them out." if own else ""
    yield (
        f"{len(beside)} prunable weights have adapters beside them ({beside[0]}). What a trained adapter adds is not "
        f"zero where the weight is pruned, so merging brings the zeros back. After merging (peft: merged = "
        f"model.merge_and_unload()) call gossamer.enforce(merged), which sets them to zero again, and measure the "
        f"network only then; where merging makes new tensors, multiply these by the masks of gossamer.load_masks.{also}"
    )


def _is_base(model: nn.Module, name: str) -> bool:
    """Whether the weight belongs to a layer to which an adapter adds something: peft's hold it as their `base_layer`,
    torchtune's and loralib's own it beside `lora_a` and `lora_b`."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    own = {*owner._parameters, *owner._modules} - {attribute}
    if any(_is_adapter_name(other) for other in own):
        return True
    parent = model.get_submodule(path.rpartition(".")[0])
    adapters = getattr(parent, "adapter_layer_names", ()) if path.rpartition(".")[2] == "base_layer" else ()
    # (IA)^3 multiplies, which leaves zeros zero.
    return any(not str(adapter).startswith("ia3") for adapter in adapters)


def _is_adapter_name(name: str) -> bool:
    return any(part.lower().startswith("lora") for part in name.split("."))
