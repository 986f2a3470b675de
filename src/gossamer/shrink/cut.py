"""The smaller module: the model with the units that go cut out of its tensors."""

from typing import Any

from torch import Tensor, nn

from gossamer.shrink.constants import Affine
from gossamer.shrink.operations import (
    BatchNorm,
    Convolution,
    Depthwise,
    FullLayer,
    Normalisation,
    OperationGraph,
    Rearrangement,
)
from gossamer.shrink.removal import Removal
from gossamer.shrink.resize import resize_layer, resize_normalisation


def cut(model: nn.Module, network: OperationGraph, removal: Removal) -> None:
    """Cuts the removed units out of `model`, a copy of the one that the network was read from."""
    coupling = removal.coupling
    for operation in network.operations:
        if not isinstance(operation, FullLayer | Depthwise | Normalisation):
            continue
        rows = _kept(removal, coupling.made_by(operation))
        module: Any = model.get_submodule(operation.name)
        if isinstance(operation, FullLayer):
            columns = _kept(removal, coupling.read_by(operation))
            _cut_layer(module, removal.layers[operation.name], rows, columns)
        elif isinstance(operation, Depthwise):
            _cut_depthwise(module, rows)
        else:
            _cut_normalisation(module, rows)


def outdated_sizes(network: OperationGraph, removal: Removal) -> list[str]:
    """The nodes whose number of features the model's code says, wrongly once the units are gone (`view(-1, 400)`)."""
    return [
        operation.output
        for operation in network.operations
        if isinstance(operation, Rearrangement)
        and operation.says_size
        and removal.removed[removal.coupling.unit_at[operation.output]].any()
    ]


def selections(network: OperationGraph, removal: Removal) -> dict[str, Tensor]:
    """For every layer that reads the network's inputs and gives some of them no weight: those that it needs.

    At least one, since there is no layer without inputs. Layer's name -> indices, int64.
    """
    found = {}
    for layer in network.layers:
        if removal.coupling.given[removal.coupling.read_by(layer)].all():
            read = removal.layers[layer.name].reads()[_kept(removal, removal.coupling.made_by(layer))].any(0)
            read[0] |= not read.any()
            if not read.all():
                found[layer.name] = read.nonzero().flatten()
    return found


def _kept(removal: Removal, units: Tensor) -> Tensor:
    """The indices of the units that stay."""
    return (~removal.removed[units]).nonzero().flatten()


def _cut_layer(module: nn.Linear | Convolution, values: Affine, rows: Tensor, columns: Tensor) -> None:
    weight = values.weight[rows][:, columns].reshape(len(rows), len(columns), *module.weight.shape[2:])
    bias = values.bias[rows]
    resize_layer(module, weight, bias if module.bias is not None or bias.any() else None)


def _cut_depthwise(module: Convolution, rows: Tensor) -> None:
    resize_layer(module, _rows(module.weight, rows), None if module.bias is None else _rows(module.bias, rows))


def _cut_normalisation(module: BatchNorm, rows: Tensor) -> None:
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: getattr(module, name) for name in names}
    resize_normalisation(module, {name: _rows(held, rows) for name, held in tensors.items() if held is not None})


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor.detach().index_select(0, rows.to(tensor.device))
