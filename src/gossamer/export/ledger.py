"""Where the bytes of a file go, weight by weight, and how many other forms of the same network would take."""

import gzip
import lzma
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray

from gossamer.errors import ExportError
from gossamer.export.compress import with_functions
from gossamer.export.dense import is_exported, to_dense
from gossamer.export.written import as_written
from gossamer.graph.constants import prepared
from gossamer.graph.graph import array_of
from gossamer.graph.open_axes import graphs_in
from gossamer.graph.ops import STORED, packed_inputs

POSITIONS_FIRST = ("FromBitmask", "FromGaps")
"""Functions whose first input holds positions, and whose second values, behind what the others are."""
BALANCED = "balanced (gossamer export)"
REST = "biases and other constants"
CHECKSUM = 4
CODED_FRAME = 4
"""Bytes of a coded weight besides its stream and the numbers that describe it: what it is, and its checksum. That
of large ones takes two more."""
DIFFERENT = 4
"""Weights whose values appear fewer times than this each in the mean are numbers, not levels: nothing is saved."""


@dataclass(frozen=True)
class Entry:
    """The bytes of a weight."""

    name: str
    """The node that reads it, or its own name."""
    numbers: int
    kept: int
    """Numbers that are not zero."""
    positions: int
    values: int
    """Of coded weights positions, biases, shape and steps too: one stream holds them."""
    other: int
    """Names, shapes, headers and checksums."""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.positions + self.values + self.other


@dataclass(frozen=True)
class Ledger:
    """Where the bytes of a file go."""

    entries: tuple[Entry, ...]
    """Weights of two axes and more, the largest first; then all other constants together."""
    graph: int
    """Nodes, functions and descriptions."""
    others: Mapping[str, int] = field(default_factory=dict)
    """Another form of the same network, for people -> its bytes."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.graph + sum(entry.size for entry in self.entries)


def ledger_of(model: onnx.ModelProto) -> Ledger:
    """The ledger of a network, dense or as `gossamer export` writes it.

    Raises:
        GossamerError: a weight in it is damaged, or another version's.
    """
    found = [entry for graph in graphs_in(model.graph) for entry in _entries(graph)]
    large = sorted((entry for axes, entry in found if axes > 1), key=lambda entry: -entry.size)
    small = [entry for axes, entry in found if axes < 2]
    if small:
        sums = [
            sum(getattr(entry, of) for entry in small) for of in ("numbers", "kept", "positions", "values", "other")
        ]
        large.append(Entry(REST, *sums))
    dense = to_dense(model) if is_exported(model) else model
    others = {**_other_forms(dense), BALANCED: as_written(with_functions(prepared(dense))).model.ByteSize()}
    return Ledger(tuple(large), model.ByteSize() - sum(entry.size for entry in large), others)


def _entries(graph: onnx.GraphProto) -> Iterator[tuple[int, Entry]]:
    """Each constant of a graph, with its number of axes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    packed = {name for node in graph.node for name in packed_inputs(node)}
    for node in graph.node:
        if node.domain == STORED and all(name in tensors for name in node.input):
            parts = [tensors.pop(name) for name in node.input if name in tensors]
            yield _put_together(_name(readers, node.output[0]), node, parts)
    for name, tensor in tensors.items():
        array = array_of(tensor)
        if name in packed:
            yield _packed(_name(readers, name), array.tobytes(), tensor.ByteSize())
        else:
            kept = int(np.count_nonzero(array)) if array.dtype.kind in "fiub" else array.size
            values = min(array.nbytes, tensor.ByteSize())
            yield array.ndim, Entry(_name(readers, name), array.size, kept, 0, values, tensor.ByteSize() - values)


def _name(readers: Mapping[str, onnx.NodeProto], value: str) -> str:
    node = readers.get(value)
    return value if node is None or not node.name else node.name


def _put_together(name: str, node: onnx.NodeProto, parts: list[onnx.TensorProto]) -> tuple[int, Entry]:
    """A weight that a function of the file makes."""
    arrays = [array_of(part) for part in parts]
    size = sum(part.ByteSize() for part in parts)
    if node.op_type in POSITIONS_FIRST:
        positions, values, shape = arrays
        numbers, kept = int(np.prod(np.asarray(shape, np.int64))), values.size - 1
        stored = (positions.nbytes, values.nbytes)
        return shape.size, Entry(name, numbers, kept, *stored, size - sum(stored))
    values = arrays[0]
    return values.ndim, Entry(name, values.size, int(np.count_nonzero(values)), 0, values.nbytes, size - values.nbytes)


def _packed(name: str, packed: bytes, size: int) -> tuple[int, Entry]:
    """A weight of gossamer's own format."""
    try:
        weight = weights.decode(packed)
    except weights.DamagedWeight as error:
        raise ExportError(f"the weight of {name} is damaged: {error}") from error
    kept = int(np.count_nonzero(weight))
    if weights.is_coded(packed):
        stream = len(packed) - CODED_FRAME
        return weight.ndim, Entry(name, weight.size, kept, 0, stream, size - stream)
    positions = weights.HEADER.unpack_from(packed)[-1]
    values = len(packed) - weights.HEADER.size - 4 * weight.ndim - positions - CHECKSUM
    return weight.ndim, Entry(name, weight.size, kept, positions, values, size - positions - values)


def _other_forms(dense: onnx.ModelProto) -> dict[str, int]:
    """Bytes of the dense network, of what compresses any file makes of it, and of what its numbers need at least."""
    whole = dense.SerializeToString()
    tensors = [array_of(tensor) for graph in graphs_in(dense.graph) for tensor in graph.initializer]
    floats = [array for array in tensors if array.dtype.kind == "f" and array.ndim > 1]
    saved = sum(array.nbytes - array.size - 4 * len(array) for array in floats)
    bound = sum(array.nbytes - math.ceil(_entropy(array) / 8) for array in floats)
    return {
        "dense, fp32": len(whole),
        "dense, gzip -9": len(gzip.compress(whole, 9)),
        "dense, xz -6": len(lzma.compress(whole, preset=6)),
        "dense, int8 (computed)": len(whole) - saved,
        "entropy of static tables (computed)": len(whole) - bound,
    }


def _entropy(weight: NDArray[np.generic]) -> float:
    """Bits of a weight's positions and values with static tables of what there is, the tables not counted."""
    kept = weight[weight != 0]
    share = kept.size / weight.size
    positions = -weight.size * sum(part * math.log2(part) for part in (share, 1 - share) if part > 0)
    counts = np.unique(kept, return_counts=True)[1]
    if len(counts) * DIFFERENT > kept.size:
        return float(positions + 8 * kept.nbytes)
    return float(positions - np.sum(counts * np.log2(counts / kept.size)))
