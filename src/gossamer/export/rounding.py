"""What rounding alone may change in a network's outputs.

Whoever adds in another order computes exactly what a network of slightly other weights computes: a sum of n terms is,
however it is added, the exact sum of terms that are each off by at most n units in the last place, and by about sqrt(n)
of them if roundings are independent (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, 2019).
So a network whose weights are moved by that much shows on the very inputs how far its outputs follow the roundings of
the terms that are summed: through sums that cancel, functions that saturate, and all that comes behind them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.graph.graph import Graph, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.sessions import Feed, Run, dense_session
from gossamer.graph.values import arrays_in

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
FEW = 8
"""Constants with fewer numbers may be sizes, scales or bounds, which others follow by jumps."""
MARGIN = 5
"""Times what moving changes. Largest seen: 2 where terms are of all kinds, 3 where all of a sum are one number."""
LAST_PLACES = 4
"""Last places of an output itself, in which networks may differ whatever moving shows."""
WITHOUT = 1e-4
"""The share of an output's largest number that is allowed where a network with moved weights does not run."""
SEED = 0


@dataclass(frozen=True)
class Agreement:
    """How two networks compare on the same inputs."""

    difference: float
    """Largest absolute difference of an output."""
    largest: float
    """Largest absolute output of the first."""
    allowed: float = 0.0
    """What rounding explains of the difference."""
    reader: str | None = None
    """The first sparse layer that reads infinite values or NaN, if outputs are therefore compared only where those of
    the dense network are not NaN (`gossamer.export.infinities`)."""
    same_bytes: float | None = None
    """The share of the values of quantised ops, each on the same inputs, that are the same bytes; the others differ by
    one step. None without such ops."""
    same_floats: float | None = None
    """Likewise of quantised ops that make floats; the others differ by rounding."""

    @property
    def within(self) -> bool:
        """Whether rounding explains the difference; not if one is NaN."""
        return self.difference <= self.allowed


@dataclass(frozen=True)
class Rounding:
    """What rounding changes in the outputs of a network on some inputs."""

    model: onnx.ModelProto
    """Its constants are initializers."""
    feeds: Sequence[Feed]
    outputs: Sequence[str] | None = None
    """The outputs that are asked for, by name and each a tensor; None: all."""
    run: Run | None = None
    """What computes those outputs of the model, where it is open already."""

    def explained(self, index: int, found: Agreement, kind: np.dtype[Any], share: float = 0.0) -> Agreement:
        """An output's difference, with what rounding explains of it.

        Args:
            index: of the output.
            kind: its type.
            share: of its largest number, that is allowed besides.
        """
        # Moved networks say more, and are made and run only where that is asked for.
        least = self.least(found.largest, kind)
        if not found.difference <= least:
            least = self.allowed(index, found.largest, kind) + share * found.largest
        return replace(found, allowed=least)

    @staticmethod
    def least(largest: float, kind: np.dtype[Any]) -> float:
        """What it explains whatever the network: the last places of an output itself."""
        return LAST_PLACES * last_place(kind) * largest + smallest_normal(kind)

    def allowed(self, index: int, largest: float, kind: np.dtype[Any]) -> float:
        """The largest difference of an output that rounding explains.

        Args:
            index: of the output.
            largest: its largest number.
            kind: its type.
        """
        changes = self.changes
        if changes is None:
            return WITHOUT * largest
        change = changes[index] if index < len(changes) else 0.0
        return MARGIN * change + self.least(largest, kind)

    @cached_property
    def changes(self) -> list[float] | None:
        """The largest of each output; None if moved weights do not fit the network."""
        try:
            run = self.run or self._running(self.model)
            moving = [self._running(moved(self.model, together=together)) for together in (False, True)]
            changes: list[float] = []
            for number, feed in enumerate(self.feeds):
                outputs, other = run(feed), moved_inputs(feed)
                # Of many feeds each is run with one of them.
                for way in moving if len(self.feeds) == 1 else [moving[number % 2]]:
                    found = [_change(*pair) for pair in zip(outputs, way(other), strict=True)]
                    changes = [max(pair) for pair in zip_longest(changes, found, fillvalue=0.0)]
        except Exception:  # onnxruntime's errors have no common class
            return None
        return changes

    def _running(self, model: onnx.ModelProto) -> Run:
        session = dense_session(model)
        names = None if self.outputs is None else list(self.outputs)
        return lambda feed: arrays_in(session.run(names, dict(feed)))


