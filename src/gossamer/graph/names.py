"""Names of a graph's values and nodes: ONNX wants each of them once."""

from collections.abc import Iterator, Mapping

import onnx

from gossamer.graph.messages import replace_items
from gossamer.graph.open_axes import graphs_in


def names_of_values(model: onnx.ModelProto) -> set[str]:
    """All that nodes make or read and that the network takes, returns or holds, within its subgraphs too."""
    return {name for graph in graphs_in(model.graph) for name in _names(graph) if name}


def unused(name: str, taken: set[str], separator: str = ".") -> str:
    """The name, with a number behind a separator if it is taken; it is taken then."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}{separator}{number}"
    taken.add(candidate)
    return candidate


def rename_values(model: onnx.ModelProto, new: Mapping[str, str]) -> None:
    """Gives values other names, in place, wherever they are made, read, held or described.

    Args:
        new: name -> the new one, for none of the network's inputs and outputs.
    """
    for graph in graphs_in(model.graph):
        for node in graph.node:
            for names in (node.input, node.output):
                replace_items(names, [new.get(name, name) for name in names])
        for described in (
            # Of bodies: the network's own keep their names.
            *graph.input,
            *graph.output,
            *graph.value_info,
            *graph.initializer,
            *(tensor.values for tensor in graph.sparse_initializer),
        ):
            described.name = new.get(described.name, described.name)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from (*node.input, *node.output)
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
