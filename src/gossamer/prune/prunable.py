"""The prunable weights of a model: what a scope selects of it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gossamer.arguments import require_kind
from gossamer.errors import ConfigurationError, NothingToPruneError
from gossamer.model.sharded import piece_of
from gossamer.model.ties import Identity, memory_of
from gossamer.model.whole import require_plain, settle
from gossamer.model.wrappers import unwrap
from gossamer.prune.layers import Kind, computed_tensors, has_outputs_second, kind_of
from gossamer.prune.scope import Scope, made_prunable, matches

MOST_NAMED = 5
"""Names in a message, of which there may be hundreds."""


def prunable_weights(model: nn.Module, scope: Scope | None = None) -> dict[str, nn.Parameter]:
    """The prunable weights of `model` by name, in the model's own order.

    Convolutions, transposed convolutions, linear layers (transformers' `Conv1D` and the projections of
    `nn.MultiheadAttention` among them), recurrent layers, embeddings on request, and parameters of other layers that
    `scope` names. A tied weight appears once, under its first name; it is prunable if any of its layers is, and
    excluded if any of its names is.

    Raises:
        NothingToPruneError: no weight is left, or none of what a pattern matches can be pruned.
        ConfigurationError: a pattern matches nothing, or a weight cannot be pruned (lazy, parametrized, sharded,
            complex, quantized, overlapping another one in memory without being the same).
    """
    scope = Scope() if scope is None else scope
    require_kind("scope", scope, Scope, "a gossamer.Scope")
    model = unwrap(model)
    settle(model)
    parameters = list(_parameters(model))
    computed = {
        f"{path}.{attribute}" if path else attribute: (kind_of(module, attribute), ended_by)
        for path, module in model.named_modules(remove_duplicate=False)
        for attribute, ended_by in computed_tensors(module).items()
    }
    scope.require_matches([*(parameter.name for parameter in parameters), *computed])
    _refuse_computed(scope, computed)
    names = _names_by_identity(model)
    trained = {memory_of(parameter) for parameter in model.parameters() if parameter.requires_grad}
    prunable = {memory_of(parameter.tensor) for parameter in _chosen(scope, parameters, computed)}
    weights: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        identity = memory_of(parameter)
        if scope.trainable_only and identity not in trained:
            continue
        if identity in prunable and scope.selects(names[identity]):
            prunable.remove(identity)
            weights[name] = parameter
    if not weights:
        raise NothingToPruneError(
            f"{type(model).__name__} has no prunable weights: nothing is left after "
            f"include={list(scope.include)}, exclude={list(scope.exclude)}, embeddings={scope.embeddings}"
            f"{', trainable_only=True' if scope.trainable_only else ''}; expected at least one convolution or linear "
            f"layer. Widen the scope."
        )
    for name, parameter in weights.items():
        if isinstance(parameter, UninitializedParameter):
            raise ConfigurationError(
                f"{name} has no shape yet (a lazy layer). Run one batch through the model before pruning it."
            )
        require_plain(name, parameter)
        if not parameter.is_floating_point():
            raise ConfigurationError(
                f"{name} holds {parameter.dtype}; expected a real floating-point type. Exclude it from the scope."
            )
    _refuse_overlaps(weights)
    return weights


def left_out(model: nn.Module, scope: Scope, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """What is no prunable weight only because its layer is of no known kind, or an embedding: what a pattern for it
    would make prunable. By name, tied ones once."""
    taken = {memory_of(weight) for weight in weights.values()}
    found: dict[Identity, _Parameter] = {}
    for parameter in _parameters(unwrap(model)):
        identity = memory_of(parameter.tensor)
        able = parameter.has_axes and parameter.kind in ("own", "table") and parameter.tensor.is_floating_point()
        if scope.trainable_only and not parameter.tensor.requires_grad:
            continue
        if able and identity not in taken and scope.selects([parameter.name]):
            found.setdefault(identity, parameter)
    return {parameter.name: parameter.tensor for parameter in found.values()}


def count_parameters(model: nn.Module) -> int:
    """How many parameters the model has in all, biases and normalisation included; tied ones once."""
    model = unwrap(model)
    return sum({memory_of(parameter): parameter.numel() for parameter in model.parameters()}.values())


def aliases(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """Every parameter object that shares its memory with each weight, the weight itself first."""
    shared: dict[Identity, list[nn.Parameter]] = {}
    for parameter in unwrap(model).parameters():
        shared.setdefault(memory_of(parameter), []).append(parameter)
    return {name: shared[memory_of(weight)] for name, weight in weights.items()}


def inputs_first(model: nn.Module, weights: Mapping[str, Tensor]) -> set[str]:
    """Names of the weights whose first dimension counts inputs and whose second counts outputs; all others have their
    outputs first.

    Raises:
        ConfigurationError: a weight has no such two dimensions (`nn.Bilinear`, transposed convolutions with groups, the
            stacked experts of transformers).
    """
    found: dict[Identity, bool] = {}
    for parameter in _parameters(unwrap(model)):
        second = has_outputs_second(parameter.module, parameter.attribute)
        if second is None and parameter.name in weights:
            raise ConfigurationError(
                f"{parameter.name} ({type(parameter.module).__name__}) has no one dimension of inputs and one of "
                f"outputs; expected layers with both. Exclude it from the scope, or prune unstructured."
            )
        identity = memory_of(parameter.tensor)
        found[identity] = bool(second) and found.get(identity, True)
    return {name for name, weight in weights.items() if found.get(memory_of(weight), False)}


@dataclass(frozen=True)
class _Parameter:
    """A parameter under one of its names."""

    name: str
    module: nn.Module
    attribute: str
    tensor: nn.Parameter

    @property
    def kind(self) -> Kind:
        return kind_of(self.module, self.attribute)

    @property
    def has_axes(self) -> bool:
        """Whether there are at least two axes, with numbers along them; a lazy one may come to have them."""
        return isinstance(self.tensor, UninitializedParameter) or (self.tensor.dim() > 1 and self.tensor.numel() > 0)


def _parameters(model: nn.Module) -> Iterator[_Parameter]:
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                yield _Parameter(f"{path}.{attribute}" if path else attribute, module, attribute, parameter)


def _chosen(scope: Scope, parameters: list[_Parameter], computed: Iterable[str]) -> Iterator[_Parameter]:
    """What the kinds of the layers make prunable, and what the patterns do, in no particular order, before anything is
    excluded."""
    of_layers = {"weight", "table"} if scope.embeddings else {"weight"}
    for parameter in parameters:
        partitioned = hasattr(parameter.tensor, "ds_shape")
        if parameter.kind in of_layers and (parameter.has_axes or partitioned):
            yield parameter
    for pattern in scope.include:
        if pattern == "*":
            continue
        matched = [parameter for parameter in parameters if matches(parameter.name, (pattern,))]
        able = [parameter for parameter in matched if parameter.has_axes]
        named = made_prunable(able, lambda parameter: parameter.kind)
        # What is computed was refused or excluded before.
        if not named and not any(matches(name, (pattern,)) for name in computed):
            raise NothingToPruneError(
                f"scope: include pattern {pattern!r} matches nothing that can be pruned: "
                + ", ".join(f"{parameter.name} ({_reason(parameter)})" for parameter in matched[:MOST_NAMED])
                + (", ..." if len(matched) > MOST_NAMED else "")
                + "; expected weights, or parameters of two axes or more. Remove the pattern."
            )
        yield from named


def _reason(parameter: _Parameter) -> str:
    if parameter.kind == "source":
        return "a parametrization or a hook computes a weight from it"
    if parameter.kind == "other":
        return f"a bias or normalisation of {type(parameter.module).__name__}"
    if parameter.tensor.numel() == 0:
        return "no numbers"
    return f"{parameter.tensor.dim()} axis" if parameter.tensor.dim() == 1 else "a single number"


def _refuse_overlaps(weights: Mapping[str, nn.Parameter]) -> None:
    """Two different views of the same memory (one weight tied to the transpose of another) would be counted twice."""
    spans = []
    for name, parameter in weights.items():
        weight = piece_of(parameter)
        if weight.device.type != "meta" and weight.numel():
            last = sum((size - 1) * stride for size, stride in zip(weight.shape, weight.stride(), strict=True))
            start = weight.data_ptr()
            spans.append((str(weight.device), start, start + (last + 1) * weight.element_size(), name))
    spans.sort()
    for (device, _, end, name), (next_device, next_start, _, next_name) in pairwise(spans):
        if device == next_device and next_start < end:
            raise ConfigurationError(
                f"{name} and {next_name} share memory but are not the same weight (a transposed tie?); expected "
                f"weights that are apart, or tied whole. Exclude one of them, or tie them by using one parameter twice."
            )


def _names_by_identity(model: nn.Module) -> dict[Identity, list[str]]:
    names: dict[Identity, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(memory_of(parameter), []).append(name)
    return names


def _refuse_computed(scope: Scope, computed: Mapping[str, tuple[Kind, str]]) -> None:
    for name, (kind, ended_by) in computed.items():
        named = matches(name, tuple(pattern for pattern in scope.include if pattern != "*"))
        prunable = kind == "weight" or (kind == "table" and scope.embeddings) or (kind == "own" and named)
        if prunable and scope.selects([name]):
            raise ConfigurationError(
                f"{name} is computed by a parametrization or a hook, so zeros in it cannot be kept; expected a plain "
                f"parameter. Remove it ({ended_by}), or leave the layer alone: exclude={[name]}."
            )
