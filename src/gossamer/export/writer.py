"""The nodes of a network with sparse ops, and the conversions between layouts."""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gossamer.export.coded import Steps, coded
from gossamer.export.half import require_half
from gossamer.export.parts import Part
from gossamer.export.quantised_parts import BytePart
from gossamer.export.quantised_writer import write_bytes, write_dequantised
from gossamer.graph.activations import Activation
from gossamer.graph.batch_norm import drop_unread
from gossamer.graph.dequantised import DequantisedLayer
from gossamer.graph.graph import Graph, is_standard, values_read
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import NO_ACTIVATION, Layer, extents
from gossamer.graph.messages import copied, replace_items
from gossamer.graph.names import names_of_values, unused
from gossamer.graph.ops import DOMAIN, DOMAIN_VERSION, OPS, Op
from gossamer.graph.outputs import Panel
from gossamer.graph.pools import Pool
from gossamer.graph.quantised_layers import QuantisedLayer
from gossamer.graph.shapes import values_described
from gossamer.graph.stems import Stem

PANEL_OF = "gossamer.panel_of"
"""Key of a node's metadata: the value of the dense network that its output holds, as a panel."""
LEFT_BEHIND = ("DequantizeLinear", "QuantizeLinear", "Transpose")
"""Nodes that a quantised layer's op may leave without readers."""


def values_held(node: onnx.NodeProto) -> set[str]:
    """The values of the dense network that a node of the sparse one makes: its own output, and what that is a panel
    of."""
    return {node.output[0], *(entry.value for entry in node.metadata_props if entry.key == PANEL_OF)}


