"""Which weights may be pruned: the multiplicative weights of layers, never biases or normalisation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim.swa_utils import AveragedModel

from gossamer.errors import ConfigurationError, NothingToPruneError

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

Identity = tuple[object, ...]


@dataclass(frozen=True)
class Scope:
    """Selects the prunable weights of a model by layer type and by name.

    A pattern is a shell pattern (`*`, `?`, `[...]`), matched against the weight's full name (`layer1.0.conv1.weight`)
    and against its layer's (`layer1.0.conv1`); case counts.
    """

    include: tuple[str, ...] = ("*",)
    """Only weights whose name matches one of these."""
    exclude: tuple[str, ...] = ()
    """Never weights whose name matches one of these."""
    embeddings: bool = False
    """Whether embedding tables are prunable too (the paper prunes them in its translation network, GNMT)."""

    def __post_init__(self) -> None:
        for field in ("include", "exclude"):
            patterns = getattr(self, field)
            if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
                raise ConfigurationError(f"scope: {field} is {patterns!r}; expected a list of name patterns")
            object.__setattr__(self, field, tuple(patterns))


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside `torch.compile`'s, AveragedModel's and the data-parallel wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def prunable_weights(model: nn.Module, scope: Scope | None = None) -> dict[str, nn.Parameter]:
    """The prunable weights of `model` by name, in the model's own order.

    Convolutions, transposed convolutions, linear layers (transformers' `Conv1D` and the projections of
    `nn.MultiheadAttention` among them), recurrent layers, and embeddings on request. A tied weight appears once, under
    its first name; it is prunable if any of its layers is, and excluded if any of its names is.

    Raises:
        NothingToPruneError: no weight is left.
        ConfigurationError: a pattern matches nothing, or a weight cannot be pruned (lazy, parametrized, complex,
            overlapping another one in memory without being the same).
    """
    scope = scope or Scope()
    model = unwrap(model)
    _check_patterns(scope, model)
    names = _names_by_identity(model)
    prunable = {_identity(parameter) for parameter in _weights_of_layers(model, scope)}
    weights: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        identity = _identity(parameter)
        if identity in prunable and _in_scope(names[identity], scope):
            prunable.remove(identity)
            weights[name] = parameter
    if not weights:
        raise NothingToPruneError(
            f"{type(model).__name__} has no prunable weights: nothing is left after "
            f"include={list(scope.include)}, exclude={list(scope.exclude)}, "
            f"embeddings={scope.embeddings}; expected at least one convolution or linear layer. Widen the scope."
        )
    for name, parameter in weights.items():
        if not parameter.is_floating_point():
            raise ConfigurationError(
                f"{name} holds {parameter.dtype}; expected a real floating-point type. Exclude it from the scope."
            )
    _refuse_overlaps(weights)
    return weights


def count_parameters(model: nn.Module) -> int:
    """How many parameters the model has in all, biases and normalisation included; tied ones once."""
    model = unwrap(model)
    return sum({_identity(parameter): parameter.numel() for parameter in model.parameters()}.values())


def aliases(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """Every parameter object that shares its memory with each weight, the weight itself first."""
    shared: dict[Identity, list[nn.Parameter]] = {}
    for parameter in unwrap(model).parameters():
        shared.setdefault(_identity(parameter), []).append(parameter)
    return {name: shared[_identity(weight)] for name, weight in weights.items()}


def inputs_first(model: nn.Module, weights: Mapping[str, Tensor]) -> set[str]:
    """Names of the weights whose first dimension counts inputs and whose second counts outputs; all others have their
    outputs first.

    Raises:
        ConfigurationError: a layer's weight has no such two dimensions (`nn.Bilinear`, transposed convolutions with
            groups).
    """
    found: dict[Identity, bool] = {}
    for path, module in unwrap(model).named_modules(remove_duplicate=False):
        transposed = isinstance(module, CONVOLUTIONS) and module.transposed
        if isinstance(module, nn.Bilinear) or (transposed and module.groups > 1):
            unclear = [name for name in weights if name == f"{path}.weight"]
            if unclear:
                raise ConfigurationError(
                    f"{unclear[0]} ({type(module).__name__}) has no one dimension of inputs and one of outputs; "
                    f"expected layers with both. Exclude it from the scope, or prune unstructured."
                )
        for parameter in module.parameters(recurse=False):
            first = transposed or _is_transformers_linear(module)
            found[_identity(parameter)] = first and found.get(_identity(parameter), True)
    return {name for name, weight in weights.items() if found.get(_identity(weight), False)}


def _weights_of_layers(model: nn.Module, scope: Scope) -> Iterator[nn.Parameter]:
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute in _weight_attributes(module, scope):
            name = f"{path}.{attribute}" if path else attribute
            parameter = module._parameters.get(attribute)
            if parameter is None:
                # Its parametrization computes it anew at every look, or a hook before every forward pass
                # (torch.nn.utils.prune, the old weight_norm).
                computed = attribute in getattr(module, "parametrizations", {}) or attribute in vars(module)
                if computed and _in_scope([name], scope):
                    raise ConfigurationError(
                        f"{name} is computed by a parametrization or a hook, so zeros in it cannot be kept; expected a "
                        f"plain parameter. Remove it (torch.nn.utils.parametrize.remove_parametrizations, "
                        f"torch.nn.utils.prune.remove) or exclude it."
                    )
                continue
            if isinstance(parameter, UninitializedParameter):
                raise ConfigurationError(
                    f"{name} has no shape yet (a lazy layer). Run one batch through the model before pruning it."
                )
            if parameter.numel():
                yield parameter


def _weight_attributes(module: nn.Module, scope: Scope) -> tuple[str, ...]:
    if isinstance(module, (*CONVOLUTIONS, nn.Linear, nn.Bilinear)) or _is_transformers_linear(module):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        return ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    if isinstance(module, RECURRENT):
        return tuple(name for name in module._parameters if name.startswith("weight_"))
    if scope.embeddings and isinstance(module, EMBEDDINGS):
        return ("weight",)
    return ()


def _is_transformers_linear(module: nn.Module) -> bool:
    """transformers' `Conv1D` is a linear layer with its weight transposed; known by name, without importing it."""
    return any(
        kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.") for kind in type(module).__mro__
    )


