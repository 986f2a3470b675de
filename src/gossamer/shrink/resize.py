"""Giving layers of a model other sizes: used where units are cut out, and where a shrunk model is read from a file."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gossamer.model.call import Call
from gossamer.shrink.operations import BatchNorm, Convolution
from gossamer.shrink.trace import trace_graph


class SelectedInputs(nn.Module):
    """A layer behind a selection: it reads only some of the features (or channels) that it is given."""

    index: Tensor
    """Which, in ascending order; int64, shape (selected,)."""

    def __init__(self, layer: nn.Module, index: Tensor, dimension: int) -> None:
        super().__init__()
        self.layer = layer
        self.dimension = dimension
        self.register_buffer("index", index)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs.index_select(self.dimension, self.index))  # type: ignore[no-any-return]


def resize_layer(module: nn.Linear | Convolution, weight: Tensor, bias: Tensor | None) -> None:
    """Puts another weight and bias into a linear layer or a convolution, whatever their sizes."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    else:
        module.out_channels = len(weight)
        if module.groups > 1:  # One kernel a channel.
            module.groups = module.in_channels = len(weight)
        else:
            module.in_channels = weight.shape[1]
    _replace(module, "weight", weight)
    if bias is not None:
        _replace(module, "bias", bias)


def resize_normalisation(module: BatchNorm, tensors: dict[str, Tensor]) -> None:
    """Puts other statistics, and scale and shift if it has them, into a BatchNorm."""
    for name, tensor in tensors.items():
        _replace(module, name, tensor)
    module.num_features = len(tensors["running_mean"])


def select_inputs(model: nn.Module, name: str, index: Tensor) -> None:
    """Puts the layer `name`, whose weight has the columns of `index` only, behind a selection of its inputs."""
    layer = model.get_submodule(name)
    parent, _, attribute = name.rpartition(".")
    dimension = -1 if isinstance(layer, nn.Linear) else 1
    setattr(model.get_submodule(parent), attribute, SelectedInputs(layer, index, dimension))


def leave_sizes_open(model: nn.Module, nodes: Iterable[str], call: Call) -> nn.Module:
    """The model's graph as a module, in which some `view(-1, 400)` no longer say how many features there are."""
    module = trace_graph(model, call)
    views = set(nodes)
    for node in module.graph.nodes:
        if node.name in views:
            # torch.flatten takes any memory format, and so does `view` for what `view` was possible for.
            node.op, node.target, node.args, node.kwargs = "call_method", "flatten", (node.args[0], 1), {}
    module.recompile()
    return module


def _replace(module: nn.Module, name: str, values: Tensor) -> None:
    """Puts new values in a parameter's or a buffer's place, with the type, device and memory format of the old ones."""
    old = getattr(module, name)
    if name in module._buffers:
        module._buffers[name] = values.to(old)
        return
    like = old if old is not None else module.get_parameter("weight")
    new = values.to(like.device, like.dtype)
    if new.dim() == 4 and old.is_contiguous(memory_format=torch.channels_last) and not old.is_contiguous():
        new = new.contiguous(memory_format=torch.channels_last)
    module.register_parameter(name, nn.Parameter(new, requires_grad=like.requires_grad))
