"""Sparse layers that may multiply in fp16 on processors that have its instructions, and whether that is still the
network."""

from collections.abc import Container, Sequence

import onnx
from onnx import helper

from gossamer.errors import ExportError
from gossamer.export.agreement import compare
from gossamer.export.rounding import Rounding
from gossamer.export.writer import values_held
from gossamer.graph.messages import copied
from gossamer.graph.ops import ARITHMETIC, DOMAIN, OPS
from gossamer.graph.sessions import Feed, Remembering, Run, running, sparse_session

HALF = "float16"
"""On processors without the instructions: float32."""
ROUNDED_HALF = "float16_rounded"
"""What float16 computes where there are the instructions, by any processor."""


def with_arithmetic(model: onnx.ModelProto, arithmetic: str, outputs: Container[str] | None = None) -> onnx.ModelProto:
    """The network whose sparse layers of floats multiply so.

    Args:
        outputs: values of the dense network that the layers make; None: all layers.
    """
    result = copied(model)
    for node in result.graph.node:
        if outputs is not None and not any(value in outputs for value in values_held(node)):
            continue
        if node.domain == DOMAIN and ARITHMETIC in OPS[node.op_type].attributes:
            node.attribute.append(helper.make_attribute(ARITHMETIC, arithmetic))
    return result


def require_close(
    written: onnx.ModelProto,
    outputs: Container[str],
    dense_run: Run,
    feeds: Sequence[Feed],
    share: float,
    rounding: Rounding,
) -> Remembering:
    """What runs the network in fp16, on this processor too.

    Args:
        outputs: of the layers that multiply so.
        share: of an output's largest number, by which it may differ besides what rounding in fp32 explains.
        rounding: of the dense network on these inputs.

    Raises:
        ExportError: it differs by more, or by what is no number.
    """
    rounded = with_arithmetic(written, ROUNDED_HALF, outputs)
    run = Remembering(running(sparse_session(rounded.SerializeToString())))
    agreement = compare(dense_run, run, feeds, rounding, share=share)
    if not agreement.within:
        raise ExportError(
            f"with products in fp16 (--half-arithmetic) outputs differ by {agreement.difference:.3g} (outputs up to "
            f"{agreement.largest:.3g}, allowed {agreement.allowed:.3g}): sums are off by up to 1.7% of what is added, "
            "and what is beyond 65504 becomes infinite. Nothing was written. Leave --half-arithmetic out, or allow a "
            f"larger share of the largest output with --half-difference (here {share:g})"
        )
    return run
