"""ONNX files: weights are what the graph multiplies with. External data are streamed; what lies in the file itself, at
most 2 GB, is in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from gossamer.errors import ExportError
from gossamer.files.by_name import why_never
from gossamer.files.candidates import Candidate, Standing
from gossamer.files.source import Source
from gossamer.files.stored import Stored
from gossamer.graph.graph import Graph, array_of, attributes_of, is_standard
from gossamer.graph.open_axes import graphs_of
from gossamer.graph.ops import is_sparse
from gossamer.graph.reading import OLDEST_COMPLETE_IR, read_onnx
from gossamer.storage.files import regular

KINDS = {
    "FLOAT": "F32",
    "FLOAT16": "F16",
    "BFLOAT16": "BF16",
    "DOUBLE": "F64",
    "FLOAT8E4M3FN": "F8_E4M3",
    "FLOAT8E5M2": "F8_E5M2",
    "INT8": "I8",
    "UINT8": "U8",
    "INT32": "I32",
    "INT64": "I64",
    "BOOL": "BOOL",
}
"""ONNX's types of numbers, as safetensors calls them; tensors of others are left out."""
RECURRENT = ("LSTM", "GRU", "RNN")
"""Their weights are of the shape (directions, outputs, inputs)."""
IN_FILE = "in the file: "
Uses = dict[str, list[tuple[str, int | None]]]
"""Constant -> (node that multiplies with it, the axis of its inputs), once for each."""


def open_onnx(path: Path) -> Source:
    """An ONNX file, with its external data if it has any.

    Raises:
        ExportError: it is missing, damaged, no dense network, or its external data lie elsewhere, or not as it says.
    """
    model = read_onnx(path, external=False)
    if is_sparse(model):
        raise ExportError(f"{path} holds sparse ops of gossamer; give the dense file that it was made from")
    graph = Graph(model)
    constants = dict(graph.tensors)
    if model.ir_version < OLDEST_COMPLETE_IR:
        constants.update((tensor.name, tensor) for tensor in graph.model.graph.initializer)
    uses, gathered = _uses(graph, constants)
    found = []
    contents: dict[str, bytes] = {}
    for name in sorted(constants):
        tensor = constants[name]
        kind = KINDS.get(onnx.TensorProto.DataType.Name(tensor.data_type))
        if kind is None:
            continue
        stored = Stored(name, kind, tuple(tensor.dims), IN_FILE + name, 0)
        if _is_external(tensor):
            file, offset, _ = _external(path, tensor, stored.length)
            stored = replace(stored, file=file, offset=offset)
        candidate = _judged(stored, uses.get(name, []), name in gathered)
        if candidate.standing != "never" and not _is_external(tensor):
            contents[stored.file] = tensor.raw_data or array_of(tensor).tobytes()
            if len(contents[stored.file]) != stored.length:
                raise ExportError(f"the constant {name} is damaged: its bytes are not those of {stored.shape} {kind}")
        found.append(candidate)
    files = {_place(path, tensor)[0] for tensor in _all_tensors(model.graph) if _is_external(tensor)}

    def finish(folder: Path, changed: Mapping[str, bytes]) -> None:
        for file, content in changed.items():
            tensor = constants[file.removeprefix(IN_FILE)]
            if content != contents[file]:
                for field in ("float_data", "double_data", "int32_data"):
                    tensor.ClearField(field)
                tensor.raw_data = content
        (folder / path.name).write_bytes(model.SerializeToString())

    return Source(
        path.parent,
        _with_copies(found),
        tuple(sorted(files)),
        known_by="the nodes that multiply with them",
        contents=contents,
        finish=finish,
        made=(path.name,),
    )


def _judged(stored: Stored, uses: list[tuple[str, int | None]], is_table: bool) -> Candidate:
    never = why_never(stored)
    axes = {axis for _, axis in uses}
    axis = axes.pop() if len(axes) == 1 else None
    standing: Standing = "own"
    reason = "no weight of a layer at the top of the graph (--include takes it)"
    if uses:
        standing, reason = "weight", ""
    elif is_table:
        standing, reason = "table", "an embedding, of which rows are gathered (--include takes it)"
    if never is not None:
        standing, reason = "never", never
    return Candidate(stored, standing, reason, axis, tuple(node for node, _ in uses if node))


