"""The quantised part of a network: its layers with what follows them, and the steps between that panels of bytes
take."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from gossamer.graph.dequantised import DequantisedLayer, dequantised_layer_at
from gossamer.graph.graph import Graph, is_complete
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import extents, find_layers, same_shape, with_following
from gossamer.graph.lookups import Lookup, lookup_at, table_of
from gossamer.graph.quantisation import BYTE_TYPES, Bytes, Unsuited, is_dequantise, is_quantise, quantisation_at
from gossamer.graph.quantised_layers import QuantisedLayer, quantised_layer_at
from gossamer.graph.quantised_result import Result
from gossamer.graph.quantised_steps import Addition, ByteConcat, BytePool, ByteResize, Step, step_at

Mover = BytePool | ByteConcat | ByteResize


@dataclass(frozen=True)
class QuantisedGraph:
    """What of a network computes with bytes; no node is in two of these."""

    layers: tuple[QuantisedLayer, ...]
    """Convolutions and linear layers, in the graph's order."""
    channelwise: tuple[QuantisedLayer, ...]
    """Additions and functions that no layer could take in: as depthwise layers whose weights are one."""
    movers: tuple[Mover, ...]
    dequantised: tuple[DequantisedLayer, ...]
    """Linear layers of bytes whose results are floats."""
    reasons: dict[int, str]
    """Node -> why the quantised layer that begins there has no sparse op."""

    @property
    def with_weights(self) -> tuple[QuantisedLayer | DequantisedLayer, ...]:
        """The layers of both kinds, as `gossamer.export.rewrite` reports them."""
        return (*self.layers, *self.dequantised)

    @property
    def inside(self) -> set[int]:
        """The nodes of all its layers."""
        of_bytes = {index for layer in self.layers for index in layer.nodes}
        return of_bytes | {index for layer in self.dequantised for index in layer.nodes}


NOT_QUANTISED = QuantisedGraph((), (), (), (), {})


@dataclass
class _Found:
    """The ops that end in bytes, by the names of those."""

    graph: Graph
    layers: dict[str, QuantisedLayer] = field(default_factory=dict)
    additions: dict[str, Addition] = field(default_factory=dict)
    lookups: dict[str, Lookup] = field(default_factory=dict)
    movers: list[Mover] = field(default_factory=list)
    dequantised: list[DequantisedLayer] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    signed: dict[str, bool] = field(default_factory=dict)
    """Values of bytes -> whether they are int8."""

    def __post_init__(self) -> None:
        taken: set[int] = set()
        for given in self.graph.model.graph.input:
            kind = given.type.tensor_type.elem_type
            if kind in BYTE_TYPES:
                self.signed[given.name] = kind == onnx.TensorProto.INT8
        for index, node in enumerate(self.graph.nodes):
            if index not in taken:
                taken.update(self._look_at(index, node))

    def _look_at(self, index: int, node: onnx.NodeProto) -> tuple[int, ...]:
        """Notes what begins with a node, or ends in one; the nodes that it takes."""
        if not is_complete(node):
            return ()
        try:
            layer = quantised_layer_at(self.graph, index)
        except Unsuited as reason:
            return self._look_for_floats(index, str(reason))
        if layer is not None:
            self.layers[layer.output.value] = layer
            self._note(layer.output)
            return layer.nodes
        floats = self._look_for_floats(index)
        if floats:
            return floats
        step = step_at(self.graph, index, self.signed)
        if step is not None:
            self._note_step(step)
            return step.nodes
        lookup = lookup_at(self.graph, index, self.lookups)
        if lookup is not None:
            self.lookups[lookup.output.value] = lookup
            self._note(lookup.output)
        elif is_quantise(node):
            with suppress(Unsuited):
                self._note(Bytes(node.output[0], quantisation_at(self.graph, node, 1, 2)))
        return ()

    def _look_for_floats(self, index: int, reason: str = "") -> tuple[int, ...]:
        """Notes the layer that begins with a node and makes floats; the nodes that it takes.

        Args:
            reason: why it makes no bytes.
        """
        try:
            layer = dequantised_layer_at(self.graph, index)
        except Unsuited as other:
            layer, reason = None, reason or str(other)
        if layer is not None:
            self.dequantised.append(layer)
            return layer.nodes
        if reason:
            self.reasons[index] = reason
        return ()

    def _note(self, made: Bytes) -> None:
        self.signed[made.value] = made.quantisation.signed

    def _note_step(self, step: Step) -> None:
        if isinstance(step, Addition):
            self.additions[step.result.output.value] = step
            self._note(step.result.output)
        else:
            self.movers.append(step)
            self._note(step.output)

    def extended(self, layer: QuantisedLayer) -> QuantisedLayer:
        """The layer with the additions and functions that follow it, as far as nothing else reads what is between."""
        while True:
            readers = set(byte_readers(self.graph, layer.output.value))
            longer = None
            for addition in self.additions.values():
                if readers and readers <= set(addition.nodes):
                    longer = _with_addition(layer, addition)
                    break
            for lookup in self.lookups.values():
                if longer is None and readers and readers <= set(lookup.nodes) and lookup.source == layer.output.value:
                    longer = self._with_table(layer, lookup)
                    break
            if longer is None:
                return layer
            self.additions.pop(longer.output.value, None)
            self.lookups.pop(longer.output.value, None)
            layer = longer

    def _with_table(self, layer: QuantisedLayer, lookup: Lookup) -> QuantisedLayer | None:
        table = table_of(self.graph, lookup, layer.output.quantisation.signed)
        if table is None:
            return None
        return replace(
            layer,
            table=table if layer.table is None else table[layer.table],
            before_table=layer.made,
            output=lookup.output,
            shape=replace(layer.shape, curved=True),
            nodes=(*layer.nodes, *self._replaced(lookup)),
        )

    def _replaced(self, lookup: Lookup) -> Iterator[int]:
        """The nodes of a function but those that others may read too."""
        return (index for index in lookup.nodes if not is_dequantise(self.graph.nodes[index]))

    def channelwise(self) -> Iterator[QuantisedLayer]:
        """What is left of additions and functions, of images and sequences."""
        for addition in list(self.additions.values()):
            first, second = addition.inputs
            layer = self._of_ones(first, addition.result.output)
            if addition.constant is not None:
                continue
            if layer is not None and addition.result.output.value in self.additions:
                result = addition.result
                added = replace(
                    layer,
                    residual=second,
                    nodes=addition.nodes,
                    lower=result.lower,
                    upper=result.upper,
                    shape=replace(layer.shape, residual=True),
                )
                if _has_numbers(added):
                    del self.additions[result.output.value]
                    yield self.extended(added)
        for lookup in list(self.lookups.values()):
            if lookup.source not in self.signed or not same_shape(self.graph, lookup.source, lookup.output.value):
                continue
            source = Bytes(lookup.source, replace(lookup.output.quantisation, signed=self.signed[lookup.source]))
            same = self._of_ones(source, Bytes(lookup.source, source.quantisation))
            if same is not None and lookup.output.value in self.lookups:
                made = self._with_table(replace(same, nodes=()), lookup)
                if made is not None:
                    del self.lookups[lookup.output.value]
                    yield self.extended(made)

    def _of_ones(self, source: Bytes, output: Bytes) -> QuantisedLayer | None:
        """The depthwise layer that multiplies each channel by one."""
        sizes = self.graph.shapes.get(source.value, ())
        if len(sizes) not in (3, 4) or not isinstance(sizes[1], int) or sizes[1] < 1:
            return None
        channels, height, width, images = extents(self.graph, source.value)
        shape = LayerShape(
            "conv",
            inputs=channels,
            outputs=channels,
            height=height,
            width=width,
            groups=channels,
            images=images,
            quantised=True,
        )
        weight = np.ones((channels, 1, *(1,) * (len(sizes) - 2)), np.int8)
        scales = np.ones(channels, np.float32)
        return QuantisedLayer(
            output.value, "conv", weight, scales, None, shape, source, output, (), len(sizes), has_weight=False
        )


