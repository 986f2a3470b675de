"""Every layer of a sparse file by itself: the weights that it stores, and what it makes of its inputs in the network.

A whole network's output may hide a layer's error, or hardly depend on its input. Here a layer gets the very numbers
that the dense one gets, so that nothing differs but the order in which it adds its terms w x: by at most a few last
places of the sum of |w x|, whatever becomes of the sum. Behind it stands at most one activation
function, which makes of a difference a few times as much at most, and is itself as exact as its input.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.export.compress import unpack_weights
from gossamer.export.rewrite import LayerReport, Rewritten
from gossamer.graph.graph import Graph, array_of, constants_of, is_standard, renamed
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.messages import copied
from gossamer.graph.open_axes import graphs_in
from gossamer.graph.ops import DOMAIN, OPS, Op
from gossamer.graph.outputs import with_outputs
from gossamer.graph.sessions import Feed, Opened, sparse_session
from gossamer.graph.values import Value

UNIT = 2.0**-24
"""The unit of rounding of fp32: what one rounding changes at most."""
FEW_ROUNDINGS = 16
PER_ROOT = 4
"""n roundings change the sum by about sqrt(n) units of it. Largest seen: 1 times, where terms are of all kinds."""
PER_TERM = 1 / 16
"""Where all terms are one number, their roundings are alike. Seen: 1/12 of n, a third of it allowed by the others."""


@dataclass(frozen=True)
class _Written:
    """A layer of the dense network and the node that it became."""

    layer: Layer
    report: LayerReport
    node: onnx.NodeProto

    @property
    def op(self) -> Op:
        return OPS[self.node.op_type]


def first_wrong_layer(
    dense: onnx.ModelProto,
    sparse: onnx.ModelProto,
    rewritten: Rewritten,
    feed: Feed,
    values: Mapping[str, Value] | None = None,
) -> str | None:
    """The first layer, in the graph's order, that stores another weight or computes something else, and how it differs.

    Args:
        dense: as it was rewritten; its constants are initializers.
        sparse: the network that it became, as it was read back.
        feed: a few examples.
        values: what the dense network's layers read on them, by name, if that is known already.
    """
    graph, written = Graph(dense), Graph(unpack_weights(sparse))
    wrong = _first_wrong_weight(graph, written.model)
    layers = list(_written_layers(graph, written, rewritten))
    return wrong or _first_wrong_packed(layers, written) or _first_wrong_result(graph, written, layers, feed, values)


def _written_layers(graph: Graph, written: Graph, rewritten: Rewritten) -> Iterator[_Written]:
    for layer, report in zip(find_layers(graph), rewritten.of_floats, strict=True):
        panel = rewritten.panels.get(report.output)
        made = report.output if panel is None else panel.name
        index = written.producers.get(made)
        if index is not None and written.nodes[index].domain == DOMAIN:
            yield _Written(layer, report, written.nodes[index])


def _first_wrong_weight(graph: Graph, written: onnx.ModelProto) -> str | None:
    """Finds the first wrong constant of those that both have under one name: layers that stay dense, stored without
    their zeros, those in the bodies of If, Loop and Scan too."""
    for before, after in zip(graphs_in(graph.model.graph), graphs_in(written.graph), strict=False):
        stored = constants_of(after)
        for name, tensor in constants_of(before).items():
            if name in stored and tensor.data_type == stored[name].data_type and tensor.data_type != TensorProto.STRING:
                weights_ = array_of(tensor), array_of(stored[name])
                if not _same(*weights_):
                    return f"{name.removesuffix('.weight')} ({_different(*weights_)})"
    return None


def _first_wrong_packed(layers: Sequence[_Written], written: Graph) -> str | None:
    for one in layers:
        stored = written.constant(one.node.input[1])
        if stored is None:
            return f"{one.report.name} (its weight is not stored)"
        if one.op.inputs[1].lies == "packed":
            packed = stored.tobytes()
            try:
                stored, bias = weights.decode(packed), weights.bias_of(packed)
            except weights.DamagedWeight as error:
                return f"{one.report.name} (its weight is damaged: {error})"
            if bias is not None and not (one.layer.bias is not None and _same(one.layer.bias, bias)):
                return f"{one.report.name} (its bias is another)"
        if not _same(one.layer.weight.reshape(-1), stored.reshape(-1)):
            return f"{one.report.name} ({_different(one.layer.weight.reshape(-1), stored.reshape(-1))})"
    return None


def _first_wrong_result(
    graph: Graph, written: Graph, layers: Sequence[_Written], feed: Feed, values: Mapping[str, Value] | None
) -> str | None:
    if not layers:
        return None
    values = values or Opened(with_outputs(graph.model, values_read(graph))).values(feed)
    inputs = _inputs_of(layers, values)
    unchanged = {value for value, array in values.items() if inputs.get(_input(value)) is array}
    computed = [unchanged.issuperset(_values_read(one.layer)) and one.report.output in values for one in layers]
    alone = Opened(_dense_alone(graph, layers, computed)).values(inputs)
    got = sparse_session(_sparse_alone(written, layers).SerializeToString()).run(None, dict(inputs))
    for number, (one, known, result) in enumerate(zip(layers, computed, got, strict=True)):
        value = values[one.report.output] if known else alone[f"{number}.{one.report.output}"]
        terms = alone[_terms_of(number, graph, one)]
        if value.shape != result.shape:
            return f"{one.report.name} (its result has the shape {list(result.shape)}, expected {list(value.shape)})"
        kept = np.count_nonzero(one.layer.weight.reshape(len(one.layer.weight), -1), axis=1).max(initial=0)
        places = one.layer.activation.steepest * UNIT * (FEW_ROUNDINGS + PER_ROOT * np.sqrt(kept) + PER_TERM * kept)
        with np.errstate(all="ignore"):
            difference = np.abs(value.astype(np.float64) - result)
            allowed = places * terms.astype(np.float64) + np.finfo(np.float32).tiny * (1 + kept)
            fine = (value == result) | (np.isnan(value) & np.isnan(result)) | (difference <= allowed)
        if not fine.all():
            worst = np.unravel_index(np.argmax(np.where(fine, 0, np.nan_to_num(difference - allowed))), value.shape)
            return (
                f"{one.report.name} (differs by {difference[worst]:.3g} in a value of {value[worst]:.3g}; rounding "
                f"explains {allowed[worst]:.3g})"
            )
    return None


def values_read(graph: Graph) -> list[str]:
    """What the layers of a network read that is not an input of it."""
    read = dict.fromkeys(value for layer in find_layers(graph) for value in _values_read(layer))
    return [value for value in read if value in graph.producers]


def _inputs_of(layers: Sequence[_Written], values: Mapping[str, Value]) -> dict[str, NDArray[np.generic]]:
    """What the layers read in the network, by the names `_input` gives; random numbers where that is all zeros, and in
    place of those that are infinite or NaN."""
    rng = np.random.default_rng(0)
    read = dict.fromkeys(value for one in layers for value in _values_read(one.layer))
    return {_input(value): _telling(values[value], rng) for value in read}


def _telling(values: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.generic]:
    finite = np.isfinite(values)
    if finite.all() and values.any():
        return values
    drawn = rng.standard_normal(values.shape).astype(values.dtype)
    return np.where(finite, values, drawn) if values[finite].any() else drawn


def _values_read(layer: Layer) -> list[str]:
    return [layer.source, *([layer.residual] if layer.residual else [])]


def _input(value: str) -> str:
    return f"{value}.read"


def _sparse_alone(written: Graph, layers: Sequence[_Written]) -> onnx.ModelProto:
    """The layers' nodes, each between inputs and outputs of its own."""
    nodes, outputs = [], []
    constants: dict[str, onnx.TensorProto] = {}
    for number, one in enumerate(layers):
        node = copied(one.node)
        sources = dict(zip((0, 3), _values_read(one.layer), strict=False))
        for index, value in sources.items():
            node.input[index] = _input(value)
            if one.op.inputs[0].lies == "panels":
                node.input[index] = f"{number}.{index}.panel"
                nodes.append(helper.make_node("ToPanel", [_input(value)], [node.input[index]], domain=DOMAIN))
        constants |= {name: written.tensors[name] for name in one.node.input[1:3] if name}
        node.name, node.output[0] = f"{number}", f"{number}.result"
        nodes.append(node)
        outputs.append(node.output[0])
        if one.op.makes == "panels":
            outputs[-1] = f"{number}.planes"
            channels = len(one.layer.weight)
            planes = helper.make_node("FromPanel", [node.output[0]], [outputs[-1]], domain=DOMAIN, channels=channels)
            nodes.append(planes)
    return _model(written.model, nodes, layers, outputs, constants.values())


