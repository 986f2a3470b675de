"""Whole networks with random zeros besides ResNet-50: dense as ONNX, sparse with gossamer's ops, compared and timed.

Command: taskset -c 0 python benchmarks/runtime_networks.py --density 0.1 --threads 1 --check --runs 15
n: 15 runs of each, in turn
Hardware: one thread of 2 cores of AMD Zen 4
Date: 2026-11-24, docs/kernels.md

Needs onnx beside gossamer_runtime. Both models hold the same weights. With ``--check`` every layer's output is compared
first. The networks are those of runtime/shapes. Depthwise layers are dense, and so is the first layer of each network;
sparse graphs compute them with the same ops. Of BERT only the six products with weights are sparse.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime
from gossamer_runtime import weights
from interleaved import largest_error, require_small, timed
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Graph:
    """A model under construction. ``sparse`` decides how a layer is written; panels flow between convolutions."""

    sparse: bool
    density: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def gossamer(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        return self.node(kind, inputs, output, "gossamer", **attributes)

    def draw(self, shape: tuple[int, ...], density: float) -> np.ndarray:
        """He initialisation of the weights that are kept, so that activations neither grow nor vanish."""
        fan_in = int(np.prod(shape[1:]))
        weight = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2.0 / (fan_in * density)))
        weight[self.rng.random(shape) >= density] = 0.0
        return weight

    def bias(self, name: str, count: int) -> str:
        return self.constant(f"{name}.bias", self.rng.standard_normal(count, dtype=np.float32) * np.float32(0.1))

    def convolution(
        self,
        name: str,
        source: str,
        shape: tuple[int, int, int, int],
        stride: int = 1,
        group: int = 1,
        dense: bool = False,
    ) -> str:
        """With ReLU. ``shape`` is the weight's."""
        weight, bias = self.draw(shape, 1.0 if dense else self.density), self.bias(name, shape[0])
        kernel = shape[2]
        attributes = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [kernel // 2] * 4,
            "group": group,
        }
        if self.sparse:
            packed = self.constant(f"{name}.packed", np.frombuffer(weights.encode(weight), np.uint8))
            given = [source, packed, bias]
            output = self.gossamer("SparseConv", given, name, output_channels=shape[0], activation="relu", **attributes)
            self.layers.append(self.gossamer("FromPanel", [output], f"{name}.planar", channels=shape[0]))
            return output
        given = [source, self.constant(f"{name}.weight", weight), bias]
        self.layers.append(self.node("Relu", [self.node("Conv", given, f"{name}.sum", **attributes)], name))
        return name

    def linear(
        self, name: str, source: str, inputs: int, outputs: int, activation: str = "none", residual: str | None = None
    ) -> str:
        """``activation`` is none, relu or gelu; ``residual`` is added before it."""
        weight, bias = self.draw((outputs, inputs), self.density), self.bias(name, outputs)
        if self.sparse:
            packed = self.constant(f"{name}.packed", np.frombuffer(weights.encode(weight), np.uint8))
            given = [source, packed, bias] + ([residual] if residual else [])
            self.gossamer("SparseMatMul", given, name, output_features=outputs, activation=activation)
            self.layers.append(name)
            return name
        current = self.node("MatMul", [source, self.constant(f"{name}.weight", weight.T.copy())], f"{name}.product")
        current = self.node("Add", [current, bias], f"{name}.sum")
        if residual:
            current = self.node("Add", [current, residual], f"{name}.residual")
        if activation == "relu":
            current = self.node("Relu", [current], f"{name}.relu")
        if activation == "gelu":
            scaled = self.node("Mul", [current, self.number("half_root", 2**-0.5)], f"{name}.scaled")
            gate = self.node(
                "Add", [self.node("Erf", [scaled], f"{name}.erf"), self.number("one", 1.0)], f"{name}.gate"
            )
            product = self.node("Mul", [current, gate], f"{name}.gated")
            current = self.node("Mul", [product, self.number("half", 0.5)], f"{name}.gelu")
        self.layers.append(current)
        return current

    def number(self, name: str, value: float) -> str:
        if name not in {constant.name for constant in self.constants}:
            self.constant(name, np.float32(value))
        return name

    def to_panel(self, source: str) -> str:
        return self.gossamer("ToPanel", [source], f"{source}.panel") if self.sparse else source

    def from_panel(self, source: str, channels: int) -> str:
        return self.gossamer("FromPanel", [source], f"{source}.features", channels=channels) if self.sparse else source

    def pool(self, name: str, source: str, channels: int) -> str:
        """The largest of 2 x 2 pixels."""
        window = {"kernel_shape": [2, 2], "strides": [2, 2]}
        if self.sparse:
            return self.gossamer("PanelMaxPool", [source], name, channels=channels, **window)
        return self.node("MaxPool", [source], name, **window)

    def normalize(self, name: str, source: str, features: int) -> str:
        scale = self.constant(
            f"{name}.scale", 1 + self.rng.standard_normal(features, dtype=np.float32) * np.float32(0.1)
        )
        return self.node("LayerNormalization", [source, scale, self.bias(name, features)], name, axis=-1)

    def model(self, shape: list[int], output: str, keep_layers: bool) -> bytes:
        outputs = [output, *(self.layers if keep_layers else [])]
        nodes = [n for n in self.nodes if keep_layers or not n.output[0].endswith(".planar")]
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def mobilenet_v1(graph: Graph, keep_layers: bool) -> bytes:
    blocks = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    blocks += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
    current = graph.convolution("stem", graph.to_panel("input"), (32, 3, 3, 3), stride=2, dense=True)
    for number, (inputs, outputs, stride) in enumerate(blocks):
        depthwise = (inputs, 1, 3, 3)
        current = graph.convolution(f"block{number}.depthwise", current, depthwise, stride, group=inputs, dense=True)
        current = graph.convolution(f"block{number}.pointwise", current, (outputs, inputs, 1, 1))
    current = graph.node("GlobalAveragePool", [graph.from_panel(current, 1024)], "average")
    current = graph.node("Flatten", [current], "flat")
    return graph.model([1, 3, 224, 224], graph.linear("head", current, 1024, 1000), keep_layers)


