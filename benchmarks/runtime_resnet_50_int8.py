"""A quantised network of ResNet-50's shape with random zeros: dense in both of ONNX's forms, and with gossamer's ops.

Command: taskset -c 0 python benchmarks/runtime_resnet_50_int8.py --density 0.2 0.1 0.05 --threads 1 --runs 15 --check
n: 15 runs of each, in turn
Hardware: one thread of 2 cores of AMD Zen 5, without --check and with and without --blocks
Date: 2026-11-28

All three hold the same int8 weights. Every scale of an activation is 1, and weights are scaled so that sums spread over
SPREAD of the 256 values. ONNX Runtime rounds and clamps before an addition and after, gossamer once, and a network of
random weights makes much of that; so --check ends the script only where layers before the first addition differ by more
than a step, and prints how much of the later ones is the same.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from gossamer_runtime import weights
from interleaved import timed
from onnx import TensorProto, helper, numpy_helper
from runtime_resnet_50 import BLOCKS, EXPANSION, dense_session, sparse_session

SPREAD = 25.0
"""Standard deviation of sums, in steps of the output."""
SHORTCUT = 0.5
"""What a residual is multiplied by, so that sums do not grow from block to block."""
SIGNED = 128
"""The zero point of values of both signs; that of what ReLU leaves is 0."""
FORMS = ("QOperator", "QDQ", "gossamer")


@dataclass(frozen=True)
class Layer:
    """A convolution. ``residual`` is a value with its zero point."""

    name: str
    source: str
    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    zero_point: int
    window: dict[str, list[int] | int]
    relu: bool
    residual: tuple[str, int] | None


@dataclass
class Graph:
    """A model under construction in one of FORMS. Values that have been rectified have the zero point 0."""

    form: str
    rng: np.random.Generator
    density: float
    blocks: bool
    size: int
    keep_outputs: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)
    energy: dict[str, float] = field(default_factory=dict)
    """Mean square of a value, less its zero point."""

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def zero_point(self, value: int) -> str:
        return self.constant(f"zero_point_{value}", np.array(value, np.uint8))

    def one(self) -> str:
        return self.constant("one", np.array(1, np.float32))

    def half(self) -> str:
        return self.constant("half", np.array(SHORTCUT, np.float32))

    def draw(self, shape: tuple[int, ...], density: float) -> np.ndarray:
        """Single weights, or blocks of four input channels at one place of the kernel."""
        weight = np.clip(np.rint(36 * self.rng.standard_normal(shape)), -127, 127).astype(np.int8)
        weight[weight == 0] = 1
        groups = (shape[0], -(-shape[1] // 4), *shape[2:])
        kept = self.rng.random(groups if self.blocks else shape) < density
        if self.blocks:
            kept = kept.repeat(4, axis=1)[:, : shape[1]]
        weight[~kept] = 0
        return weight

    def scale(self, weight: np.ndarray, mean_square: float) -> np.ndarray:
        """Of each output channel, for inputs of this mean square."""
        energy = (weight.astype(np.float64) ** 2).reshape(len(weight), -1).sum(1)
        return (SPREAD / np.sqrt(np.maximum(energy * mean_square, 1))).astype(np.float32)

    def convolution(
        self,
        name: str,
        source: str,
        outputs: int,
        kernel: int,
        stride: int,
        *,
        relu: bool,
        residual: tuple[str, int] | None = None,
        groups: int = 1,
    ) -> str:
        first = source == "image"
        inputs = 3 if first else self.channels[source]
        dense = first or groups != 1
        weight = self.draw((outputs, inputs // groups, kernel, kernel), 1.0 if dense else self.density)
        zero_point = SIGNED if first else 0
        scale = self.scale(weight, 74.0**2 if first else self.energy[source])
        bias = self.rng.integers(-20, 20, outputs).astype(np.int32) * np.int32(max(1, round(1 / float(scale.mean()))))
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": groups}
        write = {"gossamer": self.sparse, "QOperator": self.operators, "QDQ": self.pairs}[self.form]
        output = write(Layer(name, source, weight, scale, bias, zero_point, window, relu, residual))
        self.channels[output] = outputs
        added = 0.0 if residual is None else self.energy[residual[0]] * SHORTCUT**2
        self.energy[output] = (SPREAD**2 + added) / (2 if relu else 1)
        self.layers.append(output)
        return output

    def sparse(self, layer: Layer) -> str:
        inputs = [
            layer.source,
            self.constant(f"{layer.name}.packed", np.frombuffer(weights.encode(layer.weight), np.uint8)),
            self.constant(f"{layer.name}.scale", layer.scale),
            self.constant(f"{layer.name}.bias", layer.bias),
        ]
        attributes: dict[str, object] = {
            **layer.window,
            "output_channels": len(layer.weight),
            "input_zero_point": layer.zero_point,
            "output_zero_point": 0 if layer.relu else SIGNED,
        }
        if layer.residual is not None:
            inputs.append(layer.residual[0])
            attributes |= {"residual_scale": SHORTCUT, "residual_zero_point": layer.residual[1]}
        return self.node("QuantisedConv", inputs, layer.name, "gossamer", **attributes)

    def operators(self, layer: Layer) -> str:
        to = self.zero_point(SIGNED if layer.residual is not None or not layer.relu else 0)
        weight = self.constant(f"{layer.name}.weight", layer.weight)
        zeros = self.constant(f"{layer.name}.zeros", np.zeros(len(layer.weight), np.int8))
        scale = self.constant(f"{layer.name}.scale", layer.scale)
        bias = self.constant(f"{layer.name}.bias", layer.bias)
        one = self.one()
        inputs = [layer.source, one, self.zero_point(layer.zero_point), weight, scale, zeros, one, to, bias]
        output = self.node("QLinearConv", inputs, layer.name, **layer.window)
        if layer.residual is None:
            return output
        other = [layer.residual[0], self.half(), self.zero_point(layer.residual[1])]
        inputs = [output, one, to, *other, one, self.zero_point(0)]
        return self.node("QLinearAdd", inputs, f"{layer.name}.sum", "com.microsoft")

    def pairs(self, layer: Layer) -> str:
        name, one = layer.name, self.one()
        weight = self.constant(f"{name}.weight", layer.weight)
        zeros = self.constant(f"{name}.zeros", np.zeros(len(layer.weight), np.int8))
        scale = self.constant(f"{name}.scale", layer.scale)
        bias = self.constant(f"{name}.bias", layer.bias)
        no_bias = self.constant(f"{name}.bias.zeros", np.zeros(len(layer.bias), np.int32))
        inputs = [
            self.node("DequantizeLinear", [layer.source, one, self.zero_point(layer.zero_point)], f"{name}.x"),
            self.node("DequantizeLinear", [weight, scale, zeros], f"{name}.w", axis=0),
            self.node("DequantizeLinear", [bias, scale, no_bias], f"{name}.b", axis=0),
        ]
        output = self.node("Conv", inputs, f"{name}.float", **layer.window)
        if layer.residual is not None:
            signed = self.zero_point(SIGNED)
            output = self.node("QuantizeLinear", [output, one, signed], f"{name}.rounded")
            output = self.node("DequantizeLinear", [output, one, signed], f"{name}.back")
            other = [layer.residual[0], self.half(), self.zero_point(layer.residual[1])]
            output = self.node("Add", [output, self.node("DequantizeLinear", other, f"{name}.r")], f"{name}.added")
        return self.node("QuantizeLinear", [output, one, self.zero_point(0 if layer.relu else SIGNED)], name)

    def block(self, name: str, source: str, middle: int, stride: int) -> str:
        outputs = EXPANSION * middle
        shortcut = (source, 0)
        if stride != 1 or self.channels[source] != outputs:
            short = self.convolution(f"{name}.shortcut", source, outputs, 1, stride, relu=False)
            shortcut = (short, SIGNED)
        first = self.convolution(f"{name}.conv1", source, middle, 1, 1, relu=True)
        second = self.convolution(f"{name}.conv2", first, middle, 3, stride, relu=True)
        return self.convolution(f"{name}.conv3", second, outputs, 1, 1, relu=True, residual=shortcut)

    def pool(self, source: str) -> str:
        window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
        if self.form != "gossamer":
            return self.node("MaxPool", [source], "pool", **window)
        return self.node("QuantisedMaxPool", [source], "pool", "gossamer", channels=64, **window)

    def average(self, source: str) -> str:
        """As bytes, [images, channels]."""
        channels = self.channels[source]
        if self.form == "gossamer":
            extent = self.size // 32
            attributes = {"kernel_shape": [extent, extent], "input_scale": 1.0, "output_scale": 1.0}
            mean = self.node(
                "QuantisedAveragePool", [source], "mean.panel", "gossamer", channels=channels, **attributes
            )
            mean = self.node("QuantisedFromPanel", [mean], "mean", "gossamer", channels=channels)
        else:
            numbers = [self.one(), self.zero_point(0)] * 2
            mean = self.node("QLinearGlobalAveragePool", [source, *numbers], "mean", "com.microsoft", channels_last=0)
        return self.node("Flatten", [mean], "flat")

    def head(self, source: str, features: int) -> None:
        weight = self.draw((1000, features), self.density)
        scale = self.scale(weight, SPREAD**2 / 4)
        if self.form == "gossamer":
            packed = self.constant("head.packed", np.frombuffer(weights.encode(weight), np.uint8))
            inputs = [source, packed, self.constant("head.scale", scale)]
            attributes = {"output_features": 1000, "output_zero_point": SIGNED}
            self.node("QuantisedMatMul", inputs, "scores", "gossamer", **attributes)
            return
        right = [
            self.constant("head.weight", np.ascontiguousarray(weight.T)),
            self.constant("head.scale", scale),
            self.constant("head.zeros", np.zeros(1000, np.int8)),
        ]
        left = [source, self.one(), self.zero_point(0)]
        self.node("QLinearMatMul", [*left, *right, self.one(), self.zero_point(SIGNED)], "scores")

    def stem(self, outputs: int, kernel: int) -> str:
        """The first layer, which is told by its source."""
        stem = self.convolution("stem", "image", outputs, kernel, 2, relu=True)
        if self.form == "gossamer":
            convolution = self.nodes.pop()
            convolution.input[0] = self.node(
                "QuantisedToPanel", ["image"], "image.panel", "gossamer", zero_point=SIGNED
            )
            self.nodes.append(convolution)
        return stem

    def build(self) -> bytes:
        stem = self.stem(64, 7)
        current = self.pool(stem)
        self.channels[current] = 64
        self.energy[current] = 2 * self.energy[stem]  # the larger ones are left
        for stage, (blocks, middle, first_stride) in enumerate(BLOCKS):
            for block in range(blocks):
                current = self.block(f"stage{stage}.block{block}", current, middle, first_stride if block == 0 else 1)
        self.head(self.average(current), self.channels[current])
        return self.model()

    def model(self) -> bytes:
        outputs = ["scores"]
        for layer in self.layers if self.keep_outputs else []:
            planar = layer
            if self.form == "gossamer":
                channels = self.channels[layer]
                planar = self.node("QuantisedFromPanel", [layer], f"{layer}.planar", "gossamer", channels=channels)
            outputs.append(planar)
        shape = [1, 3, self.size, self.size]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        domains = {"": 17, "gossamer": 1, "com.microsoft": 1}
        imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
        made: bytes = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
        return made


def make(form: str, density: float, options: argparse.Namespace, keep_outputs: bool = False) -> bytes:
    graph = Graph(form, np.random.default_rng(0), density, options.blocks, options.size, keep_outputs)
    return options.build(graph)


def session(form: str, model: bytes, threads: int) -> onnxruntime.InferenceSession:
    return sparse_session(model, threads) if form == "gossamer" else dense_session(model, threads)


def compare(density: float, options: argparse.Namespace, feed: dict[str, np.ndarray]) -> None:
    """Compares every layer with that of the QOperator form."""
    runs = []
    for form in ("QOperator", "gossamer"):
        runs.append(session(form, make(form, density, options, True), options.threads).run(None, feed))
    steps = [np.abs(theirs.astype(int) - ours) for theirs, ours in zip(*(run[1:] for run in runs), strict=True)]
    before, after = steps[:4], steps[4:]  # the stem, the shortcut and two more; all others follow an addition
    first, later = (np.mean([(layer == 0).mean() for layer in layers]) for layers in (before, after))
    print(f"density {density}: before the first addition {first:.3%} of the values are the same, after it {later:.1%}")
    if max(layer.max() for layer in before) > 1 or first < 0.999:
        raise SystemExit("the sparse network computes something else")


def measure(build: Callable[[Graph], bytes], description: str | None, densities: list[float]) -> None:
    """Reads the command line and times the network that `build` makes of a graph."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--density", type=float, nargs="+", default=densities)
    parser.add_argument("--blocks", action="store_true", help="zeros in blocks of four input channels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--check", action="store_true", help="compare every layer's output first")
    parser.add_argument("--json", type=Path)
    parser.set_defaults(build=build)
    options = parser.parse_args()
    feed = {"image": np.random.default_rng(1).integers(0, 256, (1, 3, options.size, options.size)).astype(np.uint8)}
    processor = platform.processor() or platform.machine()
    print(f"{processor}, onnxruntime {onnxruntime.__version__}, {options.threads} threads")
    results = []
    for density in options.density:
        if options.check:
            compare(density, options, feed)
        models = {form: make(form, density, options) for form in FORMS}
        start = time.perf_counter()
        sessions = {"gossamer": session("gossamer", models["gossamer"], options.threads)}
        ready = 1e3 * (time.perf_counter() - start)
        sessions["dense"] = session("QOperator", models["QOperator"], options.threads)
        sessions["QDQ"] = session("QDQ", models["QDQ"], options.threads)
        what = f"density {density}{' in blocks' if options.blocks else ''}"
        found = timed(what, sessions, feed, options.runs, ready, len(models["gossamer"]))
        results.append({"density": density, "blocks": options.blocks, **found})
    if options.json:
        facts = {"threads": options.threads, "runs": options.runs, "results": results}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    measure(Graph.build, __doc__, [0.2, 0.1, 0.05])
