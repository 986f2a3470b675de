"""A network in fp32 -> the same network quantised, as ONNX Runtime writes it: int8 weights, bytes between layers."""

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

from gossamer.errors import ExportError, first_line
from gossamer.export.quantisable import Quantisable
from gossamer.export.ranges import Ranges, described_as_floats, observed_ranges, quiet
from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.constants import prepared
from gossamer.graph.graph import Graph, array_of, attributes_of, is_standard, renamed
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, rename_values, unused
from gossamer.graph.opsets import with_opset
from gossamer.graph.quantisation import is_dequantise, is_quantise, maker_of
from gossamer.graph.quantised_layers import LARGEST_SUM
from gossamer.graph.sessions import Feed

OPSET = 13
"""The first in which a weight has a scale for each channel."""
TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
BIAS_STEPS = 2.0**20
"""Of a channel whose weights are all zero its bias is so many steps: its weights ask for no scale."""
ADDED = (
    "_DequantizeLinear_Output",
    "_QuantizeLinear_Input",
    "_QuantizeLinear_Output",
    "_quantized",
    "_quantized_scale",
    "_quantized_zero_point",
    "_scale",
    "_zero_point",
)
"""What ONNX Runtime adds to the name of a value that it quantises."""
INFERRED = {"onnx.infer": "onnxruntime.quant"}
"""What ONNX Runtime notes in a model whose types it knows."""


def quantisable(model: onnx.ModelProto) -> Quantisable:
    """The network as it can be quantised: in an opset that has scales of channels, each node with a name of its own.

    Raises:
        ExportError: it is of an older opset, and ONNX cannot convert it.
    """
    result = copied(with_opset(model, OPSET, "int8 weights with a scale for each channel need"))
    _with_own_biases(result)
    _with_own_names(result)
    return Quantisable(Graph(result))


def _with_own_names(model: onnx.ModelProto) -> None:
    """Names every node, and keeps ONNX Runtime from making names that are there: it adds endings to those of values."""
    tensors, names = Graph(model).tensors, names_of_values(model)
    taken = set[str]()
    for node in model.graph.node:
        # Layers without a name are called as their weights.
        weight = next((name for name in node.input[1::-1] if name in tensors), "")
        node.name = unused(node.name or weight or node.op_type, taken)
    borders = {value.name for value in (*model.graph.input, *model.graph.output)}
    clashing = {f"{name}{ending}" for name in names for ending in ADDED} & (names - borders)
    rename_values(model, {name: unused(f"{name}.given", names) for name in sorted(clashing)})


def _with_own_biases(model: onnx.ModelProto) -> None:
    """Gives every layer a bias that nobody else reads, a number for each output, and every Gemm the factor 1 for it:
    ONNX Runtime quantises it in the units of one layer, takes no other shape, and leaves the factor out."""
    graph, taken = Graph(model), names_of_values(model)
    for layer in find_layers(graph):
        main = model.graph.node[layer.nodes[0]]
        of_product = is_standard(main, "MatMul")
        if layer.bias is None and is_standard(main, "Gemm"):
            del main.input[2:]  # a bias that is taken zero times
        if layer.bias is None or (of_product and layer.kind != "linear"):
            continue
        node = model.graph.node[layer.nodes[1]] if of_product else main
        index = next(i for i, name in enumerate(node.input) if name in graph.tensors) if of_product else 2
        name, factor = node.input[index], attributes_of(node).get("beta", 1.0)
        stored = graph.constant(name)
        if stored is not None and stored.shape == layer.bias.shape and len(graph.readers[name]) == 1 and factor == 1:
            continue
        own = numpy_helper.from_array(np.asarray(layer.bias, np.float32), unused(name, taken))
        model.graph.initializer.append(own)
        node.input[index] = own.name
        replace_items(node.attribute, [entry for entry in node.attribute if entry.name != "beta"])
    drop_unread(model)


