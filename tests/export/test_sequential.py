"""Layers that are rounded one after the other make good what those before them changed."""

import numpy as np
import onnx
import pytest
from export.onnx_graphs import Array, network, normal, sparse_weight
from onnx import helper

from gossamer.export.sequential import Beside, fitted
from gossamer.graph.graph import Graph
from gossamer.graph.layers import Layer, find_layers
from gossamer.graph.sessions import Feed, dense_session


def two_layers(first: Array, second: Array, bias: Array | None) -> onnx.ModelProto:
    """y = second relu(first x) + bias"""
    constants = {"first": first, "second": second} | ({} if bias is None else {"bias": bias})
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "second", *(() if bias is None else ["bias"])], ["y"], transB=1),
    ]
    return network(nodes, {"x": ["n", first.shape[1]]}, constants, ["y"])


def last_layer(model: onnx.ModelProto) -> Layer:
    (layer,) = (one for one in find_layers(Graph(model)) if one.output == "y")
    return layer


@pytest.mark.parametrize("has_bias", [False, True])
def test_the_fitted_weight_is_that_of_least_squares(has_bias: bool) -> None:
    """numpy's own least squares over the weights that are kept, with an unknown more for the bias."""
    rng = np.random.default_rng(3)
    first, second = normal(rng, 10, 6), sparse_weight(rng, 4, 10, density=0.6)
    bias = normal(rng, 4) if has_bias else None
    dense = two_layers(first, second, bias)
    coarse = (np.rint(first * 2) / 2).astype(np.float32)
    rounded = two_layers(coarse, second, bias)
    feeds: list[Feed] = [{"x": normal(rng, 2000, 6)} for _ in range(2)]
    layer = last_layer(dense)
    found = fitted(layer, Beside(dense, feeds).changed(rounded, layer), has_bias)
    x = np.concatenate([np.asarray(feed["x"]) for feed in feeds])
    before, now = (np.maximum(x.astype(np.float64) @ weight.T, 0) for weight in (first, coarse))
    for row in range(4):
        kept = np.flatnonzero(second[row])
        columns = now[:, kept]
        # A tenth of the mean moment holds each weight where it was: as many more equations, w = what it was.
        moments = (columns - columns.mean(axis=0) if has_bias else columns) ** 2
        held = np.sqrt(0.1 * moments.mean() * len(x)) * np.eye(len(kept))
        equations = np.concatenate([columns, held])
        if has_bias:
            equations = np.column_stack([equations, np.arange(len(equations)) < len(x)])
        wanted = np.concatenate([before @ second[row].astype(np.float64), held @ second[row, kept]])
        least, *_ = np.linalg.lstsq(equations, wanted, rcond=None)
        np.testing.assert_allclose(found[row, kept], least[: len(kept)], rtol=1e-3, atol=1e-4)
    assert np.array_equal(found == 0, second == 0)
    outputs = []
    for weight in (second, found):
        (y,) = dense_session(two_layers(coarse, weight, bias)).run(["y"], {"x": x})
        difference = y - dense_session(dense).run(["y"], {"x": x})[0]
        outputs.append(np.mean((difference - (difference.mean(axis=0) if has_bias else 0)) ** 2))
    assert outputs[1] < 0.8 * outputs[0]


def test_behind_nothing_that_is_rounded_a_weight_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    dense = two_layers(normal(rng, 10, 6), sparse_weight(rng, 4, 10, density=0.6), normal(rng, 4))
    layer = last_layer(dense)
    found = fitted(layer, Beside(dense, [{"x": normal(rng, 500, 6)}]).changed(dense, layer), True)
    np.testing.assert_allclose(found, layer.weight, rtol=1e-4, atol=1e-5)


def test_what_reads_nothing_but_zeros_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    dense = two_layers(-np.abs(normal(rng, 10, 6)), sparse_weight(rng, 4, 10, density=0.6), None)
    layer = last_layer(dense)
    feeds: list[Feed] = [{"x": np.abs(normal(rng, 50, 6))}]
    assert np.array_equal(fitted(layer, Beside(dense, feeds).changed(dense, layer), False), layer.weight)


