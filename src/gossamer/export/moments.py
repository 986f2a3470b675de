"""What layers read, summed up: the second moments of their inputs, which say what an error of a weight costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.graph.layers import Layer
from gossamer.graph.outputs import with_outputs
from gossamer.graph.sessions import Feed, dense_session

MOST = 2**24
"""Numbers of the moments of one layer; beyond it only those of each input with itself are kept."""
MOST_WINDOWS = 4096
"""Windows of a convolution that are looked at, of each batch."""

Moments = NDArray[np.float64]
"""[groups, columns, columns], or [groups, columns]: the mean of products of what two columns of a weight's rows are
multiplied by."""


@dataclass(frozen=True)
class Inputs:
    """What the rows of a layer's weight are multiplied by, summed up."""

    moments: Moments
    means: NDArray[np.float64]
    """[groups, columns]"""
    wanted: NDArray[np.float64] | None = None
    """[groups, rows of a group]: the means that rows have to make, less biases; None: what they make of `means`."""

    @property
    def centred(self) -> Moments:
        """The moments about the means: what errors cost where the bias makes good what they are in the mean."""
        squares = self.means[:, :, None] * self.means[:, None]
        return self.moments - (squares if self.moments.ndim == 3 else self.means**2)


def inputs_of(model: onnx.ModelProto, layers: Sequence[Layer], feeds: Sequence[Feed]) -> dict[str, Inputs]:
    """What each layer reads, by the layer's output."""
    sources = list(dict.fromkeys(layer.source for layer in layers))
    session = dense_session(with_outputs(model, sources))
    sums: dict[str, Moments] = {}
    means: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for feed in feeds:
        values: Mapping[str, NDArray[np.generic]] = dict(zip(sources, session.run(sources, dict(feed)), strict=True))
        for layer in layers:
            columns = columns_of(layer, values[layer.source])
            sums[layer.output] = sums.get(layer.output, 0.0) + _summed(columns)
            means[layer.output] = means.get(layer.output, 0.0) + columns.sum(axis=1)
            counts[layer.output] = counts.get(layer.output, 0) + columns.shape[1]
    found = {name: means[name] / max(1, count) for name, count in counts.items()}
    return {name: Inputs(sums[name] / max(1, counts[name]), mean) for name, mean in found.items()}


def _summed(columns: NDArray[np.float64]) -> Moments:
    groups, _, width = columns.shape
    if groups * width**2 > MOST:
        return np.asarray(np.einsum("gnk,gnk->gk", columns, columns))
    return np.asarray(np.einsum("gnk,gnl->gkl", columns, columns, optimize=True))


def columns_of(layer: Layer, values: NDArray[np.generic], most: int = MOST_WINDOWS) -> NDArray[np.float64]:
    """What the rows of a layer's weight are multiplied by: [groups, windows, columns of a row of the weight].

    Args:
        values: what the layer reads.
        most: windows of a convolution, about, beyond which only every so many are looked at.
    """
    if layer.kind == "linear":
        return np.asarray(values, np.float64).reshape(1, -1, values.shape[-1])
    shape = layer.shape
    if values.ndim == 3:
        values = values[:, :, None]
    top, left, bottom, right = shape.pads
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (height, width), (down, across) = shape.kernel, shape.dilations
    spans = ((height - 1) * down + 1, (width - 1) * across + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, (2, 3))
    windows = windows[:, :, :: shape.strides[0], :: shape.strides[1], ::down, ::across]
    image, row, column = _looked_at(windows, most)
    # [windows, channels, kernel height, kernel width]
    chosen = np.asarray(windows[image, :, row, column], np.float64)
    grouped = chosen.reshape(len(chosen), shape.groups, -1)
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def results_of(layer: Layer, values: NDArray[np.generic], most: int = MOST_WINDOWS) -> NDArray[np.float64]:
    """What lies where rows of the weight make their results, in the places of `columns_of`: [groups, windows, rows of a
    group].

    Args:
        values: of the shape that the layer makes.
    """
    if layer.kind == "linear":
        return np.asarray(values, np.float64).reshape(1, -1, values.shape[-1])
    if values.ndim == 3:
        values = values[:, :, None]
    image, row, column = _looked_at(values, most)
    chosen = np.asarray(values[image, :, row, column], np.float64)
    return chosen.reshape(len(chosen), layer.shape.groups, -1).transpose(1, 0, 2)


def _looked_at(values: NDArray[np.generic], most: int) -> tuple[NDArray[np.intp], ...]:
    """Images, rows and columns, `most` places about; of [images, channels, rows, columns, ...]."""
    places = (values.shape[0], *values.shape[2:4])
    every = max(1, math.prod(places) // most)
    return np.unravel_index(np.arange(0, math.prod(places), every), places)