def _nodes_of(graph: Graph, one: _Written) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto], list[onnx.NodeProto]]:
    """A layer's dense nodes, those of them that sum terms, and the pooling behind them that it takes along."""
    inside = [graph.nodes[index] for index in sorted(one.layer.nodes)]
    pool = graph.nodes[graph.producers[one.report.output]]
    summed: list[onnx.NodeProto] = []
    sums = {*_values_read(one.layer), *graph.tensors}
    for node in inside:
        # A GELU of several nodes has an Add of its own, of what is no sum of terms any more.
        if is_standard(node, "Conv", "Gemm", "MatMul", "Add") and sums.issuperset(filter(None, node.input)):
            summed.append(node)
            sums.update(node.output)
    return inside, summed, [pool] if one.report.output != one.layer.output else []


def _terms_of(number: int, graph: Graph, one: _Written) -> str:
    """The name of the sum of a layer's terms' sizes."""
    _, summed, pooled = _nodes_of(graph, one)
    return f"{number}.absolute.{(*summed, *pooled)[-1].output[0]}"


def _dense_alone(graph: Graph, layers: Sequence[_Written], computed: Sequence[bool]) -> onnx.ModelProto:
    """The same layers' dense nodes, but for those that are computed already, and of each layer the sum of |w x|, |bias|
    and |residual|."""
    nodes, outputs = [], []
    constants: dict[str, onnx.TensorProto] = {}
    for number, (one, known) in enumerate(zip(layers, computed, strict=True)):
        inside, summed, pooled = _nodes_of(graph, one)
        names: dict[str, str] = {}
        absolute: dict[str, str] = {}
        for value in dict.fromkeys(_values_read(one.layer)):
            names[value] = _input(value)
            absolute[value] = f"{number}.{value}.absolute"
            nodes.append(helper.make_node("Abs", [_input(value)], [absolute[value]]))
        for node in inside:
            for name in node.input:
                if name in graph.tensors:
                    tensor = graph.tensors[name]
                    if not known:
                        constants[name] = renamed(tensor, name)
                    if tensor.data_type == TensorProto.FLOAT:
                        constants[f"{name}.absolute"] = numpy_helper.from_array(
                            np.abs(array_of(tensor)), f"{name}.absolute"
                        )
                    absolute[name] = f"{name}.absolute"
        if not known:
            nodes += [_renamed(node, names, f"{number}.") for node in (*inside, *pooled)]
            outputs.append(names[one.report.output])
        for node in (*summed, *pooled):
            if node in pooled:
                absolute[node.input[0]] = absolute[summed[-1].output[0]]
            nodes.append(_renamed(node, absolute, f"{number}.absolute."))
            for entry in nodes[-1].attribute:
                if entry.name in ("alpha", "beta"):
                    entry.f = abs(entry.f)
        outputs.append(_terms_of(number, graph, one))
    return _model(graph.model, nodes, layers, outputs, constants.values())


