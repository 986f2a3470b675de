"""NaN and infinities through the ops, against ONNX Runtime's dense ones: a NaN must not come out as a number."""

from collections.abc import Callable

import gossamer_runtime
import numpy as np
import pytest
from gossamer_runtime import weights
from onnx import NodeProto, TensorProto, helper, numpy_helper

try:
    gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

Convolution = Callable[..., np.ndarray]
SQUARE = {"kernel_shape": [3, 3], "pads": [1] * 4}
POOLING = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
ACTIVATIONS = ("none", "relu", "clip", "hardswish", "silu", "gelu", "leakyrelu")


def gossamer_node(kind: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs, [output], domain="gossamer", **attributes)


def run(
    nodes: list[NodeProto], feed: dict[str, np.ndarray], constants: dict[str, np.ndarray], threads: int = 1
) -> np.ndarray:
    """The output y of a graph whose inputs have the feed's ranks and no known sizes."""
    inputs = {name: [f"{name}{axis}" for axis in range(array.ndim)] for name, array in feed.items()}
    graph = helper.make_graph(
        nodes,
        "special",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("gossamer", 1)]
    source = helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()
    output: np.ndarray = gossamer_runtime.Session(source, threads=threads).run(None, feed)[0]
    return output


def activated(activation: str, value: str) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """ONNX's nodes for an activation of `value`, which give y."""
    bounds = {"lower": np.float32(-0.25), "upper": np.float32(0.5)}
    return {
        "none": ([helper.make_node("Identity", [value], ["y"])], {}),
        "relu": ([helper.make_node("Relu", [value], ["y"])], {}),
        "clip": ([helper.make_node("Clip", [value, "lower", "upper"], ["y"])], bounds),
        "hardswish": ([helper.make_node("HardSwish", [value], ["y"])], {}),
        "silu": (
            [helper.make_node("Sigmoid", [value], ["gate"]), helper.make_node("Mul", [value, "gate"], ["y"])],
            {},
        ),
        "gelu": ([helper.make_node("Gelu", [value], ["y"])], {}),
        "leakyrelu": ([helper.make_node("LeakyRelu", [value], ["y"], alpha=0.2)], {}),
    }[activation]


def attributes_of(activation: str) -> dict[str, object]:
    numbers = {"clip": {"lower": -0.25, "upper": 0.5}, "leakyrelu": {"slope": 0.2}}
    return {"activation": activation, **numbers.get(activation, {})}


