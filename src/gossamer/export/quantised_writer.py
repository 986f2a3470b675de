"""The nodes of the quantised part of a sparse network, and the conversions of its layouts."""

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from gossamer_runtime import weights
from onnx import TensorProto, helper

from gossamer.export.quantised_parts import BytePart, Edge
from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.layers import extents
from gossamer.graph.names import unused
from gossamer.graph.ops import OPS
from gossamer.graph.outputs import Panel
from gossamer.graph.quantisation import SIGN, Bytes
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.quantised_steps import ByteConcat, BytePool

if TYPE_CHECKING:
    from gossamer.export.writer import Writer


def write_bytes(writer: "Writer", part: BytePart) -> None:
    """Adds the op of a part that computes with bytes, and behind it what makes planes of its panel."""
    if isinstance(part, Edge):
        _write_edge(writer, part)
    elif isinstance(part, QuantisedLayer):
        _write_layer(writer, part)
    elif isinstance(part, BytePool):
        _write_pool(writer, part)
    elif isinstance(part, ByteConcat):
        quantisations = [given.quantisation for given in part.inputs]
        attributes = {
            "channels": list(part.channels),
            "input_scales": [float(quantisation.scale) for quantisation in quantisations],
            "input_zero_points": [quantisation.zero_point for quantisation in quantisations],
            "output_scale": float(part.output.quantisation.scale),
            "output_zero_point": part.output.quantisation.zero_point,
        }
        _write_panels(writer, "QuantisedConcat", part.inputs, part.output, attributes, sum(part.channels))
    else:
        attributes = {"channels": part.channels, "rows": part.rows, "columns": part.columns}
        _write_panels(writer, "QuantisedResize", part.inputs, part.output, attributes, part.channels)


def _write_edge(writer: "Writer", edge: Edge) -> None:
    channels = extents(writer.graph, edge.bytes)[0]
    numbers = {"scale": float(edge.quantisation.scale), "zero_point": edge.quantisation.zero_point}
    if not edge.enters:
        panel = _as_panel(writer, Bytes(edge.source, edge.quantisation))
        attributes = {"channels": channels, **numbers}
        node = writer.made(OPS["DequantisedFromPanel"], [panel], edge.output, f"{edge.output}.planes", attributes)
        writer.nodes.append(node)
        return
    name = writer.graph.nodes[edge.index].name or f"{edge.output}.panel"
    node = writer.made(OPS["QuantisedToPanel"], [edge.source], edge.output, name, numbers)
    _append_panel(writer, node, Bytes(edge.output, edge.quantisation), channels)


def _write_layer(writer: "Writer", layer: QuantisedLayer) -> None:
    kind = "QuantisedConv" if layer.kind == "conv" else "QuantisedMatMul"
    place = _as_panel if layer.kind == "conv" else _as_bytes
    source = place(writer, layer.source)
    residual = ""
    if layer.added is not None:
        residual = writer.constant(f"{layer.name}.added", layer.added)
    elif layer.residual is not None:
        residual = place(writer, layer.residual)
    known: dict[str, Any] = {
        **layer.shape.window(layer.rank if layer.kind == "conv" else 4),
        "group": layer.shape.groups,
        "output_channels": layer.shape.outputs,
        "output_features": layer.shape.outputs,
        "input_zero_point": layer.source.quantisation.zero_point,
        "output_zero_point": layer.made.zero_point,
        "lower": layer.lower,
        "upper": layer.upper,
    }
    if layer.residual is not None:
        known["residual_scale"] = float(layer.residual_scale)
        known["residual_zero_point"] = layer.residual.quantisation.zero_point
    if layer.sums is not None:
        known["sum_step"] = float(layer.sum_step)
        known["sum_lower"] = float(layer.sums.lower - layer.sums.output.quantisation.zero_point)
        known["sum_upper"] = float(layer.sums.upper - layer.sums.output.quantisation.zero_point)
    packed = np.frombuffer(weights.encode(layer.weight), np.uint8)
    inputs = [
        source,
        writer.constant(f"{layer.name}.packed", packed),
        writer.constant(f"{layer.name}.scales", layer.scales),
        "" if layer.bias is None else writer.constant(f"{layer.name}.bias", layer.bias),
        residual,
        "" if layer.table is None else writer.constant(f"{layer.name}.table", layer.table),
    ]
    op = OPS[kind]
    attributes = {name: known[name] for name in op.attributes if name in known}
    value = layer.output.value
    if layer.kind == "conv":
        node = writer.made(op, inputs, value, layer.name, attributes)
        _append_panel(writer, node, layer.output, layer.shape.outputs)
        return
    made = value if not layer.output.quantisation.signed else unused(f"{value}.unsigned", writer.taken)
    writer.nodes.append(writer.made(op, inputs, made, layer.name, attributes))
    if made != value:
        writer.unsigned[value] = made
        _cast(writer, made, value, -SIGN, TensorProto.INT8)