def _identity(tensor: Tensor) -> Identity:
    """Equal for two tensors exactly if they are the same memory seen the same way (a tied weight)."""
    if isinstance(tensor, UninitializedParameter) or tensor.device.type == "meta" or tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())


def _refuse_overlaps(weights: Mapping[str, nn.Parameter]) -> None:
    """Two different views of the same memory (one weight tied to the transpose of another) would be counted twice."""
    spans = []
    for name, weight in weights.items():
        if weight.device.type != "meta":
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
        names.setdefault(_identity(parameter), []).append(name)
    return names


def _in_scope(names: list[str], scope: Scope) -> bool:
    return any(_matches(name, scope.include) for name in names) and not any(
        _matches(name, scope.exclude) for name in names
    )


def _matches(weight_name: str, patterns: tuple[str, ...]) -> bool:
    layer_name = weight_name.rpartition(".")[0]
    return any(fnmatchcase(weight_name, pattern) or fnmatchcase(layer_name, pattern) for pattern in patterns)


def _check_patterns(scope: Scope, model: nn.Module) -> None:
    """A pattern that matches nothing is a typing mistake, and would otherwise prune what was to be left alone."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for field in ("include", "exclude"):
        for pattern in getattr(scope, field):
            if pattern != "*" and not any(_matches(name, (pattern,)) for name in names):
                raise ConfigurationError(
                    f"scope: {field} pattern {pattern!r} matches no parameter; expected a shell pattern for one of: "
                    + ", ".join(names)
                )