def quantised(network: Quantisable, layers: Collection[Layer], ranges: Ranges, activations: str) -> onnx.ModelProto:
    """The network with QuantizeLinear and DequantizeLinear around these layers and what stands between them.

    Weights are symmetric, with a scale for each output channel, so that zeros stay zeros; biases are of 32 bits.

    Args:
        ranges: of all values that become bytes.
        activations: `uint8` or `int8`.

    Raises:
        ExportError: ONNX Runtime fails.
    """
    graph = network.graph
    values = network.values(layers)
    model = described_as_floats(graph.model, values)
    onnx.helper.set_model_props(model, {**{p.key: p.value for p in graph.model.metadata_props}, **INFERRED})
    nodes = [graph.nodes[index] for index in network.nodes(layers)]
    seen = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
        if name in values
    }
    try:
        with quiet():
            quantizer = QDQQuantizer(
                model,
                True,  # a scale for each channel
                False,  # all 8 bits
                QuantType.QInt8,
                TYPES[activations],
                TensorsData(CalibrationMethod.MinMax, seen),
                [node.name for node in nodes],
                [],
                sorted({node.op_type for node in nodes}),
                {
                    # Of a product what its bias is added to, and only where somebody reads bytes.
                    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                    "TensorQuantOverrides": {name: [{"axis": 0}] for name in _left_weights(graph, layers)},
                },
            )
            for layer in (layer for layer in layers if network.makes_bytes(layer, layers)):
                quantizer.quantize_activation_tensor(network.result(layer))
            quantizer.quantize_model()
            quantizer.model.topological_sort()
    except Exception as error:  # they have no common class
        raise ExportError(f"ONNX Runtime cannot quantise the network: {first_line(error)}") from error
    result: onnx.ModelProto = quantizer.model.model
    _with_functions(result, graph)
    _with_own_dequantisations(result)
    _read_floats(result, {node.name for node in nodes}, network.made_of_bytes(layers))
    _put_back(result, graph.model)
    _with_fine_biases(result, graph)
    _with_whole_biases(result)
    return result


def quantised_by_minmax(model: onnx.ModelProto, feeds: Iterable[Feed]) -> onnx.ModelProto:
    """The network with all its layers in int8, values between them as uint8 in the ranges that they have on inputs.

    Raises:
        ExportError: it is of an older opset that cannot be converted, or ONNX Runtime fails.
    """
    network = quantisable(prepared(model))
    ranges = observed_ranges(network.graph.model, network.values(network.layers), feeds, "minmax")
    return quantised(network, network.layers, ranges, "uint8")


def _left_weights(graph: Graph, layers: Collection[Layer]) -> list[str]:
    """Weights of products W X, whose output channels are the first axis."""
    found = [graph.nodes[layer.nodes[0]] for layer in layers]
    return [node.input[0] for node in found if node.op_type == "MatMul" and node.input[0] in graph.tensors]


def _with_functions(model: onnx.ModelProto, before: Graph) -> None:
    """Puts back the ReLUs and clips that ONNX Runtime takes out because the range of the bytes behind says the same,
    where it does not: a range holds 0, and sums that something is added to need not become bytes (`rounded_once`)."""
    kept = {node.name for node in model.graph.node}
    taken = names_of_values(model)
    gone = {
        index for index, node in enumerate(before.nodes) if is_standard(node, "Clip", "Relu") and node.name not in kept
    }
    for index in sorted(gone):
        maker = next((node for node in model.graph.node if before.nodes[index].output[0] in node.output), None)
        row = _row_of_functions(before, index, gone)
        if maker is None or not any(_is_needed(before, function) for function in row):
            continue
        functions, value = [copied(before.nodes[function]) for function in row], before.nodes[index].output[0]
        bare = unused(f"{value}.bare", taken)
        replace_items(maker.output, [bare if name == value else name for name in maker.output])
        functions[0].input[0] = bare
        place = next(place for place, other in enumerate(model.graph.node) if bare in other.output)
        held = {tensor.name for tensor in model.graph.initializer}
        for function in functions[::-1]:
            model.graph.node.insert(place + 1, function)
            bounds = [name for name in function.input[1:] if name in before.tensors and name not in held]
            model.graph.initializer.extend(before.tensors[name] for name in bounds)
            held.update(bounds)


def _row_of_functions(graph: Graph, last: int, among: Collection[int]) -> list[int]:
    """Functions behind one another up to this one, as far as they are among these."""
    row = [last]
    while (earlier := graph.producers.get(graph.nodes[row[0]].input[0])) is not None and earlier in among:
        row.insert(0, earlier)
    return row