def write_dequantised(writer: "Writer", layer: DequantisedLayer) -> None:
    """Adds the op of a layer that makes floats of bytes."""
    value, scale, zero_point = layer.source, layer.scale, layer.zero_point
    if layer.quantises:
        value, scale, zero_point = _quantised_anew(writer, value)
    elif not scale:
        value = _as_bytes(writer, Bytes(value, layer.quantisation))
        scale = writer.constant(f"{layer.name}.input_scale", np.asarray(layer.quantisation.scale))
        zero_point = writer.constant("zero_point", np.asarray(layer.quantisation.zero_point, np.uint8))
    inputs = [
        value,
        writer.constant(f"{layer.name}.packed", np.frombuffer(weights.encode(layer.weight.astype(np.int8)), np.uint8)),
        writer.constant(f"{layer.name}.scales", layer.weight_scales),
        scale,
        zero_point,
        "" if layer.bias is None else writer.constant(f"{layer.name}.bias", layer.bias),
        layer.residual or "",
    ]
    attributes = {"output_features": layer.shape.outputs, **layer.activation.attributes}
    writer.nodes.append(writer.made(OPS["DequantisedMatMul"], inputs, layer.output, layer.name, attributes))


def _quantised_anew(writer: "Writer", value: str) -> tuple[str, ...]:
    """A value of floats as bytes, with their scale and zero point, as ONNX Runtime quantises it as the network runs."""
    if value not in writer.quantised_anew:
        made = tuple(unused(f"{value}.{what}", writer.taken) for what in ("bytes", "scale", "zero_point"))
        name = unused(f"{value}.quantised", writer.node_names)
        writer.nodes.append(helper.make_node("DynamicQuantizeLinear", [value], list(made), name=name))
        writer.quantised_anew[value] = made
    return writer.quantised_anew[value]


def _write_pool(writer: "Writer", pool: BytePool) -> None:
    op = OPS["QuantisedMaxPool" if pool.kind == "max" else "QuantisedAveragePool"]
    source, made = pool.inputs[0].quantisation, pool.output.quantisation
    known: dict[str, Any] = {
        **pool.shape.window(pool.rank),
        "channels": pool.shape.outputs,
        "input_scale": float(source.scale),
        "input_zero_point": source.zero_point,
        "output_scale": float(made.scale),
        "output_zero_point": made.zero_point,
        "count_include_pad": int(pool.counts_padding),
    }
    attributes = {name: known[name] for name in op.attributes}
    _write_panels(writer, op.name, pool.inputs, pool.output, attributes, pool.shape.outputs)


def _write_panels(
    writer: "Writer", kind: str, inputs: tuple[Bytes, ...], output: Bytes, attributes: dict[str, Any], channels: int
) -> None:
    sources = [_as_panel(writer, given) for given in inputs]
    name = writer.graph.nodes[writer.graph.producers[output.value]].name or output.value
    _append_panel(writer, writer.made(OPS[kind], sources, output.value, name, attributes), output, channels)


def _as_panel(writer: "Writer", given: Bytes) -> str:
    """The panel of a value of bytes; makes one where there is none yet."""
    if given.value not in writer.panels:
        channels = extents(writer.graph, given.value)[0]
        panel = unused(f"{given.value}.panel", writer.taken)
        source = writer.unsigned.get(given.value, given.value)
        attributes = {"zero_point": given.quantisation.zero_point}
        writer.nodes.append(writer.made(OPS["QuantisedToPanel"], [source], panel, panel, attributes))
        writer.panels[given.value] = Panel(panel, channels, quantised=True)
    return writer.panels[given.value].name


def _append_panel(writer: "Writer", node: onnx.NodeProto, output: Bytes, channels: int) -> None:
    """A node that makes a panel of a value, and behind it the planes, if anybody reads those."""
    planes = output.value
    if output.quantisation.signed:
        planes = unused(f"{planes}.unsigned", writer.taken)
        writer.unsigned[output.value] = planes
    writer.append_panel_node(node, output.value, channels, quantised=True)
    panel = writer.panels[output.value].name
    attributes = {"channels": channels}
    writer.nodes.append(writer.made(OPS["QuantisedFromPanel"], [panel], planes, f"{planes}.planes", attributes))
    writer.may_be_unread.add(planes)
    if planes != output.value:
        _cast(writer, planes, output.value, -SIGN, TensorProto.INT8)


def _as_bytes(writer: "Writer", given: Bytes) -> str:
    """A value of bytes on planes, as uint8."""
    if not given.quantisation.signed:
        return given.value
    if given.value not in writer.unsigned:
        writer.unsigned[given.value] = unused(f"{given.value}.unsigned", writer.taken)
        _cast(writer, given.value, writer.unsigned[given.value], SIGN, TensorProto.UINT8)
    return writer.unsigned[given.value]


def _cast(writer: "Writer", source: str, output: str, more: int, kind: int) -> None:
    """Between uint8 and int8, exactly, in ONNX's own ops; where nobody reads the result, nothing."""
    wide, moved = (unused(f"{output}.{step}", writer.taken) for step in ("wide", "moved"))
    number = writer.constant("gossamer.sign", np.asarray(SIGN, np.int32))
    writer.nodes.append(helper.make_node("Cast", [source], [wide], to=TensorProto.INT32))
    writer.nodes.append(helper.make_node("Add" if more > 0 else "Sub", [wide, number], [moved]))
    writer.nodes.append(helper.make_node("Cast", [moved], [output], to=kind))
    writer.may_be_unread |= {wide, moved, output}
