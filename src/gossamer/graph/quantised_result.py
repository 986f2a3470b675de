"""How values of floats become bytes: by QuantizeLinear, behind a ReLU or clip perhaps."""

from dataclasses import dataclass

from gossamer.graph.applied import activation_of
from gossamer.graph.graph import Graph
from gossamer.graph.quantisation import Bytes, Quantisation, Unsuited, is_quantise, quantisation_at


@dataclass(frozen=True)
class Result:
    """Bytes that all readers of a value read in its place."""

    output: Bytes
    nodes: tuple[int, ...]
    """The activation function and QuantizeLinear."""
    lower: int = 0
    upper: int = 255
    """What the activation function comes to."""


def result_of(graph: Graph, value: str) -> Result:
    """The bytes that a value of floats becomes, and nothing else.

    Raises:
        Unsuited: other nodes read it, or its activation function is no clip.
    """
    applied = activation_of(graph, value)
    nodes = () if applied is None else applied.nodes
    value = value if applied is None else applied.output
    index = graph.only_reader(value)
    if index is None or not is_quantise(graph.nodes[index]) or graph.nodes[index].input[0] != value:
        raise Unsuited("its result is not quantised")
    node = graph.nodes[index]
    made = quantisation_at(graph, node, 1, 2)
    lower, upper = 0, 255
    if applied is not None:
        if applied.activation.name not in ("relu", "clip"):
            raise Unsuited("its activation function is applied before its result is quantised")
        least = 0.0 if applied.activation.name == "relu" else applied.activation.lower
        most = applied.activation.upper
        lower = 0 if least is None else made.of(least)
        upper = 255 if most is None else made.of(most)
    return Result(Bytes(node.output[0], made), (*nodes, index), lower, upper)


def plain_result(output: str, made: Quantisation) -> Result:
    """That of an op which makes bytes itself."""
    return Result(Bytes(output, made), ())
