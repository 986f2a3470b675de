"""The canonical form: whatever is cut or moved, the network computes the same."""

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from gossamer.export.canonical import ORDERS, in_order, without_dead_units

Weights = dict[str, np.ndarray]


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def linear(rng: np.random.Generator) -> tuple[onnx.ModelProto, np.ndarray, int]:
    """Gemm and MatMul; units that nothing reads (2), and units that read nothing (3 and 1)."""
    weights = {
        "a": floats(rng, 12, 9),
        "a_bias": floats(rng, 12),
        "b": floats(rng, 12, 8),
        "b_bias": floats(rng, 8),
        "slope": floats(rng, 8),
        "c": floats(rng, 3, 8),
    }
    weights["a"][[1, 5, 6]] = 0
    weights["b"][[2, 9]] = 0
    weights["b"][:, 4] = 0
    nodes = [
        helper.make_node("Gemm", ["x", "a", "a_bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["p"]),
        helper.make_node("Add", ["p", "b_bias"], ["q"]),
        helper.make_node("PRelu", ["q", "slope"], ["s"]),
        helper.make_node("Gemm", ["s", "c"], ["y"], transB=1),
    ]
    return network(nodes, {"x": [5, 9]}, weights, ["y"]), floats(rng, 5, 9), 6


def convolutions(rng: np.random.Generator) -> tuple[onnx.ModelProto, np.ndarray, int]:
    """Convolutions, BatchNorm, pooling and Flatten. A constant channel before padding stays unless it is 0."""
    weights = {
        "a": floats(rng, 6, 2, 3, 3),
        "a_bias": floats(rng, 6),
        "scale": floats(rng, 6) + 3,
        "offset": floats(rng, 6),
        "mean": floats(rng, 6),
        "variance": floats(rng, 6) ** 2 + 1,
        "b": 0.05 * floats(rng, 5, 6, 3, 3),
        "c": floats(rng, 4, 5 * 9),
        "c_bias": floats(rng, 4),
    }
    weights["a"][2] = 0
    weights["a_bias"][2] = weights["mean"][2]
    weights["offset"][2] = -1
    weights["a"][3] = 0
    weights["offset"][3] = 9
    weights["b"][:, 4] = 0
    weights["b"][1] = 0
    weights["c"][:, 9 * 3 : 9 * 4] = 0
    nodes = [
        helper.make_node("Conv", ["x", "a", "a_bias"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["h", "scale", "offset", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["m", "b"], ["p"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["p"], ["s"]),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("Gemm", ["f", "c", "c_bias"], ["y"], transB=1),
    ]
    return network(nodes, {"x": [2, 2, 6, 6]}, weights, ["y"]), floats(rng, 2, 2, 6, 6), 4


def outputs(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return ReferenceEvaluator(model).run(None, {"x": x})


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


@pytest.mark.parametrize("made", [linear, convolutions])
def test_dead_units_are_cut(made: object) -> None:
    model, x, dead = made(np.random.default_rng(0))  # type: ignore[operator]
    alive = without_dead_units(model, {"x": x})
    assert alive.removed == dead
    assert sum(map(np.prod, shapes(alive.model).values())) < sum(map(np.prod, shapes(model).values()))
    other = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    np.testing.assert_allclose(outputs(alive.model, other)[0], outputs(model, other)[0], rtol=1e-4, atol=1e-5)
    assert without_dead_units(alive.model, {"x": x}).model is alive.model


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("made", [linear, convolutions])
def test_units_in_another_order_compute_the_same(made: object, order: object) -> None:
    model, x, _ = made(np.random.default_rng(0))  # type: ignore[operator]
    turned = in_order(model, order)  # type: ignore[arg-type]
    assert shapes(turned) == shapes(model)
    first = [numpy_helper.to_array(one) for m in (model, turned) for one in m.graph.initializer if one.name == "a"]
    assert not np.array_equal(*first)
    np.testing.assert_allclose(outputs(turned, x)[0], outputs(model, x)[0], rtol=1e-4, atol=1e-5)


def test_what_is_returned_or_added_to_another_stays() -> None:
    rng = np.random.default_rng(2)
    weights = {"a": floats(rng, 4, 4), "b": floats(rng, 4, 4), "c": floats(rng, 3, 4)}
    weights["a"][:, 1] = weights["c"][:, 2] = 0
    added = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Add", ["h", "x"], ["s"]),
        helper.make_node("Gemm", ["s", "c"], ["y"], transB=1),
    ]
    model = network(added, {"x": [5, 4]}, {"a": weights["a"], "c": weights["c"]}, ["y"])
    assert without_dead_units(model, {"x": floats(rng, 5, 4)}).model is model
    returned = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Gemm", ["h", "c"], ["y"], transB=1),
    ]
    model = network(returned, {"x": [5, 4]}, {"a": weights["a"], "c": weights["c"]}, ["y", "h"])
    assert without_dead_units(model, {"x": floats(rng, 5, 4)}).model is model
    assert in_order(model, ORDERS[0]) is model


def test_a_layer_of_which_all_died_keeps_a_unit() -> None:
    rng = np.random.default_rng(3)
    weights = {"a": floats(rng, 4, 3), "c": np.zeros((2, 4), np.float32), "c_bias": floats(rng, 2)}
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["h"], transB=1),
        helper.make_node("Gemm", ["h", "c", "c_bias"], ["y"], transB=1),
    ]
    model, x = network(nodes, {"x": [5, 3]}, weights, ["y"]), floats(rng, 5, 3)
    alive = without_dead_units(model, {"x": x})
    assert shapes(alive.model)["a"] == (1, 3)
    np.testing.assert_allclose(outputs(alive.model, x)[0], outputs(model, x)[0])
