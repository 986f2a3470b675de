"""A graph in few bytes: short names, and nothing that only people read."""

from collections.abc import Iterator, Mapping
from itertools import count

import onnx

from gossamer.export.defaults import without_defaults
from gossamer.export.provenance import NEEDS, PRODUCER, with_facts
from gossamer.graph.messages import replace_items
from gossamer.graph.names import names_of_values, rename_values
from gossamer.graph.open_axes import axes_in, graphs_in

DIGITS = "abcdefghijklmnopqrstuvwxyz"


def slim(model: onnx.ModelProto, facts: Mapping[str, str]) -> onnx.ModelProto:
    """The same network with inner values and constants called a, b, c, ..., without names of nodes, types of inner
    values, descriptions, and attributes that say what is meant without them; what it takes and returns keeps its names,
    and their open axes as few letters of theirs as tell them apart.

    Args:
        facts: what its metadata say, besides what it needs.
    """
    result = without_defaults(model)
    public = {value.name for value in (*model.graph.input, *model.graph.output)}
    short = _names(public)
    rename_values(result, {name: next(short) for name in sorted(names_of_values(model) - public)})
    for graph in graphs_in(result.graph):
        graph.name, graph.doc_string = "g", ""
        replace_items(graph.value_info, [])
        for node in graph.node:
            node.name = node.doc_string = ""
            replace_items(node.metadata_props, [])
    letters = _beginnings({axis.dim_param for axis in axes_in(result) if axis.dim_param})
    for axis in axes_in(result):
        if axis.dim_param:
            axis.dim_param = letters[axis.dim_param]
    needed = [entry.value for entry in model.metadata_props if entry.key == NEEDS]
    result.producer_name, result.producer_version = PRODUCER, ""
    result.doc_string = " ".join(["needs", *needed]) if needed else ""
    replace_items(result.metadata_props, [])
    return with_facts(result, facts)


def _beginnings(names: set[str]) -> dict[str, str]:
    """Name -> as many of its first letters as no other name begins with; all of it, if another begins with it."""
    found = {}
    for name in names:
        ends = (end for end in range(1, len(name)) if not any(other.startswith(name[:end]) for other in names - {name}))
        found[name] = name[: next(ends, len(name))]
    return found


def _names(taken: set[str]) -> Iterator[str]:
    """a, b, ..., z, ba, bb, ..., those that are taken left out."""
    for number in count():
        name, left = "", number
        while not name or left:
            left, digit = divmod(left, len(DIGITS))
            name = DIGITS[digit] + name
        if name not in taken:
            yield name
