"""Every op of a sparse file that makes floats of bytes by itself: the weights that it stores, and what it makes of its
inputs in the network.

It gets the very bytes and scales that ONNX Runtime's op gets. Sums of products are exact in it, and in ONNX Runtime's
ops on whole numbers, so that only the few roundings of floats behind them differ; a product of floats between
DequantizeLinear rounds every term, which is allowed as it is for layers of floats.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from gossamer.export.layer_checks import FEW_ROUNDINGS, PER_ROOT, PER_TERM, UNIT
from gossamer.export.quantised_checks import SameBytes, wrong_weight
from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.graph import Graph
from gossamer.graph.messages import copied
from gossamer.graph.ops import op_of
from gossamer.graph.outputs import with_outputs
from gossamer.graph.quantisation import as_unsigned
from gossamer.graph.quantised import find_quantised
from gossamer.graph.sessions import Feed, Opened, sparse_session

Array = NDArray[np.generic]
BYTES, SCALE, ZERO_POINT, RESIDUAL = 0, 3, 4, 6
"""The inputs of the op that are no constants of the layer."""


@dataclass(frozen=True)
class _Written:
    layer: DequantisedLayer
    node: onnx.NodeProto


def compare_products(dense: onnx.ModelProto, sparse: onnx.ModelProto, feed: Feed) -> SameBytes:
    """Compares every op that makes floats of bytes with the nodes that it stands for.

    Args:
        dense: as it was rewritten; its constants are initializers.
        sparse: the network that it became, as it was read back.
        feed: a few examples.
    """
    graph, written = Graph(dense), Graph(sparse)
    layers = list(_written_layers(graph, written))
    if not layers:
        return SameBytes(0, 0)
    for one in layers:
        wrong = wrong_weight(one.node, one.layer.weight, written)
        if wrong is not None:
            return SameBytes(0, 0, f"{one.layer.name} ({wrong})")
    wanted = {name for one in layers for name in (*_read(one.layer), one.layer.output)}
    values = Opened(with_outputs(dense, sorted(wanted & set(graph.producers)))).values(feed)
    count, same = 0, 0
    for one in layers:
        found = _result(one, written, {**feed, **values})
        if found.wrong is not None:
            return SameBytes(0, 0, f"{one.layer.name} ({found.wrong})")
        count, same = count + found.values, same + found.same
    return SameBytes(count, same)


def _written_layers(graph: Graph, written: Graph) -> Iterator[_Written]:
    for layer in find_quantised(graph).dequantised:
        index = written.producers.get(layer.output)
        node = None if index is None else written.nodes[index]
        op = None if node is None else op_of(node)
        if node is not None and op is not None and op.name == "DequantisedMatMul":
            yield _Written(layer, node)


def _read(layer: DequantisedLayer) -> list[str]:
    return [name for name in (layer.source, layer.scale, layer.zero_point, layer.residual) if name]


def _result(one: _Written, written: Graph, values: Feed) -> SameBytes:
    layer = one.layer
    given = _inputs(layer, values, written)
    node = copied(one.node)
    node.name, node.output[0] = "", "result"
    for index, (name, _) in given.items():
        node.input[index] = name
    constants = [written.tensors[name] for index, name in enumerate(node.input) if index not in given and name]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.values()
    ]
    alone = helper.make_graph([node], "product", inputs, [onnx.ValueInfoProto(name="result")], constants)
    model = helper.make_model(alone, opset_imports=written.model.opset_import, ir_version=written.model.ir_version)
    (got,) = sparse_session(model.SerializeToString()).run(None, dict(given.values()))
    expected = np.asarray(values[layer.output])
    if got.shape != expected.shape:
        return SameBytes(0, 0, f"its result has the shape {list(got.shape)}, expected {list(expected.shape)}")
    allowed = _allowed(layer, given)
    with np.errstate(all="ignore"):
        difference = np.abs(expected.astype(np.float64) - got)
        fine = (expected == got) | (np.isnan(expected) & np.isnan(got)) | (difference <= allowed)
    if fine.all():
        return SameBytes(got.size, int(np.count_nonzero(got == expected)))
    worst = np.unravel_index(np.argmax(np.where(fine, 0, np.nan_to_num(difference - allowed))), got.shape)
    return SameBytes(
        got.size,
        0,
        f"differs by {difference[worst]:.3g} in a value of {expected[worst]:.3g}; rounding explains "
        f"{allowed[worst]:.3g}",
    )


def _inputs(layer: DequantisedLayer, values: Feed, written: Graph) -> dict[int, tuple[str, Array]]:
    """What the op is given that is no constant of the file: by its index, with a name."""
    source = np.asarray(values[layer.source])
    found: dict[int, Array] = {}
    if layer.quantises:
        model = helper.make_model(
            helper.make_graph(
                [helper.make_node("DynamicQuantizeLinear", ["x"], ["bytes", "scale", "zero"])],
                "quantised",
                [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, source.shape)],
                [onnx.ValueInfoProto(name=name) for name in ("bytes", "scale", "zero")],
            ),
            opset_imports=[helper.make_opsetid("", 13)],
            ir_version=written.model.ir_version,
        )
        made = Opened(model).values({"x": source})
        found = {BYTES: made["bytes"], SCALE: made["scale"], ZERO_POINT: made["zero"]}
    elif layer.scale:
        found = {BYTES: source}
        computed = ((SCALE, layer.scale), (ZERO_POINT, layer.zero_point))
        found |= {index: np.asarray(values[name]) for index, name in computed if name in values}
    else:
        found = {BYTES: as_unsigned(source)}
    if layer.residual is not None:
        found[RESIDUAL] = np.asarray(values[layer.residual])
    return {index: (f"given.{index}", array) for index, array in found.items()}


def _allowed(layer: DequantisedLayer, given: dict[int, tuple[str, Array]]) -> NDArray[np.float64]:
    """What rounding explains of the difference of each number."""
    scale, zero_point = layer.quantisation.scale, layer.quantisation.zero_point
    if SCALE in given:
        scale = np.float32(given[SCALE][1].reshape(-1)[0])
    if ZERO_POINT in given:
        zero_point = int(given[ZERO_POINT][1].reshape(-1)[0])
    numbers = np.abs(given[BYTES][1].astype(np.float64) - zero_point) * np.abs(np.float64(scale))
    terms = numbers @ np.abs(layer.weight.astype(np.float64) * layer.weight_scales[:, None].astype(np.float64)).T
    if layer.bias is not None:
        terms += np.abs(layer.bias)
    if RESIDUAL in given:
        terms += np.abs(given[RESIDUAL][1])
    kept = int(np.count_nonzero(layer.weight, axis=1).max(initial=0))
    places = layer.activation.steepest * UNIT * (FEW_ROUNDINGS + PER_ROOT * np.sqrt(kept) + PER_TERM * kept)
    allowed: NDArray[np.float64] = places * terms + np.finfo(np.float32).tiny * (1 + kept)
    return allowed