def _uses(graph: Graph, constants: Mapping[str, Any]) -> tuple[Uses, set[str]]:
    """What the nodes of the graph multiply with, and what they gather rows of."""
    uses: Uses = {}
    gathered = set()
    for node in graph.nodes:
        attributes = attributes_of(node)
        ranked: list[tuple[int, int | None]] = []
        if is_standard(node, "Conv"):
            ranked = [(1, 1)]
        elif is_standard(node, "ConvTranspose"):
            ranked = [(1, 0 if attributes.get("group", 1) == 1 else None)]
        elif is_standard(node, "Gemm"):
            ranked = [(1, 1 if attributes.get("transB", 0) else 0)]
        elif is_standard(node, "MatMul"):
            ranked = [(0, 1), (1, 0)]
        elif is_standard(node, *RECURRENT):
            ranked = [(1, 2), (2, 2)]
        elif is_standard(node, "Gather"):
            gathered.add(_behind(graph, node.input[0], None, constants)[0])
        for index, axis in ranked:
            if len(node.input) <= index:
                continue
            name, traced = _behind(graph, node.input[index], axis, constants)
            if name in constants:
                # Products with stacks of matrices have no one axis of inputs.
                plain = len(constants[name].dims) == 2 or not is_standard(node, "MatMul")
                uses.setdefault(name, []).append((node.name, traced if plain else None))
    return uses, gathered


def _behind(graph: Graph, name: str, axis: int | None, constants: Mapping[str, Any]) -> tuple[str, int | None]:
    """The constant that a value is, transposed or in another type, and which of its axes this one is."""
    seen = set()
    while name not in constants and name in graph.producers and name not in seen:
        seen.add(name)
        node = graph.nodes[graph.producers[name]]
        if not is_standard(node, "Identity", "Cast", "Transpose") or not node.input:
            break
        if node.op_type == "Transpose":
            order = attributes_of(node).get("perm", [1, 0])
            axis = order[axis] if isinstance(order, list) and axis is not None and axis < len(order) else None
        name = node.input[0]
    return name, axis


def _all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for entry in node.attribute:
            if entry.type == onnx.AttributeProto.TENSOR:
                yield entry.t
            yield from entry.tensors
        for inner in graphs_of(node):
            yield from _all_tensors(inner)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _external(path: Path, tensor: onnx.TensorProto, length: int) -> tuple[str, int, int]:
    """File, offset and length of external data of `length` bytes."""
    file, offset, said = _place(path, tensor)
    size = (path.parent / file).stat().st_size
    if said not in (None, length) or offset + length > size:
        raise ExportError(
            f"{tensor.name} has {length:,} bytes, and {path} says that they are {said} from {offset:,} on in {file}, "
            f"which has {size:,}; expected external data as they were written"
        )
    return file, offset, length


def _place(path: Path, tensor: onnx.TensorProto) -> tuple[str, int, int | None]:
    """File, offset and, if it says so, length of external data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(entries.get("location", ""))
    outside = location.is_absolute() or ".." in location.parts or not location.parts or "\\" in str(location)
    if outside or str(location) == path.name:
        raise ExportError(
            f"{path} says that {tensor.name} lies in {str(location)!r}; expected a file of its own beside it, or below"
        )
    try:
        regular(path.parent / location, links=True)
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
        if offset < 0:
            raise ValueError("it begins before its file")
    except (OSError, ValueError) as error:
        raise ExportError(f"the external data of {tensor.name} cannot be read from {location}: {error}") from error
    return str(location), offset, length


def _with_copies(candidates: list[Candidate]) -> list[Candidate]:
    """Constants of the same bytes are one weight; those that overlap otherwise are refused."""
    by_place: dict[tuple[str, int, int], Candidate] = {}
    order = {"weight": 0, "table": 1, "own": 2, "never": 3}
    for one in sorted(candidates, key=lambda one: order[one.standing]):
        stored = one.stored
        place = (stored.file, stored.offset, stored.length)
        first = by_place.get(place)
        if first is None or not stored.length:
            by_place[place if stored.length else (stored.name, -1, 0)] = one
            continue
        alike = (first.stored.kind, first.stored.shape) == (stored.kind, stored.shape)
        axis = first.inputs_axis if alike and one.inputs_axis in (first.inputs_axis, None) else None
        by_place[place] = replace(first, names=(*first.names, *one.all_names), inputs_axis=axis)
    ranges = sorted((file, offset, length, one) for (file, offset, length), one in by_place.items() if length)
    for (file, offset, length, one), (next_file, start, _, other) in pairwise(ranges):
        if file == next_file and start < offset + length:
            raise ExportError(
                f"{one.stored.name} and {other.stored.name} overlap in {file}; expected external data that lie apart"
            )
    return sorted(by_place.values(), key=lambda one: one.stored.name)
