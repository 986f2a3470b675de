"""Translates a traced graph into operations. What is in none of these tables is opaque: what goes in or out stays."""

import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gossamer.shrink.aliasing import reread_after_change
from gossamer.shrink.operations import (
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
    SizeOf,
)
from gossamer.shrink.trace import Traced

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
NO_SIZES = ("ndim", "dim", "device", "dtype")


def understand(traced: Traced) -> OperationGraph:
    """The operations of a traced model."""
    reader = _Reader(traced)
    operations = [operation for node in traced.module.graph.nodes for operation in reader.read(node)]
    shapes = {name: shape[1:] for name, shape in traced.shapes.items() if shape}
    return OperationGraph(tuple(operations), shapes)


class _Reader:
    """Reads one node at a time; `None` from a method means that the node is not understood."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.changed = reread_after_change(traced.module.graph)
        self.calls = Counter(id(self._module(node)) for node in traced.module.graph.nodes if node.op == "call_module")
        self.owners = _owners_of_parameters(traced.module)
        # Parameters that the forward pass of an untraced part reads by itself.
        self.read_directly = {str(node.target) for node in traced.module.graph.nodes if node.op == "get_attr"}

    def read(self, node: fx.Node) -> list[Operation]:
        match node.op:
            case "placeholder":
                return [Input(node.name)] if node.name in self.traced.shapes else []
            case "output":
                return [Output(self._values(node))]
            case "get_attr":
                return [self._opaque(node)]
        if _only_asks_for_sizes(node):
            return self._sizes(node)
        if node.name not in self.traced.shapes and not self._values(node):
            return []  # Arithmetic with sizes.
        understood = None
        if node.name in self.traced.shapes and self.traced.shapes[node.name] and not self._is_changed(node):
            understood = self._module_call(node) if node.op == "call_module" else self._call(node)
        return [understood or self._opaque(node)]

    def _is_changed(self, node: fx.Node) -> bool:
        return node.name in self.changed or any(argument.name in self.changed for argument in node.all_input_nodes)

    def _module_call(self, node: fx.Node) -> Operation | None:
        module, name = self._module(node), str(node.target)
        if len(node.args) != 1 or node.kwargs or not self._values(node) or _has_hooks(module):
            return None
        value = self._values(node)[0]
        kind = type(module)
        if kind in IDENTITIES:
            return Rearrangement(lambda positions: positions, (), False, value, node.name)
        if kind in ACTIVATIONS:
            return Elementwise(_on_a_copy(module), value, node.name)
        if kind in POOLINGS:
            return self._pooling(module, value, node.name)
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
        if target in ARITHMETIC:
            return self._combination(node)
        if target in (torch.cat, torch.concat):
            return self._concatenation(node)
        if not node.args or not isinstance(node.args[0], fx.Node) or node.args[0].name not in self._values(node):
            return None
        value, rest = node.args[0].name, node.args[1:]
        name = target.removesuffix("_") if isinstance(target, str) else ""
        if len(node.all_input_nodes) == 1:
            # The only other thing that these could be given is a size.
            options = {key: option for key, option in node.kwargs.items() if key != "inplace"}
            if target in ELEMENTWISE_FUNCTIONS or name in ELEMENTWISE_METHODS:
                called = getattr(torch.Tensor, name) if name else target
                return Elementwise(_on_a_copy(called, *rest, **options), value, node.name)
            if target in POOLING_FUNCTIONS:
                return self._pooling(lambda images: target(images, *rest, **options), value, node.name)
            if target in DROPOUT_FUNCTIONS and options.get("training") is False:
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
        if target in ("view", "reshape") or target is torch.reshape:
            return self._reshape_to_rows(node, value)
        return None

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

    def _combination(self, node: fx.Node) -> Operation | None:
        function = ARITHMETIC.get(node.target)
        if function is None or node.kwargs or len(node.args) != 2:
            return None
        left, right = node.args
        if isinstance(left, int | float) or isinstance(right, int | float):
            operand = left if isinstance(left, fx.Node) else right
            if not isinstance(operand, fx.Node) or operand.name not in self.traced.shapes:
                return None
            fixed = (lambda x: function(x, right)) if operand is left else (lambda x: function(left, x))
            return Elementwise(fixed, operand.name, node.name)
        values = self._values(node)
        if left is right and len(values) == 1:
            values = (values[0], values[0])
        shape = self.traced.shapes[node.name]
        if len(values) != 2 or any(self.traced.shapes[value] != shape for value in values):
            return None
        if function is operator.truediv:
            return None
        return Combination(function, function is operator.mul, (values[0], values[1]), node.name)

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
        return [SizeOf(asked % rank - 1, value) for asked in _sizes_asked_for(node, rank) if asked % rank > 0]

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
            "weight" in module._parameters
            and not names & self.read_directly
            and all(
                self.owners[parameter.data_ptr()] == 1
                for parameter in module._parameters.values()
                if parameter is not None and parameter.numel()
            )
        )


def _owners_of_parameters(model: nn.Module) -> Counter[int]:
    """How many modules hold each parameter's memory."""
    modules = {id(module): module for module in model.modules()}.values()
    return Counter(
        parameter.data_ptr()
        for module in modules
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


def _only_asks_for_sizes(node: fx.Node) -> bool:
    if node.target is getattr:
        return node.args[1] in ("shape", *NO_SIZES)
    return node.op == "call_method" and node.target in ("size", *NO_SIZES)


def _sizes_asked_for(node: fx.Node, rank: int) -> list[int]:
    """The dimensions whose lengths matter; all of them if it cannot be told."""
    if node.target in NO_SIZES or (node.target is getattr and node.args[1] in NO_SIZES):
        return []
    if node.target == "size" and len(node.args) == 2 and isinstance(node.args[1], int):
        return [node.args[1]]
    asked: list[int] = []
    for user in node.users:
        if user.target is not operator.getitem or not isinstance(user.args[1], int):
            return list(range(rank))
        asked.append(user.args[1])
    return asked
