"""What a layer's weight has to be after the layers before it were rounded.

A dense layer computes w x. After rounding it reads x' instead, and computes nearest to that, by least squares, with

    w' = w E[x x'^T] E[x' x'^T]^-1

over the weights that are kept: the asymmetric reconstruction of AdaRound (Nagel et al. 2020, "Up or Down? Adaptive
Rounding for Post-Training Quantization"). A bias makes good the means, so that x and x' are about theirs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.export.moments import Inputs, Moments, columns_of
from gossamer.graph.layers import Layer
from gossamer.graph.outputs import returning
from gossamer.graph.sessions import Feed, dense_session

DAMPING = 0.1
"""The share of the mean moment by which a weight is held where it was."""
EXAMPLES, WINDOWS = 128, 2**15
"""Examples that are looked at, at least, and until there are so many windows of them."""
OF_A_BATCH = 1024
"""Windows of a batch that are looked at, about."""


@dataclass(frozen=True)
class Changed:
    """What a layer reads behind rounded layers, beside what the dense one reads."""

    inputs: Inputs
    """Of the layer behind rounded ones."""
    crossed: Moments
    """[groups, columns, columns]: the mean of products of what it reads and of what the dense one reads."""


def changed(dense: onnx.ModelProto, rounded: onnx.ModelProto, layer: Layer, feeds: Sequence[Feed]) -> Changed:
    """What a layer reads in a network whose earlier layers are rounded."""
    sessions = [dense_session(returning(model, layer.source)) for model in (dense, rounded)]
    moments, crossed, sums, count = np.zeros(()), np.zeros(()), [np.zeros(()), np.zeros(())], 0
    examples = windows = 0
    for feed in feeds:
        values = [np.asarray(session.run([layer.source], dict(feed))[0]) for session in sessions]
        before, now = (columns_of(layer, value, OF_A_BATCH) for value in values)
        moments = moments + np.einsum("gnk,gnl->gkl", now, now, optimize=True)
        crossed = crossed + np.einsum("gnk,gnl->gkl", now, before, optimize=True)
        sums = [total + columns.sum(axis=1) for total, columns in zip(sums, (before, now), strict=True)]
        count += now.shape[1]
        examples, windows = examples + len(values[0]), windows + _windows(layer, values[0])
        if examples >= EXAMPLES and windows >= WINDOWS:
            break
    dense_means, means = (total / max(1, count) for total in sums)
    return Changed(Inputs(moments / max(1, count), means, dense_means), crossed / max(1, count))


def _windows(layer: Layer, values: NDArray[np.generic]) -> int:
    """How often a layer's weight is multiplied with a batch, about."""
    if layer.kind == "linear":
        return int(values.size // max(1, values.shape[-1]))
    return int(values.size // max(1, values.shape[1] * math.prod(layer.shape.strides)))


def fitted(layer: Layer, change: Changed, has_bias: bool) -> NDArray[np.float32]:
    """The weight that computes nearest to what the dense layer does; its zeros stay zeros.

    Args:
        has_bias: whether the means are made good by a bias.
    """
    inputs, crossed = change.inputs, change.crossed
    moments = inputs.centred if has_bias else inputs.moments
    if has_bias:
        crossed = crossed - inputs.means[:, :, None] * inputs.dense_means[:, None]
    rows = np.asarray(layer.weight, np.float64).reshape(len(layer.weight), -1)
    result, per_group = np.zeros_like(rows), len(rows) // len(moments)
    for number, row in enumerate(rows):
        kept = np.flatnonzero(row)
        own = moments[number // per_group][np.ix_(kept, kept)]
        wanted = (crossed[number // per_group] @ row)[kept]
        damping = DAMPING * float(np.mean(np.diag(own))) if len(kept) else 0.0
        if damping > 0:
            result[number, kept] = np.linalg.solve(own + damping * np.eye(len(kept)), wanted + damping * row[kept])
        else:
            # It reads nothing but zeros.
            result[number, kept] = row[kept]
    return result.astype(np.float32).reshape(layer.weight.shape)
