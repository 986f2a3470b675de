"""A network with its weights in fp16, and whether that is still the network."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from gossamer.errors import ExportError
from gossamer.export.agreement import compare
from gossamer.export.half import LostWeights, is_halved, lost_in_half, lost_text, require_half
from gossamer.export.rounding import Rounding
from gossamer.graph.graph import Graph, array_of, is_standard
from gossamer.graph.layers import find_layers
from gossamer.graph.messages import copied
from gossamer.graph.open_axes import graphs_in
from gossamer.graph.sessions import Feed, dense_session, running
from gossamer.wording import listed


def rounded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[LostWeights, ...]]:
    """The network with its fp32 weights rounded to fp16, in the bodies of If, Loop and Scan too, and what that loses.

    Raises:
        ExportError: one is beyond the range of fp16.
    """
    result = copied(model)
    graph = Graph(model)
    names = {
        value: layer.name
        for layer in find_layers(graph)
        for index in layer.nodes
        for value in graph.nodes[index].input
        if value in graph.tensors
    }
    lost = []
    for name, tensor in (found for inner in graphs_in(result.graph) for found in _stored(inner)):
        if not is_halved(tensor):
            continue
        weight = np.asarray(array_of(tensor), np.float32)
        called = names.get(name, name.removesuffix(".weight"))
        require_half(called, weight)
        lost.append(lost_in_half(called, weight))
        tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float16).astype(np.float32), tensor.name))
    return result, tuple(found for found in lost if found is not None)


def _stored(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The constants of a graph that no caller can replace, to be changed in place, by the names of their values."""
    inputs = {value.name for value in graph.input}
    yield from ((tensor.name, tensor) for tensor in graph.initializer if tensor.name not in inputs)
    for node in graph.node:
        if is_standard(node, "Constant"):
            yield from ((node.output[0], entry.t) for entry in node.attribute if entry.HasField("t"))


def require_same(
    dense: onnx.ModelProto,
    halved: onnx.ModelProto,
    lost: Sequence[LostWeights],
    feeds: Sequence[Feed],
    share: float,
    rounding: Rounding,
) -> None:
    """
    Args:
        share: of an output's largest number, by which it may differ besides what rounding in fp32 explains.
        rounding: of the dense network on these inputs.

    Raises:
        ExportError: it differs by more, or by what is no number.
    """
    agreement = compare(running(dense_session(dense)), running(dense_session(halved)), feeds, rounding, share=share)
    if agreement.within:
        return
    named = listed([lost_text(found) for found in lost])
    why = f"fp16 loses small weights of {named}" if lost else "the network follows its weights closely"
    raise ExportError(
        f"with weights in fp16 (--half) outputs differ by {agreement.difference:.3g} (outputs up to "
        f"{agreement.largest:.3g}, allowed {agreement.allowed:.3g}): {why}. Nothing was written. Leave --half out, or "
        f"allow a larger share of the largest output with --half-difference (here {share:g})"
    )
