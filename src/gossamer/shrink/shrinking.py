"""Exact removal of what cannot matter: the same outputs from a smaller network."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.model.call import Call
from gossamer.model.wrappers import unwrap
from gossamer.prune.prunable import count_parameters
from gossamer.shrink.arguments import Examples, as_call
from gossamer.shrink.cut import cut, outdated_sizes, selections
from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.operations import FullLayer, OperationGraph
from gossamer.shrink.outputs import Distance, compare, tensors_of, worst
from gossamer.shrink.removal import Removal, find_removal
from gossamer.shrink.resize import leave_sizes_open, resize_layer, select_inputs
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand


@dataclass(frozen=True)
class ShrunkLayer:
    """What became of a linear layer or a convolution."""

    name: str
    inputs_before: int
    inputs: int
    outputs_before: int
    outputs: int
    unused: tuple[int, ...]
    """Output units that were cut out because nothing depends on them; indices in the original layer."""
    constant: tuple[int, ...]
    """Output units that were cut out because they are the same for every input."""
    unused_inputs: tuple[int, ...]
    """For a layer that reads the network's inputs: the features (channels) that no kept unit has a weight for. They
    are cut out on request only (`select_inputs`), since the caller goes on giving them."""

    @property
    def removed(self) -> int:
        """How many output units were cut out."""
        return self.outputs_before - self.outputs


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, and how it came about."""

    model: nn.Module
    """A copy of the original with smaller layers of the same classes and names, in evaluation mode."""
    layers: tuple[ShrunkLayer, ...]
    """The layers in the order of their computation."""
    parameters_before: int
    parameters: int
    weights_before: int
    """Weights that are not zero: entries of parameters of at least two dimensions (biases have one)."""
    weights: int
    difference: float
    """Largest absolute difference between an output of the original and of the smaller network, on the examples."""
    largest_output: float
    """Largest absolute output of the original on the examples: what the difference is to be compared with."""
    call: Call
    """What the forward pass was given."""
    not_understood: tuple[str, ...]
    """Operations around which everything was left as it was."""
    open_sizes: tuple[str, ...]
    """Where the original's code says a number of features that is no longer right. Without any, `model` is of the
    original's class; otherwise it is its `torch.fx.GraphModule`, with these left open."""

    @property
    def units_removed(self) -> int:
        return sum(layer.removed for layer in self.layers)


def shrink(model: nn.Module, examples: Examples, *, select_unused_inputs: bool = False) -> Shrunk:
    """Cuts out of a network, in evaluation mode, every unit that cannot matter.

    A unit (a feature of a linear layer, a channel of a convolution) cannot matter if no path of weights other than zero
    leads from it to the output, or if it is the same for every input; what it contributes is then added to the biases
    of the layers that read it. This is repeated until no unit is left that can go (`removal.find_removal`). Channels of
    residual sums go if they can go in all of the sum's terms. What a network takes and returns keeps its shape; it may
    return several tensors, in tuples, lists, dictionaries and objects such as transformers' `ModelOutput`.

    Around operations that are not understood (attention, LayerNorm, grouped convolutions, ...) units stay. BatchNorm is
    taken with its statistics of training, so the result is for use, not for further training.

    Args:
        model: is not changed. Wrappers (`torch.compile`, data-parallel) are taken off.
        examples: a batch of inputs, the sequence of the forward pass's arguments, or a dictionary of them by name; on
            the model's device. Shapes are learned from them, and outputs compared on them.
        select_unused_inputs: whether features of the input that the first layer has no weight for are cut out of its
            tensor as well, behind an explicit `index_select` (`resize.SelectedInputs`). Off by default: the result then
            consists of the original's classes only.

    Raises:
        ShrinkError: the model cannot be traced, holds weights that are not finite, or (a defect of the library or of
            the trace) the smaller network would compute something else.
    """
    call = as_call(examples)
    original = unwrap(model)
    _check_finite(original)
    smaller = copy.deepcopy(original).eval()
    traced = trace(smaller, call)
    network = understand(traced)
    removal = find_removal(network)
    selected = selections(network, removal)
    layers = tuple(_describe(layer, removal, selected, select_unused_inputs) for layer in network.layers)
    cut(smaller, network, removal)
    open_sizes = outdated_sizes(network, removal)
    if open_sizes:
        smaller = leave_sizes_open(smaller, open_sizes, call)
    if select_unused_inputs:
        for name, index in selected.items():
            layer: Any = smaller.get_submodule(name)
            index = index.to(layer.weight.device)
            resize_layer(layer, layer.weight.detach().index_select(1, index), None)
            select_inputs(smaller, name, index)
    with torch.no_grad():
        outputs = call.of_copies(smaller)
    difference = _compared(traced.outputs, tensors_of(outputs, type(original).__name__))
    return Shrunk(
        smaller,
        layers,
        count_parameters(original),
        count_parameters(smaller),
        count_weights(original),
        count_weights(smaller),
        difference.largest,
        difference.largest_output,
        call,
        network.not_understood,
        tuple(open_sizes),
    )


def read_network(model: nn.Module, examples: Examples) -> OperationGraph:
    """The model, in evaluation mode, as operations on units.

    Raises:
        ShrinkError: it cannot be traced.
    """
    return understand(trace(copy.deepcopy(unwrap(model)).eval(), as_call(examples)))


def count_weights(model: nn.Module) -> int:
    """How many weights are not zero: entries of parameters of at least two dimensions, tied ones once."""
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters() if parameter.dim() > 1)


def _describe(layer: FullLayer, removal: Removal, selected: Mapping[str, Tensor], select: bool) -> ShrunkLayer:
    made, read = removal.coupling.made_by(layer), removal.coupling.read_by(layer)
    needed = selected.get(layer.name, torch.arange(len(read)))
    unused_inputs = sorted(set(range(len(read))) - set(needed.tolist()))
    inputs = len(needed) if select and unused_inputs else int((~removal.removed[read]).sum())
    return ShrunkLayer(
        name=layer.name,
        inputs_before=len(read),
        inputs=inputs,
        outputs_before=len(made),
        outputs=int((~removal.removed[made]).sum()),
        unused=tuple(removal.unused[made].nonzero().flatten().tolist()),
        constant=tuple(removal.constant[made].nonzero().flatten().tolist()),
        unused_inputs=tuple(unused_inputs),
    )


def _check_finite(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            raise ShrinkError(
                f"{name} holds infinite or NaN numbers; expected finite ones, since zero times these is not zero. "
                f"Go back to an earlier round."
            )


def _compared(expected: Sequence[Tensor], got: Sequence[Tensor]) -> Distance:
    """The difference, if it is no larger than rounding."""
    found = worst(compare(expected, got))
    if not found.largest <= found.allowed:
        raise ShrinkError(
            f"the smaller network's outputs differ by {found.largest:.3g} on the examples; expected at most "
            f"{found.allowed:.3g}. No model is returned. Does the forward pass depend on sizes, or change a value in "
            f"place that it reads again? If not, this is a defect of gossamer: please report it with the model."
        )
    return found
