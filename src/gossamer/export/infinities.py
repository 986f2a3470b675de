"""Values in a network that are infinite or NaN: a dense layer makes NaN of them with its zeros, a sparse one does not.

0 x inf is NaN, and a weight that is not stored is not multiplied. So where a sparse layer reads such values (logarithms
of negative numbers, say, or numbers that overflow), the dense network's outputs may be NaN and its own may not.
"""

from collections.abc import Iterable

import numpy as np
import onnx

from gossamer.export.rewrite import Rewritten
from gossamer.graph.graph import Graph
from gossamer.graph.layers import find_layers
from gossamer.graph.outputs import with_outputs
from gossamer.graph.sessions import Feed, dense_session


def first_reader(dense: onnx.ModelProto, rewritten: Rewritten, feeds: Iterable[Feed]) -> str | None:
    """The first sparse layer, in the graph's order, that reads a value that is infinite or NaN; None if none does.

    Args:
        dense: as it was rewritten; its constants are initializers.
    """
    graph = Graph(dense)
    layers = zip(find_layers(graph), rewritten.of_floats, strict=True)
    sources = {layer.source: report.name for layer, report in reversed(list(layers)) if report.form == "sparse"}
    inner = [value for value in sources if value in graph.producers]
    session = dense_session(with_outputs(dense, inner))
    found: set[str] = set()
    for feed in feeds:
        made = session.run(inner, dict(feed)) if inner else []
        values = {**feed, **dict(zip(inner, made, strict=True))}
        found.update(value for value in sources if not np.isfinite(values[value]).all())
    return next((sources[value] for value in reversed(sources) if value in found), None)
