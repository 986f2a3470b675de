"""Every op on bytes of a sparse file by itself: the weights that it stores, and what it makes of its inputs in the
network.

It gets the very bytes that ONNX Runtime's op gets. Sums of products are then exact; what is made of them by floats may
be rounded the other way where it lies in the middle between two bytes. So results are the same, or one step apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gossamer.export.quantised_parts import nodes_of, read_by
from gossamer.export.rewrite import Rewritten
from gossamer.graph.graph import Graph, is_standard, renamed, values_read
from gossamer.graph.layers import extents
from gossamer.graph.messages import copied
from gossamer.graph.ops import DOMAIN, Op, op_of
from gossamer.graph.outputs import with_outputs
from gossamer.graph.quantisation import SIGN, Bytes, as_unsigned
from gossamer.graph.quantised import Mover, find_quantised
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.sessions import Feed, Opened, sparse_session

STEP = 1
"""How far a byte may be from ONNX Runtime's."""


@dataclass(frozen=True)
class SameBytes:
    """How what quantised ops make compares with what ONNX Runtime's do."""

    values: int
    same: int
    wrong: str | None = None
    """The first op that stores another weight or differs by more than a step, or than rounding explains, and how."""

    @property
    def share(self) -> float | None:
        """The share of the values that are the same; None if there are no such ops."""
        return self.same / self.values if self.values else None


@dataclass(frozen=True)
class _Written:
    """A part of the dense network and the node that it became."""

    part: QuantisedLayer | Mover
    node: onnx.NodeProto
    op: Op

    @property
    def name(self) -> str:
        return self.part.name if isinstance(self.part, QuantisedLayer) else self.part.output.value

    @property
    def given(self) -> tuple[Bytes, ...]:
        """The bytes that it reads."""
        return tuple(read_by(self.part)) if isinstance(self.part, QuantisedLayer) else self.part.inputs

    @cached_property
    def allowed(self) -> NDArray[np.int16]:
        """How many steps it may be from each byte of ONNX Runtime's: a sum that lies between two is rounded either
        way, and a function behind it makes of that what it makes of the bytes beside."""
        steps = np.full(256, STEP, np.int16)
        table = self.part.table if isinstance(self.part, QuantisedLayer) else None
        if table is not None:
            rises = np.abs(np.diff(table.astype(np.int16)))
            np.maximum.at(steps, table[:-1], rises)
            np.maximum.at(steps, table[1:], rises)
        return steps

    @property
    def indices(self) -> Sequence[int]:
        """Where those stand among the node's inputs."""
        return (0, self.op.residual) if isinstance(self.part, QuantisedLayer) else range(len(self.part.inputs))


def compare_bytes(dense: onnx.ModelProto, sparse: onnx.ModelProto, rewritten: Rewritten, feed: Feed) -> SameBytes:
    """Compares every op on bytes with the nodes that it stands for.

    Args:
        dense: as it was rewritten; its constants are initializers.
        sparse: the network that it became, as it was read back.
        feed: a few examples.
    """
    graph, written = Graph(dense), Graph(sparse)
    parts = list(_written_parts(graph, written, rewritten))
    if not parts:
        return SameBytes(0, 0)
    for one in parts:
        part = one.part
        wrong = wrong_weight(one.node, part.weight, written) if isinstance(part, QuantisedLayer) else None
        if wrong is not None:
            return SameBytes(0, 0, f"{one.name} ({wrong})")
    read = dict.fromkeys(given.value for one in parts for given in one.given)
    values = Opened(with_outputs(dense, [value for value in read if value in graph.producers])).values(feed)
    rng = np.random.default_rng(0)
    inputs = {_input(value): _telling(np.asarray(values[value]), rng) for value in read}
    expected = Opened(_dense_alone(graph, parts)).session.run(None, inputs)
    got = sparse_session(_sparse_alone(graph, written, parts).SerializeToString()).run(None, inputs)
    count, same = 0, 0
    for one, before, after in zip(parts, expected, got, strict=True):
        if before.shape != after.shape:
            return SameBytes(0, 0, f"{one.name} (its result has the shape {after.shape}, expected {before.shape})")
        expected_bytes = as_unsigned(before)
        steps = np.abs(expected_bytes.astype(np.int16) - as_unsigned(after))
        beyond = steps - one.allowed[expected_bytes]
        if beyond.max(initial=0) > 0:
            worst = np.unravel_index(np.argmax(beyond), beyond.shape)
            allowed = one.allowed[expected_bytes[worst]]
            return SameBytes(
                0, 0, f"{one.name} (differs by {steps[worst]} steps of its output, expected {allowed} at most)"
            )
        count, same = count + steps.size, same + int(np.count_nonzero(steps == 0))
    return SameBytes(count, same)


def _written_parts(graph: Graph, written: Graph, rewritten: Rewritten) -> Iterator[_Written]:
    quantised = find_quantised(graph)
    for part in (*quantised.layers, *quantised.channelwise, *quantised.movers):
        value = part.output.value
        panel = rewritten.panels.get(value)
        node = _maker(written, value if panel is None else panel.name)
        while node is not None and is_standard(node, "Cast", "Sub"):
            node = _maker(written, node.input[0])
        op = None if node is None else op_of(node)
        if node is not None and op is not None and op.quantised and not op.converts:
            yield _Written(part, node, op)