def vgg_16(graph: Graph, keep_layers: bool) -> bytes:
    current, channels = graph.to_panel("input"), 3
    for stage, (outputs, layers) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for layer in range(layers):
            name = f"stage{stage}.conv{layer}"
            current = graph.convolution(name, current, (outputs, channels, 3, 3), dense=channels == 3)
            channels = outputs
        current = graph.pool(f"stage{stage}.pool", current, channels)
    current = graph.from_panel(current, channels)
    current = graph.node("Flatten", [current], "flat")
    current = graph.linear("fc0", current, 25088, 4096, "relu")
    current = graph.linear("fc1", current, 4096, 4096, "relu")
    return graph.model([1, 3, 224, 224], graph.linear("fc2", current, 4096, 1000), keep_layers)


def bert_base_block(graph: Graph, keep_layers: bool) -> bytes:
    """Attention of 12 heads, normalisation after each residual, as in BERT-base, at 128 tokens."""
    heads, features, wide, tokens = 12, 768, 3072, 128
    split = graph.constant("split", np.array([1, tokens, heads, features // heads], np.int64))
    join = graph.constant("join", np.array([1, tokens, features], np.int64))

    def by_head(name: str, order: list[int]) -> str:
        product = graph.node("Reshape", [graph.linear(name, "input", features, features), split], f"{name}.split")
        return graph.node("Transpose", [product], f"{name}.heads", perm=order)

    query, key, value = by_head("query", [0, 2, 1, 3]), by_head("key", [0, 2, 3, 1]), by_head("value", [0, 2, 1, 3])
    scores = graph.node("MatMul", [query, key], "scores")
    scores = graph.node("Mul", [scores, graph.number("scale", (features // heads) ** -0.5)], "scaled")
    context = graph.node("MatMul", [graph.node("Softmax", [scores], "attention", axis=-1), value], "context")
    context = graph.node("Transpose", [context], "context.tokens", perm=[0, 2, 1, 3])
    context = graph.node("Reshape", [context, join], "context.joined")
    attended = graph.linear("attention.output", context, features, features, residual="input")
    attended = graph.normalize("attention.norm", attended, features)
    hidden = graph.linear("intermediate", attended, features, wide, "gelu")
    output = graph.linear("output", hidden, wide, features, residual=attended)
    return graph.model([1, tokens, features], graph.normalize("output.norm", output, features), keep_layers)


NETWORKS: dict[str, tuple[Callable[[Graph, bool], bytes], tuple[int, ...]]] = {
    "mobilenet-v1": (mobilenet_v1, (1, 3, 224, 224)),
    "vgg-16": (vgg_16, (1, 3, 224, 224)),
    "bert-base-block": (bert_base_block, (1, 128, 768)),
}


def dense_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--check", action="store_true", help="compare every layer's output first")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        parser.error(f"there is no network {unknown[0]}; expected some of {', '.join(NETWORKS)}")
    processor = platform.processor() or platform.machine()
    print(f"{processor}, onnxruntime {onnxruntime.__version__}, {options.threads} threads, density {options.density}")
    results = []
    for name in options.networks or NETWORKS:
        build, shape = NETWORKS[name]
        feed = {"input": np.random.default_rng(1).standard_normal(shape, dtype=np.float32)}
        if options.check:
            layers = Graph(False, options.density), Graph(True, options.density)
            dense, sparse = (build(graph, True) for graph in layers)
            compared = dense_session(dense, options.threads), gossamer_runtime.Session(sparse, threads=options.threads)
            require_small(name, largest_error(*compared, feed))
        sparse_bytes = build(Graph(True, options.density), False)
        start = time.perf_counter()
        sparse = gossamer_runtime.Session(sparse_bytes, threads=options.threads)
        ready = 1e3 * (time.perf_counter() - start)
        sessions = {"dense": dense_session(build(Graph(False, options.density), False), options.threads)}
        sessions["gossamer"] = sparse
        found = timed(name, sessions, feed, options.runs, ready, len(sparse_bytes))
        results.append({"network": name, **found})
    if options.json:
        described = {"threads": options.threads, "density": options.density, "runs": options.runs, "results": results}
        options.json.write_text(json.dumps(described, indent=2))


if __name__ == "__main__":
    main()
