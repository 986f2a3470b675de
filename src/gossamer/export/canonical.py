"""The canonical form of a network: without dead units, and with the others in an order that is cheap to store.

A unit that nothing reads is cut out, and so is one that reads nothing: it is a constant, which the next layer's bias
takes over. In which order a layer has its units is free. The network computes the same, sums in another order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.graph import Graph, attributes_of, input_at, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused
from gossamer.graph.outputs import with_outputs
from gossamer.graph.sessions import Feed, dense_session
from gossamer.graph.units import Place, Reader, Units, find_units

Array = NDArray[np.generic]
Order = Callable[[NDArray[np.float64]], NDArray[np.intp]]
"""A matrix whose rows make units -> the order of its rows."""


@dataclass(frozen=True)
class Alive:
    """A network without dead units."""

    model: onnx.ModelProto
    removed: int


def without_dead_units(model: onnx.ModelProto, feed: Feed) -> Alive:
    """Cuts out units until none is dead; a layer keeps one at least.

    Args:
        feed: inputs on which the constants are found that units without inputs make.
    """
    removed = 0
    while True:
        cut = _Cut(model, feed)
        found = cut.dead()
        if not found:
            return Alive(model, removed)
        units, dead = found
        model = cut.without(units, dead)
        removed += int(np.count_nonzero(dead))


def fullest_first(rows: NDArray[np.float64]) -> NDArray[np.intp]:
    """By how many numbers of a row are not 0."""
    return np.argsort(-np.count_nonzero(rows, axis=1), kind="stable")


def emptiest_first(rows: NDArray[np.float64]) -> NDArray[np.intp]:
    """By how many numbers of a row are 0."""
    return np.argsort(np.count_nonzero(rows, axis=1), kind="stable")


def by_place(rows: NDArray[np.float64]) -> NDArray[np.intp]:
    """By where in the row the numbers lie in the mean that are not 0."""
    kept = rows != 0
    return np.argsort((kept @ np.arange(rows.shape[1])) / np.maximum(kept.sum(axis=1), 1), kind="stable")


ORDERS: tuple[Order, ...] = (fullest_first, emptiest_first, by_place)


def in_order(model: onnx.ModelProto, order: Order) -> onnx.ModelProto:
    """The same network with the units of every layer in another order."""
    constants = _constants(model)
    changed = {}
    for units in find_units(Graph(model)):
        weight = np.moveaxis(constants[units.weight.constant], units.weight.axis, 0)
        chosen = order(weight.reshape(units.count, -1).astype(np.float64))
        for place in units.places:
            constants[place.constant] = changed[place.constant] = _taken(constants[place.constant], place, chosen)
    return _with_constants(model, changed)


def _taken(array: Array, place: Place, units: NDArray[np.intp]) -> Array:
    """These units of a constant, in this order."""
    numbers = (units[:, None] * place.block + np.arange(place.block)).reshape(-1)
    return np.take(array, numbers, axis=place.axis)


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _with_constants(model: onnx.ModelProto, changed: Mapping[str, Array]) -> onnx.ModelProto:
    """The network with other numbers, of other shapes perhaps, and with what is new."""
    if not changed:
        return model
    result = copied(model)
    kept = [tensor for tensor in result.graph.initializer if tensor.name not in changed]
    new = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in changed.items()]
    replace_items(result.graph.initializer, [*kept, *new])
    replace_items(result.graph.value_info, [])
    drop_unread(result)
    return result


class _Cut:
    """One look at a network."""

    def __init__(self, model: onnx.ModelProto, feed: Feed) -> None:
        self.model, self.feed = model, feed
        self.graph = Graph(model)
        self.constants = _constants(model)
        self.nodes: dict[int, onnx.NodeProto] = {}
        """Nodes that get a bias."""
        self._known: dict[int, list[NDArray[np.float64]]] = {}
        """What `_values` found, by the node whose units they are."""

    def dead(self) -> tuple[Units, NDArray[np.bool_]] | None:
        """The last layer with dead units, and which they are."""
        for units in reversed(find_units(self.graph)):
            if units.fixed or units.count < 2:
                continue
            unread = ~np.any([self._any(reader.weight, units.count) for reader in units.readers], axis=0)
            unfed = ~self._any(units.weight, units.count) & ~unread
            if unfed.any():
                unfed &= self._can_be_folded(units)
            dead = unread | unfed
            if dead.all():
                dead[0] = False
            if dead.any():
                return units, dead
        return None

    def without(self, units: Units, dead: NDArray[np.bool_]) -> onnx.ModelProto:
        """The network without them; what they add is in the biases of those that read them."""
        changed: dict[str, Array] = {}
        values = self._values(units)
        for reader, made in zip(units.readers, values, strict=True):
            self._fold(reader, np.where(dead, np.nan_to_num(made), 0.0), changed)
        left = np.flatnonzero(~dead)
        for place in units.places:
            changed[place.constant] = _taken(self.constants[place.constant], place, left)
        model = copied(self.model)
        for index, node in self.nodes.items():
            model.graph.node[index].CopyFrom(node)
        return _with_constants(model, changed)

    def _any(self, place: Place, count: int) -> NDArray[np.bool_]:
        """Which units have a number in a constant that is not 0."""
        along = np.moveaxis(self.constants[place.constant], place.axis, 0)
        return np.asarray((along.reshape(count, -1) != 0).any(axis=1), bool)

    def _can_be_folded(self, units: Units) -> NDArray[np.bool_]:
        """Which units are the same number everywhere, that all biases can take over."""
        result = np.ones(units.count, bool)
        for reader, made in zip(units.readers, self._values(units), strict=True):
            result &= np.isfinite(made)
            if reader.padded or self._bias(reader) is None:
                result &= made == 0
        return result

    def _values(self, units: Units) -> list[NDArray[np.float64]]:
        """What each reader reads of each unit where that is one number, NaN elsewhere."""
        if units.node in self._known:
            return self._known[units.node]
        names = list(dict.fromkeys(reader.value for reader in units.readers))
        session = dense_session(with_outputs(self.model, names))
        read = dict(zip(names, session.run(names, dict(self.feed)), strict=True))
        found = []
        for reader in units.readers:
            value = np.moveaxis(np.asarray(read[reader.value], np.float64), reader.axis, 0)
            value = value.reshape(units.count, -1)
            same = value.size > 0 and (value == value[:, :1]).all(axis=1)
            found.append(np.where(same, value[:, 0] if value.size else np.nan, np.nan))
        self._known[units.node] = found
        return found

    def _bias(self, reader: Reader) -> str | None:
        """The constant that takes over numbers, "" for one that is to be added; None if there is none."""
        node = self.graph.nodes[reader.node]
        if is_standard(node, "MatMul"):
            following = self.graph.only_reader(node.output[0])
            if following is None or not is_standard(self.graph.nodes[following], "Add"):
                return None
            names = [name for name in self.graph.nodes[following].input if name != node.output[0]]
            name = names[0] if names else ""
        else:
            if is_standard(node, "Gemm") and not _is_plain(node):
                return None
            name = input_at(node, 2)
            if not name:
                return ""
        outputs = self.constants[reader.weight.constant].shape[_other_axis(reader)]
        own = name in self.constants and name in self.graph.tensors and len(self.graph.readers[name]) == 1
        return name if own and self.constants[name].shape == (outputs,) else None

    def _fold(self, reader: Reader, values: NDArray[np.float64], changed: dict[str, Array]) -> None:
        if not values.any():
            return
        weight = np.moveaxis(self.constants[reader.weight.constant], reader.weight.axis, 0).astype(np.float64)
        if reader.weight.block > 1:
            values = np.repeat(values, reader.weight.block)
        added = np.tensordot(values, weight, 1)
        added = added.reshape(len(added), -1).sum(axis=1)
        name = self._bias(reader)
        if name:
            changed[name] = (self.constants[name] + added).astype(np.float32)
            return
        node = copied(self.graph.nodes[reader.node])
        name = unused(f"{reader.weight.constant}.bias", names_of_values(self.model))
        del node.input[2:]
        node.input.append(name)
        self.nodes[reader.node] = node
        changed[name] = added.astype(np.float32)


def _other_axis(reader: Reader) -> int:
    """The axis of a reader's weight along which its own outputs lie."""
    return 0 if reader.weight.axis == 1 else 1


def _is_plain(node: onnx.NodeProto) -> bool:
    attributes = attributes_of(node)
    return attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