class Writer:
    """Writes the nodes of the new graph, in the order of the old one, and the conversions between layouts."""

    def __init__(self, graph: Graph, half: bool, steps: Mapping[str, Steps]) -> None:
        self.graph = graph
        self.half = half
        self.steps = steps
        """Output of a layer -> what its numbers are multiples of; they are coded as levels of it."""
        self.replaced: dict[int, Part] = {}
        """Last node of a layer, stem or pooling -> what becomes an op of gossamer there; an elementwise node that runs
        on panels -> itself."""
        self.dropped: set[int] = set()
        self.read_panels: set[int] = set()
        """All nodes that run on panels, or become part of one that does."""
        self.panels: dict[str, Panel] = {}
        """Value -> its panel."""
        self.made_as_panels: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[Content, onnx.TensorProto] = {}
        """The constants that were made."""
        self.node_names: set[str] = set()
        self.taken = names_of_values(graph.model)
        self.may_be_unread: set[str] = set()
        """Values that are made in case that somebody reads them."""
        self.unsigned: dict[str, str] = {}
        """Value of int8 -> the same as uint8, more by 128."""
        self.quantised_anew: dict[str, tuple[str, ...]] = {}
        """Value of floats -> its bytes, their scale and zero point, found as the network runs."""

    def write(self) -> onnx.ModelProto:
        self.node_names = {
            node.name
            for index, node in enumerate(self.graph.nodes)
            if index not in self.dropped or self.replaced.get(index) == index
        }
        for index, node in enumerate(self.graph.nodes):
            if index in self.replaced:
                self._replace(self.replaced[index])
            elif index not in self.dropped:
                self.nodes.append(node)
        if any(isinstance(part, BytePart | DequantisedLayer) for part in self.replaced.values()):
            self._drop_unread_nodes()
        return self._model()

    def layers(self) -> list[Layer | Stem | QuantisedLayer]:
        """What became ops with weights."""
        return [part for part in self.replaced.values() if isinstance(part, Layer | Stem | QuantisedLayer)]

    def _replace(self, part: Part) -> None:
        if isinstance(part, int):
            self._elementwise(self.graph.nodes[part])
        elif isinstance(part, BytePart):
            write_bytes(self, part)
        elif isinstance(part, DequantisedLayer):
            write_dequantised(self, part)
        elif isinstance(part, Pool):
            self._pool(part)
        elif isinstance(part, Stem):
            # Not compressed: the op takes constants only, however the session optimises.
            weight = self.constant(f"{part.layer.name}.weight", part.layer.weight)
            self._layer("StemConv", part.layer, part.output, weight, pooled=part.pool is not None)
        else:
            kind = "SparseMatMul" if part.kind == "linear" else "SparseConv"
            self._layer(kind, part, part.output, self._packed(part))

    def reported_panels(self) -> dict[str, Panel]:
        return {value: self.panels[value] for value in sorted(self.made_as_panels)}

    def _layer(self, kind: str, layer: Layer, value: str, weight: str, *, pooled: bool = False) -> None:
        """The op of a layer.

        Args:
            value: what it computes, the pooling that it takes along included.
            weight: the name of its constant.
        """
        op = OPS[kind]
        sources = [layer.source, *([layer.residual] if layer.residual else [])]
        if op.inputs[0].lies == "panels":
            channels = (layer.shape.inputs, layer.shape.outputs)
            sources = [self._as_panel(source, count) for source, count in zip(sources, channels, strict=False)]
        inputs = [sources[0], weight, self._bias(layer), *sources[1:]]
        attributes = _attributes(op, layer.shape, layer.rank, layer.activation, pooled)
        node = self.made(op, inputs, value, layer.name, attributes)
        if op.makes == "panels":
            self._append_panel(node, value, layer.shape.outputs)
        else:
            self.nodes.append(node)

    def _pool(self, pool: Pool) -> None:
        source = self._as_panel(pool.source, pool.shape.outputs)
        name = self.graph.nodes[pool.index].name or pool.output
        op = OPS["PanelMaxPool"]
        node = self.made(op, [source], pool.output, name, _attributes(op, pool.shape, pool.rank))
        self._append_panel(node, pool.output, pool.shape.outputs)

    def _elementwise(self, node: onnx.NodeProto) -> None:
        channels = extents(self.graph, node.output[0])[0]
        moved = copied(node)
        del moved.input[:]
        moved.input.extend(
            name if not name or name in self.graph.tensors else self._as_panel(name, channels) for name in node.input
        )
        self._append_panel(moved, node.output[0], channels)

    def _as_panel(self, value: str, channels: int) -> str:
        """The panel of a value; converts it where it is not there yet."""
        if value not in self.panels:
            panel = unused(f"{value}.panel", self.taken)
            self.nodes.append(self.made(OPS["ToPanel"], [value], panel, panel, {}))
            self.panels[value] = Panel(panel, channels)
        return self.panels[value].name

    def _append_panel(self, node: onnx.NodeProto, value: str, channels: int) -> None:
        """A node that makes a panel of a value, and behind it the planes, if anybody reads those."""
        panel = self.append_panel_node(node, value, channels)
        if not self.read_panels.issuperset(self.graph.readers.get(value, [])):
            planes = self.made(OPS["FromPanel"], [panel], value, f"{value}.planes", {"channels": channels})
            self.nodes.append(planes)

    def append_panel_node(self, node: onnx.NodeProto, value: str, channels: int, *, quantised: bool = False) -> str:
        """A node that makes a panel of a value; the panel's name."""
        panel = unused(f"{value}.panel", self.taken)
        node.output[0] = panel
        node.metadata_props.add(key=PANEL_OF, value=value)
        self.nodes.append(node)
        self.panels[value] = Panel(panel, channels, quantised)
        self.made_as_panels.add(value)
        return panel

    def _packed(self, layer: Layer) -> str:
        if self.half:
            require_half(layer.name, layer.weight)
        steps = self.steps.get(layer.output)
        packed = weights.encode(layer.weight, half=self.half) if steps is None else coded(layer, steps)
        return self.constant(f"{layer.name}.packed", np.frombuffer(packed, np.uint8))

    def _bias(self, layer: Layer) -> str:
        steps = self.steps.get(layer.output)
        coded_too = steps is not None and steps.bias is not None
        return "" if layer.bias is None or coded_too else self.constant(f"{layer.name}.bias", layer.bias)

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        """An initializer with this content: one that was made for another layer (which may share its weight), one that
        is there already under this name, or a new one."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        content = _content(tensor)
        if name in self.graph.tensors and _content(self.graph.tensors[name]) == content:
            return name
        if content not in self.constants:
            tensor.name = unused(name, self.taken)
            self.constants[content] = tensor
        return self.constants[content].name

    def made(
        self, op: Op, inputs: Iterable[str], output: str, name: str, attributes: Mapping[str, Any]
    ) -> onnx.NodeProto:
        given = list(inputs)
        # ONNX Runtime refuses a model in which two nodes have one name, and layers may share a weight.
        name = unused(name, self.node_names)
        while given and not given[-1]:
            given.pop()
        return helper.make_node(op.name, given, [output], name=name, domain=DOMAIN, **attributes)

    def _drop_unread_nodes(self) -> None:
        """Takes out the nodes that quantised layers' ops have left without readers."""
        read = {value.name for value in self.graph.model.graph.output}
        kept = []
        for node in reversed(self.nodes):
            left = is_standard(node, *LEFT_BEHIND) or self.may_be_unread.issuperset(node.output)
            if not left or read.intersection(node.output):
                kept.append(node)
                read.update(values_read(node))
        self.nodes = kept[::-1]

    def _described(self) -> Iterator[onnx.ValueInfoProto]:
        """Types and shapes of all inner values, as far as they are known."""
        described = values_described(self.graph.model)
        value_of = {panel.name: (value, panel.channels) for value, panel in self.panels.items()}
        returned = {value.name for value in self.graph.model.graph.output}
        for name in (name for node in self.nodes for name in node.output):
            value, channels = value_of.get(name, (name, 0))
            if value not in described or name in returned:
                continue
            info = copied(described[value])
            info.name = name
            if name in value_of:
                # How many channels a panel's tensor is large enough for is for the ops to say.
                info.type.tensor_type.shape.dim[1].Clear()
                if self.panels[value].quantised:
                    info.type.tensor_type.elem_type = onnx.TensorProto.UINT8
                info.doc_string = f"{value} in panels: {channels} channels"
            yield info

    def _model(self) -> onnx.ModelProto:
        old = self.graph.model
        model = copied(old)
        replace_items(model.graph.node, self.nodes)
        model.graph.initializer.extend(self.constants.values())
        replace_items(model.graph.value_info, self._described())
        # ONNX Runtime lists every domain that its process knows in the files that it optimises.
        listed = any(entry.domain == DOMAIN for entry in model.opset_import)
        if not listed and any(node.domain == DOMAIN for node in self.nodes):
            model.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
        drop_unread(model)
        return model


def _attributes(
    op: Op, shape: LayerShape, rank: int, activation: Activation = NO_ACTIVATION, pooled: bool = False
) -> dict[str, Any]:
    """The attributes that an op has, of all that can be said of a layer or pooling."""
    known = {
        **shape.window(rank),
        "group": shape.groups,
        "channels": shape.outputs,
        "output_channels": shape.outputs,
        "output_features": shape.outputs,
        "max_pool": int(pooled),
        **activation.attributes,
    }
    return {name: known[name] for name in op.attributes if name in known}


Content = tuple[int, tuple[int, ...], bytes]
"""The content of a tensor: type, shape and digest of its bytes. Equal ones are stored once."""


def _content(tensor: onnx.TensorProto) -> Content:
    return tensor.data_type, tuple(tensor.dims), sha256(tensor.raw_data).digest()
