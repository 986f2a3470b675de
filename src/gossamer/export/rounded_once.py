"""A quantised network whose sparse layers add to their sums what is added to them, and round once.

Between a layer and the addition behind it ONNX Runtime's tools put bytes, because its own ops on bytes make nothing
else. A sparse layer adds in floats before it rounds. So in what gossamer quantised itself these bytes are left out:
results are closer to those in fp32, and an addition takes a clip, a rounding and a product less for every value.
Networks that others quantised keep them, since they are to give the same bytes as in ONNX Runtime.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from gossamer.export.costs import Costs
from gossamer.export.rewrite import Rewritten
from gossamer.export.written import as_written
from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.quantisation import is_dequantise, is_quantise
from gossamer.graph.quantised import find_quantised


@dataclass(frozen=True)
class Sums:
    """A layer's sums, which become bytes and floats again before something is added to them."""

    output: str
    """The layer's, behind the addition."""
    floats: str
    made: str
    """The bytes."""
    read: str
    """What the addition reads of them."""


def written_rounding_once(model: onnx.ModelProto, costs: Costs | None = None) -> tuple[onnx.ModelProto, Rewritten]:
    """A network that gossamer quantised without the bytes before additions of sparse layers, and what is written of it.

    Args:
        model: in QDQ form.
        costs: estimates of times; None: rates measured when gossamer was made.
    """
    found = before_additions(model)
    written = as_written(model, costs=costs, unrounded=found)
    sparse = {layer.output for layer in written.of_bytes if layer.form == "sparse"}
    return _without(model, [sums for output, sums in found.items() if output in sparse]), written


def before_additions(model: onnx.ModelProto) -> dict[str, Sums]:
    """The bytes between layers and additions that sparse layers need not make, by the layers' outputs."""
    found = {sums.output: sums for sums in _before_additions(Graph(prepared(model)))}
    layers = find_quantised(Graph(prepared(_without(model, found.values())))).layers
    adding = {layer.output.value for layer in layers if layer.residual is not None and layer.sums is None}
    return {output: sums for output, sums in found.items() if output in adding}


def _before_additions(graph: Graph) -> Iterator[Sums]:
    for layer in find_quantised(graph).layers:
        if layer.sums is None or layer.added is not None or (layer.sums.lower, layer.sums.upper) != (0, 255):
            continue
        made = layer.sums.output.value
        quantise, dequantise = graph.producers.get(made), graph.only_reader(made)
        if quantise is None or dequantise is None:
            continue
        nodes = graph.nodes[quantise], graph.nodes[dequantise]
        if not (is_quantise(nodes[0]) and is_dequantise(nodes[1])):
            continue
        floats, read = nodes[0].input[0], nodes[1].output[0]
        addition, maker = graph.only_reader(read), graph.producers.get(floats)
        # Behind an activation function they are not sums any more.
        if maker is None or is_standard(graph.nodes[maker], "Clip", "Relu"):
            continue
        if addition is not None and is_standard(graph.nodes[addition], "Add") and graph.only_reader(floats) == quantise:
            yield Sums(layer.output.value, floats, made, read)


def _without(model: onnx.ModelProto, left_out: Iterable[Sums]) -> onnx.ModelProto:
    left_out = list(left_out)
    result = copied(model)
    made = {name for sums in left_out for name in (sums.made, sums.read)}
    floats = {sums.read: sums.floats for sums in left_out}
    replace_items(result.graph.node, [node for node in result.graph.node if made.isdisjoint(node.output)])
    for node in result.graph.node:
        replace_items(node.input, [floats.get(name, name) for name in node.input])
    drop_unread(result)
    return result
