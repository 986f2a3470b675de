"""Finds which positions are one unit: they can only be there, or not be there, together."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
    Padding,
    Pooling,
    Rearrangement,
    Shape,
    SizeOf,
    Value,
)
from gossamer.shrink.positions import along, distinct, distinct_pairs, on_distinct, padded, same_along, spread

NEEDED = 0
"""The unit of everything that has to stay because something that is not understood, or the caller, sees it."""


@dataclass(frozen=True)
class Coupling:
    """The units of a network."""

    count: int
    """Units are numbered 0 to count - 1; number 0 is `NEEDED`."""
    unit_at: dict[Value, Tensor]
    """The unit at every position of a value; int64, of the value's shape for one example."""
    given: Tensor
    """Whether a unit holds a position of the network's inputs, which the caller fills; bool, shape (count,)."""

    def read_by(self, layer: FullLayer | Depthwise | Normalisation) -> Tensor:
        """The units that a layer reads, in the order of its weight's columns; shape (inputs,)."""
        return along(self.unit_at[layer.input], unit_dimension(layer))

    def made_by(self, layer: FullLayer | Depthwise | Normalisation) -> Tensor:
        """The units that a layer makes, in the order of its weight's rows; shape (outputs,)."""
        return along(self.unit_at[layer.output], unit_dimension(layer))


def unit_dimension(layer: FullLayer | Depthwise | Normalisation) -> int:
    """The dimension of one example along which a layer has its units: channels come first, features last."""
    return -1 if isinstance(layer.module, nn.Linear) else 0


def couple(network: OperationGraph) -> Coupling:
    """Finds the units of a network.

    Every position of an input, every feature of a linear layer and every channel of a convolution begins as a unit of
    its own; operations carry units along, and merge those that they tie to one another (the channels of a sum's terms,
    the pixels of a channel that a convolution reads).
    """
    units = _Units()
    unit_at: dict[Value, Tensor] = {}
    for operation in network.operations:
        found = _carry(operation, unit_at, units, network.shapes)
        if isinstance(operation, SizeOf | Output) or operation.output is None:
            continue
        unit_at[operation.output] = found
    number = units.numbered()
    is_given = torch.zeros(int(number.max()) + 1, dtype=torch.bool)
    is_given[number[torch.tensor(units.given, dtype=torch.int64)]] = True
    renumbered = {value: on_distinct(number.__getitem__, found) for value, found in unit_at.items()}
    return Coupling(len(is_given), renumbered, is_given)


def _carry(operation: Operation, unit_at: dict[Value, Tensor], units: "_Units", shapes: dict[Value, Shape]) -> Tensor:
    """The units at the positions of the operation's output; merges those that the operation ties together."""
    match operation:
        case Input(output):
            return units.new(math.prod(shapes[output]), given=True).reshape(shapes[output])
        case FullLayer(_, _, value, output):
            dimension = unit_dimension(operation)
            units.merge_across(unit_at[value], dimension)
            return spread(units.new(shapes[output][dimension]), dimension % len(shapes[output]), shapes[output])
        case Depthwise(_, _, value, output) | Normalisation(_, _, value, output) | Pooling(_, _, value, output):
            units.merge_across(unit_at[value], 0)
            return spread(along(unit_at[value], 0), 0, shapes[output])
        case Padding(amounts, dimensions, _, value, _):
            for dimension in dimensions:
                # Pixels of an input stay in any case; of channels the code goes on adding as many.
                if dimension > 0 and units.are_given(unit_at[value]):
                    units.merge_along(unit_at[value], dimension)
            return padded(units.represented(unit_at[value]), amounts, NEEDED)
        case Mean(dimensions, keep, value, _):
            kept = unit_at[value]
            for dimension in dimensions:
                first = kept.narrow(dimension, 0, 1)
                units.merge(first.expand_as(kept), kept)
                kept = first
            return kept if keep else kept.squeeze(dimensions)
        case Elementwise(_, value, _):
            return unit_at[value]
        case Rearrangement(function, whole, _, value, _):
            for dimension in whole:
                units.need_along(unit_at[value], dimension)
            return function(unit_at[value].unsqueeze(0)).squeeze(0)
        case Combination(_, _, (left, right), _):
            units.merge(unit_at[left], unit_at[right])
            return unit_at[left]
        case Concatenation(dimension, values, _):
            return torch.cat([unit_at[value] for value in values], dimension)
        case SizeOf(dimension, value):
            units.need_along(unit_at[value], dimension)
        case Opaque(_, values, output):
            for value in values:
                units.need(unit_at[value])
            if output is not None:
                return torch.full((), NEEDED).expand(shapes[output])
        case Output(values):
            for value in values:
                units.need(unit_at[value])
    return torch.empty(0, dtype=torch.int64)


class _Units:
    """Units that are merged (a union-find forest): every position holds a number, and numbers have representatives."""

    def __init__(self) -> None:
        self.parent = [NEEDED]
        self.given: list[int] = []
        """Those of the network's inputs."""

    def new(self, count: int, *, given: bool = False) -> Tensor:
        first = len(self.parent)
        numbers = range(first, first + count)
        self.parent.extend(numbers)
        if given:
            self.given.extend(numbers)
        return torch.arange(first, first + count)

    def are_given(self, positions: Tensor) -> bool:
        """Whether all of them are the network's inputs."""
        return set(distinct(positions).unique().tolist()) <= set(self.given)

    def represented(self, positions: Tensor) -> Tensor:
        """The same units, those that were merged under one number."""
        unique, place = distinct(positions).unique(return_inverse=True)
        numbers = torch.tensor([self._representative(unit) for unit in unique.tolist()], dtype=torch.int64)
        return numbers[place].expand(positions.shape)

    def merge(self, left: Tensor, right: Tensor) -> None:
        """Makes one unit of those at the same position of two tensors of the same shape."""
        left, right = distinct_pairs(left, right)
        for one, other in torch.stack([left.flatten(), right.flatten()]).unique(dim=1).T.tolist():
            self._merge(one, other)

    def merge_across(self, positions: Tensor, dimension: int) -> None:
        """Makes one unit of all positions with the same index along a dimension."""
        for other in range(positions.dim()):
            if other != dimension % positions.dim():
                self.merge_along(positions, other)

    def merge_along(self, positions: Tensor, dimension: int) -> None:
        """Makes one unit of all positions that differ in their index along a dimension only."""
        self.merge(positions.narrow(dimension, 0, 1).expand_as(positions), positions)

    def need(self, positions: Tensor) -> None:
        """Makes all of them stay."""
        for unit in distinct(positions).unique().tolist():
            self._merge(NEEDED, unit)

    def need_along(self, positions: Tensor, dimension: int) -> None:
        """Makes all of them stay, unless the dimension has the same units at every index."""
        if not same_along(positions, dimension):
            self.need(positions)

    def numbered(self) -> Tensor:
        """The final unit of every number that was handed out: 0 for `NEEDED`, the others in order of appearance."""
        representatives = torch.tensor([self._representative(unit) for unit in range(len(self.parent))])
        number: Tensor = representatives.unique(sorted=True, return_inverse=True)[1]
        return number

    def _merge(self, one: int, other: int) -> None:
        # The smaller number represents, so NEEDED represents whatever it is merged with.
        first, second = sorted((self._representative(one), self._representative(other)))
        self.parent[second] = first

    def _representative(self, unit: int) -> int:
        while self.parent[unit] != unit:
            self.parent[unit] = self.parent[self.parent[unit]]
            unit = self.parent[unit]
        return unit
