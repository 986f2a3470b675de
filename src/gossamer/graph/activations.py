"""The activation functions of the ops of the domain `gossamer` (docs/format.md), one table: in one node of ONNX, and as
ONNX's own nodes again."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from gossamer.graph.graph import Graph, attributes_of, is_standard

GELU_OPSET = 20


@dataclass(frozen=True)
class Activation:
    """What an op does to a sum before it stores it."""

    name: str = "none"
    lower: float | None = None
    upper: float | None = None
    """The upper bound of a clip; None is no bound."""
    slope: float | None = None
    """The slope of a leaky ReLU, below 0."""

    @property
    def attributes(self) -> dict[str, str | float]:
        """The attributes of the op."""
        numbers = {name: getattr(self, name) for name in FUNCTIONS[self.name].numbers}
        return {"activation": self.name} | {name: number for name, number in numbers.items() if number is not None}

    @property
    def curved(self) -> bool:
        """Whether it takes many instructions."""
        return FUNCTIONS[self.name].curved

    @property
    def steepest(self) -> float:
        """What it makes at most of a difference of two sums, times that."""
        return FUNCTIONS[self.name].steepest(self)


class DenseNodes(Protocol):
    """A graph of ONNX's own ops under construction."""

    def node(self, kind: str, inputs: list[str], output: str, **attributes: float) -> str:
        """Adds a node; its output's name."""

    def scalar(self, value: float, name: str) -> str:
        """Adds a constant, under a name as near to this one as can be."""

    def value(self, name: str) -> str:
        """A name for a value, as near to this one as can be."""

    def need_opset(self, version: int) -> None:
        """Says what version of ONNX's own ops the graph is of at least."""


@dataclass(frozen=True)
class Function:
    """How ONNX writes an activation function."""

    read: Callable[[Graph, onnx.NodeProto], Activation | None]
    """A node that is nothing else; None for other nodes."""
    write: Callable[[DenseNodes, str, str, Mapping[str, float]], str]
    """Adds nodes that apply it, from a value to another with this name."""
    numbers: tuple[str, ...] = ()
    """Attributes of the op that belong to it."""
    curved: bool = False
    steepest: Callable[[Activation], float] = lambda activation: 1.5
    """Hard swish is the steepest of those without a number of its own."""


def _none(graph: Graph, node: onnx.NodeProto) -> None:
    return None


def _kind(kind: str, name: str) -> Callable[[Graph, onnx.NodeProto], Activation | None]:
    return lambda graph, node: Activation(name) if is_standard(node, kind) else None


def _node(kind: str) -> Callable[[DenseNodes, str, str, Mapping[str, float]], str]:
    return lambda nodes, source, to, numbers: nodes.node(kind, [source], to)


def _read_gelu(graph: Graph, node: onnx.NodeProto) -> Activation | None:
    exact = is_standard(node, "Gelu") and attributes_of(node).get("approximate", b"none") == b"none"
    return Activation("gelu") if exact else None


def _write_gelu(nodes: DenseNodes, source: str, to: str, numbers: Mapping[str, float]) -> str:
    nodes.need_opset(GELU_OPSET)
    return nodes.node("Gelu", [source], to)


def _write_silu(nodes: DenseNodes, source: str, to: str, numbers: Mapping[str, float]) -> str:
    return nodes.node("Mul", [source, nodes.node("Sigmoid", [source], nodes.value(f"{to}.sigmoid"))], to)


def _read_clip(graph: Graph, node: onnx.NodeProto) -> Activation | None:
    if not is_standard(node, "Clip"):
        return None
    attributes = attributes_of(node)
    bounds: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        if len(node.input) > index and node.input[index]:
            bound = scalar(graph, node.input[index])
            if bound is None:
                return None
            bounds.append(bound)
        else:
            given = attributes.get(name)
            bounds.append(float(given) if isinstance(given, float) else None)
    lower, upper = bounds
    if lower is not None and upper is not None and lower > upper:
        return None
    return Activation("clip", lower, upper)


def _write_clip(nodes: DenseNodes, source: str, to: str, numbers: Mapping[str, float]) -> str:
    limits = numbers.get("lower", -math.inf), numbers.get("upper", math.inf)
    bounds = [nodes.scalar(limit, f"{to}.limit{index}") for index, limit in enumerate(limits)]
    return nodes.node("Clip", [source, *bounds], to)


def _read_leaky_relu(graph: Graph, node: onnx.NodeProto) -> Activation | None:
    slope = float(str(attributes_of(node).get("alpha", 0.01))) if is_standard(node, "LeakyRelu") else math.nan
    return Activation("leakyrelu", slope=slope) if math.isfinite(slope) else None


def _write_leaky_relu(nodes: DenseNodes, source: str, to: str, numbers: Mapping[str, float]) -> str:
    return nodes.node("LeakyRelu", [source], to, alpha=numbers.get("slope", 0.01))


FUNCTIONS = {
    "none": Function(_none, _node("Identity")),
    "relu": Function(_kind("Relu", "relu"), _node("Relu")),
    "clip": Function(_read_clip, _write_clip, ("lower", "upper")),
    "hardswish": Function(_kind("HardSwish", "hardswish"), _node("HardSwish"), curved=True),
    "silu": Function(_none, _write_silu, curved=True),
    "gelu": Function(_read_gelu, _write_gelu, curved=True),
    "leakyrelu": Function(
        _read_leaky_relu, _write_leaky_relu, ("slope",), steepest=lambda found: max(1.0, abs(found.slope or 0.0))
    ),
}
ATTRIBUTES = ("activation", *dict.fromkeys(name for function in FUNCTIONS.values() for name in function.numbers))
"""Attributes of an op with an activation function."""


def activation_node(graph: Graph, node: onnx.NodeProto) -> Activation | None:
    """The activation function that a node is."""
    found = (function.read(graph, node) for function in FUNCTIONS.values())
    return next((activation for activation in found if activation is not None), None)


def scalar(graph: Graph, name: str) -> float | None:
    """The number that a constant holds; None if it holds another number of them, NaN, or is none."""
    value = graph.constant(name)
    if value is None or value.size != 1 or not np.issubdtype(value.dtype, np.number):
        return None
    number = float(np.asarray(value, np.float64).reshape(()))
    return None if math.isnan(number) else number
