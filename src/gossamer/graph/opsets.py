"""Networks of older versions of ONNX's own ops, converted."""

import onnx
import onnx.version_converter

from gossamer.errors import ExportError, first_line
from gossamer.graph.graph import Graph


def with_opset(model: onnx.ModelProto, oldest: int, needed_by: str) -> onnx.ModelProto:
    """The same network of this opset, as ONNX converts it, or of its own if that is not older.

    Args:
        needed_by: what needs the opset, for people.

    Raises:
        ExportError: ONNX cannot convert it.
    """
    opset = Graph(model).opset
    if opset >= oldest:
        return model
    try:
        return onnx.version_converter.convert_version(model, oldest)
    except Exception as error:  # they have no common class
        raise ExportError(
            f"the network is of opset {opset}, {needed_by} {oldest}, and ONNX cannot convert it ({first_line(error)}); "
            f"export it again in a newer opset"
        ) from error