def find_quantised(graph: Graph) -> QuantisedGraph:
    """Reads the quantised part of a graph, in QDQ or QOperator form or both."""
    found = _Found(graph)
    # From the end, so that where two layers are added the later one, which finds the other's result ready, adds.
    layers = [found.extended(layer) for layer in reversed(found.layers.values())]
    channelwise = tuple(found.channelwise())
    parts = (*layers, *channelwise, *found.movers, *(find_layers(graph) if found.dequantised else ()))
    floats = with_following(graph, found.dequantised, [index for part in parts for index in part.nodes])
    return QuantisedGraph(tuple(layers[::-1]), channelwise, tuple(found.movers), tuple(floats), found.reasons)


def byte_readers(graph: Graph, value: str) -> Iterable[int]:
    """The nodes that read bytes, or what DequantizeLinear makes of them; GRAPH if the graph returns either."""
    for index in graph.readers.get(value, []):
        if index >= 0 and is_dequantise(graph.nodes[index]):
            yield from graph.readers.get(graph.nodes[index].output[0], [])
        else:
            yield index


def _with_addition(layer: QuantisedLayer, addition: Addition) -> QuantisedLayer | None:
    """The layer with an addition that reads its bytes; None if it has one already, or they are taken for others."""
    mine = [given for given in addition.inputs if given.value == layer.output.value]
    others = [given for given in addition.inputs if given.value != layer.output.value]
    result = addition.result
    if len(mine) != 1 or mine[0].quantisation != layer.output.quantisation:
        return None
    if layer.residual is not None or layer.table is not None:
        return None
    if addition.constant is not None and (layer.kind == "conv" or addition.constant.size != layer.shape.outputs):
        return None
    longer = replace(
        layer,
        residual=others[0],
        added=addition.constant,
        sums=Result(layer.output, (), layer.lower, layer.upper),
        output=result.output,
        nodes=(*layer.nodes, *addition.nodes),
        lower=result.lower,
        upper=result.upper,
        shape=replace(layer.shape, residual=True),
    )
    return longer if _has_numbers(longer) else None


def _has_numbers(layer: QuantisedLayer) -> bool:
    try:
        layer.require_numbers()
    except Unsuited:
        return False
    return True
