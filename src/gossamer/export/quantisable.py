"""Which nodes of a network compute in int8: its layers, and what stands between two of them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx

from gossamer.graph.applied import activation_of
from gossamer.graph.graph import Graph, attributes_of, is_standard
from gossamer.graph.layers import Layer, find_layers

BETWEEN = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "GlobalAveragePool",
    "MaxPool",
    "Relu",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Ops whose results are bytes if they are read by an int8 layer and made of one's. Others (softmax, normalisation,
LSTM, products of two activations, every other function) compute in fp32 on what is dequantised for them."""
SHARING = (
    "AveragePool",
    "Flatten",
    "MaxPool",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Those whose results have the range of what they read."""
OF_ONE_VALUE = (*SHARING, "Clip")
"""Those that compute with the first thing they read: the others are sizes, places or bounds, perhaps computed ones."""
QUANTISED = ("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear")
"""ONNX's ops of networks that are quantised already; ONNX Runtime's own begin with QLinear or lie in `MICROSOFT`."""
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Quantisable:
    """The layers of a network that can compute in int8, and the values around them that are bytes then."""

    graph: Graph
    """Its constants are initializers, its nodes have names of their own."""

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers with constant fp32 weights."""
        return tuple(find_layers(self.graph))

    def nodes(self, layers: Iterable[Layer]) -> list[int]:
        """The indices of the nodes that compute in int8 if these layers do: theirs, and those between them."""
        chosen = list(layers)
        main = {layer.nodes[0] for layer in chosen}
        between = {
            index
            for index, node in enumerate(self.graph.nodes)
            if is_standard(node, *BETWEEN) and index not in main and index not in self._biases and not _is_unclear(node)
        }
        made = {name for layer in chosen for index in layer.nodes for name in self.graph.nodes[index].output}
        while True:
            inside = main | between
            values = self._and_functions(made | {name for index in inside for name in self.graph.nodes[index].output})
            nodes = {index: self.graph.nodes[index] for index in between}
            kept = {i for i, n in nodes.items() if values.intersection(_data(n)) and self._is_read(n.output, inside)}
            if kept == between:
                return sorted(inside)
            between = kept

    def result(self, layer: Layer) -> str:
        """What a layer computes, its bias included, before residual and activation."""
        adds_bias = layer.bias is not None and is_standard(self.graph.nodes[layer.nodes[0]], "MatMul")
        return str(self.graph.nodes[layer.nodes[1 if adds_bias else 0]].output[0])

    def makes_bytes(self, layer: Layer, layers: Collection[Layer]) -> bool:
        """Whether a layer's result becomes bytes if these layers compute in int8: that of a linear layer stays floats
        where floats are all that is made of it."""
        return layer.kind == "conv" or self._is_read({self.result(layer)}, set(self.nodes(layers)))

    def made_of_bytes(self, layers: Collection[Layer]) -> set[str]:
        """The values that int8 layers and the ops between them make, their activation functions included."""
        made = {name for index in self.nodes(layers) for name in self.graph.nodes[index].output}
        return self._and_functions(made | set(map(self.result, layers)))

    def values(self, layers: Collection[Layer]) -> set[str]:
        """The values that are bytes if these layers compute in int8."""
        nodes = [self.graph.nodes[index] for index in self.nodes(layers)]
        read = {name for node in nodes for name in (*_data(node), *node.output) if name}
        return {name for name in read | set(map(self.result, layers)) if name not in self.graph.tensors}

    def with_range_of(self, value: str) -> Iterator[str]:
        """The value, and those before it that have its range, because it is only moved or chosen from them."""
        yield value
        index = self.graph.producers.get(value)
        if index is not None and is_standard(self.graph.nodes[index], *SHARING):
            yield from self.with_range_of(self.graph.nodes[index].input[0])

    @cached_property
    def _biases(self) -> set[int]:
        """Additions of constants: they belong to a layer, or to a function."""
        return {
            index
            for index, node in enumerate(self.graph.nodes)
            if is_standard(node, "Add") and any(name in self.graph.tensors for name in node.input)
        }

    @cached_property
    def _after(self) -> Mapping[str, str]:
        """Value -> what an activation function makes of it, by one node or several."""
        values = (name for node in self.graph.nodes for name in node.output if name)
        found = ((value, activation_of(self.graph, value)) for value in values)
        return {value: applied.output for value, applied in found if applied is not None}

    def _and_functions(self, values: set[str]) -> set[str]:
        """These values, and what activation functions make of them."""
        return values | {self._after[name] for name in values if name in self._after}

    def _is_read(self, values: Iterable[str], inside: Collection[int]) -> bool:
        """Whether one of the nodes computes with one of the values, as it is or through an activation function."""
        found = self._and_functions(set(values))
        readers = {reader for name in found for reader in self.graph.readers.get(name, [])}.intersection(inside)
        return any(not found.isdisjoint(_data(self.graph.nodes[reader])) for reader in readers)


def _data(node: onnx.NodeProto) -> list[str]:
    """What a node computes with."""
    names = list(node.input)
    return names[:1] if is_standard(node, *OF_ONE_VALUE) else names


def _is_unclear(node: onnx.NodeProto) -> bool:
    """Whether it is an average that ONNX Runtime (1.32) computes otherwise on bytes than on floats: one that is rounded
    up and counts padding."""
    attributes = attributes_of(node) if is_standard(node, "AveragePool") else {}
    return bool(attributes.get("ceil_mode", 0) and attributes.get("count_include_pad", 0))


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a network is quantised already."""
    return any(
        is_standard(node, *QUANTISED)
        or node.op_type.startswith("QLinear")
        or (node.domain == MICROSOFT and node.op_type in (*QUANTISED, "DynamicQuantizeMatMul", "QGemm"))
        for node in model.graph.node
    )
