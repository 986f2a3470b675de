"""A quantised network of MobileNetV1's shape with random zeros: dense in both of ONNX's forms, and with gossamer's ops.

Command: taskset -c 0 python benchmarks/runtime_mobilenet_v1_int8.py --density 0.1 --threads 1 --runs 15 --check
n: 15 runs of each, in turn
Hardware: one thread of 2 cores of AMD Zen 5
Date: 2026-11-28

Depthwise layers and the first one are dense. As runtime_resnet_50_int8.py in all else.
"""

from runtime_resnet_50_int8 import Graph, measure

BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
"""Outputs and stride of each pair of a depthwise and a pointwise layer."""


def mobilenet_v1(graph: Graph) -> bytes:
    current = graph.stem(32, 3)
    for number, (outputs, stride) in enumerate(BLOCKS):
        inputs = graph.channels[current]
        current = graph.convolution(f"block{number}.depthwise", current, inputs, 3, stride, relu=True, groups=inputs)
        current = graph.convolution(f"block{number}.pointwise", current, outputs, 1, 1, relu=True)
    graph.head(graph.average(current), graph.channels[current])
    return graph.model()


if __name__ == "__main__":
    measure(mobilenet_v1, __doc__, [0.1])
