"""Which weights of a torch network the layers of its ONNX network are made of, and so its time by their densities."""

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.export.from_torch import to_onnx
from gossamer.graph.layers import Layer
from gossamer.predict.by_density import ExpectedTime
from gossamer.predict.calibration import Calibration

FIRST_COLOUR = 1024
"""Far above any trained weight; all up to 2^23 are told apart as 32-bit floats."""


def expected_milliseconds(
    model: nn.Module, names: Sequence[str], example: tuple[Tensor, ...], calibration: Calibration
) -> Callable[[Mapping[str, float]], float]:
    """What `gossamer.search.budget.milliseconds` takes: density of each weight by name -> milliseconds of one
    inference, as `gossamer predict` expects them of the network as `gossamer export --calibration` would write it.

    Exporters rename, transpose and split weights. So a copy of the network is exported, each of whose weights is
    painted: all its numbers are the same, other than any other weight's, and wherever they turn up they are known.

    Args:
        names: of the weights whose densities are asked about; of `gossamer.prunable_weights`.
        example: the arguments of the forward pass for a batch of examples.

    Raises:
        ExportError: torch cannot write the network as ONNX.
        ConfigurationError: it branches too widely (`gossamer.predict.variable_elimination`).
    """
    painted = copy.deepcopy(model).cpu().float().eval()
    # torch's stub for the keyword-only form of `to` knows no memory format.
    painted = painted.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with torch.no_grad():
        for place, name in enumerate(names):
            painted.get_parameter(name).fill_(FIRST_COLOUR + place)
        for module in painted.modules():
            _take_no_part_in_folding(module)

    def shares(layer: Layer) -> Mapping[str, float]:
        places, counts = np.unique(np.rint(layer.weight).astype(np.int64) - FIRST_COLOUR, return_counts=True)
        return {
            names[place]: float(count) / layer.weight.size
            for place, count in zip(places, counts, strict=True)
            if 0 <= place < len(names)
        }

    seconds = ExpectedTime(to_onnx(painted, [value.cpu() for value in example]).model, calibration, shares)
    return lambda densities: 1e3 * seconds(densities)


def _take_no_part_in_folding(module: nn.Module) -> None:
    """A normalisation that the export multiplies into the weights before it becomes the identity, which has their very
    nodes."""
    if not isinstance(module, nn.modules.batchnorm._NormBase):
        return
    if module.running_mean is not None and module.running_var is not None:
        module.running_mean.zero_()
        module.running_var.fill_(1 - module.eps)
    if module.affine:
        module.weight.fill_(1)
        module.bias.zero_()