def _is_needed(graph: Graph, function: int) -> bool:
    node = graph.nodes[function]
    bounds = [graph.constant(name) if name else None for name in node.input[1:]] if node.op_type == "Clip" else []
    low, high = (None if bound is None else float(bound.reshape(())) for bound in (*bounds, None, None)[:2])
    holds_zero = (low is None or low <= 0) and (high is None or high >= 0)
    maker, readers = graph.producers.get(node.input[0]), graph.readers.get(node.output[0], [])
    is_sum = maker is not None and is_standard(graph.nodes[maker], "Add") and not _adds_constant(graph, maker)
    return not holds_zero or (
        not is_sum and any(reader >= 0 and is_standard(graph.nodes[reader], "Add") for reader in readers)
    )


def _adds_constant(graph: Graph, addition: int) -> bool:
    return any(name in graph.tensors for name in graph.nodes[addition].input)


def _with_own_dequantisations(model: onnx.ModelProto) -> None:
    """Gives every node that reads a quantised constant a scale of its own, as biases ask for others."""
    graph, taken = Graph(model), names_of_values(model)
    names, made = {node.name for node in model.graph.node}, list[onnx.NodeProto]()
    for node in graph.nodes:
        readers = graph.readers.get(node.output[0], []) if is_dequantise(node) else []
        if node.input[0] not in graph.tensors:
            continue
        for reader in sorted(set(readers))[1:]:
            scale = renamed(graph.tensors[node.input[1]], unused(node.input[1], taken))
            model.graph.initializer.append(scale)
            own = copied(node)
            own.name, own.input[1] = unused(node.name, names), scale.name
            own.output[0] = unused(node.output[0], taken)
            made.append(own)
            inputs = model.graph.node[reader].input if reader >= 0 else []
            replace_items(inputs, [own.output[0] if name == node.output[0] else name for name in inputs])
    replace_items(model.graph.node, [*made, *model.graph.node])


def _read_floats(model: onnx.ModelProto, quantised_nodes: Collection[str], made_of_bytes: Collection[str]) -> None:
    """Lets nodes that compute in floats read values of floats as they are, not what bytes stand for that others read:
    the residual of a transformer block keeps all its digits."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.name in quantised_nodes or is_quantise(node) or is_dequantise(node):
            continue
        for index, name in enumerate(node.input):
            dequantise = _dequantised(graph, name)
            quantise = None if dequantise is None else maker_of(graph, dequantise.input[0])
            if (
                quantise is not None
                and is_quantise(quantise)
                and quantise.input[0] not in {*made_of_bytes, *graph.tensors}
            ):
                node.input[index] = quantise.input[0]


def _put_back(model: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """What ONNX Runtime notes of itself in a model, as it was."""
    model.producer_name, model.producer_version = before.producer_name, before.producer_version
    model.doc_string = before.doc_string
    replace_items(model.metadata_props, list(before.metadata_props))
    made = {name for node in model.graph.node for name in node.output}
    replace_items(model.graph.value_info, [value for value in before.graph.value_info if value.name in made])
    drop_unread(model)


def _with_whole_biases(model: onnx.ModelProto) -> None:
    """Makes the biases that are added to products whole numbers in units of their sums, as those of convolutions are:
    ONNX Runtime joins both to one op on floats otherwise, for which it makes floats of the weight in every run."""
    graph = Graph(model)
    taken = names_of_values(model)
    stored, nodes = {t.name: t for t in model.graph.initializer}, {node.name for node in model.graph.node}
    added = list[onnx.NodeProto]()
    for node in graph.nodes:
        addition = _addition_of_bias(graph, node)
        parts = [part for name in node.input if (part := _dequantised(graph, name)) is not None]
        if addition is None or len(parts) != 2 or parts[1].input[0] not in graph.tensors:
            continue
        (bias,) = (name for name in addition.input if name in graph.tensors)
        wanted, step = graph.constant(bias), np.asarray(graph.constant(parts[0].input[1]))
        scales = _scales_for_bias(graph, parts[1], wanted, step)
        if scales is None:
            continue
        name = parts[1].input[1]
        stored[name].CopyFrom(numpy_helper.from_array(scales, name))
        steps = np.asarray(scales * step, np.float32)
        names = [unused(f"{bias}{ending}", taken) for ending in ("_quantized", "_quantized_scale", "_dequantized")]
        whole = np.round(np.asarray(wanted, np.float64) / steps).astype(np.int32)
        model.graph.initializer.append(numpy_helper.from_array(whole, names[0]))
        model.graph.initializer.append(numpy_helper.from_array(steps, names[1]))
        added.append(
            onnx.helper.make_node(
                "DequantizeLinear", names[:2], names[2:], name=unused(f"{bias}_DequantizeLinear", nodes), axis=0
            )
        )
        replace_items(addition.input, [names[2] if given == bias else given for given in addition.input])
    replace_items(model.graph.node, [*added, *model.graph.node])
    drop_unread(model)


def _addition_of_bias(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The addition of a constant behind a product."""
    following = graph.only_reader(node.output[0]) if is_standard(node, "MatMul") else None
    addition = None if following is None else graph.nodes[following]
    if addition is None or not is_standard(addition, "Add"):
        return None
    return addition if sum(name in graph.tensors for name in addition.input) == 1 else None