def _maker(graph: Graph, value: str) -> onnx.NodeProto | None:
    index = graph.producers.get(value)
    return None if index is None else graph.nodes[index]


def wrong_weight(node: onnx.NodeProto, weight: NDArray[np.generic], written: Graph) -> str | None:
    """How the weight that the file holds for a node differs from this one."""
    stored = written.constant(node.input[1])
    if stored is None:
        return "its weight is not stored"
    try:
        found = weights.decode(stored.tobytes())
    except weights.DamagedWeight as error:
        return f"its weight is damaged: {error}"
    return None if np.array_equal(found, weight) else "its weights are others"


def _input(value: str) -> str:
    return f"{value}.read"


def _telling(values: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.generic]:
    """The bytes, or others at random where all of them are one."""
    if values.size == 0 or (values != values.flat[0]).any():
        return values
    return rng.integers(0, 256, values.shape).astype(np.uint8).view(values.dtype)


def _dense_alone(graph: Graph, parts: Sequence[_Written]) -> onnx.ModelProto:
    """The nodes of each part, between inputs and an output of its own."""
    nodes, outputs = [], []
    constants: dict[str, onnx.TensorProto] = {}
    for number, one in enumerate(parts):
        names = {given.value: _input(given.value) for given in one.given}
        for index in _needed(graph, one):
            node = copied(graph.nodes[index])
            constants |= {name: renamed(graph.tensors[name], name) for name in node.input if name in graph.tensors}
            names |= {name: f"{number}.{name}" for name in node.output if name}
            for field in (node.input, node.output):
                field[:] = [names.get(name, name) for name in field]
            node.name = ""
            nodes.append(node)
        outputs.append(names[one.part.output.value])
    return _model(graph, nodes, parts, outputs, constants.values())


def _needed(graph: Graph, one: _Written) -> list[int]:
    """The nodes that make a part's output of what it reads, and of constants."""
    ends = {given.value for given in one.given}
    needed: set[int] = set()
    pending = [graph.nodes[index].output[0] for index in nodes_of(one.part)]
    while pending:
        index = graph.producers.get(pending.pop())
        if index is not None and index not in needed:
            needed.add(index)
            pending += [name for name in values_read(graph.nodes[index]) if name not in ends]
    return sorted(needed)


def _sparse_alone(graph: Graph, written: Graph, parts: Sequence[_Written]) -> onnx.ModelProto:
    """The parts' nodes, likewise."""
    nodes, outputs = [], []
    constants: dict[str, onnx.TensorProto] = {}
    for number, one in enumerate(parts):
        node = copied(one.node)
        on_panels = one.op.inputs[0].lies == "byte panels"
        for index, given in zip(one.indices, one.given, strict=False):
            node.input[index] = f"{number}.{index}.given"
            if on_panels:
                nodes.append(
                    helper.make_node("QuantisedToPanel", [_input(given.value)], [node.input[index]], domain=DOMAIN)
                )
            else:
                nodes += _unsigned(_input(given.value), node.input[index], given)
        constants |= {name: written.tensors[name] for name in one.node.input if name in written.tensors}
        node.name, node.output[0] = f"{number}", f"{number}.result"
        nodes.append(node)
        outputs.append(node.output[0])
        if one.op.makes_panels:
            outputs[-1] = f"{number}.planes"
            channels = extents(graph, one.part.output.value)[0]
            nodes.append(
                helper.make_node(
                    "QuantisedFromPanel", [node.output[0]], [outputs[-1]], domain=DOMAIN, channels=channels
                )
            )
    sign = helper.make_tensor("sign", TensorProto.INT32, [], [SIGN])
    return _model(written, nodes, parts, outputs, [*constants.values(), sign])


def _unsigned(source: str, output: str, given: Bytes) -> list[onnx.NodeProto]:
    if not given.quantisation.signed:
        return [helper.make_node("Identity", [source], [output])]
    return [
        helper.make_node("Cast", [source], [f"{output}.wide"], to=TensorProto.INT32),
        helper.make_node("Add", [f"{output}.wide", "sign"], [f"{output}.moved"]),
        helper.make_node("Cast", [f"{output}.moved"], [output], to=TensorProto.UINT8),
    ]


def _model(
    like: Graph,
    nodes: Sequence[onnx.NodeProto],
    parts: Sequence[_Written],
    outputs: Sequence[str],
    constants: Iterable[onnx.TensorProto],
) -> onnx.ModelProto:
    inputs: Mapping[str, onnx.ValueInfoProto] = {
        given.value: helper.make_tensor_value_info(
            _input(given.value), TensorProto.INT8 if given.quantisation.signed else TensorProto.UINT8, None
        )
        for one in parts
        for given in one.given
    }
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    alone = helper.make_graph(nodes, "ops", list(inputs.values()), made, list(constants))
    return helper.make_model(alone, opset_imports=like.model.opset_import, ir_version=like.model.ir_version)
