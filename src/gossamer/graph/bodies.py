"""The bodies of an If, a Loop or a Scan: graphs inside of nodes, which see the values around them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx

from gossamer.graph.graph import Graph, constants_of
from gossamer.graph.open_axes import graphs_of


@dataclass(frozen=True)
class Body:
    """A graph inside of a node."""

    kind: str
    """The kind of the node."""
    name: str
    """Which of all bodies it is."""
    nodes: tuple[onnx.NodeProto, ...]
    own: Mapping[str, onnx.TensorProto]
    """Constants that stand in it."""
    around: Mapping[str, onnx.TensorProto]
    """Constants that it sees from outside."""

    @property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        return {**self.around, **self.own}

    def owner(self, value: str) -> str:
        """Where a constant stands: in this body, or around it."""
        return self.name if value in self.own else ""


def bodies_of(graph: Graph) -> Iterator[Body]:
    """All of them, those inside of others too."""
    yield from _within(graph.nodes, graph.tensors, "")


def _within(nodes: Iterable[onnx.NodeProto], around: Mapping[str, onnx.TensorProto], path: str) -> Iterator[Body]:
    for index, node in enumerate(nodes):
        for number, graph in enumerate(graph for graph in graphs_of(node) if graph.node):
            made = {name for inner in graph.node for name in inner.output} | {value.name for value in graph.input}
            own = constants_of(graph)
            seen = {name: tensor for name, tensor in around.items() if name not in made}
            body = Body(node.op_type, f"{path}/{index}.{number}", tuple(graph.node), own, seen)
            yield body
            yield from _within(body.nodes, body.tensors, body.name)