def _with_fine_biases(model: onnx.ModelProto, before: Graph) -> None:
    """Gives channels whose weights are all zero, for which ONNX Runtime takes a scale of 1, one that their bias asks
    for: at 1 a step of it would be as large as one of the layer's input."""
    graph = Graph(model)
    original = {node.name: node for node in before.nodes}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in graph.nodes:
        if not is_standard(node, "Conv", "Gemm") or len(node.input) < 3 or not node.input[2]:
            continue
        parts = [part for name in node.input[:3] if (part := _dequantised(graph, name)) is not None]
        if len(parts) != 3:
            continue
        (_, scale, _), (weight, scales, _), (bias, bias_scales, _) = (part.input for part in parts)
        if weight not in graph.tensors or bias not in graph.tensors or scales == bias_scales:
            continue
        was = original[node.name]
        factor = float(str(attributes_of(was).get("beta", 1.0)))
        wanted = np.asarray(before.constant(was.input[2]), np.float64).reshape(-1) * factor
        step = np.asarray(graph.constant(scale))
        finer = _scales_for_bias(graph, parts[1], wanted, step)
        if finer is None or not (changed := finer != graph.constant(scales)).any():
            continue
        sums = np.asarray(finer * step, np.float32)
        steps = np.array(graph.constant(bias), np.int32)
        steps[changed] = np.round(wanted[changed] / sums[changed])
        for name, array in ((scales, finer), (bias_scales, sums), (bias, steps)):
            stored[name].CopyFrom(numpy_helper.from_array(array, name))


def _scales_for_bias(
    graph: Graph, weight: onnx.NodeProto, bias: NDArray[np.generic] | None, step: NDArray[np.generic]
) -> NDArray[np.float32] | None:
    """The scale of each channel of a weight, in which its bias has digits; None if they do not fit together, or the
    bias would not fit into 32 bits.

    Args:
        weight: the node that makes floats of it.
        bias: a number for each channel.
        step: the scale of the layer's input.
    """
    numbers, scales = graph.constant(weight.input[0]), graph.constant(weight.input[1])
    if numbers is None or scales is None or bias is None or step.size != 1 or bias.shape != scales.shape:
        return None
    axis = int(str(attributes_of(weight).get("axis", 1))) % numbers.ndim
    values, one = np.abs(bias.astype(np.float64)), float(step.reshape(()))
    # A bias that is next to nothing is nothing.
    large = values / BIAS_STEPS * min(1.0, 1 / one) >= np.finfo(np.float32).tiny
    empty = ~numbers.any(axis=tuple(other for other in range(numbers.ndim) if other != axis)) & large
    result = np.array(scales, np.float32)
    result[empty] = values[empty] / BIAS_STEPS / np.float32(one)
    return result if (values / (result.astype(np.float64) * one) < LARGEST_SUM).all() else None


def _dequantised(graph: Graph, value: str) -> onnx.NodeProto | None:
    index = graph.producers.get(value)
    node = None if index is None else graph.nodes[index]
    return node if node is not None and is_standard(node, "DequantizeLinear") else None


def zeros_kept(model: onnx.ModelProto, before: Graph) -> str | None:
    """The first weight of which a zero is none any more, or whose zero point is not zero; None if all are kept."""
    graph = Graph(model)
    original = {node.name: node for node in before.nodes}
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            found = _dequantised(graph, name)
            if found is None or node.name not in original or found.input[0] not in graph.tensors:
                continue
            weight = before.constant(original[node.name].input[index])
            if weight is not None and weight.ndim > 1 and not _same_zeros(weight, graph, found):
                return str(original[node.name].input[index])
    return None


def _same_zeros(weight: NDArray[np.generic], graph: Graph, node: onnx.NodeProto) -> bool:
    numbers = array_of(graph.tensors[node.input[0]])
    point = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return not numbers[weight == 0].any() and (point is None or not point.any())
