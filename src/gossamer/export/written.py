"""What `gossamer export` writes of a network, for whoever writes or measures it."""

from dataclasses import replace

import onnx

from gossamer.export.compress import compress_weights
from gossamer.export.costs import Costs
from gossamer.export.rewrite import Rewritten, rewrite


def as_written(model: onnx.ModelProto, *, costs: Costs | None = None, half: bool = False) -> Rewritten:
    """The network with sparse ops where those are faster, and its other weights stored without their zeros.

    Args:
        costs: estimates of times; None: rates measured when gossamer was made.
        half: store weights as fp16.

    Raises:
        ExportError: a constant is damaged, or `half` and a weight is beyond fp16's range.
    """
    rewritten = rewrite(model, costs=costs, half=half)
    return replace(rewritten, model=compress_weights(rewritten.model, half=half))
