"""Dense weights with zeros, stored without them in ONNX's own ops.

A layer that stays a standard op needs its weight dense. What the file holds instead is the weight's positions and
values, and a node that puts them together: a function that the file defines, of standard ops. Its inputs are constants,
so a runtime computes it once, when the session is created (inlining, constant folding), and the layer runs as if its
weight had been stored. Other programs take such a layer for a product of two computed values; `unpack_weights` gives
them its weight.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import onnx
import onnx.parser
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.export.half import is_halved
from gossamer.export.left import FLOATS, TYPES
from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.graph import STANDARD_DOMAINS, Graph, array_of, constants_of, is_standard, renamed
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused
from gossamer.graph.open_axes import graphs_in
from gossamer.graph.ops import DOMAIN, STORED
from gossamer.graph.opsets import with_opset
from gossamer.graph.sessions import dense_session

WORTHWHILE = 0.95
"""The share of its bytes that a weight may be stored in at most."""
OLDEST_OPSET = 11
"""Before it ONNX has not all ops that put a weight together."""
OLDEST_IR = 8
"""The version of ONNX's files from which on they hold functions."""
STORABLE = (*TYPES, TensorProto.BOOL)
"""Types of weights and of masks; whole numbers of more bits are shapes and indices."""
MOST = 2**31
"""Elements that positions of 32 bits can count."""
FRAMING = 4
"""Bytes that a message takes within another, about."""

FUNCTIONS = {
    "FromBitmask": """<to> (mask, values, shape) => (weight) {
        shifts = Constant <value = uint8[1, 8] {0, 1, 2, 3, 4, 5, 6, 7}> ()
        two = Constant <value = uint8[1] {2}> ()
        all = Constant <value = int64[1] {-1}> ()
        begin = Constant <value = int64[1] {0}> ()
        axis = Constant <value = int64 {0}> ()
        size = ReduceProd <keepdims = 1> (shape)
        shifted = BitShift <direction = "RIGHT"> (mask, shifts)
        bits = Mod (shifted, two)
        flat = Reshape (bits, all)
        exact = Slice (flat, begin, size)
        kept = Cast <to = 6> (exact)
        counted = CumSum (kept, axis)
        places = Mul (kept, counted)
        spread = Gather (values, places)
        shaped = Reshape (spread, shape)
        weight = Cast <to : int = @to> (shaped)
    }""",
    "FromGaps": """<to> (gaps, values, shape) => (weight) {
        long = Constant <value = int32[1] {255}> ()
        one = Constant <value = int32[1] {1}> ()
        axis = Constant <value = int64 {0}> ()
        size = ReduceProd <keepdims = 1> (shape)
        wide = Cast <to = 6> (gaps)
        short = Less (wide, long)
        kept = Cast <to = 6> (short)
        steps = Add (wide, kept)
        after = CumSum (steps, axis)
        positions = Sub (after, one)
        counted = CumSum (kept, axis)
        numbers = Mul (kept, counted)
        none = ConstantOfShape <value = int32[1] {0}> (size)
        places = ScatterElements (none, positions, numbers)
        spread = Gather (values, places)
        shaped = Reshape (spread, shape)
        weight = Cast <to : int = @to> (shaped)
    }""",
    "FromHalves": """<to> (values) => (weight) {
        weight = Cast <to : int = @to> (values)
    }""",
}
"""What puts a weight together: of a bit for each number, of the zeros between kept ones, and of all numbers as fp16.

In front of the values stands what the others are, zero. Positions choose among the values: 0 where nothing is kept,
else how many are kept up to there. A gap of 255 is followed by no kept weight (docs/format.md); its last zero is
written as such, because ONNX Runtime folds no op whose output's size depends on values.
"""


@dataclass(frozen=True)
class _Way:
    """One way to store a weight."""

    function: str
    node: onnx.NodeProto
    constants: tuple[onnx.TensorProto, ...]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        parts: list[Any] = [self.node, *self.constants]
        return sum(int(part.ByteSize()) + FRAMING for part in parts)