def test_windows_of_convolutions_are_what_their_rows_are_multiplied_by() -> None:
    """Groups, strides, dilations and pads: the weights of least squares of an unchanged layer are its own."""
    rng = np.random.default_rng(1)
    weights = {
        "first": normal(rng, 6, 3, 3, 3),
        "second": sparse_weight(rng, 4, 3 * 9, density=0.5).reshape(4, 3, 3, 3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "second"], ["y"], group=2, strides=[2, 1], dilations=[1, 2], pads=[1, 0, 0, 2]),
    ]
    dense = network(nodes, {"x": ["n", 3, 12, 12]}, weights, ["y"])
    weights["first"] = (np.rint(weights["first"] * 4) / 4).astype(np.float32)
    rounded = network(nodes, {"x": ["n", 3, 12, 12]}, weights, ["y"])
    feeds: list[Feed] = [{"x": normal(rng, 40, 3, 12, 12)}]
    layer = last_layer(dense)
    same = fitted(layer, Beside(dense, feeds).changed(dense, layer), False)
    np.testing.assert_allclose(same, layer.weight, rtol=1e-3, atol=1e-4)
    new = fitted(layer, Beside(dense, feeds).changed(rounded, layer), False)
    expected = dense_session(dense).run(["y"], feeds[0])[0]
    errors = []
    for weight in (weights["second"], new):
        model = network(nodes, {"x": ["n", 3, 12, 12]}, weights | {"second": weight}, ["y"])
        errors.append(np.mean((dense_session(model).run(["y"], feeds[0])[0] - expected) ** 2))
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize("has_bias", [False, True])
def test_what_another_branch_lost_is_made_good(has_bias: bool) -> None:
    """y = second relu(first x) + shortcut x: the weights of numpy's least squares for the sum, whatever rounding made
    of the shortcut, and the means of both are those that the bias is to make."""
    rng = np.random.default_rng(5)
    weights = {
        "first": normal(rng, 10, 6),
        "shortcut": normal(rng, 4, 6),
        "second": sparse_weight(rng, 4, 10, density=0.6),
    }
    constants = weights | ({"bias": normal(rng, 4)} if has_bias else {})
    nodes = [
        helper.make_node("Gemm", ["x", "shortcut"], ["s"], transB=1),
        helper.make_node("Gemm", ["x", "first"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "second", *(["bias"] if has_bias else [])], ["p"], transB=1),
        helper.make_node("Add", ["p", "s"], ["y"]),
    ]
    coarse = {name: (np.rint(weights[name] * 2) / 2).astype(np.float32) for name in ("first", "shortcut")}
    dense, rounded = (network(nodes, {"x": ["n", 6]}, constants | new, ["y"]) for new in ({}, coarse))
    layer = last_layer(dense)
    x = normal(rng, 3000, 6)
    change = Beside(dense, [{"x": x}]).changed(rounded, layer)
    found = fitted(layer, change, has_bias)
    before, now = (np.maximum(x.astype(np.float64) @ weight.T, 0) for weight in (weights["first"], coarse["first"]))
    lost = x.astype(np.float64) @ (weights["shortcut"] - coarse["shortcut"]).T
    wanted = before @ weights["second"].astype(np.float64).T + lost
    assert change.inputs.wanted is not None
    np.testing.assert_allclose(change.inputs.wanted[0], wanted.mean(axis=0), rtol=1e-4, atol=1e-5)
    if has_bias:
        now, wanted = now - now.mean(axis=0), wanted - wanted.mean(axis=0)
    for row in range(4):
        kept = np.flatnonzero(weights["second"][row])
        # A tenth of the mean moment holds each weight where it was: as many more equations, w = what it was.
        held = np.sqrt(0.1 * (now[:, kept] ** 2).mean() * len(x)) * np.eye(len(kept))
        equations = np.concatenate([now[:, kept], held])
        least, *_ = np.linalg.lstsq(
            equations, np.concatenate([wanted[:, row], held @ weights["second"][row, kept]]), rcond=None
        )
        np.testing.assert_allclose(found[row, kept], least, rtol=1e-3, atol=1e-4)
