"""What a user should know about a scope before anything is trained, though nothing is wrong with it."""

from collections.abc import Iterator, Mapping

from torch import nn

from gossamer.model.ties import memory_of
from gossamer.model.wrappers import unwrap
from gossamer.prune.prunable import count_parameters, left_out
from gossamer.prune.scope import Scope

MOST_NAMED = 3


def remarks(model: nn.Module, scope: Scope, weights: Mapping[str, nn.Parameter]) -> Iterator[str]:
    """Sentences about the prunable weights of a model."""
    yield from _most_is_left_out(model, scope, weights)
    yield from _frozen(model, weights)
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
            f"the layers that are to be pruned: include={[*scope.include, largest[0]]}"
        )


def _frozen(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[str]:
    """What is cut out of weights that are not trained, others have to make up for: meant where there are adapters, and
    perhaps not where a part of a network was frozen."""
    model = unwrap(model)
    trained = {memory_of(parameter) for parameter in model.parameters() if parameter.requires_grad}
    frozen = [name for name, weight in weights.items() if memory_of(weight) not in trained]
    if frozen and not _has_adapters(model):
        count, prunable = (sum(weights[name].numel() for name in names) for names in (frozen, weights))
        yield (
            f"{count:,} of {prunable:,} prunable weights are frozen (requires_grad=False): {frozen[0]}"
            f"{', ...' if len(frozen) > 1 else ''}. They are pruned as all others, and not retrained. To leave them "
            f"alone: scope=gossamer.Scope(trainable_only=True); to have them retrained, thaw them before the rounds"
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
        f"zero where the weight is pruned, so merging it (peft's merge_and_unload) brings the zeros back. Merge with "
        f"gossamer.integrations.peft.merge(model), or call gossamer.enforce(merged) afterwards, and measure the "
        f"network only then.{also}"
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


def _has_adapters(model: nn.Module) -> bool:
    return any(_is_adapter_name(name) or "base_layer" in name.split(".") for name, _ in model.named_parameters())


def _is_adapter_name(name: str) -> bool:
    return any(part.lower().startswith("lora") for part in name.split("."))
