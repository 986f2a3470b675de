"""A network that returns inner values too."""

from collections.abc import Iterable, Mapping

import onnx
from onnx import helper

from gossamer.graph.messages import copied
from gossamer.graph.ops import DOMAIN


def with_outputs(
    model: onnx.ModelProto, values: Iterable[str], panels: Mapping[str, tuple[str, int]] | None = None
) -> onnx.ModelProto:
    """The network with further outputs; it is a copy.

    Args:
        values: what to return; those that it returns already are left out.
        panels: value -> its panel and the number of channels, for values that are there as panels alone.
    """
    wider = copied(model)
    made = {name for node in model.graph.node for name in node.output}
    returned = {value.name for value in model.graph.output}
    for value in dict.fromkeys(values):
        if value not in made and panels:
            panel, channels = panels[value]
            wider.graph.node.append(helper.make_node("FromPanel", [panel], [value], domain=DOMAIN, channels=channels))
        if value not in returned:
            wider.graph.output.append(onnx.ValueInfoProto(name=value))
    return wider
