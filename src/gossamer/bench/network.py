"""Whole networks for measurements, from files: real topology, random weights, random zeros, no training.

A file (`networks/*.txt`, or one of your own) has one line for each layer: its name, its kind, the layers that it reads,
and settings. Kinds:

    input      3x224x224 (channels, height, width) or 128x768 (tokens, features), without the batch, which is 1
    conv       outputs=, kernel=1, stride=1, dilation=1, padding=dilation * (kernel // 2), groups=1
    linear     outputs=; over the last axis
    maxpool    kernel=, stride=, padding=kernel // 2
    average    global average over height and width: [1, channels]
    flatten
    multiply   two sources, one of a single pixel perhaps
    attention  query,key,value as sources, heads=
    normalise  layer normalisation over the last axis

`conv` and `linear` also take residual=NAME (added before the activation), one of relu, gelu, hardswish and silu, and
`dense` for a layer that keeps all its weights. The last layer is the network's output. `#` begins a comment.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gossamer.errors import ConfigurationError
from gossamer.storage.files import read_text

OPSET = 20
IR_VERSION = 9
SUFFIX = ".txt"
ACTIVATIONS = ("relu", "gelu", "hardswish", "silu")
BLOCKS = {"unstructured": 1, "1x4": 4}
"""Structure -> input channels that are kept or pruned together."""
RESIDUAL_SCALE = 0.5
"""The scale of the weights of a layer that adds a residual: 16 such sums in a row grow the activations fourfold, not
256-fold."""


@dataclass(frozen=True)
class DescribedLayer:
    """One line of a file."""

    name: str
    kind: str
    sources: tuple[str, ...]
    settings: dict[str, int]
    residual: str | None
    activation: str | None
    dense: bool
    shape: tuple[int, ...] = ()
    """The shape of an input, without the batch."""


@dataclass(frozen=True)
class DescribedNetwork:
    """The layers of a file, in order."""

    name: str
    layers: tuple[DescribedLayer, ...]


def known_networks() -> list[str]:
    """Names of the networks that come with gossamer."""
    files = resources.files("gossamer.bench") / "networks"
    return sorted(file.name.removesuffix(SUFFIX) for file in files.iterdir() if file.name.endswith(SUFFIX))


def find_network(name: str) -> DescribedNetwork:
    """A network that comes with gossamer, or the one in the file `name`.

    Raises:
        ConfigurationError: there is none, or the file cannot be understood; the message names the line.
    """
    if name in known_networks():
        return read(name, (resources.files("gossamer.bench") / "networks" / f"{name}{SUFFIX}").read_text("utf-8"))
    path = Path(name)
    if not path.is_file():
        raise ConfigurationError(
            f"there is no network {name!r}; expected one of {', '.join(known_networks())}, or a file of layers"
        )
    try:
        return read(path.stem, read_text(path, links=True))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no text ({error}); expected one line for each layer") from error


def read(name: str, text: str) -> DescribedNetwork:
    """Reads the lines of a file.

    Raises:
        ConfigurationError: a line cannot be understood; the message names it.
    """
    layers: list[DescribedLayer] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            layer = _layer(words)
            _check_sources(layer, layers)
        except ValueError as error:
            raise ConfigurationError(f"{name}, line {number}: {error}; got: {line.strip()}") from error
        layers.append(layer)
    if len(layers) < 2 or layers[0].kind != "input":
        raise ConfigurationError(f"{name}: expected an input line and then at least one layer")
    return DescribedNetwork(name, tuple(layers))


def _layer(words: list[str]) -> DescribedLayer:
    if len(words) < 3:
        raise ValueError("expected a name, a kind and what the layer reads")
    name, kind, sources, *settings = words
    if kind == "input":
        shape = tuple(_positive(size, "a size of the input") for size in sources.split("x"))
        if len(shape) not in (2, 3):
            raise ValueError("an input is channels x height x width or tokens x features")
        return DescribedLayer(name, kind, (), {}, None, None, True, shape)
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}; expected input, {', '.join(KINDS)}")
    required, optional = KINDS[kind].required, KINDS[kind].optional
    numbers: dict[str, int] = {}
    residual, activation, dense = None, None, False
    for setting in settings:
        key, equals, value = setting.partition("=")
        if equals and key in (*required, *optional):
            numbers[key] = _positive(value, key, least=0 if key == "padding" else 1)
        elif kind in ("conv", "linear") and equals and key == "residual":
            residual = value
        elif kind in ("conv", "linear") and setting in ACTIVATIONS and activation is None:
            activation = setting
        elif kind in ("conv", "linear") and setting == "dense":
            dense = True
        else:
            raise ValueError(f"{kind} has no setting {setting!r}")
    missing = [key for key in required if key not in numbers]
    if missing:
        raise ValueError(f"{kind} needs {', '.join(f'{key}=' for key in missing)}")
    return DescribedLayer(name, kind, tuple(sources.split(",")), numbers, residual, activation, dense)


def _check_sources(layer: DescribedLayer, before: list[DescribedLayer]) -> None:
    names = {earlier.name for earlier in before}
    if layer.name in names:
        raise ValueError(f"a second layer {layer.name!r}")
    for source in (*layer.sources, *([layer.residual] if layer.residual else [])):
        if source not in names:
            raise ValueError(f"no layer {source!r} above")
    expected = {"attention": 3, "multiply": 2, "input": 0}.get(layer.kind, 1)
    if len(layer.sources) != expected:
        raise ValueError(f"{layer.kind} reads {expected} layers")


def _positive(text: str, what: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit()) or not least <= int(text) < 2**24:
        raise ValueError(f"{what} must be a whole number of at least {least}")
    return int(text)


def build(network: DescribedNetwork, density: float, seed: int = 0, structure: str = "unstructured") -> onnx.ModelProto:
    """The network as plain ONNX with zeros in its weights, activations kept in range by He initialisation.

    Args:
        density: share of the weights that are not zero, in (0, 1], in every layer that is not marked `dense`. Each
            weight, or block of weights, is kept with that probability, independently.
        seed: of weights and zeros; the same seed gives the same bytes.
        structure: `unstructured`, or `1x4`: blocks of four input channels.

    Raises:
        ConfigurationError: the density is out of range, there is no such structure, or a layer does not fit the ones
            that it reads.
    """
    if not 0 < density <= 1:
        raise ConfigurationError(f"got density {density}; expected more than 0 and at most 1")
    if structure not in BLOCKS:
        raise ConfigurationError(f"got structure {structure!r}; expected one of {', '.join(BLOCKS)}")
    drawing = _Drawing(density, np.random.default_rng(seed), BLOCKS[structure])
    for layer in network.layers:
        try:
            if layer.kind == "input":
                drawing.shapes[layer.name] = (1, *layer.shape)
                drawing.values[layer.name] = layer.name
            else:
                KINDS[layer.kind].write(drawing, layer)
        except ValueError as error:
            raise ConfigurationError(f"{network.name}, layer {layer.name}: {error}") from error
    inputs = [
        helper.make_tensor_value_info(layer.name, TensorProto.FLOAT, [1, *layer.shape])
        for layer in network.layers
        if layer.kind == "input"
    ]
    last = network.layers[-1].name
    output = helper.make_tensor_value_info(drawing.values[last], TensorProto.FLOAT, list(drawing.shapes[last]))
    graph = helper.make_graph(drawing.nodes, network.name, inputs, [output], drawing.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


@dataclass
class _Drawing:
    """A graph under construction."""

    density: float
    rng: np.random.Generator
    block: int
    """Input channels that are kept or pruned together."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """The name of the tensor that a layer ends in."""

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, layer: DescribedLayer, shape: tuple[int, ...], fan_in: int) -> np.ndarray[Any, Any]:
        density = 1.0 if layer.dense else self.density
        gain = 2.0 if layer.activation else 1.0
        scale = math.sqrt(gain / (fan_in * density)) * (RESIDUAL_SCALE if layer.residual else 1.0)
        weight = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        if density < 1:
            blocks = (shape[0], -(-shape[1] // self.block), *shape[2:])
            kept = self.rng.random(blocks, dtype=np.float32) < density
            weight *= kept.repeat(self.block, axis=1)[:, : shape[1]]
        return weight

    def bias(self, layer: DescribedLayer, outputs: int) -> str:
        return self.constant(
            f"{layer.name}.bias", self.rng.standard_normal(outputs, dtype=np.float32) * np.float32(0.1)
        )

    def source(self, layer: DescribedLayer, rank: int | None = None) -> tuple[int, ...]:
        shape = self.shapes[layer.sources[0]]
        if rank is not None and len(shape) != rank:
            raise ValueError(f"it reads {layer.sources[0]} of {len(shape)} axes; expected {rank}, the batch included")
        return shape

    def active(self, activation: str, value: str, name: str) -> str:
        """An activation function, in the ops that exporters write."""
        gates = {"hardswish": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), "silu": ("Sigmoid", {})}
        if activation not in gates:
            return self.node({"relu": "Relu", "gelu": "Gelu"}[activation], [value], f"{name}.active")
        kind, attributes = gates[activation]
        gate = self.node(kind, [value], f"{name}.gate", **attributes)
        return self.node("Mul", [value, gate], f"{name}.active")

    def finish(self, layer: DescribedLayer, value: str, shape: tuple[int, ...]) -> None:
        """Residual and activation."""
        if layer.residual is not None:
            if self.shapes[layer.residual] != shape:
                raise ValueError(f"its output is {shape}, its residual {layer.residual} {self.shapes[layer.residual]}")
            value = self.node("Add", [value, self.values[layer.residual]], f"{layer.name}.sum")
        if layer.activation is not None:
            value = self.active(layer.activation, value, layer.name)
        self.values[layer.name], self.shapes[layer.name] = value, shape


def _window(layer: DescribedLayer, height: int, width: int) -> tuple[dict[str, list[int]], int, int]:
    """ONNX's attributes of a square window, and the output's height and width."""
    kernel, stride = layer.settings.get("kernel", 1), layer.settings.get("stride", 1)
    dilation = layer.settings.get("dilation", 1)
    padding = layer.settings.get("padding", dilation * (kernel // 2))
    sizes = [(size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for size in (height, width)]
    if min(sizes) < 1:
        raise ValueError(f"its kernel is larger than the image of {height} x {width}")
    window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
    if dilation > 1:
        window["dilations"] = [dilation] * 2
    return window, sizes[0], sizes[1]


def _write_conv(drawing: _Drawing, layer: DescribedLayer) -> None:
    _, channels, height, width = drawing.source(layer, 4)
    outputs, kernel, groups = (
        layer.settings["outputs"],
        layer.settings.get("kernel", 1),
        layer.settings.get("groups", 1),
    )
    if channels % groups or outputs % groups:
        raise ValueError(f"{groups} groups do not divide {channels} inputs and {outputs} outputs")
    window, height, width = _window(layer, height, width)
    fan_in = channels // groups * kernel**2
    weight = drawing.weight(layer, (outputs, channels // groups, kernel, kernel), fan_in)
    inputs = [drawing.values[layer.sources[0]], drawing.constant(f"{layer.name}.weight", weight)]
    value = drawing.node("Conv", [*inputs, drawing.bias(layer, outputs)], layer.name, group=groups, **window)
    drawing.finish(layer, value, (1, outputs, height, width))


def _write_linear(drawing: _Drawing, layer: DescribedLayer) -> None:
    shape = drawing.source(layer)
    source, outputs = drawing.values[layer.sources[0]], layer.settings["outputs"]
    weight = drawing.weight(layer, (outputs, shape[-1]), shape[-1])
    if len(shape) == 2:
        inputs = [source, drawing.constant(f"{layer.name}.weight", weight), drawing.bias(layer, outputs)]
        value = drawing.node("Gemm", inputs, layer.name, transB=1)
    else:
        transposed = drawing.constant(f"{layer.name}.weight", np.ascontiguousarray(weight.T))
        product = drawing.node("MatMul", [source, transposed], layer.name)
        value = drawing.node("Add", [product, drawing.bias(layer, outputs)], f"{layer.name}.biased")
    drawing.finish(layer, value, (*shape[:-1], outputs))


def _write_maxpool(drawing: _Drawing, layer: DescribedLayer) -> None:
    _, channels, height, width = drawing.source(layer, 4)
    window, height, width = _window(layer, height, width)
    value = drawing.node("MaxPool", [drawing.values[layer.sources[0]]], layer.name, **window)
    drawing.finish(layer, value, (1, channels, height, width))


def _write_average(drawing: _Drawing, layer: DescribedLayer) -> None:
    shape = drawing.source(layer, 4)
    pooled = drawing.node("GlobalAveragePool", [drawing.values[layer.sources[0]]], layer.name)
    drawing.finish(layer, drawing.node("Flatten", [pooled], f"{layer.name}.flat"), shape[:2])


def _write_flatten(drawing: _Drawing, layer: DescribedLayer) -> None:
    shape = drawing.source(layer)
    value = drawing.node("Flatten", [drawing.values[layer.sources[0]]], layer.name)
    drawing.finish(layer, value, (1, math.prod(shape[1:])))


def _write_multiply(drawing: _Drawing, layer: DescribedLayer) -> None:
    shape, other = (drawing.shapes[source] for source in layer.sources)
    if other not in (shape, (*shape[:2], 1, 1)):
        raise ValueError(f"{layer.sources[1]} is {other}; expected the shape of {layer.sources[0]}, or one pixel of it")
    values = [drawing.values[source] for source in layer.sources]
    drawing.finish(layer, drawing.node("Mul", values, layer.name), shape)


def _write_attention(drawing: _Drawing, layer: DescribedLayer) -> None:
    shapes = {drawing.shapes[source] for source in layer.sources}
    _, tokens, features = drawing.source(layer, 3)
    heads = layer.settings["heads"]
    if len(shapes) != 1 or features % heads:
        raise ValueError(f"query, key and value must have one shape, and {heads} heads divide its {features} features")
    size = features // heads
    split = drawing.constant(f"{layer.name}.split", np.array([1, tokens, heads, size]))
    joined = drawing.constant(f"{layer.name}.joined", np.array([1, tokens, features]))

    def head(source: str, part: str, order: list[int]) -> str:
        divided = drawing.node("Reshape", [drawing.values[source], split], f"{layer.name}.{part}.heads")
        return drawing.node("Transpose", [divided], f"{layer.name}.{part}", perm=order)

    query = head(layer.sources[0], "query", [0, 2, 1, 3])
    key = head(layer.sources[1], "key", [0, 2, 3, 1])
    value = head(layer.sources[2], "value", [0, 2, 1, 3])
    products = drawing.node("MatMul", [query, key], f"{layer.name}.products")
    scale = drawing.constant(f"{layer.name}.scale", np.array(1 / math.sqrt(size), np.float32))
    scaled = drawing.node("Mul", [products, scale], f"{layer.name}.scaled")
    shares = drawing.node("Softmax", [scaled], f"{layer.name}.shares", axis=-1)
    mixed = drawing.node("MatMul", [shares, value], f"{layer.name}.mixed")
    turned = drawing.node("Transpose", [mixed], f"{layer.name}.turned", perm=[0, 2, 1, 3])
    drawing.finish(layer, drawing.node("Reshape", [turned, joined], layer.name), (1, tokens, features))


def _write_normalise(drawing: _Drawing, layer: DescribedLayer) -> None:
    shape = drawing.source(layer)
    scale = drawing.constant(f"{layer.name}.scale", np.ones(shape[-1], np.float32))
    shift = drawing.constant(f"{layer.name}.shift", np.zeros(shape[-1], np.float32))
    inputs = [drawing.values[layer.sources[0]], scale, shift]
    drawing.finish(layer, drawing.node("LayerNormalization", inputs, layer.name, axis=-1, epsilon=1e-12), shape)


@dataclass(frozen=True)
class _Kind:
    required: tuple[str, ...]
    optional: tuple[str, ...]
    write: Callable[[_Drawing, DescribedLayer], None]


KINDS: dict[str, _Kind] = {
    "conv": _Kind(("outputs",), ("kernel", "stride", "dilation", "padding", "groups"), _write_conv),
    "linear": _Kind(("outputs",), (), _write_linear),
    "maxpool": _Kind(("kernel", "stride"), ("padding",), _write_maxpool),
    "average": _Kind((), (), _write_average),
    "flatten": _Kind((), (), _write_flatten),
    "multiply": _Kind((), (), _write_multiply),
    "attention": _Kind(("heads",), (), _write_attention),
    "normalise": _Kind((), (), _write_normalise),
}
