"""Small ONNX networks with zeros in their weights, and the two ways to run them."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.graph.exact_sums import JOINS_NOTHING, saturates, with_exact_sums

Array = NDArray[np.float32]


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def sparse_weight(rng: np.random.Generator, *shape: int, density: float = 0.2) -> Array:
    """Standard normal numbers, most of them replaced by zeros."""
    weight = normal(rng, *shape)
    weight[rng.random(shape) >= density] = 0
    return weight


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, NDArray[np.generic]],
    outputs: Sequence[str],
    opset: int = 20,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run_dense(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """By ONNX Runtime alone: a model with an op of gossamer does not run here."""
    options, model = exact(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))  # type: ignore[no-any-return]


def run_sparse(model: onnx.ModelProto, inputs: Mapping[str, Array], threads: int = 1) -> list[Array]:
    import gossamer_runtime

    options, model = exact(model)
    options.intra_op_num_threads = threads
    return gossamer_runtime.Session(model.SerializeToString(), options).run(None, dict(inputs))  # type: ignore[no-any-return]


def exact(model: onnx.ModelProto) -> tuple[onnxruntime.SessionOptions, onnx.ModelProto]:
    """Options and a model with which ONNX Runtime's own sums of products of bytes are right on every processor."""
    options = onnxruntime.SessionOptions()
    if saturates():
        options.add_session_config_entry(*JOINS_NOTHING)
    return options, with_exact_sums(model)


def assert_same(got: Sequence[Array], expected: Sequence[Array], tolerance: float = 1e-5) -> None:
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        np.testing.assert_allclose(g, e, rtol=0, atol=tolerance * max(1.0, float(np.abs(e).max(initial=0.0))))


def ops(model: onnx.ModelProto, domain: str = "gossamer") -> list[str]:
    """The kinds of the nodes of a domain, in order."""
    return [node.op_type for node in model.graph.node if node.domain == domain]