def compress_weights(model: onnx.ModelProto, *, half: bool = False) -> onnx.ModelProto:
    """The same network with its weights stored without their zeros wherever that is smaller, in the bodies of If, Loop
    and Scan too. What gossamer's own ops read stays: they take constants only, and a session may be told to fold none.

    Of whole numbers, the most frequent one counts as zero: it is the zero point of a pruned weight.

    Args:
        half: store weights in fp32 as fp16, those without zeros too.
    """
    opset = Graph(model).opset
    if opset < OLDEST_OPSET:
        return model
    result, taken = copied(model), names_of_values(model)
    # Inner ones first: nodes around them are copied, with what is in them.
    graphs = list(graphs_in(result.graph))[::-1]
    found = [{tensor.name: (tensor, _ways(tensor, half, taken)) for tensor in _weights(graph)} for graph in graphs]
    functions = {name: _function(name, opset) for name in FUNCTIONS}
    used = _fewest_bytes([weight for weights_ in found for weight in weights_.values()], functions)
    if not used:
        return model
    for graph, weights_ in zip(graphs, found, strict=True):
        chosen = {name: _smallest(*weight, used) for name, weight in weights_.items()}
        _store(graph, {name: way for name, way in chosen.items() if way is not None})
    result.ir_version = max(result.ir_version, OLDEST_IR)
    result.opset_import.append(helper.make_opsetid(STORED, 1))
    result.functions.extend(functions[name] for name in FUNCTIONS if name in used)
    drop_unread(result)
    return result


def with_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network of an opset in which its weights can be stored without their zeros; if ONNX cannot convert it,
    as it is."""
    try:
        return with_opset(model, OLDEST_OPSET, "leaving zeros out needs")
    except ExportError:
        return model


def is_compressed(model: onnx.ModelProto) -> bool:
    """Whether the model has weights that are stored as `compress_weights` stores them."""
    return any(_unpacking(graph) for graph in graphs_in(model.graph))


def unpack_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The reverse of `compress_weights`: the same network with those weights as initializers, zeros and all.

    Raises:
        ExportError: what is stored of a weight is damaged.
    """
    if not is_compressed(model):
        return model
    result = copied(model)
    for graph in graphs_in(result.graph):
        unpacking = _unpacking(graph)
        weights_ = _unpacked(result, graph, list(unpacking.values()))
        replace_items(graph.node, [node for index, node in enumerate(graph.node) if index not in unpacking])
        graph.initializer.extend(weights_)
    replace_items(result.functions, [one for one in result.functions if one.domain != STORED])
    replace_items(result.opset_import, [entry for entry in result.opset_import if entry.domain != STORED])
    drop_unread(result)
    return result


def _unpacking(graph: onnx.GraphProto) -> dict[int, onnx.NodeProto]:
    """The nodes that put weights together, by their index. Should another program have made such nodes: what they make
    of constants is constant as well."""
    constants = constants_of(graph)
    return {
        index: node
        for index, node in enumerate(graph.node)
        if node.domain == STORED and len(node.output) == 1 and all(name in constants for name in node.input)
    }


