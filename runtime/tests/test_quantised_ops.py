"""The quantised ops inside ONNX Runtime: equal to a reference in integers, and to ONNX Runtime's own ops."""

import functools
import itertools
from collections.abc import Callable

import gossamer_runtime
import numpy as np
import onnxruntime
import pytest
from gossamer_runtime import weights
from onnx import TensorProto, helper, numpy_helper

try:
    LIBRARY = gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

RNG = np.random.default_rng(0)
INPUT = {"scale": np.float32(0.02), "zero_point": 120}
OUTPUT = {"scale": np.float32(0.11), "zero_point": 100}
node = functools.partial(helper.make_node, domain="gossamer")


def requantised(
    sums: np.ndarray,
    scale: np.ndarray,
    zero_point: int,
    *,
    bounds: tuple[int, int] = (0, 255),
    residual: np.ndarray | float = 0,
    sums_of: tuple[float, float, float] | None = None,
    table: np.ndarray | None = None,
) -> np.ndarray:
    """kernels/requantisation.h word for word. ``sums`` are [images, channels, ...]; ``residual`` is added once they are
    scaled."""
    shape = (1, -1) + (1,) * (sums.ndim - 2)
    scaled = sums.astype(np.int32).astype(np.float32) * scale.reshape(shape)
    if sums_of is not None:
        step, low, high = np.float32(sums_of)
        scaled = np.rint(np.clip(scaled, low, high)) * step
    scaled = scaled + np.float32(residual)
    low, high = (np.float32(bound - zero_point) for bound in bounds)
    values = (np.rint(np.clip(scaled, low, high)).astype(np.int32) + zero_point).astype(np.uint8)
    return values if table is None else table[values]


