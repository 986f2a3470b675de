"""What the units of every layer do on data: their activations, after the normalisation and the activation function that
belong to the layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from gossamer.shrink.arguments import as_call
from gossamer.shrink.coupling import unit_dimension
from gossamer.shrink.operations import Elementwise, FullLayer, Normalisation, Operation, OperationGraph, Value, read_by
from gossamer.shrink.trace import Traced
from gossamer.tasks import Examples
from gossamer.tasks.sample import Sample


def activations(network: OperationGraph) -> dict[str, Value]:
    """For every layer, by name, the value that holds its units' activations: the layer's output, or what BatchNorm and
    elementwise functions make of it as long as nothing else reads what is in between."""
    readers: dict[Value, list[Operation]] = {}
    for operation in network.operations:
        for value in read_by(operation):
            readers.setdefault(value, []).append(operation)
    found = {}
    for layer in network.layers:
        value = layer.output
        while (reader := _only_reader(readers.get(value, []))) is not None:
            value = reader.output
        found[layer.name] = value
    return found


def never_active(traced: Traced, network: OperationGraph, examples: Sample | Examples) -> dict[str, Tensor]:
    """For every layer, by name, whether each unit has the same activation for every example and at every position (for
    ReLU: zero); bool, shape (units,)."""
    ends = activations(network)
    layers = {value: layer for layer in network.layers for value in [ends[layer.name]]}
    lowest: dict[str, Tensor] = {}
    highest: dict[str, Tensor] = {}

    def note(name: str, values: Tensor) -> None:
        if name not in layers:
            return
        layer = layers[name]
        units = _by_unit(values, layer)
        low, high = units.amin(1), units.amax(1)
        lowest[layer.name] = torch.minimum(lowest.get(layer.name, low), low)
        highest[layer.name] = torch.maximum(highest.get(layer.name, high), high)

    observer = _Observer(traced.module, note)
    with torch.no_grad():
        for batch in examples if isinstance(examples, Sample) else Sample(examples):
            observer.run(*(tensor.clone() for tensor in as_call(batch).tensors()))
    return {name: lowest[name] == highest[name] for name in ends}


def _by_unit(values: Tensor, layer: FullLayer) -> Tensor:
    """(batch, ...) -> (units, everything else)."""
    dimension = unit_dimension(layer)
    return values.movedim(dimension if dimension < 0 else 1 + dimension, 0).flatten(1)


def _only_reader(readers: list[Operation]) -> Normalisation | Elementwise | None:
    if len(readers) == 1 and isinstance(readers[0], Normalisation | Elementwise):
        return readers[0]
    return None


class _Observer(fx.Interpreter):
    """Runs the graph and shows every tensor to somebody, before anything else can change it."""

    def __init__(self, module: fx.GraphModule, note: Callable[[str, Tensor], None]) -> None:
        super().__init__(module)
        self.note = note

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.note(n.name, result)
        return result