def _renamed(node: onnx.NodeProto, names: dict[str, str], prefix: str) -> onnx.NodeProto:
    """The node without a name, with other names of its values; those that it makes get the prefix."""
    result = copied(node)
    names.update({name: f"{prefix}{name}" for name in node.output if name})
    for values in (result.input, result.output):
        for index, name in enumerate(values):
            values[index] = names.get(name, name)
    result.name = ""
    return result


def _model(
    like: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    layers: Sequence[_Written],
    outputs: Sequence[str],
    constants: Iterable[onnx.TensorProto],
) -> onnx.ModelProto:
    inputs: dict[str, onnx.ValueInfoProto] = {}
    for one in layers:
        for value in _values_read(one.layer):
            inputs[value] = helper.make_tensor_value_info(_input(value), TensorProto.FLOAT, [None] * one.layer.rank)
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "layers", list(inputs.values()), made, list(constants))
    return helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)


def _same(before: NDArray[np.generic], after: NDArray[np.generic]) -> bool:
    numbers = np.issubdtype(before.dtype, np.inexact)
    return before.shape == after.shape and np.array_equal(before, after, equal_nan=numbers)


def _different(before: NDArray[np.generic], after: NDArray[np.generic]) -> str:
    if before.shape != after.shape:
        return f"it has {after.size} weights, expected {before.size}"
    return f"{np.count_nonzero(before != after):,} of its {before.size:,} weights are others"
