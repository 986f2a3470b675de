"""ONNX files, read."""

from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError

from gossamer.errors import ExportError, first_line
from gossamer.graph.messages import replace_items
from gossamer.graph.open_axes import with_open_axes
from gossamer.graph.ops import STORED, is_sparse
from gossamer.graph.sessions import Opened
from gossamer.storage.files import regular

OLDEST_COMPLETE_IR = 4
"""Before this version of ONNX every initializer had to be an input too."""


def read_onnx(path: Path, *, external: bool = True) -> onnx.ModelProto:
    """An ONNX file, as it is.

    Args:
        external: whether to read its external data, too.

    Raises:
        ExportError: it is missing, damaged, or holds no network.
    """
    try:
        model = onnx.load(regular(path, links=True), load_external_data=external)
    except FileNotFoundError as error:
        raise ExportError(f"there is no file {error.filename or path}; expected an ONNX file") from error
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{path} is no valid ONNX file: {first_line(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ExportError(f"{path} holds no network; expected an ONNX file with nodes")
    return model


def read_dense(path: Path) -> Opened:
    """An ONNX file of ONNX's own ops, checked, with only those inputs that somebody has to give.

    Raises:
        ExportError: it is missing, damaged, or no dense network.
    """
    model = with_open_axes(read_onnx(path))
    if is_sparse(model):
        raise ExportError(f"{path} already holds sparse ops of gossamer; give the dense file that it was made from")
    opened = Opened(model)
    try:
        # Who runs the network is also who says whether it is one.
        opened.session  # noqa: B018
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(f"{path} is no valid ONNX file: {first_line(error)}") from error
    if model.ir_version >= OLDEST_COMPLETE_IR and not model.functions:
        return opened
    if model.ir_version < OLDEST_COMPLETE_IR:
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        replace_items(model.graph.input, inputs)
        model.ir_version = OLDEST_COMPLETE_IR
    if model.functions:
        stored = [(one.domain, one.name) for one in model.functions if one.domain == STORED]
        model = onnx.inliner.inline_selected_functions(model, stored, exclude=True)
    return Opened(model)
