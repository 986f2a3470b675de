"""A network that returns inner values too."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import onnx
from onnx import helper

from gossamer.graph.messages import copied, replace_items
from gossamer.graph.ops import DOMAIN


class Panel(NamedTuple):
    """A value that is there as a panel."""

    name: str
    channels: int
    quantised: bool = False
    """Whether it is one of bytes."""


def with_outputs(
    model: onnx.ModelProto, values: Iterable[str], panels: Mapping[str, Panel] | None = None
) -> onnx.ModelProto:
    """The network with further outputs; it is a copy.

    Args:
        values: what to return; those that it returns already are left out.
        panels: value -> its panel, for values that are there as panels alone; those of bytes are returned as uint8.
    """
    wider = copied(model)
    made = {name for node in model.graph.node for name in node.output}
    returned = {value.name for value in model.graph.output}
    for value in dict.fromkeys(values):
        if value not in made and panels:
            panel = panels[value]
            kind = "QuantisedFromPanel" if panel.quantised else "FromPanel"
            planes = helper.make_node(kind, [panel.name], [value], domain=DOMAIN, channels=panel.channels)
            wider.graph.node.append(planes)
        if value not in returned:
            wider.graph.output.append(onnx.ValueInfoProto(name=value))
    return wider


def returning(model: onnx.ModelProto, values: Collection[str]) -> onnx.ModelProto:
    """The network that returns these values alone, so that ONNX Runtime computes nothing but what they follow from."""
    result = with_outputs(model, values)
    replace_items(result.graph.output, [output for output in result.graph.output if output.name in values])
    return result