def special_input(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape).astype(np.float32)
    values[rng.random(shape) < 0.01] = np.nan
    values[rng.random(shape) < 0.005] = np.inf
    values[rng.random(shape) < 0.005] = -np.inf
    return values


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """NaN at the same places, the same infinities, and close elsewhere."""
    assert got.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.where(np.isinf(got), got, 0), np.where(np.isinf(expected), expected, 0))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "group", "size"),
    [(1, 1, 1, 14), (3, 1, 1, 14), (3, 2, 1, 14), (3, 1, 1, 120), (3, 1, 12, 14), (5, 2, 12, 15)],
)
def test_convolutions_keep_nan(
    kernel: int, stride: int, group: int, size: int, residual: bool, activation: str, convolution: Convolution
) -> None:
    """NaN and infinities of the image, through weights that all read."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.1, 1, (12, 12 // group, kernel, kernel)).astype(np.float32)
    weight *= rng.choice(np.float32([-1, 1]), weight.shape)
    geometry = {
        "kernel_shape": [kernel] * 2,
        "strides": [stride] * 2,
        "pads": [kernel // 2] * 4,
        "group": group,
    }
    feed = {"x": special_input((1, 12, 9, size))}
    feed["x"][:] = np.where(rng.random(feed["x"].shape) < 0.1, feed["x"], np.float32(0.5))
    feed["x"][0, 5, 4, 7] = np.nan
    if residual:
        feed["r"] = special_input((1, 12, *[(extent - 1) // stride + 1 for extent in (9, size)]), 1)
    nodes = [
        gossamer_node("ToPanel", ["x"], "px"),
        *([gossamer_node("ToPanel", ["r"], "pr")] if residual else []),
        gossamer_node(
            "SparseConv",
            ["px", "w", "", *(["pr"] if residual else [])],
            "py",
            output_channels=12,
            **geometry,
            **attributes_of(activation),
        ),
        gossamer_node("FromPanel", ["py"], "y", channels=12),
    ]
    got = run(nodes, feed, {"w": np.frombuffer(weights.encode(weight), np.uint8)})
    after, bounds = activated(activation, "s")
    dense = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
    with np.errstate(invalid="ignore"):
        feed["c"] = convolution(feed.pop("x"), weight, **dense)
    plain = [
        helper.make_node("Add", ["c", "r"], ["s"]) if residual else helper.make_node("Identity", ["c"], ["s"]),
        *after,
    ]
    expected = run(plain, feed, bounds)
    assert np.isnan(expected).any()
    assert np.isfinite(expected).any()
    assert_same(got, expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("residual", [False, True])
def test_products_keep_nan(residual: bool, tokens: int, activation: str) -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.1, 1, (21, 40)).astype(np.float32)
    feed = {"x": special_input((tokens, 40), 2)}
    feed["x"][0, :] = np.where(np.isfinite(feed["x"][0]), feed["x"][0], 0.0)
    if tokens == 1:
        feed["x"][0, 7] = np.nan
    if residual:
        feed["r"] = special_input((tokens, 21), 3)
        feed["r"][0, 3] = np.nan
    inputs = ["x", "w", *(["", "r"] if residual else [])]
    node = gossamer_node("SparseMatMul", inputs, "y", output_features=21, **attributes_of(activation))
    got = run([node], feed, {"w": np.frombuffer(weights.encode(weight), np.uint8)})
    after, bounds = activated(activation, "s")
    plain = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "r"], ["s"]) if residual else helper.make_node("Identity", ["m"], ["s"]),
        *after,
    ]
    expected = run(plain, feed, {"w": np.ascontiguousarray(weight.T), **bounds})
    assert np.isnan(expected).any()
    assert_same(got, expected)


def kept_only(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A 1x1 convolution of [n, c, h, w] in float64 in which only the nonzeros of the weight are read."""
    total = np.zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
    with np.errstate(invalid="ignore"):
        for row, column in zip(*np.nonzero(weight[:, :, 0, 0]), strict=True):
            total[:, row] += np.float64(weight[row, column, 0, 0]) * x[:, column]
    return total


@pytest.mark.parametrize("threads", [1, 3])
def test_only_kept_weights_read(threads: int) -> None:
    """Rows of any number of nonzeros, none among them, share registers: each must be what it reads, and no more."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((37, 64, 1, 1)).astype(np.float32)
    weight[rng.random(weight.shape) >= rng.random((37, 1, 1, 1)) * 0.3] = 0
    weight[[0, 5, 36]] = 0
    packed = {"w": np.frombuffer(weights.encode(weight), np.uint8)}
    x = special_input((2, 64, 14, 14))
    expected = kept_only(weight, x)
    nodes = [
        gossamer_node("ToPanel", ["x"], "px"),
        gossamer_node("SparseConv", ["px", "w"], "py", output_channels=37, kernel_shape=[1, 1]),
        gossamer_node("FromPanel", ["py"], "y", channels=37),
    ]
    assert_same(run(nodes, {"x": x}, packed, threads), expected)
    matrix = {"w": np.frombuffer(weights.encode(weight[:, :, 0, 0]), np.uint8)}
    product = [gossamer_node("SparseMatMul", ["x", "w"], "y", output_features=37)]
    tokens = np.ascontiguousarray(x.transpose(0, 2, 3, 1).reshape(-1, 64))
    rows = expected.transpose(0, 2, 3, 1).reshape(-1, 37)
    assert_same(run(product, {"x": tokens}, matrix, threads), rows)
    for token in range(12):
        assert_same(run(product, {"x": tokens[token : token + 1]}, matrix, threads), rows[token : token + 1])


def pooled(images: np.ndarray) -> np.ndarray:
    """By POOLING. The maximum of NaN is NaN in numpy, as in torch; ONNX Runtime's MaxPool drops it."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    most: np.ndarray = windows.max(axis=(4, 5))
    return most


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("max_pool", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1)])
def test_stems_keep_nan(kernel: int, stride: int, max_pool: bool, activation: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.1, 1, (24, 3, kernel, kernel)).astype(np.float32)
    geometry = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
    x = rng.standard_normal((2, 3, 61, 48)).astype(np.float32)
    for image, channel, row, column, value in [
        (0, 0, 0, 0, np.nan),
        (0, 1, 33, 20, np.inf),
        (0, 2, 33, 40, -np.inf),
        (1, 2, 60, 47, np.nan),
        (1, 0, 17, 5, 3e38),
    ]:
        x[image, channel, row, column] = value
    nodes = [
        gossamer_node(
            "StemConv",
            ["x", "w"],
            "p",
            output_channels=24,
            max_pool=int(max_pool),
            **geometry,
            **attributes_of(activation),
        ),
        gossamer_node("FromPanel", ["p"], "y", channels=24),
    ]
    got = run(nodes, {"x": x}, {"w": weight}, threads)
    after, bounds = activated(activation, "c")
    plain = [helper.make_node("Conv", ["x", "w"], ["c"], **geometry), *after]
    expected = run(plain, {"x": x}, {"w": weight, **bounds})
    if max_pool:
        expected = pooled(expected)
    assert np.isnan(expected).any()
    assert np.isfinite(expected).any()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    ordinary = np.abs(expected) < 1e30
    np.testing.assert_allclose(got[ordinary], expected[ordinary], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got[~ordinary], expected[~ordinary], rtol=1e-5)


