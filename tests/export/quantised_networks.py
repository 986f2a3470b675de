"""Small networks with zeros in their weights, quantised by ONNX Runtime's own tool, in both of its forms."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from export.onnx_graphs import Array, network, normal, run_dense, run_sparse, sparse_weight
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from gossamer.export.costs import EverythingSparse
from gossamer.export.dense import to_dense
from gossamer.export.quantised_checks import SameBytes, compare_bytes
from gossamer.export.rewrite import Rewritten, rewrite
from gossamer.graph.constants import prepared
from gossamer.graph.layer_shape import LayerShape


class AllSparse(EverythingSparse):
    """Layers without a quad of zeros too."""

    def sparse(self, shape: LayerShape, density: float) -> float:
        return 0.0


SPARSE = AllSparse()
node = helper.make_node


class Feeds(CalibrationDataReader):  # type: ignore[misc]
    """Normal numbers for the input x."""

    def __init__(self, shape: Sequence[int], batches: int = 2) -> None:
        rng = np.random.default_rng(7)
        self._left: Iterator[dict[str, Array]] = iter([{"x": normal(rng, *shape)} for _ in range(batches)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def quantised(
    model: onnx.ModelProto,
    shape: Sequence[int],
    folder: Path,
    form: QuantFormat = QuantFormat.QDQ,
    *,
    activations: QuantType = QuantType.QUInt8,
    weights: QuantType = QuantType.QInt8,
    per_channel: bool = True,
    **options: object,
) -> onnx.ModelProto:
    """The network as ONNX Runtime quantises it, its ranges those of normal numbers."""
    path, to = folder / "floats.onnx", folder / "bytes.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    quantize_static(
        path,
        to,
        Feeds(shape),
        quant_format=form,
        activation_type=activations,
        weight_type=weights,
        per_channel=per_channel,
        extra_options=options,
    )
    return onnx.load(to)


def residual_network(rng: np.random.Generator) -> onnx.ModelProto:
    """A first layer of an image, max pooling, residual blocks with a shortcut of their own and without, a mean, and a
    linear layer."""
    nodes = [
        node("Conv", ["x", "stem.weight", "stem.bias"], ["s"], pads=[1] * 4, name="stem"),
        node("Relu", ["s"], ["sr"]),
        node("MaxPool", ["sr"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["m", "a.weight", "a.bias"], ["a"], pads=[1] * 4, strides=[2, 2], name="a"),
        node("Relu", ["a"], ["ar"]),
        node("Conv", ["ar", "b.weight"], ["b"], pads=[1] * 4, name="b"),
        node("Conv", ["m", "c.weight"], ["c"], strides=[2, 2], name="c"),
        node("Add", ["b", "c"], ["bc"]),
        node("Relu", ["bc"], ["r"]),
        node("Conv", ["r", "d.weight", "d.bias"], ["d"], pads=[1] * 4, name="d"),
        node("Add", ["d", "r"], ["dr"]),
        node("Relu", ["dr"], ["e"]),
        node("GlobalAveragePool", ["e"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1, name="head"),
    ]
    constants = {
        "stem.weight": normal(rng, 8, 3, 3, 3),
        "stem.bias": normal(rng, 8),
        "a.weight": sparse_weight(rng, 16, 8, 3, 3),
        "a.bias": normal(rng, 16),
        "b.weight": sparse_weight(rng, 16, 16, 3, 3),
        "c.weight": sparse_weight(rng, 16, 8, 1, 1),
        "d.weight": sparse_weight(rng, 16, 16, 3, 3),
        "d.bias": normal(rng, 16),
        "head.weight": sparse_weight(rng, 10, 16),
        "head.bias": normal(rng, 10),
    }
    return network(nodes, {"x": [1, 3, 20, 20]}, constants, ["y"], opset=17)


def of_bytes(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    constants: dict[str, NDArray[np.generic]],
    outputs: dict[str, int],
    opset: int = 17,
) -> onnx.ModelProto:
    """A network whose inputs and outputs have types of their own; ONNX Runtime's ops may be among its nodes."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def checked(model: onnx.ModelProto, feed: dict[str, NDArray[np.generic]]) -> tuple[Rewritten, SameBytes]:
    """The network with everything sparse that can be, and how every op on bytes compares with ONNX Runtime's nodes."""
    rewritten = rewrite(model, costs=SPARSE)
    found = compare_bytes(prepared(model), rewritten.model, rewritten, feed)
    assert found.wrong is None, found.wrong
    for sparse, dense in zip(
        run_sparse(rewritten.model, feed), run_dense(to_dense(rewritten.model), feed), strict=True
    ):
        assert sparse.dtype == dense.dtype
        assert np.mean(sparse != dense) < 0.02
    return rewritten, found


def scale_of_output(model: onnx.ModelProto) -> float:
    """That of the DequantizeLinear that makes the only output."""
    (last,) = [n for n in model.graph.node if n.output[0] == model.graph.output[0].name]
    (scale,) = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name == last.input[1]]
    return float(scale)