def model(nodes: list, inputs: dict[str, tuple], constants: dict[str, np.ndarray], outputs: list[str]) -> bytes:
    """``inputs`` are names with element types and shapes. Outputs are of the types that the ops say."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def run(made: bytes, feed: dict[str, np.ndarray], threads: int = 1) -> list[np.ndarray]:
    return gossamer_runtime.Session(made, threads=threads).run(None, feed)


def refused(made: bytes, feed: dict[str, np.ndarray] | None = None) -> str:
    with pytest.raises(Exception, match=r"(?s).") as problem:
        run(made, feed or {})
    return str(problem.value)


def int8_weight(shape: tuple[int, ...], density: float = 0.2) -> np.ndarray:
    weight = RNG.integers(-127, 128, shape).astype(np.int8)
    weight[RNG.random(shape) >= density] = 0
    return weight


def packed(weight: np.ndarray) -> np.ndarray:
    return np.frombuffer(weights.encode(weight), np.uint8)


class Layer:
    """A convolution of bytes with numbers of its own, and what it should give."""

    def __init__(self, shape: tuple[int, ...], **attributes: object) -> None:
        self.weight = int8_weight(shape)
        self.bias = RNG.integers(-5000, 5000, shape[0]).astype(np.int32)
        self.weight_scale = RNG.uniform(0.001, 0.003, shape[0]).astype(np.float32)
        self.scale = INPUT["scale"] * self.weight_scale / OUTPUT["scale"]
        self.attributes = {"kernel_shape": list(shape[2:]), **attributes}

    def constants(self) -> dict[str, np.ndarray]:
        return {"w": packed(self.weight), "s": self.scale, "b": self.bias}

    def node(self, inputs: list[str], **more: object) -> object:
        return node(
            "QuantisedConv",
            inputs,
            ["py"],
            output_channels=len(self.weight),
            input_zero_point=INPUT["zero_point"],
            output_zero_point=OUTPUT["zero_point"],
            **self.attributes,
            **more,
        )

    def model(self, shape: list, more_inputs: tuple[str, ...] = (), more: tuple = (), **attributes: object) -> bytes:
        nodes = [
            node("QuantisedToPanel", ["x"], ["px"], zero_point=INPUT["zero_point"]),
            self.node(["px", "w", "s", "b", *more_inputs], **attributes),
            node("QuantisedFromPanel", ["py"], ["y"], channels=len(self.weight)),
        ]
        return model([*more, *nodes], {"x": (TensorProto.UINT8, shape)}, self.constants(), ["y"])

    def sums(self, x: np.ndarray, convolution: Callable[..., np.ndarray]) -> np.ndarray:
        centred = x.astype(np.float64) - INPUT["zero_point"]
        # Exact in double precision, and as float32 below 2^24.
        attributes = {key: value for key, value in self.attributes.items() if key != "kernel_shape"}
        exact = convolution(centred, self.weight.astype(np.float64), **attributes)
        return exact.astype(np.int64) + self.bias.reshape(1, -1, 1, 1)


CASES = [
    Layer((10, 6, 3, 3), pads=[1, 1, 1, 1]),
    Layer((10, 6, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
    Layer((7, 9, 1, 1)),
    Layer((8, 2, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2], group=4),
    Layer((6, 1, 3, 3), pads=[1, 1, 1, 1], group=6),
    Layer((5, 3, 5, 2), pads=[4, 0, 1, 1], strides=[1, 3]),
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("layer", CASES, ids=lambda layer: str(layer.weight.shape))
def test_convolution_is_the_reference_and_onnxruntimes_own(
    layer: Layer, threads: int, convolution: Callable[..., np.ndarray]
) -> None:
    channels = layer.weight.shape[1] * layer.attributes.get("group", 1)
    x = RNG.integers(0, 256, (2, channels, 13, 15)).astype(np.uint8)
    (got,) = run(layer.model(["n", *x.shape[1:]]), {"x": x}, threads)
    expected = requantised(layer.sums(x, convolution), layer.scale, OUTPUT["zero_point"])
    np.testing.assert_array_equal(got, expected)

    constants = {
        "sx": INPUT["scale"],
        "zx": np.uint8(INPUT["zero_point"]),
        "w": layer.weight,
        "sw": layer.weight_scale,
        "zw": np.zeros(len(layer.weight), np.int8),
        "sy": OUTPUT["scale"],
        "zy": np.uint8(OUTPUT["zero_point"]),
        "b": layer.bias,
    }
    own = helper.make_node("QLinearConv", ["x", *list(constants)[:-1], "b"], ["y"], **layer.attributes)
    made = model([own], {"x": (TensorProto.UINT8, [None] * 4)}, constants, ["y"])
    # Without VNNI ONNX Runtime adds pairs of products in 16 bits unless it is told to be exact.
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    (theirs,) = onnxruntime.InferenceSession(made, options).run(None, {"x": x})
    steps = np.abs(got.astype(int) - theirs)
    assert steps.max() <= 1
    assert (steps == 0).mean() > 0.99


@pytest.mark.parametrize("sums_of", [None, (1.3, -30.0, 20.0)])
def test_residuals_bounds_and_tables(
    convolution: Callable[..., np.ndarray], sums_of: tuple[float, float, float] | None
) -> None:
    layer = Layer((9, 6, 3, 3), pads=[1, 1, 1, 1])
    x = RNG.integers(0, 256, (2, 6, 14, 14)).astype(np.uint8)
    r = RNG.integers(0, 256, (2, 9, 14, 14)).astype(np.uint8)
    table = RNG.integers(0, 256, 256).astype(np.uint8)
    residual = {"residual_scale": 0.37, "residual_zero_point": 90}
    sums = dict(zip(("sum_step", "sum_lower", "sum_upper"), sums_of, strict=True)) if sums_of else {}
    nodes = [
        node("QuantisedToPanel", ["x"], ["px"], zero_point=INPUT["zero_point"]),
        node("QuantisedToPanel", ["r"], ["pr"], zero_point=90),
        layer.node(["px", "w", "s", "b", "pr", "t"], **residual, **sums, lower=100, upper=200),
        node("QuantisedFromPanel", ["py"], ["y"], channels=9),
    ]
    inputs = {"x": (TensorProto.UINT8, list(x.shape)), "r": (TensorProto.UINT8, list(r.shape))}
    (got,) = run(model(nodes, inputs, {**layer.constants(), "t": table}, ["y"]), {"x": x, "r": r})
    added = (r.astype(np.float32) - np.float32(90)) * np.float32(0.37)
    expected = requantised(
        layer.sums(x, convolution),
        layer.scale,
        OUTPUT["zero_point"],
        bounds=(100, 200),
        residual=added,
        sums_of=sums_of,
        table=table,
    )
    np.testing.assert_array_equal(got, expected)


def test_edges_quantise_as_onnx_does() -> None:
    x = RNG.normal(size=(1, 5, 6, 7)).astype(np.float32)
    x.ravel()[:3] = [1e30, -1e30, 0.5 * INPUT["scale"]]
    attributes = {"scale": float(INPUT["scale"]), "zero_point": INPUT["zero_point"]}
    nodes = [
        node("QuantisedToPanel", ["x"], ["p"], **attributes),
        node("QuantisedFromPanel", ["p"], ["q"], channels=5),
        node("DequantisedFromPanel", ["p"], ["f"], channels=5, **attributes),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["own"]),
        helper.make_node("DequantizeLinear", ["own", "s", "z"], ["back"]),
    ]
    constants = {"s": INPUT["scale"], "z": np.uint8(INPUT["zero_point"])}
    made = model(nodes, {"x": (TensorProto.FLOAT, list(x.shape))}, constants, ["q", "f", "own", "back"])
    quantised, floats, own, back = run(made, {"x": x})
    np.testing.assert_array_equal(quantised, own)
    np.testing.assert_array_equal(floats, back)


def test_int8_becomes_uint8() -> None:
    x = RNG.integers(-128, 128, (2, 3, 9)).astype(np.int8)
    nodes = [
        node("QuantisedToPanel", ["x"], ["p"]),
        node("QuantisedFromPanel", ["p"], ["y"], channels=3),
    ]
    (got,) = run(model(nodes, {"x": (TensorProto.INT8, [2, 3, "length"])}, {}, ["y"]), {"x": x})
    np.testing.assert_array_equal(got, (x.astype(int) + 128).astype(np.uint8))


@pytest.mark.parametrize("features", [30, 64])
def test_static_products(features: int) -> None:
    weight, scale = int8_weight((13, features)), RNG.uniform(0.001, 0.01, 13).astype(np.float32)
    bias = RNG.integers(-5000, 5000, 13).astype(np.int32)
    x = RNG.integers(0, 256, (3, 5, features)).astype(np.uint8)
    r = RNG.integers(0, 256, (3, 5, 13)).astype(np.uint8)
    made = model(
        [
            node(
                "QuantisedMatMul",
                ["x", "w", "s", "b", "r"],
                ["y"],
                output_features=13,
                input_zero_point=120,
                output_zero_point=100,
                residual_scale=0.5,
                residual_zero_point=7,
            )
        ],
        {"x": (TensorProto.UINT8, ["a", "b", features]), "r": (TensorProto.UINT8, ["a", "b", 13])},
        {"w": packed(weight), "s": scale, "b": bias},
        ["y"],
    )
    sums = (x.astype(np.int64) - 120) @ weight.T.astype(np.int64) + bias
    residual = (r.astype(np.float32) - np.float32(7)) * np.float32(0.5)
    expected = requantised(sums.reshape(15, 13), scale, 100, residual=residual.reshape(15, 13))
    for tokens in ((3, 5), (1, 1)):
        a, b = tokens
        (got,) = run(made, {"x": x[:a, :b], "r": r[:a, :b]})
        np.testing.assert_array_equal(got, expected.reshape(3, 5, 13)[:a, :b])


def test_dynamic_products() -> None:
    weight, scale = int8_weight((13, 33)), RNG.uniform(0.001, 0.01, 13).astype(np.float32)
    bias = RNG.normal(size=13).astype(np.float32)
    x = RNG.normal(size=(2, 70, 33)).astype(np.float32)
    x[0, 3] = 0
    made = model(
        [node("DynamicMatMul", ["x", "w", "s", "b"], ["y"], output_features=13, activation="relu")],
        {"x": (TensorProto.FLOAT, [None, None, 33])},
        {"w": packed(weight), "s": scale, "b": bias},
        ["y"],
    )
    (got,) = run(made, {"x": x}, threads=2)
    most = np.abs(x).max(-1, keepdims=True)
    factor = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    token_scale = np.where(most > 0, most / np.float32(127), np.float32(1))
    sums = np.rint(x * factor).astype(np.int64) @ weight.T.astype(np.int64)
    expected = np.maximum(sums.astype(np.float32) * scale * token_scale + bias, 0)
    np.testing.assert_array_equal(got, expected)
    exact = np.maximum(x @ (weight.astype(np.float32) * scale[:, None]).T + bias, 0)
    assert np.abs(got - exact).max() < 0.02 * np.abs(exact).max()


def test_poolings_concatenation_and_resizing() -> None:
    x = RNG.integers(0, 256, (2, 6, 12, 14)).astype(np.uint8)
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        node("QuantisedToPanel", ["x"], ["p"]),
        node("QuantisedMaxPool", ["p"], ["pm"], channels=6, **window),
        node("QuantisedFromPanel", ["pm"], ["most"], channels=6),
        helper.make_node("MaxPool", ["x"], ["own"], **window),
        node(
            "QuantisedAveragePool",
            ["p"],
            ["pa"],
            channels=6,
            input_scale=0.5,
            output_scale=0.5,
            kernel_shape=[12, 14],
        ),
        node("QuantisedFromPanel", ["pa"], ["mean"], channels=6),
        node(
            "QuantisedConcat",
            ["p", "p"],
            ["pc"],
            channels=[6, 6],
            input_scales=[0.5, 0.25],
            input_zero_points=[0, 0],
            output_scale=0.5,
            output_zero_point=0,
        ),
        node("QuantisedResize", ["pc"], ["pr"], channels=12, rows=2, columns=3),
        node("QuantisedFromPanel", ["pr"], ["large"], channels=12),
    ]
    made = model(nodes, {"x": (TensorProto.UINT8, list(x.shape))}, {}, ["most", "own", "mean", "large"])
    most, own, mean, large = run(made, {"x": x}, threads=2)
    np.testing.assert_array_equal(most, own)
    sums = x.astype(np.int64).sum((2, 3), keepdims=True).astype(np.float32)
    np.testing.assert_array_equal(mean, np.rint(sums * (np.float32(1) / np.float32(168))).astype(np.uint8))
    joined = np.concatenate([x, np.rint(x * np.float32(0.5)).astype(np.uint8)], axis=1)
    np.testing.assert_array_equal(large, joined.repeat(2, axis=2).repeat(3, axis=3))


def wrong_numbers() -> list[tuple[dict, dict, str]]:
    """Attributes and constants that are none, with a word of the answer."""
    layer = Layer((4, 8, 1, 1))
    scales = [np.float32([0.1, bad, 0.1, 0.1]) for bad in (0.0, -1.0, np.nan, np.inf, 1e-44)]
    return [
        *[({}, {"s": scale}, "scale") for scale in scales],
        *[({name: value}, {}, name) for name, value in itertools.product(["output_zero_point", "lower"], [-1, 256])],
        ({"input_zero_point": 300}, {}, "input_zero_point"),
        ({"lower": 9, "upper": 8}, {}, "bounds"),
        ({"residual_scale": float("nan")}, {}, "residual"),
        ({"sum_lower": 2.0, "sum_upper": 1.0}, {}, "sums"),
        ({"sum_upper": float("nan")}, {}, "sums"),
        ({"sum_step": -1.0}, {}, "sums"),
        ({}, {"s": np.float32([0.1] * 3)}, "expected 4"),
        ({}, {"s": np.float64([0.1] * 4)}, ""),
        ({}, {"b": np.int32([2**31 - 1] * 4)}, "32 bits"),
        ({}, {"b": np.int32([1] * 5)}, "expected 4"),
        ({}, {"w": packed(layer.weight[:3])}, "shape"),
        ({}, {"w": np.frombuffer(weights.encode(layer.weight.astype(np.float32)), np.uint8)}, "int8"),
        ({"output_channels": 5}, {}, ""),
        ({"kernel_shape": [3, 3]}, {}, ""),
        ({"group": 3}, {}, ""),
        ({"auto_pad": "SAME_UPPER"}, {}, "auto_pad"),
    ]


@pytest.mark.parametrize(("attributes", "constants", "word"), wrong_numbers())
def test_wrong_numbers_are_an_error(attributes: dict, constants: dict, word: str) -> None:
    layer = Layer((4, 8, 1, 1))
    given = {
        "kernel_shape": [1, 1],
        "output_channels": 4,
        "input_zero_point": 0,
        "output_zero_point": 0,
        **attributes,
    }
    nodes = [
        node("QuantisedToPanel", ["x"], ["px"]),
        node("QuantisedConv", ["px", "w", "s", "b"], ["py"], **given),
        node("QuantisedFromPanel", ["py"], ["y"], channels=4),
    ]
    made = model(nodes, {"x": (TensorProto.UINT8, [1, 8, 5, 5])}, {**layer.constants(), **constants}, ["y"])
    assert word in refused(made, {"x": np.zeros((1, 8, 5, 5), np.uint8)})


def test_a_panel_of_other_channels_is_an_error() -> None:
    layer = Layer((4, 8, 1, 1))
    for channels in (4, 5, 7, 9, 12):
        made = layer.model(["n", channels, 5, 5])
        assert f"got {channels}" in refused(made, {"x": np.zeros((1, channels, 5, 5), np.uint8)})


def test_tables_and_residuals_must_fit() -> None:
    layer = Layer((4, 8, 1, 1))
    x = np.zeros((1, 8, 5, 5), np.uint8)
    short = {**layer.constants(), "t": np.zeros(255, np.uint8)}
    nodes = [
        node("QuantisedToPanel", ["x"], ["px"]),
        layer.node(["px", "w", "s", "b", "", "t"]),
        node("QuantisedFromPanel", ["py"], ["y"], channels=4),
    ]
    assert "256" in refused(model(nodes, {"x": (TensorProto.UINT8, list(x.shape))}, short, ["y"]), {"x": x})
    assert "residual" in refused(layer.model(list(x.shape), ("px",), residual_scale=1.0), {"x": x})


def wrong_nodes() -> list[tuple[str, list[str], dict, str]]:
    """Ops with attributes that are none: op, inputs, attributes, a word of the answer."""
    window = {"channels": 8, "kernel_shape": [2, 2], "input_scale": 1.0, "output_scale": 1.0}
    concat = {
        "channels": [8, 8],
        "input_scales": [1.0, 1.0],
        "input_zero_points": [0, 0],
        "output_scale": 1.0,
    }
    resize = {"channels": 8, "rows": 2, "columns": 2}
    product = {"output_features": 4}
    wrong = [
        ("QuantisedToPanel", ["x"], {}, {"zero_point": 256}, "zero_point"),
        ("QuantisedToPanel", ["x"], {}, {"scale": 0.0}, "scale"),
        ("QuantisedToPanel", ["d"], {}, {}, "float, uint8 or int8"),
        ("DequantisedFromPanel", ["p"], {"channels": 8}, {"scale": float("inf")}, "scale"),
        ("DequantisedFromPanel", ["p"], {}, {"channels": 9}, "got 8"),
        ("QuantisedMaxPool", ["p"], window, {"channels": 9}, "got 8"),
        ("QuantisedMaxPool", ["p"], window, {"pads": [2, 2, 2, 2]}, "pads"),
        ("QuantisedMaxPool", ["p"], window, {"kernel_shape": [9, 9]}, "kernel"),
        ("QuantisedAveragePool", ["p"], window, {"input_scale": -1.0}, "input_scale"),
        ("QuantisedAveragePool", ["p"], window, {"output_zero_point": -1}, "output_zero_point"),
        ("QuantisedAveragePool", ["p"], window, {"strides": [0, 1]}, "strides"),
        ("QuantisedConcat", ["p"], concat, {}, "each input"),
        ("QuantisedConcat", ["p", "p"], concat, {"channels": [8, 0]}, "channels"),
        ("QuantisedConcat", ["p", "p"], concat, {"channels": [2**24, 2**24]}, "channels"),
        ("QuantisedConcat", ["p", "p"], concat, {"channels": [8, 7]}, "got 8"),
        ("QuantisedConcat", ["p", "p"], concat, {"input_zero_points": [0, 999]}, "zero point"),
        ("QuantisedConcat", ["p", "p"], concat, {"input_scales": [1.0]}, "input_scales"),
        ("QuantisedResize", ["p"], resize, {"rows": 0}, "rows"),
        ("QuantisedResize", ["p"], resize, {"columns": 2**24}, "within"),
        ("QuantisedMatMul", ["x", "w", "s"], product, {}, "features"),
        ("QuantisedMatMul", ["t", "w", "s"], product, {"output_features": 3}, "output_features"),
        ("QuantisedMatMul", ["t", "w", "s", "", "r"], product, {}, "residual"),
        ("QuantisedMatMul", ["t", "w", "bad"], product, {}, "scale"),
        ("DynamicMatMul", ["f", "w", "bad"], product, {}, "scale"),
        ("DynamicMatMul", ["f", "w", "s"], product, {"activation": "tanh"}, "known:"),
        ("DynamicMatMul", ["f", "x", "s"], product, {}, "constant"),
    ]
    return [(op, inputs, {**usual, **change}, word) for op, inputs, usual, change, word in wrong]


@pytest.mark.parametrize(("op", "inputs", "attributes", "word"), wrong_nodes())
def test_ops_say_what_is_wrong(op: str, inputs: list[str], attributes: dict, word: str) -> None:
    feed = {
        "x": np.zeros((1, 8, 5, 5), np.uint8),
        "t": np.zeros((3, 8), np.uint8),
        "r": np.zeros((3, 4), np.uint8),
        "f": np.zeros((3, 8), np.float32),
        "d": np.zeros((1, 8, 5, 5), np.float64),
    }
    constants = {
        "w": packed(int8_weight((4, 8))),
        "s": np.full(4, 0.1, np.float32),
        "bad": np.float32([0.1, 0.1, np.nan, 0.1]),
    }
    nodes = [node("QuantisedToPanel", ["x"], ["p"]), node(op, inputs, ["y"], **attributes)]
    kinds = {
        name: (helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
        for name, value in feed.items()
        if name in (*inputs, "x")
    }
    used = {name: value for name, value in constants.items() if name in inputs}
    assert word in refused(model(nodes, kinds, used, ["y"]), {name: feed[name] for name in kinds})
