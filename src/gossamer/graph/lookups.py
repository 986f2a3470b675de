"""Functions of one byte, however they are written: a table of 256 bytes.

Between the bytes that a layer makes and those that the next one reads stand activation functions, each between
DequantizeLinear and QuantizeLinear, in several nodes perhaps: SiLU is a product of a value and its sigmoid, and both
are bytes. ONNX Runtime computes the table, from all bytes that there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from gossamer.graph.graph import Graph, is_standard
from gossamer.graph.quantisation import (
    CONTRIBUTED,
    SIGN,
    Bytes,
    Unsuited,
    as_unsigned,
    bytes_read,
    is_dequantise,
    is_quantise,
    maker_of,
    quantisation_at,
)
from gossamer.graph.sessions import dense_session

FUNCTIONS = (
    *("Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish"),
    *("Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
    *("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"),
)
"""Ops that make each number of one number, or of two at the same place."""
OF_BYTES = ("QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid")
"""ONNX Runtime's own, whose inputs and outputs are bytes."""


@dataclass(frozen=True)
class Lookup:
    """What becomes of each byte of a value by itself."""

    source: str
    output: Bytes
    nodes: tuple[int, ...]
    """Those of DequantizeLinear among them, which others may read too."""


def lookup_at(graph: Graph, index: int, lookups: Mapping[str, Lookup]) -> Lookup | None:
    """The function of bytes that ends in a node; None if none does.

    Args:
        lookups: those that end before it, by their outputs.
    """
    node = graph.nodes[index]
    try:
        if is_quantise(node):
            output = Bytes(node.output[0], quantisation_at(graph, node, 1, 2))
            nodes, sources = _behind(graph, node.input[0], index)
        elif node.domain == CONTRIBUTED and node.op_type in OF_BYTES:
            scale = 6 if node.op_type == "QLinearMul" else 3
            output = Bytes(node.output[0], quantisation_at(graph, node, scale, scale + 1))
            nodes, sources = set(), {node.input[0], *(node.input[3:4] if scale == 6 else ())}
        else:
            return None
    except Unsuited:
        return None
    if sources & set(graph.tensors):
        return None
    nodes.add(index)
    if len(sources) == 2:
        sources = _joined(sources, nodes, lookups)
    if len(sources) != 1 or not _is_closed(graph, nodes, output.value):
        return None
    return Lookup(sources.pop(), output, tuple(sorted(nodes)))


def table_of(graph: Graph, lookup: Lookup, signed: bool) -> NDArray[np.uint8] | None:
    """The bytes, as uint8, that all of uint8 become; None if ONNX Runtime cannot tell.

    Args:
        signed: whether the source is int8.
    """
    kind = onnx.TensorProto.INT8 if signed else onnx.TensorProto.UINT8
    nodes = [graph.nodes[index] for index in lookup.nodes]
    read = {name for node in nodes for name in node.input}
    alone = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info(lookup.source, kind, [256])],
        [onnx.ValueInfoProto(name=lookup.output.value)],
        [_named(tensor, name) for name, tensor in graph.tensors.items() if name in read],
    )
    model = helper.make_model(alone, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version)
    values = np.arange(256, dtype=np.uint8)
    given = (values.astype(np.int16) - SIGN).astype(np.int8) if signed else values
    try:
        (made,) = dense_session(model, threads=1).run(None, {lookup.source: given})
    except Exception:  # onnxruntime's errors have no common class
        return None
    if made.size != 256 or made.dtype not in (np.uint8, np.int8):
        return None
    return as_unsigned(made.reshape(-1))


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    result = onnx.TensorProto()
    result.CopyFrom(tensor)
    result.name = name
    return result


def _behind(graph: Graph, value: str, reader: int) -> tuple[set[int], set[str]]:
    """The nodes that make a value of floats of bytes, number by number, and those bytes."""
    nodes: set[int] = set()
    sources: set[str] = set()
    pending = [value]
    while pending:
        name = pending.pop()
        if not name or (name in graph.tensors and _is_single(graph.tensors[name])):
            continue
        node = maker_of(graph, name)
        if node is None:
            raise Unsuited("it is made of other values")
        if is_dequantise(node) and _is_single_constant(graph, node.input[0]):
            pass
        elif is_dequantise(node):
            found = bytes_read(graph, name)
            if found is None:
                raise Unsuited("it is made of constants")
            sources.add(found.value)
        elif is_standard(node, *FUNCTIONS):
            pending += node.input
        else:
            raise Unsuited("it is made by other ops")
        nodes.add(graph.producers[name])
    return nodes, sources


def _is_single_constant(graph: Graph, name: str) -> bool:
    return name in graph.tensors and _is_single(graph.tensors[name])


def _is_single(tensor: onnx.TensorProto) -> bool:
    return all(size == 1 for size in tensor.dims)


def _joined(sources: set[str], nodes: set[int], lookups: Mapping[str, Lookup]) -> set[str]:
    """The sources once one of two is a function of the other; its nodes are added."""
    for made, other in (tuple(sources), tuple(sources)[::-1]):
        before, passed = lookups.get(made), set[int]()
        while before is not None:
            passed.update(before.nodes)
            if before.source == other:
                nodes.update(passed)
                return {other}
            before = lookups.get(before.source)
    return sources


def _is_closed(graph: Graph, nodes: Iterable[int], output: str) -> bool:
    """Whether nothing else reads what these nodes make on the way, but for what DequantizeLinear makes."""
    inside = set(nodes)
    for index in inside:
        node = graph.nodes[index]
        for value in node.output:
            if value != output and not is_dequantise(node) and not inside.issuperset(graph.readers.get(value, [])):
                return False
    return True
