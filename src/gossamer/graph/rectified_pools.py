"""A max pooling with a ReLU or clip behind it, as in PyTorch's own example of MNIST: the other way round.

Functions that never fall can be exchanged with a maximum, and next to the convolution the function is part of it: on
panels from one layer to the next, and bytes keep the range above zero, which is all that remains in the end.
"""

import onnx

from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.graph import Graph, attributes_of, is_standard
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused

FUNCTIONS = ("Clip", "Relu")


def rectify_before_pooling(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with every ReLU or clip behind the max pooling of a convolution before that pooling."""
    graph = Graph(model)
    exchanged = [
        (pool, reader) for pool in range(len(graph.nodes)) if (reader := _function_behind(graph, pool)) is not None
    ]
    if not exchanged:
        return model
    result = copied(model)
    taken = names_of_values(model)
    gone = set[str]()
    for pool_index, function_index in exchanged:
        pool, function = result.graph.node[pool_index], result.graph.node[function_index]
        gone.add(pool.output[0])
        rectified, pooled = unused(f"{pool.input[0]}.rectified", taken), function.output[0]
        before, attributes = copied(function), copied(pool)
        replace_items(before.input, [pool.input[0], *function.input[1:]])
        replace_items(before.output, [rectified])
        replace_items(attributes.input, [rectified])
        replace_items(attributes.output, [pooled])
        pool.CopyFrom(before)
        function.CopyFrom(attributes)
    replace_items(result.graph.value_info, [value for value in result.graph.value_info if value.name not in gone])
    drop_unread(result)
    return result


def _function_behind(graph: Graph, pool: int) -> int | None:
    """The function that alone reads what a max pooling makes of a convolution's result; None if they cannot be
    exchanged."""
    node = graph.nodes[pool]
    if not is_standard(node, "MaxPool") or len(node.output) != 1 or graph.only_reader(node.input[0]) != pool:
        return None
    made = graph.producers.get(node.input[0])
    reader = graph.only_reader(node.output[0])
    if made is None or not is_standard(graph.nodes[made], "Conv") or reader is None:
        return None
    function = graph.nodes[reader]
    constant = all(not name or name in graph.tensors for name in function.input[1:])
    return reader if is_standard(function, *FUNCTIONS) and constant and _has_pixels(node) else None


def _has_pixels(pool: onnx.NodeProto) -> bool:
    """Whether every window has a pixel that is no padding: the maximum of none is no number of the function's."""
    attributes = attributes_of(pool)
    dilations = attributes.get("dilations", [1])
    plain = not attributes.get("ceil_mode", 0) and attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    return plain and isinstance(dilations, list) and all(dilation == 1 for dilation in dilations)
