"""A network with zeros in its weights -> the same network with ops of the domain `gossamer` where they are faster."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import onnx
from gossamer_runtime import weights
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gossamer.export.batch_norm import drop_unread
from gossamer.export.constants import prepared
from gossamer.export.costs import Costs, MeasuredCosts
from gossamer.export.graph import GRAPH, Graph, is_standard
from gossamer.export.half import require_half
from gossamer.export.layers import Kind, Layer, extents, find_layers, same_shape
from gossamer.export.layout import Unit, choose_panels
from gossamer.export.left import LeftWeight, left_weights
from gossamer.export.names import names_of_values, unused
from gossamer.export.pools import Pool, pool_at
from gossamer.export.shapes import values_described
from gossamer.export.stems import Stem, stem_of

DOMAIN = "gossamer"
DOMAIN_VERSION = 1
PANEL_OF = "gossamer.panel_of"
"""Key of a node's metadata: the value of the dense network that its output holds, as a panel."""

_RECTIFIERS = ("Clip", "Elu", "LeakyRelu", "Relu", "Selu", "ThresholdedRelu")
_SMOOTH = ("Gelu", "HardSigmoid", "HardSwish", "Mish", "Sigmoid", "Softplus", "Softsign", "Tanh")
ELEMENTWISE = (*_RECTIFIERS, *_SMOOTH, "Abs", "Identity", "Neg", "Sqrt")
ELEMENTWISE_OF_TWO = ("Add", "Mul", "Sub")
"""Ops that treat every number of their inputs alike, so that it does not matter how those lie in memory."""

Form = Literal["sparse", "stem", "dense"]
"""A stem keeps its dense weights and runs as `StemConv`."""


@dataclass(frozen=True)
class LayerReport:
    """What became of a layer."""

    name: str
    kind: Kind
    weight_shape: tuple[int, ...]
    kept: int
    form: Form
    reason: str
    """Why it is dense or a stem; empty for a sparse one."""
    output: str
    """The value of the dense network that it computes: its residual and activation included, a stem's pooling too."""
    dense_time: float
    sparse_time: float
    """Seconds, as estimated, with sparse weights."""

    @property
    def density(self) -> float:
        return self.kept / max(1, int(np.prod(self.weight_shape)))