def _unpacked(
    model: onnx.ModelProto, graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]
) -> list[onnx.TensorProto]:
    """Computed by ONNX Runtime, as when the file is loaded."""
    if not nodes:
        return []
    alone = onnx.ModelProto(ir_version=model.ir_version, functions=model.functions)
    domains = (STORED, *STANDARD_DOMAINS)
    alone.opset_import.extend(entry for entry in model.opset_import if entry.domain in domains)
    constants = constants_of(graph)
    read = dict.fromkeys(name for node in nodes for name in node.input)
    names = [node.output[0] for node in nodes]
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    tensors = [renamed(constants[name], name) for name in read]
    alone.graph.CopyFrom(helper.make_graph(nodes, "weights", [], outputs, tensors))
    try:
        found = dense_session(alone).run(names, {})
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(
            f"the weights that are stored without their zeros ({', '.join(names)}) are damaged: {str(error).strip()}"
        ) from error
    return [numpy_helper.from_array(np.asarray(weight), name) for weight, name in zip(found, names, strict=True)]


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The constants of a graph that may be stored without their zeros."""
    of_ops = {name for node in graph.node if node.domain == DOMAIN for name in node.input}
    for name, tensor in constants_of(graph).items():
        if tensor.data_type in STORABLE and name not in of_ops and tensor.data_location != TensorProto.EXTERNAL:
            yield renamed(tensor, name)


def _ways(tensor: onnx.TensorProto, half: bool, taken: set[str]) -> list[_Way]:
    """How a weight can be stored in fewer bytes."""
    weight = array_of(tensor)
    if weight.size >= MOST or weight.nbytes < FRAMING:
        return []
    rest = weight.dtype.type(0) if tensor.data_type in FLOATS else _most_frequent(weight)
    kept = np.asarray(weight != rest)
    halved = half and is_halved(tensor)
    if not halved and np.count_nonzero(kept) > WORTHWHILE * weight.size:
        return []
    stored = weight.astype(np.float16) if halved else weight
    arrays = {
        "mask": np.frombuffer(weights.bitmask(kept), np.uint8).reshape(-1, 1),
        "gaps": np.frombuffer(weights.gaps(kept), np.uint8),
        "values": np.concatenate([np.asarray([rest], stored.dtype), stored[kept]]),
        "shape": np.asarray(weight.shape, np.int64),
        **({"halves": stored} if halved else {}),
    }
    parts = {
        part: numpy_helper.from_array(np.asarray(array), unused(f"{tensor.name}.{part}", taken))
        for part, array in arrays.items()
    }
    reads = {
        "FromBitmask": ("mask", "values", "shape"),
        "FromGaps": ("gaps", "values", "shape"),
        "FromHalves": ("halves",),
    }
    ways = []
    for function, read in reads.items():
        if parts.keys() >= set(read):
            constants = tuple(parts[part] for part in read)
            names = [constant.name for constant in constants]
            node = helper.make_node(function, names, [tensor.name], domain=STORED, to=tensor.data_type)
            ways.append(_Way(function, node, constants))
    return [way for way in ways if way.size <= WORTHWHILE * tensor.ByteSize()]


def _most_frequent(numbers: NDArray[np.generic]) -> np.generic:
    found, counts = np.unique(numbers, return_counts=True)
    most: np.generic = found[np.argmax(counts)]
    return most


def _fewest_bytes(
    found: Sequence[tuple[onnx.TensorProto, Sequence[_Way]]], functions: Mapping[str, onnx.FunctionProto]
) -> frozenset[str]:
    """The functions with which the file is smallest, their own bytes included."""

    def saved(used: Collection[str]) -> int:
        weights_ = ((tensor, _smallest(tensor, ways, used)) for tensor, ways in found)
        less = sum(tensor.ByteSize() + FRAMING - way.size for tensor, way in weights_ if way is not None)
        return int(less - sum(functions[name].ByteSize() + FRAMING for name in used))

    counts = range(len(FUNCTIONS) + 1)
    some = [frozenset(names) for count in counts for names in combinations(FUNCTIONS, count)]
    return max(some, key=saved)


def _smallest(tensor: onnx.TensorProto, ways: Iterable[_Way], used: Collection[str]) -> _Way | None:
    """The way of fewest bytes among those whose functions are in the file; None if the weight stays as it is."""
    return min((way for way in ways if way.function in used), key=lambda way: way.size, default=None)


def _store(graph: onnx.GraphProto, chosen: Mapping[str, _Way]) -> None:
    """Takes weights out of a graph and puts in what makes them."""
    if not chosen:
        return
    whole = constants_of(graph)
    graph.value_info.extend(
        helper.make_tensor_value_info(name, whole[name].data_type, whole[name].dims) for name in chosen
    )
    others = [node for node in graph.node if not (is_standard(node, "Constant") and node.output[0] in chosen)]
    replace_items(graph.node, [*(way.node for way in chosen.values()), *others])
    stored = [tensor for way in chosen.values() for tensor in way.constants]
    replace_items(graph.initializer, [*(one for one in graph.initializer if one.name not in chosen), *stored])


def _function(name: str, opset: int) -> onnx.FunctionProto:
    imports = f'<opset_import: ["" : {opset}], domain: "{STORED}">'
    function: onnx.FunctionProto = onnx.parser.parse_function(f"{imports} {name} {FUNCTIONS[name]}")
    return function
