"""ONNX's messages, which are changed in place: copies of them, and lists with other content."""

from collections.abc import Callable, Iterable, MutableSequence
from typing import Any, TypeVar

import onnx

M = TypeVar("M", bound=Any)


def copied(message: M) -> M:
    """One of its own with the same content."""
    result: M = type(message)()
    result.CopyFrom(message)
    return result


def replace_items(field: MutableSequence[Any], items: Iterable[Any]) -> None:
    """Gives a repeated field other content, its own among it perhaps."""
    kept = list(items)
    del field[:]
    field.extend(kept)


def without_contents(model: onnx.ModelProto, without: Callable[[onnx.TensorProto], bool]) -> onnx.ModelProto:
    """A copy in which some initializers have name, type and shape alone; what they hold is not copied first.

    Args:
        without: which of them.
    """
    light = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        functions=model.functions,
        metadata_props=model.metadata_props,
        graph=onnx.GraphProto(
            name=model.graph.name,
            node=model.graph.node,
            input=model.graph.input,
            output=model.graph.output,
            value_info=model.graph.value_info,
            sparse_initializer=model.graph.sparse_initializer,
            quantization_annotation=model.graph.quantization_annotation,
        ),
    )
    for tensor in model.graph.initializer:
        if without(tensor):
            light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            light.graph.initializer.append(tensor)
    return light