@dataclass(frozen=True)
class Rewritten:
    """A network with sparse ops, and what was done to get it."""

    model: onnx.ModelProto
    layers: tuple[LayerReport, ...]
    panels: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Value of the dense network -> its panel in the sparse one and the number of channels, where it has one."""
    left: tuple[LeftWeight, ...] = ()
    """Weights with many zeros that belong to none of the layers."""


def to_sparse(model: onnx.ModelProto, *, costs: Costs | None = None, half: bool = False) -> onnx.ModelProto:
    """The same network with sparse ops where those are faster; `rewrite` says besides what became of every layer.

    Args:
        costs: estimates of times; None: rates measured when gossamer was made.
        half: store weights as fp16.

    Raises:
        ExportError: a constant is damaged, or `half` and a weight is beyond fp16's range.
    """
    return rewrite(model, costs=costs, half=half).model


def rewrite(model: onnx.ModelProto, *, costs: Costs | None = None, half: bool = False) -> Rewritten:
    """Folds BatchNorm, finds the layers with constant weights, chooses where each runs, and writes the new graph.

    `model` stays as it is. Nodes that are not understood, quantised layers among them, are taken over unchanged.
    """
    costs = costs or MeasuredCosts()
    graph = Graph(prepared(model))
    layers = find_layers(graph)
    parts = find_parts(graph, layers, costs)
    chosen = choose_panels(parts.units, parts.read_as_planes, parts.conversion_times)
    linear = [
        layer
        for layer in layers
        if layer.kind == "linear" and costs.sparse(layer.shape, layer.density) < costs.dense(layer.shape)
    ]
    writer = _Writer(graph, half)
    for part in (*(part for place, part in enumerate(parts.parts) if place in chosen), *linear):
        writer.replaced[max(_places(part))] = part
        writer.dropped.update(_places(part))
        if not (isinstance(part, Layer) and part.kind == "linear"):
            writer.read_panels.update(_places(part))
    written = writer.write()
    became = {(part.layer if isinstance(part, Stem) else part).output: part for part in writer.layers()}
    return Rewritten(
        written,
        tuple(_report(layer, became.get(layer.output), costs) for layer in layers),
        writer.reported_panels(),
        left_weights(graph, layers),
    )


Part = Layer | Stem | Pool | int
"""What runs on panels or on planes as a whole; a number is the place of an elementwise node."""


@dataclass(frozen=True)
class Parts:
    """What of a network can run on panels: the question that `choose_panels` answers."""

    parts: tuple[Part, ...]
    units: tuple[Unit, ...]
    """Of each part."""
    read_as_planes: tuple[str, ...]
    conversion_times: dict[str, float]


def find_parts(graph: Graph, layers: Sequence[Layer], costs: Costs, *, no_stems: Collection[str] = ()) -> Parts:
    """The convolutions, stems, max poolings and elementwise nodes, with their times in both layouts.

    Args:
        no_stems: outputs of layers that are to stay convolutions.
    """
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    fused = {place for layer in layers for place in layer.nodes}
    passive = [p for p in range(len(graph.nodes)) if p not in fused and _is_elementwise(graph, p)]
    pools = _find_pools(graph, layers)
    stems = _find_stems(graph, convolutions, passive, pools, costs)
    stems = {output: stem for output, stem in stems.items() if output not in no_stems}
    taken_along = {stem.pool.place for stem in stems.values() if stem.pool is not None}
    pools = [pool for pool in pools if pool.place not in taken_along]
    parts: list[Part] = [stems.get(layer.output, layer) for layer in convolutions]
    parts += [*pools, *passive]
    units = [_unit(graph, part, costs) for part in parts]
    inside = {place for part in parts for place in _places(part)}
    outside = [
        value
        for value, places in graph.readers.items()
        if any(place == GRAPH or place not in inside for place in places)
    ]
    times = {value: costs.conversion(*extents(graph, value)) for unit in units for value in (*unit.inputs, unit.output)}
    return Parts(tuple(parts), tuple(units), tuple(outside), times)


def _places(part: Part) -> tuple[int, ...]:
    """The nodes that a part replaces; an elementwise node is its own place."""
    if isinstance(part, int):
        return (part,)
    return (part.place,) if isinstance(part, Pool) else part.nodes


def _unit(graph: Graph, part: Part, costs: Costs) -> Unit:
    if isinstance(part, int):
        node = graph.nodes[part]
        return Unit(tuple(dict.fromkeys(_activations(graph, node))), node.output[0], 0.0, 0.0)
    if isinstance(part, Pool):
        times = [costs.pool(part.shape, panels=panels) for panels in (True, False)]
        return Unit((part.source,), part.output, *times)
    if isinstance(part, Stem):
        dense = costs.dense(part.layer.shape)
        pooling = 0.0 if part.pool is None else costs.pool(part.pool.shape, panels=False)
        # It reads planes wherever it runs.
        return Unit((), part.output, part.time(costs), dense + pooling)
    inputs = (part.source, *([part.residual] if part.residual else []))
    return Unit(inputs, part.output, costs.sparse(part.shape, part.density), costs.dense(part.shape))


def _find_pools(graph: Graph, layers: Iterable[Layer]) -> list[Pool]:
    """Max poolings of fp32 values: those before or behind layers, and what elementwise ops make of these."""
    floats = {value for layer in layers for value in (layer.source, layer.output)}
    found = []
    for place, node in enumerate(graph.nodes):
        pool = pool_at(graph, place)
        if pool is not None and {pool.source, pool.output} & floats:
            found.append(pool)
            floats.add(pool.output)
        elif is_standard(node, *ELEMENTWISE, *ELEMENTWISE_OF_TWO) and floats.intersection(node.input):
            floats.update(node.output)
    return found


def _find_stems(
    graph: Graph, convolutions: Iterable[Layer], passive: Iterable[int], pools: Iterable[Pool], costs: Costs
) -> dict[str, Stem]:
    """By the convolution's output: stems of which StemConv makes panels sooner than ToPanel and SparseConv do."""
    convolutions, pools = list(convolutions), list(pools)
    maybe_panels = {layer.output for layer in convolutions} | {pool.output for pool in pools}
    maybe_panels |= {graph.nodes[place].output[0] for place in passive}
    found = {}
    for layer in convolutions:
        stem = stem_of(graph, layer)
        if stem is None or layer.source in maybe_panels:
            continue
        if stem_pays(graph, stem, layer.density, costs):
            found[layer.output] = stem
    return found


def stem_pays(graph: Graph, stem: Stem, density: float, costs: Costs) -> bool:
    """Whether StemConv is faster than ToPanel, SparseConv and PanelMaxPool, with a layer of this density."""
    shape = stem.layer.shape
    otherwise = costs.conversion(*extents(graph, stem.layer.source)) + costs.sparse(shape, density)
    if stem.pool is not None:
        otherwise += costs.pool(stem.pool.shape, panels=True)
    return stem.time(costs) < otherwise


def _activations(graph: Graph, node: onnx.NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in graph.tensors]