def test_poolings_on_panels_keep_nan() -> None:
    x = special_input((2, 5, 17, 130))
    nodes = [
        gossamer_node("ToPanel", ["x"], "px"),
        gossamer_node("PanelMaxPool", ["px"], "py", channels=5, **POOLING),
        gossamer_node("FromPanel", ["py"], "y", channels=5),
    ]
    got = run(nodes, {"x": x}, {}, 2)
    np.testing.assert_array_equal(got, pooled(x))


def test_two_convolutions_of_nan() -> None:
    """As in a network: nothing of an image of NaN comes out as a number."""
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((64, 64, 3, 3)).astype(np.float32) for _ in range(2))
    for weight in (first, second):
        weight[rng.random(weight.shape) >= 0.1] = 0
    nodes = [
        gossamer_node("ToPanel", ["x"], "p0"),
        gossamer_node("SparseConv", ["p0", "first"], "p1", output_channels=64, activation="relu", **SQUARE),
        gossamer_node("SparseConv", ["p1", "second"], "p2", output_channels=64, **SQUARE),
        gossamer_node("FromPanel", ["p2"], "y", channels=64),
    ]
    packed = {
        name: np.frombuffer(weights.encode(weight), np.uint8) for name, weight in (("first", first), ("second", second))
    }
    x = np.full((1, 64, 14, 14), np.nan, np.float32)
    assert np.isnan(run(nodes, {"x": x}, packed)).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_over_the_range_of_floats(activation: str) -> None:
    magnitudes = np.float32(
        [0, 1e-45, 1e-38, 1e-30, 1e-3, 0.5, 1, 3, 6, 9, 20, 88, 90, 100, 1e4, 1e10, 1e34, 1e38, 3.4e38, np.inf, np.nan]
    )
    x = np.concatenate([magnitudes, -magnitudes]).reshape(-1, 1)
    node = gossamer_node("SparseMatMul", ["x", "w"], "y", output_features=1, **attributes_of(activation))
    packed = {"w": np.frombuffer(weights.encode(np.ones((1, 1), np.float32)), np.uint8)}
    after, bounds = activated(activation, "x")
    expected = run(after, {"x": x}, bounds)
    for got in (run([node], {"x": x}, packed), np.concatenate([run([node], {"x": row[None]}, packed) for row in x])):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)
        if activation in ("hardswish", "silu", "gelu"):
            closed = (x < -100) & np.isfinite(x)
            assert np.all(got[closed] == 0)
            assert np.all(np.signbit(got[closed]))
