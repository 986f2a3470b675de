"""The time of every layer, sparse and dense, beside the work that it does."""

from typing import Any

from gossamer.bench.engines import Subject
from gossamer.bench.engines.onnx_runtime import open_dense, open_gossamer
from gossamer.bench.peak import multiply_adds_per_second
from gossamer.bench.profile import node_times, time_by_node

FLOPS = 2
"""A multiply-add counts as two operations."""
PANEL = ".panel"
"""What the export appends to the name of a value that it keeps in panels."""


def layer_times(subject: Subject, runs: int) -> dict[str, Any]:
    """Measures every layer of both forms with ONNX Runtime's profiler, whose clock ticks in microseconds.

    Returns:
        `layers`: for each `name`, `shape`, `density`, `milliseconds` (median) and `dense_milliseconds`, `gflops` of
        its nonzeros, `dense_gflops` (as if no weight were zero), both at the sparse time, and `peak_share`, that of the
        nonzeros' rate in the peak; `other_milliseconds` and `other_dense_milliseconds` of all nodes that are no
        layers; `peak_gflops` of all threads.
    """
    from gossamer.export.batch_norm import fold_batch_norm
    from gossamer.export.graph import Graph
    from gossamer.export.layers import find_layers

    times = node_times(
        {"sparse": lambda path: open_gossamer(subject, path), "dense": lambda path: open_dense(subject, path)},
        subject.folder,
        runs,
    )
    graph = Graph(fold_batch_norm(subject.dense))
    sparse_nodes = list(subject.sparse.graph.node)
    layers = find_layers(graph, linear_residual=True)
    dense_by_place = time_by_node(times["dense"], graph.nodes)
    sparse_by_place = time_by_node(times["sparse"], sparse_nodes)
    sparse_by_output = {sparse_nodes[place].output[0]: milliseconds for place, milliseconds in sparse_by_place.items()}
    peak = multiply_adds_per_second(subject.threads)
    facts = []
    for layer in layers:
        # A layer that became sparse ends in a panel; one that did not is made of the same nodes as before.
        values = {f"{layer.output}{PANEL}", *(graph.nodes[place].output[0] for place in layer.nodes)}
        milliseconds = sum(sparse_by_output.pop(value, 0.0) for value in values)
        dense = sum(dense_by_place.pop(place, 0.0) for place in layer.nodes)
        multiply_adds = layer.shape.multiply_adds
        seconds = milliseconds / 1000
        facts.append(
            {
                "name": layer.name,
                "shape": shape_text(layer.shape),
                "density": layer.density,
                "milliseconds": milliseconds,
                "dense_milliseconds": dense,
                "gflops": FLOPS * multiply_adds * layer.density / seconds / 1e9 if seconds else None,
                "dense_gflops": FLOPS * multiply_adds / seconds / 1e9 if seconds else None,
                "peak_share": multiply_adds * layer.density / seconds / peak if seconds else None,
            }
        )
    return {
        "layers": facts,
        "other_milliseconds": sum(sparse_by_output.values()),
        "other_dense_milliseconds": sum(dense_by_place.values()),
        "peak_gflops": FLOPS * peak / 1e9,
    }


def shape_text(shape: Any) -> str:
    """A `LayerShape` in few words: `64 x 56 x 56 -> 256, 3 x 3 / 2`, or `128 x 768 -> 3072`."""
    if shape.kind == "linear":
        return f"{shape.width} x {shape.inputs} -> {shape.outputs}"
    text = f"{shape.inputs} x {shape.height} x {shape.width} -> {shape.outputs}, {shape.kernel[0]} x {shape.kernel[1]}"
    if shape.strides != (1, 1):
        text += f" / {shape.strides[0]}"
    return text + (f", {shape.groups} groups" if shape.groups > 1 else "")