def _is_elementwise(graph: Graph, place: int) -> bool:
    """Whether a node on images or sequences can as well run on panels."""
    node = graph.nodes[place]
    if not is_standard(node, *ELEMENTWISE, *ELEMENTWISE_OF_TWO):
        return False
    activations = _activations(graph, node)
    if not activations or not all(_can_be_panel(graph, name) for name in (*activations, node.output[0])):
        return False
    if is_standard(node, *ELEMENTWISE_OF_TWO):
        constants = [graph.tensors[name] for name in node.input if name in graph.tensors]
        if any(int(np.prod(tensor.dims)) != 1 for tensor in constants):
            return False
        return all(same_shape(graph, name, node.output[0]) for name in activations)
    # Bounds that are computed are no activations.
    return len(activations) == 1


def _can_be_panel(graph: Graph, value: str) -> bool:
    shape = graph.shapes.get(value, ())
    return len(shape) in (3, 4) and isinstance(shape[1], int)


def _report(layer: Layer, became: Layer | Stem | None, costs: Costs) -> LayerReport:
    dense_time, sparse_time = costs.dense(layer.shape), costs.sparse(layer.shape, layer.density)
    form: Form = "dense" if became is None else "stem" if isinstance(became, Stem) else "sparse"
    if form == "sparse":
        reason = ""
    elif form == "stem":
        reason = "dense weights, from the image straight into the layout of sparse layers"
    elif layer.kept == layer.weight.size:
        reason = "no zeros"
    elif sparse_time >= dense_time:
        reason = "too dense to be faster"
    else:
        reason = "changing the layout around it would cost more than it saves"
    return LayerReport(
        layer.name,
        layer.kind,
        layer.weight.shape,
        layer.kept,
        form,
        reason,
        layer.output if became is None else became.output,
        dense_time,
        sparse_time,
    )


