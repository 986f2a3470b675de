"""What the time of a sparse layer that multiplies in fp16 is made of, and which layers can."""

from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.terms import FEW_ROWS, Terms, sparse_terms

HALF = "fp16 "
"""What the classes of layers that multiply in fp16 begin with."""
LEAST_KEPT = 8
"""Weights that are kept of each output and of each input channel, at least, on average: the runtime leaves other layers
in fp32, whatever their file says (native/kernels/half_weight.h)."""


def can_multiply_in_half(shape: LayerShape, density: float) -> bool:
    """Whether the runtime has kernels of fp16 for a layer, and takes them where the file and the processor allow it."""
    if shape.quantised or shape.depthwise or (shape.kind == "linear" and shape.width < FEW_ROWS):
        return False
    return shape.weights * density >= LEAST_KEPT * max(shape.outputs, shape.inputs)


def half_terms(shape: LayerShape, density: float) -> Terms:
    """Terms of the op that multiplies in fp16; its inputs and outputs are in fp32."""
    of_floats = sparse_terms(shape, density)
    return Terms(HALF + of_floats.kind, of_floats.amounts)
