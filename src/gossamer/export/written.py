"""What `gossamer export` writes of a network, for whoever writes or measures it."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import onnx

from gossamer.export.coded import Steps
from gossamer.export.compress import OLDEST_OPSET, compress_weights
from gossamer.export.costs import Costs
from gossamer.export.left import MANY, SMALL, LeftWeight
from gossamer.export.provenance import with_provenance
from gossamer.export.rewrite import Rewritten, rewrite
from gossamer.graph.graph import Graph
from gossamer.graph.ops import is_sparse


def as_written(
    model: onnx.ModelProto,
    *,
    costs: Costs | None = None,
    half: bool = False,
    steps: Mapping[str, Steps] | None = None,
    unrounded: Collection[str] = (),
) -> Rewritten:
    """The network with sparse ops where those are faster, and its other weights stored without their zeros.

    Args:
        costs: estimates of times; None: rates measured when gossamer was made.
        half: store weights as fp16.
        steps: output of a layer -> what its numbers are multiples of; they are coded as levels of it.
        unrounded: outputs of quantised layers whose sums are not to become bytes before something is added to them.

    Raises:
        ExportError: a constant is damaged, or `half` and a weight is beyond fp16's range.
    """
    rewritten = rewrite(model, costs=costs, half=half, steps=steps, unrounded=unrounded)
    compressed = compress_weights(rewritten.model, half=half)
    written = with_provenance(compressed, sparse_ops=is_sparse(compressed))
    return replace(rewritten, model=written, left=(*rewritten.left, *_stored_whole(rewritten)))


def _stored_whole(rewritten: Rewritten) -> list[LeftWeight]:
    """Layers that stay dense, and whose zeros are stored too, because of the network's opset."""
    opset = Graph(rewritten.model).opset
    if opset >= OLDEST_OPSET:
        return []
    reason = f"its zeros are stored too: leaving them out needs opset {OLDEST_OPSET}, the network is of opset {opset}"
    return [
        LeftWeight(layer.name, 1 - layer.density, reason)
        for layer in rewritten.layers
        if layer.form == "dense" and 1 - layer.density >= MANY and math.prod(layer.weight_shape) >= SMALL
    ]