class _Writer:
    """Writes the nodes of the new graph, in the order of the old one, and the conversions between layouts."""

    def __init__(self, graph: Graph, half: bool) -> None:
        self.graph = graph
        self.half = half
        self.replaced: dict[int, Part] = {}
        """Last node of a layer, stem or pooling -> what becomes an op of gossamer there; an elementwise node that runs
        on panels -> itself."""
        self.dropped: set[int] = set()
        self.read_panels: set[int] = set()
        """All nodes that run on panels, or become part of one that does."""
        self.panels: dict[str, tuple[str, int]] = {}
        """Value -> its panel and the channels of it."""
        self.made_as_panels: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[Content, onnx.TensorProto] = {}
        """Those that were made."""
        self.node_names: set[str] = set()
        self.taken = names_of_values(graph.model)

    def write(self) -> onnx.ModelProto:
        self.node_names = {
            node.name
            for place, node in enumerate(self.graph.nodes)
            if place not in self.dropped or self.replaced.get(place) == place
        }
        for place, node in enumerate(self.graph.nodes):
            if place in self.replaced:
                self._replace(self.replaced[place])
            elif place not in self.dropped:
                self.nodes.append(node)
        return self._model()

    def layers(self) -> list[Layer | Stem]:
        """What became ops with weights."""
        return [part for part in self.replaced.values() if isinstance(part, Layer | Stem)]

    def _replace(self, part: Part) -> None:
        if isinstance(part, int):
            self._elementwise(self.graph.nodes[part])
        elif isinstance(part, Pool):
            self._pool(part)
        elif isinstance(part, Stem):
            self._stem(part)
        elif part.kind == "linear":
            self._linear(part)
        else:
            self._convolution(part)

    def reported_panels(self) -> dict[str, tuple[str, int]]:
        return {value: self.panels[value] for value in sorted(self.made_as_panels)}

    def _linear(self, layer: Layer) -> None:
        inputs = [layer.source, self._packed(layer), self._bias(layer)]
        if layer.residual:
            inputs.append(layer.residual)
        attributes = {"output_features": len(layer.weight), **layer.activation.attributes}
        self._add("SparseMatMul", inputs, layer.output, layer.name, attributes)

    def _convolution(self, layer: Layer) -> None:
        shape = layer.shape
        inputs = [self._as_panel(layer.source, shape.inputs), self._packed(layer), self._bias(layer)]
        if layer.residual:
            inputs.append(self._as_panel(layer.residual, shape.outputs))
        # A sequence has no height; what there is of it in the shape is left out.
        first = 0 if layer.rank == 4 else 1
        attributes: dict[str, object] = {
            "output_channels": shape.outputs,
            "kernel_shape": list(shape.kernel[first:]),
            "strides": list(shape.strides[first:]),
            "dilations": list(shape.dilations[first:]),
            "pads": [*shape.pads[:2][first:], *shape.pads[2:][first:]],
            "group": shape.groups,
            **layer.activation.attributes,
        }
        self._add_panel("SparseConv", inputs, layer.output, shape.outputs, layer.name, attributes)

    def _stem(self, stem: Stem) -> None:
        layer = stem.layer
        shape = layer.shape
        # Not compressed either: the op takes constants only, however the session optimises.
        inputs = [layer.source, self._constant(f"{layer.name}.weight", layer.weight), self._bias(layer)]
        attributes = {
            "output_channels": shape.outputs,
            "kernel_shape": list(shape.kernel),
            "strides": list(shape.strides),
            "pads": list(shape.pads),
            **layer.activation.attributes,
            "max_pool": int(stem.pool is not None),
        }
        self._add_panel("StemConv", inputs, stem.output, shape.outputs, layer.name, attributes)

    def _pool(self, pool: Pool) -> None:
        channels = pool.shape.outputs
        source = self._as_panel(pool.source, channels)
        name = self.graph.nodes[pool.place].name or pool.output
        self._add_panel("PanelMaxPool", [source], pool.output, channels, name, pool.attributes)

    def _elementwise(self, node: onnx.NodeProto) -> None:
        channels = extents(self.graph, node.output[0])[0]
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        del moved.input[:]
        moved.input.extend(
            name if not name or name in self.graph.tensors else self._as_panel(name, channels) for name in node.input
        )
        self._append_panel(moved, node.output[0], channels)

    def _as_panel(self, value: str, channels: int) -> str:
        """The panel of a value; converts it where it is not there yet."""
        if value not in self.panels:
            panel = unused(f"{value}.panel", self.taken)
            self._add("ToPanel", [value], panel, panel, {})
            self.panels[value] = (panel, channels)
        return self.panels[value][0]

    def _append_panel(self, node: onnx.NodeProto, value: str, channels: int) -> None:
        """A node that makes a panel of a value, and behind it the planes, if anybody reads those."""
        panel = unused(f"{value}.panel", self.taken)
        node.output[0] = panel
        node.metadata_props.add(key=PANEL_OF, value=value)
        self.nodes.append(node)
        self.panels[value] = (panel, channels)
        self.made_as_panels.add(value)
        if not self.read_panels.issuperset(self.graph.readers.get(value, [])):
            self._add("FromPanel", [panel], value, f"{value}.planes", {"channels": channels})

    def _packed(self, layer: Layer) -> str:
        if self.half:
            require_half(layer.name, layer.weight)
        packed = np.frombuffer(weights.encode(layer.weight, half=self.half), np.uint8)
        return self._constant(f"{layer.name}.packed", packed)

    def _bias(self, layer: Layer) -> str:
        return "" if layer.bias is None else self._constant(f"{layer.name}.bias", layer.bias)

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
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

    def _add_panel(
        self, kind: str, inputs: Iterable[str], value: str, channels: int, name: str, attributes: Mapping[str, Any]
    ) -> None:
        self._append_panel(self._made(kind, inputs, value, name, attributes), value, channels)

    def _add(self, kind: str, inputs: Iterable[str], output: str, name: str, attributes: Mapping[str, Any]) -> None:
        self.nodes.append(self._made(kind, inputs, output, name, attributes))

    def _made(
        self, kind: str, inputs: Iterable[str], output: str, name: str, attributes: Mapping[str, Any]
    ) -> onnx.NodeProto:
        given = list(inputs)
        # ONNX Runtime refuses a model in which two nodes have one name, and layers may share a weight.
        name = unused(name, self.node_names)
        while given and not given[-1]:
            given.pop()
        return helper.make_node(kind, given, [output], name=name, domain=DOMAIN, **attributes)

    def _described(self) -> Iterator[onnx.ValueInfoProto]:
        """Types and shapes of all inner values, as far as they are known."""
        described = values_described(self.graph.model)
        value_of = {panel: (value, channels) for value, (panel, channels) in self.panels.items()}
        returned = {value.name for value in self.graph.model.graph.output}
        for name in (name for node in self.nodes for name in node.output):
            value, channels = value_of.get(name, (name, 0))
            if value not in described or name in returned:
                continue
            info = onnx.ValueInfoProto()
            info.CopyFrom(described[value])
            info.name = name
            if name in value_of:
                # How many channels a panel's tensor is large enough for is for the ops to say.
                info.type.tensor_type.shape.dim[1].Clear()
                info.doc_string = f"{value} in panels: {channels} channels"
            yield info

    def _model(self) -> onnx.ModelProto:
        old = self.graph.model
        model = onnx.ModelProto()
        model.CopyFrom(old)
        del model.graph.node[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.constants.values())
        del model.graph.value_info[:]
        model.graph.value_info.extend(self._described())
        if any(node.domain == DOMAIN for node in self.nodes):
            model.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
        drop_unread(model)
        return model


Content = tuple[int, tuple[int, ...], bytes]
"""Of a tensor: type, shape and digest of its bytes. Equal ones are stored once."""


def _content(tensor: onnx.TensorProto) -> Content:
    return tensor.data_type, tuple(tensor.dims), sha256(tensor.raw_data).digest()


__all__ = ["LayerReport", "Rewritten", "rewrite", "to_sparse"]
