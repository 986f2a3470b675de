"""What a layer's weight has to be after the layers before it were rounded.

A dense layer makes w x, to which the network may add s, from another branch. After rounding it reads x' instead, and s'
is added, and it makes nearest to what the two were, by least squares, with

    w' = E[(w x + s - s') x'^T] E[x' x'^T]^-1

over the weights that are kept: the asymmetric reconstruction of AdaRound (Nagel et al. 2020, "Up or Down? Adaptive
Rounding for Post-Training Quantization"), for the sum where there is one, or errors would add up along residual
branches. A bias makes good the means, so that both factors are about theirs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.export.moments import Inputs, columns_of, results_of
from gossamer.graph.layers import Layer
from gossamer.graph.outputs import returning
from gossamer.graph.sessions import Feed, dense_session

DAMPING = 0.1
"""The share of the mean moment by which a weight is held where it was."""
EXAMPLES, WINDOWS = 128, 2**15
"""Examples that are looked at, at least, and until there are so many windows of them."""
OF_A_BATCH = 1024
"""Windows of a batch that are looked at, about."""
REMEMBERED = 2**30
"""Bytes of what layers of the dense network make that are held; what is beyond is computed again each time."""

Batches = list[NDArray[np.float32]]
"""[groups, windows, rows of a group] each: what a layer makes, and what is added to it."""


@dataclass(frozen=True)
class Changed:
    """What a layer reads behind rounded layers, beside what it has to make of it."""

    inputs: Inputs
    crossed: NDArray[np.float64]
    """[groups, rows of a group, columns]: the mean of products of what rows have to make and of what they read."""


@dataclass
class Beside:
    """A dense network, beside which rounded ones are looked at."""

    dense: onnx.ModelProto
    feeds: Sequence[Feed]
    _made: dict[str, Batches] = field(default_factory=dict)
    """By the outputs of layers."""

    def changed(self, rounded: onnx.ModelProto, layer: Layer) -> Changed:
        """What a layer reads in a network whose earlier layers are rounded.

        Args:
            layer: with the weight that it has in the dense network.
        """
        moments, crossed, means, wanted, count = *(np.zeros(()) for _ in range(4)), 0
        for made, (columns, added) in zip(self._dense(layer), _read(layer, rounded, self.feeds), strict=True):
            sought = made if added is None else made - added
            moments = moments + columns.transpose(0, 2, 1) @ columns
            crossed = crossed + sought.transpose(0, 2, 1) @ columns
            means, wanted = means + columns.sum(axis=1), wanted + sought.sum(axis=1)
            count += columns.shape[1]
        moments, crossed, means, wanted = (total / max(1, count) for total in (moments, crossed, means, wanted))
        return Changed(Inputs(moments, means, wanted), crossed)

    def _dense(self, layer: Layer) -> Iterator[NDArray[np.float32]]:
        """What it makes there, with what is added to it."""
        if layer.output in self._made:
            yield from self._made[layer.output]
            return
        left = REMEMBERED - sum(batch.nbytes for made in self._made.values() for batch in made)
        held: Batches | None = []
        for columns, added in _read(layer, self.dense, self.feeds):
            weight = layer.weight.astype(np.float64).reshape(len(columns), -1, columns.shape[2])
            made = columns @ weight.transpose(0, 2, 1)
            batch = (made if added is None else made + added).astype(np.float32)
            yield batch
            left -= batch.nbytes
            if left < 0:
                held = None
            elif held is not None:
                held.append(batch)
        if held is not None:
            self._made[layer.output] = held


def _read(
    layer: Layer, model: onnx.ModelProto, feeds: Sequence[Feed]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
    """What a layer's rows are multiplied by and what is added to their results, by batches, until that is enough."""
    names = [layer.source] if layer.residual is None else [layer.source, layer.residual]
    session = dense_session(returning(model, names))
    examples = windows = 0
    for feed in feeds:
        values, *added = (np.asarray(value) for value in session.run(names, dict(feed)))
        yield columns_of(layer, values, OF_A_BATCH), results_of(layer, added[0], OF_A_BATCH) if added else None
        examples, windows = examples + len(values), windows + _windows(layer, values)
        if examples >= EXAMPLES and windows >= WINDOWS:
            break


def _windows(layer: Layer, values: NDArray[np.generic]) -> int:
    """How often a layer's weight is multiplied with a batch, about."""
    if layer.kind == "linear":
        return int(values.size // max(1, values.shape[-1]))
    return int(values.size // max(1, values.shape[1] * math.prod(layer.shape.strides)))


def fitted(layer: Layer, change: Changed, has_bias: bool) -> NDArray[np.float32]:
    """The weight that makes nearest to what is wanted; its zeros stay zeros.

    Args:
        has_bias: whether the means are made good by a bias.
    """
    inputs, crossed = change.inputs, change.crossed
    moments = inputs.centred if has_bias else inputs.moments
    if has_bias and inputs.wanted is not None:
        crossed = crossed - inputs.wanted[:, :, None] * inputs.means[:, None]
    rows = np.asarray(layer.weight, np.float64).reshape(len(layer.weight), -1)
    result, sought, per_group = np.zeros_like(rows), crossed.reshape(rows.shape), len(rows) // len(moments)
    for number, row in enumerate(rows):
        kept = np.flatnonzero(row)
        own = moments[number // per_group][np.ix_(kept, kept)]
        damping = DAMPING * float(np.mean(np.diag(own))) if len(kept) else 0.0
        if damping > 0:
            held = sought[number, kept] + damping * row[kept]
            result[number, kept] = np.linalg.solve(own + damping * np.eye(len(kept)), held)
        else:
            # It reads nothing but zeros.
            result[number, kept] = row[kept]
    return result.astype(np.float32).reshape(layer.weight.shape)
