"""A network of ResNet-50's shape with random zeros: dense as ONNX, sparse with gossamer's ops, compared and timed.

Command: taskset -c 0 python benchmarks/runtime_resnet_50.py --density 0.2 0.1 0.05 --threads 1 --runs 15
n: 15 runs of each, in turn
Hardware: one thread of 2 cores of AMD Zen 4
Date: 2026-11-24, docs/kernels.md

Needs onnx beside gossamer_runtime. Both models hold the same weights. First every layer's output is compared, because
the output of a randomly initialised network hardly depends on its input; then both sessions are timed run by run.
"""

import argparse
import json
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime
from gossamer_runtime import weights
from interleaved import largest_error, require_small, timed
from onnx import TensorProto, helper, numpy_helper

BLOCKS = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, middle channels, stride of the first
EXPANSION = 4


@dataclass
class Graph:
    """A model under construction. ``sparse`` decides how a convolution is written."""

    sparse: bool
    rng: np.random.Generator
    density: float
    size: int
    keep_outputs: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def draw(self, shape: tuple[int, ...], density: float) -> np.ndarray:
        """He initialisation of the weights that are kept, so that activations neither grow nor vanish."""
        fan_in = int(np.prod(shape[1:]))
        weight = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2.0 / (fan_in * density)))
        weight[self.rng.random(shape) >= density] = 0.0
        return weight

    def convolution(
        self, name: str, source: str, outputs: int, kernel: int, stride: int, relu: bool, residual: str | None = None
    ) -> str:
        inputs = self.channels[source]
        weight = self.draw((outputs, inputs, kernel, kernel), self.density)
        if residual is not None:
            weight *= np.float32(0.5)
        bias = self.constant(f"{name}.bias", self.rng.standard_normal(outputs, dtype=np.float32) * np.float32(0.1))
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        if self.sparse:
            packed = np.frombuffer(weights.encode(weight), np.uint8)
            given = [source, self.constant(f"{name}.packed", packed), bias] + ([residual] if residual else [])
            activation = "relu" if relu else "none"
            output = self.node(
                "SparseConv", given, name, "gossamer", output_channels=outputs, activation=activation, **shape
            )
        else:
            output = self.node("Conv", [source, self.constant(f"{name}.weight", weight), bias], name, **shape)
            if residual is not None:
                output = self.node("Add", [output, residual], f"{name}.sum")
            if relu:
                output = self.node("Relu", [output], f"{name}.relu")
        self.channels[output] = outputs
        self.layers.append(output)
        return output

    def to_planar(self, panel: str, name: str) -> str:
        if not self.sparse:
            return panel
        return self.node("FromPanel", [panel], name, "gossamer", channels=self.channels[panel])

    def build(self) -> onnx.ModelProto:
        stem = self.constant("stem.weight", self.draw((64, 3, 7, 7), 1.0))
        shape: dict[str, object] = {"kernel_shape": [7, 7], "strides": [2, 2], "pads": [3] * 4}
        if self.sparse:
            shape |= {"output_channels": 64, "activation": "relu", "max_pool": 1}
            current = self.node("StemConv", ["image", stem], "pool", "gossamer", **shape)
        else:
            current = self.node("Conv", ["image", stem], "stem", **shape)
            current = self.node("Relu", [current], "stem.relu")
            current = self.node("MaxPool", [current], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        self.layers.append(current)
        self.channels[current] = 64
        for stage, (blocks, middle, first_stride) in enumerate(BLOCKS):
            for block in range(blocks):
                current = self.block(f"stage{stage}.block{block}", current, middle, first_stride if block == 0 else 1)
        features = self.channels[current]
        current = self.to_planar(current, "features")
        current = self.node("GlobalAveragePool", [current], "average")
        current = self.node("Flatten", [current], "flat")
        weight = self.draw((1000, features), self.density)
        bias = self.constant("head.bias", np.zeros(1000, np.float32))
        if self.sparse:
            packed = self.constant("head.packed", np.frombuffer(weights.encode(weight), np.uint8))
            self.node("SparseMatMul", [current, packed, bias], "scores", "gossamer", output_features=1000)
        else:
            self.node("Gemm", [current, self.constant("head.weight", weight), bias], "scores", transB=1)
        return self.model()

    def block(self, name: str, source: str, middle: int, stride: int) -> str:
        outputs = EXPANSION * middle
        shortcut = source
        if stride != 1 or self.channels[source] != outputs:
            shortcut = self.convolution(f"{name}.shortcut", source, outputs, 1, stride, relu=False)
        first = self.convolution(f"{name}.conv1", source, middle, 1, 1, relu=True)
        second = self.convolution(f"{name}.conv2", first, middle, 3, stride, relu=True)
        return self.convolution(f"{name}.conv3", second, outputs, 1, 1, relu=True, residual=shortcut)

    def model(self) -> onnx.ModelProto:
        outputs = ["scores"]
        if self.keep_outputs:
            outputs += [self.to_planar(layer, f"{layer}.planar") for layer in self.layers]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, self.size, self.size])
        graph = helper.make_graph(
            self.nodes,
            "resnet50",
            [image],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def make(sparse: bool, density: float, size: int, keep_outputs: bool = False, seed: int = 0) -> bytes:
    graph = Graph(sparse, np.random.default_rng(seed), density, size, keep_outputs)
    return graph.build().SerializeToString()


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """The threads of a session spin for a while after a run, which would take a core from the session timed next."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def dense_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, session_options(threads), providers=["CPUExecutionProvider"])


def sparse_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    return gossamer_runtime.Session(model, session_options(threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--density", type=float, nargs="+", default=[0.2, 0.1, 0.05])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--check", action="store_true", help="compare every layer's output first")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    feed = {"image": np.random.default_rng(1).standard_normal((1, 3, options.size, options.size), dtype=np.float32)}
    processor = platform.processor() or platform.machine()
    print(f"{processor}, onnxruntime {onnxruntime.__version__}, {options.threads} threads")
    results = []
    for density in options.density:
        if options.check:
            layers = [make(sparse, density, options.size, keep_outputs=True) for sparse in (False, True)]
            compared = dense_session(layers[0], options.threads), sparse_session(layers[1], options.threads)
            require_small(f"density {density}", largest_error(*compared, feed))
        sparse_bytes = make(True, density, options.size)
        start = time.perf_counter()
        sparse = sparse_session(sparse_bytes, options.threads)
        ready = 1e3 * (time.perf_counter() - start)
        sessions = {"dense": dense_session(make(False, density, options.size), options.threads), "gossamer": sparse}
        found = timed(f"density {density}", sessions, feed, options.runs, ready, len(sparse_bytes))
        results.append({"density": density, **found})
    if options.json:
        options.json.write_text(
            json.dumps({"threads": options.threads, "runs": options.runs, "results": results}, indent=2)
        )


if __name__ == "__main__":
    main()
