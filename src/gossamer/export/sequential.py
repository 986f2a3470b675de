"""What a layer's weight has to be after the layers before it were rounded.

A dense layer computes w x. After rounding it reads x' instead, and computes nearest to that, by least squares, with

    w' = w E[x x'^T] E[x' x'^T]^-1

over the weights that are kept: the asymmetric reconstruction of AdaRound (Nagel et al. 2020, "Up or Down? Adaptive
Rounding for Post-Training Quantization"). A bias makes good the means, so that x and x' are about theirs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
Columns = NDArray[np.float32]
"""[groups, windows, columns]: what the rows of a layer's weight are multiplied by, of a batch."""
REMEMBERED = 2**30
"""Bytes of what layers of the dense network read that are held; what is beyond is computed again each time."""


@dataclass(frozen=True)
class Changed:
    """What a layer reads behind rounded layers, beside what the dense one reads."""

    inputs: Inputs
    """Of the layer behind rounded ones."""
    crossed: Moments
    """[groups, columns, columns]: the mean of products of what it reads and of what the dense one reads."""


@dataclass
class Beside:
    """A dense network, beside which rounded ones are looked at."""

    dense: onnx.ModelProto
    feeds: Sequence[Feed]
    _read: dict[str, list[Columns]] = field(default_factory=dict)
    """What layers read, by their outputs."""

    def changed(self, rounded: onnx.ModelProto, layer: Layer) -> Changed:
        """What a layer reads in a network whose earlier layers are rounded."""
        moments, crossed, sums, count = np.zeros(()), np.zeros(()), [np.zeros(()), np.zeros(())], 0
        for before, now in zip(self._of_dense(layer), _read_by(layer, rounded, self.feeds), strict=True):
            moments = moments + _products(now, now)
            crossed = crossed + _products(now, before)
            sums = [total + read.sum(axis=1, dtype=np.float64) for total, read in zip(sums, (before, now), strict=True)]
            count += now.shape[1]
        dense_means, means = (total / max(1, count) for total in sums)
        return Changed(Inputs(moments / max(1, count), means, dense_means), crossed / max(1, count))

    def _of_dense(self, layer: Layer) -> Iterator[Columns]:
        if layer.output in self._read:
            yield from self._read[layer.output]
            return
        left = REMEMBERED - sum(columns.nbytes for read in self._read.values() for columns in read)
        held: list[Columns] | None = []
        for columns in _read_by(layer, self.dense, self.feeds):
            yield columns
            left -= columns.nbytes
            if left < 0:
                held = None
            elif held is not None:
                held.append(columns)
        if held is not None:
            self._read[layer.output] = held


def _read_by(layer: Layer, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Columns]:
    """What a layer's rows are multiplied by, batch by batch, until there is enough of it."""
    session = dense_session(returning(model, layer.source))
    examples = windows = 0
    for feed in feeds:
        values = np.asarray(session.run([layer.source], dict(feed))[0])
        yield columns_of(layer, values, OF_A_BATCH).astype(np.float32)
        examples, windows = examples + len(values), windows + _windows(layer, values)
        if examples >= EXAMPLES and windows >= WINDOWS:
            break


def _products(first: Columns, second: Columns) -> Moments:
    """The sums of products of two columns."""
    return np.asarray(np.matmul(first.transpose(0, 2, 1), second, dtype=np.float64))


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
