"""Weights in levels: what a rounding costs is what a slow computation says it costs."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import network, sparse_weight
from onnx import helper

from gossamer.export.levels import in_levels
from gossamer.export.moments import inputs_of
from gossamer.graph.graph import Graph
from gossamer.graph.layers import find_layers


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_to_the_nearest() -> None:
    weight = np.float32([[0, 0.9, -0.26, 0.01], [0.24, 0, 1.0, -0.6]])
    found = in_levels(weight, np.ones((1, 4)), 4, 0.0, "nearest")
    assert found.step == 0.25
    assert found.levels.tolist() == [[0, 4, -1, 0], [1, 0, 4, -2]]
    assert np.array_equal(found.weight, found.levels * np.float32(0.25))
    assert found.error == pytest.approx(0.1**2 + 0.01**2 + 0.01**2 + 0.01**2 + 0 + 0.1**2)


@pytest.mark.parametrize("price", [0.0, 1e-4, 1e-2])
def test_nothing_else_costs_less(price: float, rng: np.random.Generator) -> None:
    """Of inputs that have nothing to do with each other, every weight is by itself: no other level is better."""
    weight = sparse_weight(rng, 8, 12, density=0.5)
    moments = rng.uniform(0.1, 2, (1, 12))
    found = in_levels(weight, moments, 4, price, "rate")
    for (row, column), _ in np.ndenumerate(weight):
        if weight[row, column] == 0:
            assert found.levels[row, column] == 0
    # At no price it is the nearest; the dearer a bit, the fewer bits and the larger the error.
    nearest = in_levels(weight, moments, 4, 0.0, "nearest")
    if price == 0:
        assert np.array_equal(found.levels, nearest.levels)
    assert found.bits <= nearest.bits
    assert found.error >= nearest.error - 1e-12
    assert found.error + price * found.bits <= nearest.error + price * nearest.bits + 1e-9


def test_an_error_is_made_good_by_the_rest_of_the_row(rng: np.random.Generator) -> None:
    """Two inputs that are nearly the same number: of two halves one is rounded up and the other down."""
    weight = np.float32([[0.5, 0.5, 1.0]])
    together = np.asarray([[1.0, 0.99, 0], [0.99, 1.0, 0], [0, 0, 1.0]])[None]
    alone = in_levels(weight, together, 1, 0.0, "nearest")
    made_good = in_levels(weight, together, 1, 0.0, "compensated")
    assert sorted(np.abs(made_good.levels[0, :2])) == [0, 1]
    assert made_good.error < 0.1 * alone.error


def test_compensation_is_near_the_best_of_all(rng: np.random.Generator) -> None:
    """Against every choice of levels of a short row."""
    inputs = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5))
    moments = inputs.T @ inputs / 200
    ratios = []
    for _ in range(20):
        weight = rng.standard_normal((1, 5)).astype(np.float32)
        found = in_levels(weight, moments[None], 2, 0.0, "compensated")
        errors = []
        for levels in itertools.product(range(-2, 3), repeat=5):
            off = weight[0] - np.asarray(levels) * found.step
            errors.append(off @ moments @ off)
        nearest = in_levels(weight, moments[None], 2, 0.0, "nearest")
        off = weight[0] - found.levels[0] * found.step
        assert found.error == pytest.approx(off @ moments @ off, rel=1e-6)
        ratios.append((found.error - min(errors)) / max(1e-12, nearest.error - min(errors)))
    assert np.median(ratios) < 0.5


@pytest.mark.parametrize(
    ("pads", "strides", "dilations", "groups"),
    [([0] * 4, [1, 1], [1, 1], 1), ([1, 2, 0, 1], [2, 1], [1, 2], 1), ([1] * 4, [1, 1], [1, 1], 4)],
)
def test_moments_of_a_convolution(
    pads: list[int], strides: list[int], dilations: list[int], groups: int, rng: np.random.Generator
) -> None:
    """Against torch's unfold: the mean of products of what two weights of a row are multiplied by."""
    weight = rng.standard_normal((8, 4 // groups, 3, 3)).astype(np.float32)
    convolution = helper.make_node(
        "Conv", ["x", "w"], ["y"], pads=pads, strides=strides, dilations=dilations, group=groups
    )
    model = network([convolution], {"x": [2, 4, 9, 11]}, {"w": weight}, ["y"])
    feeds = [{"x": rng.standard_normal((2, 4, 9, 11)).astype(np.float32)} for _ in range(2)]
    layers = find_layers(Graph(model))
    (inputs,) = inputs_of(model, layers, feeds).values()
    found = inputs.moments
    means = np.zeros(found.shape[:2])
    sums, count = np.zeros_like(found), 0
    for feed in feeds:
        top, left, bottom, right = pads
        padded = torch.nn.functional.pad(torch.from_numpy(feed["x"]), (left, right, top, bottom))
        columns = torch.nn.functional.unfold(padded, (3, 3), tuple(dilations), 0, tuple(strides)).double().numpy()
        rows = columns.transpose(0, 2, 1).reshape(-1, groups, columns.shape[1] // groups)
        sums += np.einsum("ngk,ngl->gkl", rows, rows)
        means += rows.sum(axis=0)
        count += len(rows)
    assert np.allclose(found, sums / count)
    assert np.allclose(inputs.means, means / count)
    products = np.einsum("gk,gl->gkl", means / count, means / count)
    assert np.allclose(inputs.centred, sums / count - products)


def test_moments_of_tokens(rng: np.random.Generator) -> None:
    model: onnx.ModelProto = network(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": [2, 5, 6]},
        {"w": rng.standard_normal((6, 3)).astype(np.float32)},
        ["y"],
    )
    x = rng.standard_normal((2, 5, 6)).astype(np.float32)
    (found,) = inputs_of(model, find_layers(Graph(model)), [{"x": x}]).values()
    rows = x.reshape(-1, 6).astype(np.float64)
    assert np.allclose(found.moments, (rows.T @ rows / 10)[None])
    assert np.allclose(found.means, rows.mean(axis=0)[None])