def moved(model: onnx.ModelProto, *, together: bool) -> onnx.ModelProto:
    """The network with the numbers of its floating-point constants moved by what rounding may do to the terms that they
    are in, and the results of functions that are approximated by the last place of what they reach.

    Args:
        together: move all numbers of a constant the same way, as roundings of terms do that are all alike.
    """
    rng = np.random.default_rng(SEED)
    result = copied(model)
    graph = Graph(model)
    terms = dict(_terms_summed(graph))
    for tensor in result.graph.initializer:
        if tensor.name in graph.tensors and tensor.data_type in FLOATS and math.prod(tensor.dims) >= FEW:
            steps = math.sqrt(max(1.0, terms.get(tensor.name, 1.0)))
            values = _moved(numpy_helper.to_array(tensor), steps, rng, together=together)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    up = -1 if together else 1
    nodes = [step for node in model.graph.node for step in _with_moved_function(node, up)]
    replace_items(result.graph.node, nodes)
    return result


def moved_inputs(feed: Feed) -> Feed:
    """Inputs moved by their last place; whole numbers, which may count or name something, stay."""
    rng = np.random.default_rng(SEED)
    other = dict(feed)
    for name, values in feed.items():
        if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating):
            numbers: NDArray[np.floating[Any]] = values.astype(values.dtype)
            other[name] = np.where(numbers == np.round(numbers), numbers, _moved(numbers, 1.0, rng, together=False))
    return other


def last_place(kind: np.dtype[Any]) -> float:
    """The last place of the number 1 in this type; 0 for whole numbers."""
    return float(np.finfo(kind).eps) if np.issubdtype(kind, np.floating) else 0.0


def smallest_normal(kind: np.dtype[Any]) -> float:
    """Below it numbers have fewer digits, down to none, and some processors make 0 of them; 0 for whole numbers."""
    return float(np.finfo(kind).tiny) if np.issubdtype(kind, np.floating) else 0.0


def _moved(values: NDArray[Any], steps: float, rng: np.random.Generator, *, together: bool) -> NDArray[Any]:
    # Zeros and infinities stay what they are.
    moving = (values != 0) & np.isfinite(values)
    wide = np.asarray(values[moving], np.float64)
    signs = rng.integers(0, 2, () if together else wide.shape, np.int8) * 2 - 1
    # The places of a number below the smallest normal one are those of that.
    sizes = np.maximum(np.abs(wide), smallest_normal(values.dtype))
    result = np.array(values)
    with np.errstate(all="ignore"):
        result[moving] = (wide + signs * (steps * last_place(values.dtype)) * sizes).astype(values.dtype)
    return result


def _terms_summed(graph: Graph) -> Iterator[tuple[str, float]]:
    """Weight -> how many terms that are not zero an output of its op adds up, on average."""
    for node in graph.nodes:
        if is_standard(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
            for name in node.input[:2]:
                weight = graph.constant(name)
                if weight is not None and weight.ndim > 1:
                    outputs = weight.shape[0] if node.op_type == "Conv" else min(weight.shape[0], weight.shape[-1])
                    yield name, np.count_nonzero(weight) / max(1, outputs)


def _with_moved_function(node: onnx.NodeProto, up: int) -> list[onnx.NodeProto]:
    """Sigmoid, Tanh and Erf are computed as exactly as 1 is stored, however near to 0 they come; Gelu is a multiple of
    such a function."""
    if not is_standard(node, "Sigmoid", "Tanh", "Erf", "Gelu"):
        return [node]
    output = node.output[0]
    function = copied(node)
    function.output[0] = f"{output}.unmoved"
    place, step = f"{output}.place", f"{output}.place"
    eps = helper.make_tensor("", TensorProto.FLOAT, [], [up * float(np.finfo(np.float32).eps)])
    nodes = [function, helper.make_node("Constant", [], [place], value=eps)]
    if node.op_type == "Gelu":
        step = f"{output}.step"
        nodes.append(helper.make_node("Mul", [node.input[0], place], [step]))
    return [*nodes, helper.make_node("Add", [function.output[0], step], [output])]


def _change(before: NDArray[np.generic], after: NDArray[np.generic]) -> float:
    """The largest; infinite where a number is finite in one alone."""
    if not np.issubdtype(before.dtype, np.number) and before.dtype != np.bool_:
        return 0.0
    with np.errstate(all="ignore"):
        difference = np.abs(np.asarray(before, np.float64) - np.asarray(after, np.float64))
    if (np.isfinite(before) != np.isfinite(after)).any():
        return math.inf
    return float(difference[np.isfinite(difference)].max(initial=0.0))
