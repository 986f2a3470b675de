"""Translates a traced graph into operations. What is in none of these tables is opaque: what goes in or out stays."""

import operator
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gossamer.shrink.aliasing import reread_after_change
from gossamer.shrink.functional import called_layer, owners_of_parameters
from gossamer.shrink.operations import (
    BatchNorm,
    Combination,
    Concatenation,
    Depthwise,
    Elementwise,
    FullLayer,
    Input,
    Mean,
    Normalisation,
    Opaque,
    Operation,
    OperationGraph,
    Output,
    Pooling,
    Rearrangement,
    Shape,
    SizeOf,
    Value,
)
from gossamer.shrink.resampling import (
    INTERPOLATIONS,
    PADDING_MODULES,
    SPLITS,
    UPSAMPLINGS,
    interpolation,
    padding_of_call,
    padding_of_module,
    parts,
)
from gossamer.shrink.sizes import only_asks_for_sizes, sizes_asked_for
from gossamer.shrink.trace import Traced, torch_class

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Modules that return their input in evaluation mode."""
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh),
    *(nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink),
    *(nn.LogSigmoid, nn.Threshold),
)
POOLINGS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
ELEMENTWISE_FUNCTIONS: set[Callable[..., Any]] = {
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.sigmoid, F.tanh, F.hardtanh),
    *(F.hardsigmoid, F.hardswish, F.softplus, F.softsign, F.softshrink, F.hardshrink, F.tanhshrink, F.logsigmoid),
    *(F.threshold, torch.relu, torch.sigmoid, torch.tanh, torch.abs, torch.neg, torch.clamp, torch.exp, torch.square),
    *(operator.neg, operator.abs, torch.sqrt),
}
ELEMENTWISE_METHODS = {"relu", "sigmoid", "tanh", "abs", "neg", "clamp", "exp", "square", "sqrt"}
ARITHMETIC: dict[Any, Callable[[Any, Any], Any]] = {
    **dict.fromkeys((operator.add, torch.add, "add", "add_"), operator.add),
    **dict.fromkeys((operator.sub, torch.sub, "sub", "sub_"), operator.sub),
    **dict.fromkeys((operator.mul, torch.mul, "mul", "mul_"), operator.mul),
    **dict.fromkeys((operator.truediv, torch.div, "div", "div_"), operator.truediv),
}
POOLING_FUNCTIONS: set[Callable[..., Any]] = {
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(torch.max_pool1d, torch.max_pool2d, torch.max_pool3d),
}
DROPOUT_FUNCTIONS: set[Callable[..., Any]] = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout}


def understand(traced: Traced) -> OperationGraph:
    """The operations of a traced model."""
    reader = _Reader(traced)
    operations = [operation for node in traced.module.graph.nodes for operation in reader.read(node)]
    shapes = {name: shape[1:] for name, shape in traced.shapes.items() if shape} | reader.expanded
    return OperationGraph(tuple(operations), shapes)


class _Reader:
    """Reads one node at a time; `None` from a method means that the node is not understood."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.expanded: dict[Value, Shape] = {}
        """Shapes of values that have no node of their own: what a sum or product takes in another shape than it has."""
        self.changed = reread_after_change(traced.module.graph)
        self.calls = Counter(id(self._module(node)) for node in traced.module.graph.nodes if node.op == "call_module")
        self.owners = owners_of_parameters(traced.module)
        # Parameters that the forward pass of an untraced part reads by itself.
        self.read_directly = {str(node.target) for node in traced.module.graph.nodes if node.op == "get_attr"}

    def read(self, node: fx.Node) -> list[Operation]:
        match node.op:
            case "placeholder":
                return [Input(node.name)] if node.name in self.traced.shapes else []
            case "output":
                return [Output(tuple(dict.fromkeys(self._returned(node))))]
            case "get_attr":
                return [self._opaque(node)]
        if only_asks_for_sizes(node):
            return self._sizes(node)
        if node.name not in self.traced.shapes and not self._values(node):
            return []  # Arithmetic with sizes.
        if self._only_arranges(node) or self._parts(node):
            return []
        understood: list[Operation] = []
        if node.name in self.traced.shapes and self.traced.shapes[node.name] and not self._is_changed(node):
            if node.target in ARITHMETIC:
                understood = self._combination(node)
            elif (operation := self._module_call(node) if node.op == "call_module" else self._call(node)) is not None:
                understood = [operation]
        return understood or [self._opaque(node)]

    def _is_changed(self, node: fx.Node) -> bool:
        return node.name in self.changed or any(argument.name in self.changed for argument in node.all_input_nodes)

    def _module_call(self, node: fx.Node) -> Operation | None:
        module, name = self._module(node), str(node.target)
        if len(node.args) != 1 or node.kwargs or not self._values(node) or _has_hooks(module):
            return None
        value = self._values(node)[0]
        kind = torch_class(module)
        if kind in IDENTITIES:
            return Rearrangement(lambda positions: positions, (), False, value, node.name)
        if kind in ACTIVATIONS:
            return Elementwise(_on_a_copy(module), value, node.name)
        if kind in POOLINGS or (kind in UPSAMPLINGS and getattr(module, "mode", "nearest") in INTERPOLATIONS):
            return self._pooling(module, value, node.name)
        if kind in PADDING_MODULES:
            return padding_of_module(module, self._shape(value), value, node.name)
        if kind is nn.Flatten:
            assert isinstance(module, nn.Flatten)
            return self._flatten(module.start_dim, module.end_dim, value, node.name)
        if self.calls[id(module)] > 1 or not self._owns_its_parameters(module, name):
            return None
        if isinstance(module, nn.Linear) and kind is nn.Linear and self._shape(value):
            return FullLayer(name, module, value, node.name)
        if isinstance(module, CONVOLUTIONS) and kind in CONVOLUTIONS:
            if len(self._shape(value)) != len(module.kernel_size) + 1:
                return None  # One example without the first dimension.
            if module.groups == 1:
                return FullLayer(name, module, value, node.name)
            if module.groups == module.in_channels == module.out_channels:
                return Depthwise(name, module, value, node.name)
        if isinstance(module, NORMALISATIONS) and kind in NORMALISATIONS and module.running_mean is not None:
            return Normalisation(name, module, value, node.name)
        return None

    def _call(self, node: fx.Node) -> Operation | None:
        target: Any = node.target
        if target in (torch.cat, torch.concat):
            return self._concatenation(node)
        if target is operator.getitem and isinstance(node.args[0], fx.Node) and (taken := self._parts(node.args[0])):
            return taken[node]
        if not node.args or not isinstance(node.args[0], fx.Node) or node.args[0].name not in self._values(node):
            return None
        value, rest = node.args[0].name, node.args[1:]
        if (layer := called_layer(node, self.traced.model)) is not None:
            return self._layer(*layer, value, node.name)
        name = target.removesuffix("_") if isinstance(target, str) else ""
        if len(node.all_input_nodes) == 1:
            # The only other thing that these could be given is a size.
            options = {key: option for key, option in node.kwargs.items() if key != "inplace"}
            if target in ELEMENTWISE_FUNCTIONS or name in ELEMENTWISE_METHODS:
                called = getattr(torch.Tensor, name) if name else target
                return Elementwise(_on_a_copy(called, *rest, **options), value, node.name)
            if target in POOLING_FUNCTIONS:
                return self._pooling(lambda images: target(images, *rest, **options), value, node.name)
            if self._is_dropout(node):
                return Rearrangement(lambda positions: positions, (), False, value, node.name)
            if target in (torch.mean, "mean"):
                return self._mean(node, value)
            if target in (torch.flatten, "flatten"):
                start, end = _arguments(node, start_dim=0, end_dim=-1)
                return self._flatten(start, end, value, node.name)
            if target in (torch.permute, torch.transpose, "permute", "transpose", "contiguous"):
                return self._permutation(node, value)
            if target is operator.getitem:
                return self._slices(node, value)
        if target is F.pad and self._values(node) == (value,):
            return padding_of_call(node, self.traced.numbers, self._shape(value), value)
        if target is F.interpolate and self._values(node) == (value,):
            return self._interpolation(node, value)
        if target in ("view", "reshape") or target is torch.reshape:
            return self._reshape_to_rows(node, value)
        return None

    def _layer(self, name: str, module: nn.Linear | BatchNorm, value: str, output: str) -> Operation | None:
        """The operation of a layer that is called through a function."""
        if not self._alone_has_its_parameters(module) or not self._shape(value):
            return None
        if isinstance(module, nn.Linear):
            return FullLayer(name, module, value, output)
        return Normalisation(name, module, value, output)

    def _is_dropout(self, node: fx.Node) -> bool:
        """Whether the call returns what it is given, since nothing is trained."""
        if getattr(node.target, "__name__", "") == "stochastic_depth":  # torchvision's
            return _arguments(node, p=0.0, mode="", training=True)[2] is False
        return node.target in DROPOUT_FUNCTIONS and node.kwargs.get("training") is False

    def _interpolation(self, node: fx.Node, value: str) -> Operation | None:
        function = interpolation(node, self._shape(node.name)[1:])
        return None if function is None else self._pooling(function, value, node.name)

    def _parts(self, node: fx.Node) -> dict[fx.Node, Rearrangement]:
        """What is taken out of the node's parts, if it splits a tensor."""
        values = self._values(node)
        if node.target not in SPLITS or len(values) != 1 or not node.args or self._is_changed(node):
            return {}
        return parts(node, self.traced.numbers, self._shape(values[0]), values[0]) or {}

    def _only_arranges(self, node: fx.Node) -> bool:
        """Whether the node puts tensors into an object that is returned (transformers' `ModelOutput`)."""
        return (
            isinstance(node.target, type)
            and node.name not in self.traced.shapes
            and all(user.op == "output" or self._only_arranges(user) for user in node.users)
        )

    def _returned(self, node: fx.Node) -> Iterator[str]:
        """The tensors in what a node returns, wherever they are."""
        for argument in node.all_input_nodes:
            if self.traced.shapes.get(argument.name):
                yield argument.name
            elif self._only_arranges(argument):
                yield from self._returned(argument)

    def _pooling(self, function: Callable[[Tensor], Tensor], value: str, output: str) -> Operation | None:
        shape = self._shape(value)
        if len(shape) < 2 or self._shape(output)[0] != shape[0]:
            return None
        everywhere = function(torch.ones(1, 1, *shape[1:]))
        if not isinstance(everywhere, Tensor) or tuple(everywhere.shape[2:]) != self._shape(output)[1:]:
            return None
        keeps_constants = bool((everywhere - 1).abs().max() < 1e-6)
        return Pooling(function, keeps_constants, value, output)

    def _mean(self, node: fx.Node, value: str) -> Operation | None:
        dimensions, keep = _arguments(node, dim=None, keepdim=False)
        rank = len(self._shape(value)) + 1
        if isinstance(dimensions, int):
            dimensions = (dimensions,)
        if not dimensions or set(node.kwargs) - {"dim", "keepdim"} or not _are_known(*dimensions):
            return None
        counted = tuple(sorted(dimension % rank - 1 for dimension in dimensions))
        return None if counted[0] < 0 else Mean(counted, bool(keep), value, node.name)

    def _flatten(self, start: Any, end: Any, value: str, output: str) -> Operation | None:
        rank = len(self._shape(value)) + 1
        if not _are_known(start, end) or start % rank == 0:
            return None
        return Rearrangement(lambda positions: positions.flatten(start, end), (), False, value, output)

    def _reshape_to_rows(self, node: fx.Node, value: str) -> Operation | None:
        """`view(batch, -1)` and `view(-1, features)`: every example as one row."""
        shape = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], tuple | list) else node.args[1:]
        one_row = (torch.Size(self._shape(value)).numel(),)
        if len(shape) != 2 or self._shape(node.name) != one_row:
            return None
        says_size = isinstance(shape[1], int) and shape[1] != -1
        return Rearrangement(lambda positions: positions.flatten(1), (), says_size, value, node.name)

    def _permutation(self, node: fx.Node, value: str) -> Operation | None:
        function = node.target if callable(node.target) else getattr(torch.Tensor, str(node.target))
        rest, options = node.args[1:], node.kwargs
        if node.target == "contiguous":
            return Rearrangement(lambda positions: positions, (), False, value, node.name)
        # Asked of a tensor whose dimensions all have different lengths: where does the first one end up?
        probe = torch.empty(tuple(range(2, len(self._shape(value)) + 3)), device="meta")
        if function(probe, *rest, **options).shape[0] != 2:
            return None
        return Rearrangement(lambda positions: function(positions, *rest, **options), (), False, value, node.name)

    def _slices(self, node: fx.Node, value: str) -> Operation | None:
        index: Any = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
        everything = slice(None)
        if not all(isinstance(entry, slice) for entry in index) or index[0] != everything:
            return None
        whole = tuple(dimension - 1 for dimension, entry in enumerate(index) if entry != everything)
        return Rearrangement(lambda positions: positions[index], whole, False, value, node.name)

    def _combination(self, node: fx.Node) -> list[Operation]:
        function = ARITHMETIC.get(node.target)
        if function is None or node.kwargs or len(node.args) != 2:
            return []
        left, right = node.args
        if isinstance(left, int | float) or isinstance(right, int | float):
            operand = left if isinstance(left, fx.Node) else right
            if not isinstance(operand, fx.Node) or operand.name not in self.traced.shapes:
                return []
            fixed = (lambda x: function(x, right)) if operand is left else (lambda x: function(left, x))
            return [Elementwise(fixed, operand.name, node.name)]
        values = self._values(node)
        if left is right and len(values) == 1:
            values = (values[0], values[0])
        shape = self.traced.shapes[node.name]
        ranks = [len(self.traced.shapes[value]) for value in values]
        examples = [self.traced.shapes[value][0] for value in values]
        if ranks != [len(shape)] * 2 or examples != [shape[0]] * 2 or function is operator.truediv:
            return []
        expansions, terms = [], []
        for value in values:
            terms.append(value)
            if self.traced.shapes[value] != shape:
                # Such as the weights of channels, (channels, 1, 1), of squeeze and excitation.
                terms[-1] = f"{value} in {node.name}"
                self.expanded[terms[-1]] = shape[1:]
                expansions.append(
                    Rearrangement(lambda positions: positions.expand(1, *shape[1:]), (), False, value, terms[-1])
                )
        return [*expansions, Combination(function, function is operator.mul, (terms[0], terms[1]), node.name)]

    def _concatenation(self, node: fx.Node) -> Operation | None:
        (dimension,) = _arguments(node, dim=0)
        parts = node.args[0]
        rank = len(self._shape(node.name)) + 1
        if not isinstance(parts, list | tuple) or not _are_known(dimension) or dimension % rank == 0:
            return None
        names = tuple(part.name for part in parts if isinstance(part, fx.Node) and part.name in self.traced.shapes)
        return Concatenation(dimension % rank - 1, names, node.name) if len(names) == len(parts) else None

    def _sizes(self, node: fx.Node) -> list[Operation]:
        value = node.all_input_nodes[0].name
        if value not in self.traced.shapes:
            return []
        rank = len(self.traced.shapes[value])
        return [SizeOf(asked % rank - 1, value) for asked in sizes_asked_for(node, rank) if asked % rank > 0]

    def _opaque(self, node: fx.Node) -> Opaque:
        output = node.name if self.traced.shapes.get(node.name) else None
        return Opaque(self._description(node), self._values(node), output)

    def _description(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{node.target} ({type(self._module(node)).__name__})"
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return f"{node.name} ({name})"

    def _values(self, node: fx.Node) -> tuple[str, ...]:
        """The tensors that a node is given, sizes and the like left out; the results of opaque operations that return
        several tensors are none either."""
        return tuple(argument.name for argument in node.all_input_nodes if self.traced.shapes.get(argument.name))

    def _shape(self, value: str) -> tuple[int, ...]:
        return self.traced.shapes[value][1:]

    def _module(self, node: fx.Node) -> nn.Module:
        return self.traced.module.get_submodule(str(node.target))

    def _owns_its_parameters(self, module: nn.Module, name: str) -> bool:
        """Whether plain parameters of its own are all that it computes with: none is tied, computed anew at every look,
        or read by somebody else."""
        names = {f"{name}.{attribute}" for attribute in module._parameters}
        return (
            "weight" in module._parameters and not names & self.read_directly and self._alone_has_its_parameters(module)
        )

    def _alone_has_its_parameters(self, module: nn.Module) -> bool:
        return all(
            self.owners[parameter.data_ptr()] == 1
            for parameter in module._parameters.values()
            if parameter is not None and parameter.numel()
        )


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _on_a_copy(function: Any, *rest: Any, **options: Any) -> Callable[[Tensor], Tensor]:
    """The function, kept from changing what it is given."""
    return lambda values: function(values.clone(), *rest, **options)


def _arguments(node: fx.Node, **defaults: Any) -> list[Any]:
    """What a call is given after the tensor, by position or by name."""
    positional = dict(zip(defaults, node.args[1:], strict=False))
    return [positional.get(name, node.kwargs.get(name, default)) for name, default in defaults.items()]


def _are_known(*dimensions: Any) -> bool:
    """Whether they are numbers, and not computed by the network from sizes."""
    return all(isinstance(dimension, int) for dimension in dimensions)
