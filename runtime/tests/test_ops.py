"""The custom ops inside ONNX Runtime, against ONNX Runtime's own dense ops on the same weights."""

import math
import subprocess
import sys
from collections.abc import Callable

import gossamer_runtime
import numpy as np
import onnx
import onnxruntime
import pytest
from gossamer_runtime import weights
from onnx import TensorProto, helper, numpy_helper

try:
    gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

RNG = np.random.default_rng(0)


def model(nodes: list, inputs: dict[str, list], constants: dict[str, np.ndarray], outputs: list[str]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def sparse_weight(shape: tuple[int, ...], density: float = 0.2) -> np.ndarray:
    weight = RNG.standard_normal(shape).astype(np.float32)
    weight[RNG.random(shape) >= density] = 0
    return weight


def convolution_models(
    weight: np.ndarray, bias: np.ndarray, shape: list, residual: bool, activation: str, **attributes: object
) -> tuple[bytes, bytes]:
    """The same convolution with gossamer's ops and with ONNX's."""
    kernel = {"kernel_shape": list(weight.shape[2:]), **attributes}  # one number for a sequence, two for an image
    channels = weight.shape[0]
    inputs = {"x": shape, **({"r": None} if residual else {})}
    nodes = [
        helper.make_node("ToPanel", ["x"], ["px"], domain="gossamer"),
        *([helper.make_node("ToPanel", ["r"], ["pr"], domain="gossamer")] if residual else []),
        helper.make_node(
            "SparseConv",
            ["px", "w", "b", *(["pr"] if residual else [])],
            ["py"],
            domain="gossamer",
            output_channels=channels,
            activation=activation,
            **kernel,
        ),
        helper.make_node("FromPanel", ["py"], ["y"], domain="gossamer", channels=channels),
    ]
    packed = np.frombuffer(weights.encode(weight), np.uint8)
    sparse = model(nodes, inputs, {"w": packed, "b": bias}, ["y"])
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], **kernel)]
    nodes += [helper.make_node("Add", ["c", "r"], ["s"])] if residual else [helper.make_node("Identity", ["c"], ["s"])]
    nodes += [helper.make_node("Relu" if activation == "relu" else "Identity", ["s"], ["y"])]
    return sparse, model(nodes, inputs, {"w": weight, "b": bias}, ["y"])


def dense(source: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max(initial=0))))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "group"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 2), (5, 1, 1), (3, 1, 12)]
)
def test_convolution(kernel: int, stride: int, group: int, residual: bool, threads: int) -> None:
    weight = sparse_weight((24, 12 // group, kernel, kernel))
    bias = RNG.standard_normal(24).astype(np.float32)
    attributes = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
    sparse, plain = convolution_models(weight, bias, [2, 12, 15, 19], residual, "relu", **attributes)
    feed = {"x": RNG.standard_normal((2, 12, 15, 19)).astype(np.float32)}
    if residual:
        size = [(n + 2 * (kernel // 2) - kernel) // stride + 1 for n in (15, 19)]
        feed["r"] = RNG.standard_normal((2, 24, *size)).astype(np.float32)
    assert_close(gossamer_runtime.Session(sparse, threads=threads).run(None, feed)[0], dense(plain).run(None, feed)[0])


def test_dynamic_shapes_in_one_session() -> None:
    weight, bias = sparse_weight((8, 6, 3, 3)), np.zeros(8, np.float32)
    sparse, plain = convolution_models(weight, bias, ["n", 6, "h", "w"], False, "relu", pads=[1] * 4)
    sessions = gossamer_runtime.Session(sparse, threads=2), dense(plain)
    for shape in [(1, 6, 7, 7), (3, 6, 14, 9), (1, 6, 1, 1), (2, 6, 5, 230), (1, 6, 7, 7), (0, 6, 8, 8)]:
        feed = {"x": RNG.standard_normal(shape).astype(np.float32)}
        got, expected = (session.run(None, feed)[0] for session in sessions)
        assert_close(got, expected)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (3, 1, 3)])
def test_depthwise(kernel: int, stride: int, dilation: int, residual: bool, multiplier: int) -> None:
    weight = RNG.standard_normal((13 * multiplier, 1, kernel, kernel)).astype(np.float32)
    bias = RNG.standard_normal(len(weight)).astype(np.float32)
    pad = dilation * (kernel // 2)
    attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2, "group": 13}
    sparse, plain = convolution_models(weight, bias, [2, 13, 28, 21], residual, "relu", **attributes)
    feed = {"x": RNG.standard_normal((2, 13, 28, 21)).astype(np.float32)}
    if residual:
        feed["r"] = RNG.standard_normal((2, len(weight), *[(n - 1) // stride + 1 for n in (28, 21)])).astype(np.float32)
    for threads in (1, 3):
        session = gossamer_runtime.Session(sparse, threads=threads)
        assert_close(session.run(None, feed)[0], dense(plain).run(None, feed)[0])


@pytest.mark.parametrize("group", [1, 2, 12])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (3, 1, 1), (5, 2, 1), (7, 1, 4), (16, 5, 1)])
def test_sequences(kernel: int, stride: int, dilation: int, group: int) -> None:
    """Conv1d: tensors of three dimensions, lengths and batches that change from run to run."""
    weight = sparse_weight((24, 12 // group, kernel), 0.4)
    bias = RNG.standard_normal(24).astype(np.float32)
    pads = [dilation * (kernel // 2), dilation * ((kernel - 1) // 2)]
    attributes = {"strides": [stride], "pads": pads, "dilations": [dilation], "group": group}
    sparse, plain = convolution_models(weight, bias, ["n", 12, "length"], True, "relu", **attributes)
    sessions = gossamer_runtime.Session(sparse, threads=2), dense(plain)
    for images, length in [(1, 40), (3, 1), (2, 1000), (1, 113), (2, 40), (0, 40)]:
        out_length = (length + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1
        feed = {
            "x": RNG.standard_normal((images, 12, length)).astype(np.float32),
            "r": RNG.standard_normal((images, 24, out_length)).astype(np.float32),
        }
        got, expected = (session.run(None, feed)[0] for session in sessions)
        assert_close(got, expected)


@pytest.mark.parametrize("group", [1, 2, 12])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (5, 1, 1), (5, 2, 3), (16, 5, 1)])
def test_images_of_one_column(kernel: int, stride: int, dilation: int, threads: int, group: int) -> None:
    """A convolution along a column is computed as one along a row."""
    weight = sparse_weight((24, 12 // group, kernel, 1), 0.4)
    bias = RNG.standard_normal(24).astype(np.float32)
    pads = [dilation * (kernel // 2), 0, dilation * ((kernel - 1) // 2), 0]
    attributes = {"strides": [stride, 1], "pads": pads, "dilations": [dilation, 1], "group": group}
    for height_of_the_file in (254, "h"):
        shape = ["n", 12, height_of_the_file, 1]
        sparse, plain = convolution_models(weight, bias, shape, True, "relu", **attributes)
        sessions = gossamer_runtime.Session(sparse, threads=threads), dense(plain)
        for images, height in [(1, 254), (2, 254)] if height_of_the_file == 254 else [(2, 113), (1, 1), (1, 60)]:
            out_height = (height + pads[0] + pads[2] - dilation * (kernel - 1) - 1) // stride + 1
            feed = {
                "x": RNG.standard_normal((images, 12, height, 1)).astype(np.float32),
                "r": RNG.standard_normal((images, 24, out_height, 1)).astype(np.float32),
            }
            got, expected = (session.run(None, feed)[0] for session in sessions)
            assert_close(got, expected)


def test_images_and_sequences_do_not_mix() -> None:
    for shape in (["n", "c", "h", "w"], [1, 4, 7, 7]):
        source, _ = convolution_models(sparse_weight((6, 4, 3)), np.zeros(6, np.float32), shape, False, "none")
        with pytest.raises(Exception, match="kernel_shape"):
            gossamer_runtime.Session(source).run(None, {"x": np.zeros((1, 4, 7, 7), np.float32)})


@pytest.mark.parametrize("shape", [(1, 0, 5, 5), (1, 4, 0, 5), (1, 4, 5, 0), (1, 4, 0)])
def test_images_without_pixels_give_an_error(shape: tuple[int, ...]) -> None:
    axes = len(shape) - 2
    source, _ = convolution_models(
        sparse_weight((6, 4, *[1] * axes)), np.zeros(6, np.float32), [None] * len(shape), False, "none"
    )
    with pytest.raises(Exception, match="gossamer"):
        gossamer_runtime.Session(source).run(None, {"x": np.zeros(shape, np.float32)})


def pool_models(channels: int, shape: list, **attributes: object) -> tuple[bytes, bytes]:
    """The same max pooling with gossamer's ops and with ONNX's."""
    nodes = [
        helper.make_node("ToPanel", ["x"], ["px"], domain="gossamer"),
        helper.make_node("PanelMaxPool", ["px"], ["py"], domain="gossamer", channels=channels, **attributes),
        helper.make_node("FromPanel", ["py"], ["y"], domain="gossamer", channels=channels),
    ]
    plain = [helper.make_node("MaxPool", ["x"], ["y"], **attributes)]
    return model(nodes, {"x": shape}, {}, ["y"]), model(plain, {"x": shape}, {}, ["y"])


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [0, 1, 2, 0], "dilations": [2, 1]},
        {"kernel_shape": [3], "strides": [2], "pads": [1, 0]},
    ],
)
def test_max_pool(attributes: dict) -> None:
    axes = len(attributes["kernel_shape"])
    sparse, plain = pool_models(5, ["n", 5, "h", "w"][: axes + 2], **attributes)
    sessions = gossamer_runtime.Session(sparse, threads=3), dense(plain)
    for images, *sizes in [(1, 14, 14), (2, 9, 230), (3, 5, 5), (0, 8, 8)]:
        feed = {"x": RNG.standard_normal((images, 5, *sizes[:axes])).astype(np.float32)}
        got, expected = (session.run(None, feed)[0] for session in sessions)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_ops_agree_on_the_tiles_of_every_number_of_threads(threads: int) -> None:
    """Ops of all kinds in a row: two threads cut 14 rows into other tiles than one."""
    wide, narrow = sparse_weight((12, 6, 3, 3)), sparse_weight((12, 1, 3, 3), 1.0)
    last, bias = sparse_weight((5, 12, 1, 1)), RNG.standard_normal(12).astype(np.float32)
    square = {"kernel_shape": [3, 3], "pads": [1] * 4}
    sparse = [helper.make_node("ToPanel", ["x"], ["p"], domain="gossamer")]
    for inputs, output, attributes in [
        (["p", "wide"], "a", {"output_channels": 12, **square}),
        (["a", "narrow", "bias", "a"], "b", {"output_channels": 12, "group": 12, **square}),
        (["c", "last"], "d", {"output_channels": 5, "kernel_shape": [1, 1]}),
    ]:
        sparse.append(helper.make_node("SparseConv", inputs, [output], domain="gossamer", **attributes))
    sparse.insert(3, helper.make_node("PanelMaxPool", ["b"], ["c"], domain="gossamer", channels=12, **square))
    sparse.append(helper.make_node("FromPanel", ["d"], ["y"], domain="gossamer", channels=5))
    plain = [
        helper.make_node("Conv", ["x", "wide"], ["a"], **square),
        helper.make_node("Conv", ["a", "narrow", "bias"], ["n"], group=12, **square),
        helper.make_node("Add", ["n", "a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], **square),
        helper.make_node("Conv", ["c", "last"], ["y"], kernel_shape=[1, 1]),
    ]
    values = {"wide": wide, "narrow": narrow, "last": last, "bias": bias}
    packed = {name: np.frombuffer(weights.encode(values[name]), np.uint8) for name in ("wide", "narrow", "last")}
    shape = {"x": ["n", 6, "h", "w"]}
    sessions = (
        gossamer_runtime.Session(model(sparse, shape, {**values, **packed}, ["y"]), threads=threads),
        dense(model(plain, shape, values, ["y"])),
    )
    for images, height, width in [
        (1, 14, 14),
        (3, 14, 14),
        (1, 28, 28),
        (2, 7, 7),
        (1, 13, 9),
        (1, 20, 6),
        (2, 9, 230),
    ]:
        feed = {"x": RNG.standard_normal((images, 6, height, width)).astype(np.float32)}
        got, expected = (session.run(None, feed)[0] for session in sessions)
        assert_close(got, expected)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kernel_shape": [0, 2]}, "kernel"),
        ({"kernel_shape": [2**40, 2]}, "kernel"),
        ({"kernel_shape": [2]}, "kernel_shape"),
        ({"kernel_shape": [9, 9]}, "kernel is larger"),
        ({"strides": [0, 1]}, "strides"),
        ({"pads": [0, -1, 0, 0]}, "padding"),
        ({"pads": [2**23] * 4}, "padding"),
        ({"pads": [2**15] * 4}, "pads must be smaller"),
        ({"channels": 0}, "channels"),
        ({"channels": 2**50}, "channels"),
        ({"channels": 900}, "900 channels, got 4"),
    ],
)
def test_hostile_pooling_gives_an_error(attributes: dict, message: str) -> None:
    attributes = {"kernel_shape": [2, 2], "channels": 4, **attributes}
    nodes = [
        helper.make_node("ToPanel", ["x"], ["px"], domain="gossamer"),
        helper.make_node("PanelMaxPool", ["px"], ["py"], domain="gossamer", **attributes),
    ]
    with pytest.raises(Exception, match=message):
        gossamer_runtime.Session(model(nodes, {"x": [1, 4, 7, 7]}, {}, ["py"])).run(
            None, {"x": np.zeros((1, 4, 7, 7), np.float32)}
        )


@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (2, 3, 40), (2, 130, 40), (1, 1, 40), (0, 40)])
@pytest.mark.parametrize("threads", [1, 3])
def test_matmul_with_any_leading_dimensions(shape: tuple[int, ...], threads: int) -> None:
    weight, bias = sparse_weight((21, 40)), RNG.standard_normal(21).astype(np.float32)
    node = helper.make_node("SparseMatMul", ["x", "w", "b"], ["y"], domain="gossamer", output_features=21)
    packed = np.frombuffer(weights.encode(weight), np.uint8)
    names = [f"axis{i}" for i in range(len(shape) - 1)]
    source = model([node], {"x": [*names, 40]}, {"w": packed, "b": bias}, ["y"])
    x = RNG.standard_normal(shape).astype(np.float32)
    assert_close(gossamer_runtime.Session(source, threads=threads).run(None, {"x": x})[0], x @ weight.T + bias)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu", "leakyrelu"])
def test_matmul_with_residual_and_activation(activation: str, threads: int) -> None:
    """One session for any number of rows; X is also the residual, whose memory must survive for the other use of it."""
    weight, bias = sparse_weight((40, 40)), RNG.standard_normal(40).astype(np.float32)
    nodes = [
        helper.make_node("Neg", ["x"], ["r"]),
        helper.make_node(
            "SparseMatMul",
            ["x", "w", "b", "r"],
            ["m"],
            domain="gossamer",
            output_features=40,
            activation=activation,
        ),
        helper.make_node("SparseMatMul", ["m", "w", "", "m"], ["y"], domain="gossamer", output_features=40),
        helper.make_node("Add", ["y", "m"], ["z"]),
    ]
    packed = np.frombuffer(weights.encode(weight), np.uint8)
    source = model(nodes, {"x": ["n", "tokens", 40]}, {"w": packed, "b": bias}, ["z"])
    session = gossamer_runtime.Session(source, threads=threads)
    erf = np.vectorize(math.erf)
    apply = {
        "none": lambda v: v,
        "relu": lambda v: np.maximum(v, 0),
        "silu": lambda v: v / (1 + np.exp(-v)),
        "gelu": lambda v: v * 0.5 * (1 + erf(v / np.sqrt(2))),
        # Of the slope that is left out.
        "leakyrelu": lambda v: np.where(v < 0, 0.01 * v, v),
    }[activation]
    for shape in [(1, 1, 40), (2, 37, 40), (1, 128, 40), (3, 0, 40), (1, 1, 40), (5, 13, 40)]:
        x = RNG.standard_normal(shape).astype(np.float32)
        wide = weight.T.astype(np.float64)
        m = apply(x @ wide + bias - x) if x.size else x.astype(np.float64)
        assert_close(session.run(None, {"x": x})[0], m @ wide + 2 * m)


def test_a_residual_of_another_shape_is_an_error() -> None:
    packed = np.frombuffer(weights.encode(sparse_weight((6, 4))), np.uint8)
    node = helper.make_node("SparseMatMul", ["x", "w", "", "r"], ["y"], domain="gossamer", output_features=6)
    session = gossamer_runtime.Session(model([node], {"x": ["n", 4], "r": ["n", "m"]}, {"w": packed}, ["y"]))
    with pytest.raises(Exception, match="residual"):
        session.run(None, {"x": np.zeros((3, 4), np.float32), "r": np.zeros((3, 5), np.float32)})


def test_residual_network_in_place() -> None:
    """Three residual convolutions in a row, whose outputs may take the residual's memory."""
    nodes, constants = [helper.make_node("ToPanel", ["x"], ["p0"], domain="gossamer")], {}
    x = RNG.standard_normal((1, 16, 14, 14)).astype(np.float32)
    expected = x.astype(np.float64)
    for i in range(3):
        weight = sparse_weight((16, 16, 1, 1))
        constants[f"w{i}"] = np.frombuffer(weights.encode(weight), np.uint8)
        given = [f"p{i}", f"w{i}", "", f"p{i}"]
        nodes.append(
            helper.make_node(
                "SparseConv", given, [f"p{i + 1}"], domain="gossamer", output_channels=16, kernel_shape=[1, 1]
            )
        )
        expected = expected + np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], expected)
    nodes.append(helper.make_node("FromPanel", ["p3"], ["y"], domain="gossamer", channels=16))
    got = gossamer_runtime.Session(model(nodes, {"x": [1, 16, 14, 14]}, constants, ["y"])).run(None, {"x": x})[0]
    assert_close(got, expected)


def hostile(packed: bytes, **attributes: object) -> bytes:
    nodes = [
        helper.make_node("ToPanel", ["x"], ["px"], domain="gossamer"),
        helper.make_node("SparseConv", ["px", "w"], ["py"], domain="gossamer", **attributes),
    ]
    return model(nodes, {"x": [1, 4, 7, 7]}, {"w": np.frombuffer(packed, np.uint8)}, ["py"])


@pytest.mark.parametrize(
    ("change", "attributes", "message"),
    [
        (lambda p: p[:-9], {}, "gossamer"),
        (lambda p: b"X" + p[1:], {}, "GSPW"),
        (lambda p: p[:40] + bytes([p[40] ^ 1]) + p[41:], {}, "checksum"),
        (lambda p: p, {"output_channels": 5}, "shape"),
        (lambda p: p, {"kernel_shape": [3, 3]}, "kernel"),
        (lambda p: p, {"kernel_shape": [0, 1]}, "kernel"),
        (lambda p: p, {"strides": [0, 1]}, "stride"),
        (lambda p: p, {"strides": [1]}, "strides"),
        (lambda p: p, {"pads": [-1, 0, 0, 0]}, "padding"),
        (lambda p: p, {"group": 2**62}, "group"),
        (lambda p: p, {"group": 0}, "group"),
        (lambda p: p, {"kernel_shape": []}, "kernel_shape"),
        (lambda p: p, {"kernel_shape": [1]}, "kernel_shape"),
        (lambda p: p, {"kernel_shape": [1, 1, 1]}, "kernel_shape"),
        (lambda p: p, {"dilations": [1, 1, 1]}, "dilations"),
        (lambda p: p, {"strides": [2**40, 1]}, "stride"),
        (lambda p: p, {"activation": "swoosh"}, "swoosh"),
    ],
)
def test_hostile_models_give_an_error(change, attributes: dict, message: str) -> None:
    packed = weights.encode(sparse_weight((6, 4, 1, 1), 0.5))
    attributes = {"output_channels": 6, "kernel_shape": [1, 1], **attributes}
    with pytest.raises(Exception, match=message):
        gossamer_runtime.Session(hostile(change(packed), **attributes)).run(
            None, {"x": np.zeros((1, 4, 7, 7), np.float32)}
        )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"pads": [2**23, 2**23] * 2, "dilations": [2**23, 2**23]}, "padding"),
        ({"pads": [2**15, 2**15] * 2}, "too large"),
        ({"dilations": [2**40, 1]}, "dilations"),
        ({"strides": [0, 0]}, "stride"),
        ({"pads": [0, 0, 0, 0], "dilations": [9, 9]}, "kernel is larger"),
        ({"output_channels": 12}, "shape"),
        ({"group": 3}, "shape|groups"),
    ],
)
def test_hostile_depthwise_models_give_an_error(attributes: dict, message: str) -> None:
    packed = weights.encode(sparse_weight((4, 1, 3, 3), 1.0))
    attributes = {"output_channels": 4, "kernel_shape": [3, 3], "group": 4, "pads": [1] * 4, **attributes}
    with pytest.raises(Exception, match=message):
        gossamer_runtime.Session(hostile(packed, **attributes)).run(None, {"x": np.zeros((1, 4, 7, 7), np.float32)})


@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize(
    ("shape", "kernel", "dilation"),
    [
        ((1, 6, 65, 20), (7, 1), 17),
        ((2, 6, 33, 33), (3, 3), 18),
        ((1, 6, 33, 33), (3, 3), 36),
        ((1, 6, 7, 150), (1, 7), 20),
        ((1, 6, 7, 7), (3, 3), 2**15),
    ],
)
def test_kernels_that_look_far_beyond_the_image(
    shape: tuple[int, ...], kernel: tuple[int, int], dilation: int, group: int, convolution: Callable[..., np.ndarray]
) -> None:
    pads = [dilation * (extent - 1) // 2 for extent in kernel] * 2
    weight, bias = sparse_weight((6, 6 // group, *kernel), 0.5), RNG.standard_normal(6).astype(np.float32)
    settings = {"pads": pads, "group": group, "dilations": [dilation] * 2}
    sparse, _ = convolution_models(weight, bias, list(shape), False, "none", **settings)
    images = RNG.standard_normal(shape).astype(np.float32)
    expected = convolution(images, weight, **settings) + bias[:, None, None]
    assert_close(gossamer_runtime.Session(sparse).run(None, {"x": images})[0], expected)


@pytest.mark.parametrize("group", [1, 6])
@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (2, 6, 3, 225), (1, 6, 40, 1)])
def test_all_zero_and_fully_dense_layers(shape: tuple[int, ...], density: float, group: int) -> None:
    weight, bias = sparse_weight((6, 6 // group, 3, 3), density), RNG.standard_normal(6).astype(np.float32)
    sparse, plain = convolution_models(weight, bias, list(shape), False, "none", pads=[1] * 4, group=group)
    feed = {"x": RNG.standard_normal(shape).astype(np.float32)}
    assert_close(gossamer_runtime.Session(sparse).run(None, feed)[0], dense(plain).run(None, feed)[0])


def test_a_planar_tensor_is_no_panel() -> None:
    packed = np.frombuffer(weights.encode(sparse_weight((6, 4, 1, 1))), np.uint8)
    node = helper.make_node("SparseConv", ["x", "w"], ["y"], domain="gossamer", output_channels=6, kernel_shape=[1, 1])
    session = gossamer_runtime.Session(model([node], {"x": ["n", "c", "h", "w"]}, {"w": packed}, ["y"]))
    with pytest.raises(Exception, match="ToPanel"):
        session.run(None, {"x": np.zeros((1, 4, 7, 7), np.float32)})


def stem(weight: np.ndarray, bias: np.ndarray, max_pool: bool, **attributes: object) -> tuple[bytes, bytes]:
    """A dense convolution of an image, ReLU and perhaps a pooling, with gossamer's op and with ONNX's."""
    kernel = {"kernel_shape": list(weight.shape[2:]), **attributes}
    inputs, constants = {"x": ["n", weight.shape[1], "h", "w"]}, {"w": weight, "b": bias}
    fused = helper.make_node(
        "StemConv",
        ["x", "w", "b"],
        ["p"],
        domain="gossamer",
        output_channels=len(weight),
        activation="relu",
        max_pool=int(max_pool),
        **kernel,
    )
    back = helper.make_node("FromPanel", ["p"], ["y"], domain="gossamer", channels=len(weight))
    plain = [helper.make_node("Conv", ["x", "w", "b"], ["c"], **kernel), helper.make_node("Relu", ["c"], ["r"])]
    if max_pool:
        pooling = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
        plain.append(helper.make_node("MaxPool", ["r"], ["y"], **pooling))
    else:
        plain.append(helper.make_node("Identity", ["r"], ["y"]))
    return model([fused, back], inputs, constants, ["y"]), model(plain, inputs, constants, ["y"])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("max_pool", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2)])
def test_stem(kernel: int, stride: int, max_pool: bool, threads: int) -> None:
    weight = RNG.standard_normal((24, 3, kernel, kernel)).astype(np.float32)
    bias = RNG.standard_normal(24).astype(np.float32)
    fused, plain = stem(weight, bias, max_pool, strides=[stride] * 2, pads=[kernel // 2] * 4)
    sessions = gossamer_runtime.Session(fused, threads=threads), dense(plain)
    for shape in [(1, 3, 56, 48), (3, 3, 31, 17), (1, 3, 1, 2), (0, 3, 8, 8)]:
        feed = {"x": RNG.standard_normal(shape).astype(np.float32)}
        got, expected = (session.run(None, feed)[0] for session in sessions)
        assert_close(got, expected)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"strides": [1, 3]}, "stride"),
        ({"strides": [0, 1]}, "stride"),
        ({"dilations": [2, 1]}, "dilations"),
        ({"group": 3}, "group"),
        ({"output_channels": 5}, "shape"),
        ({"kernel_shape": [3, 5]}, "shape"),
        ({"pads": [-1] * 4}, "padding"),
        ({"max_pool": 2}, "max_pool"),
    ],
)
def test_a_stem_that_cannot_be_computed_is_an_error(attributes: dict, message: str) -> None:
    node = {"output_channels": 4, "kernel_shape": [3, 3], **attributes}
    nodes = [helper.make_node("StemConv", ["x", "w"], ["p"], domain="gossamer", **node)]
    source = model(nodes, {"x": [1, 3, 8, 8]}, {"w": np.ones((4, 3, 3, 3), np.float32)}, ["p"])
    with pytest.raises(Exception, match=message):
        gossamer_runtime.Session(source)


def test_imports_no_torch() -> None:
    code = (
        "import sys, gossamer_runtime, gossamer_runtime.run; sys.exit(any(m in sys.modules for m in ('torch', 'onnx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def single_ops() -> dict[str, tuple[list, list, dict[str, np.ndarray]]]:
    """Name -> nodes from x to y that end in planes; the shape of x, all but features open; constants."""
    packed = np.frombuffer(weights.encode(sparse_weight((6, 4))), np.uint8)
    kernel = np.frombuffer(weights.encode(sparse_weight((6, 4, 1, 1))), np.uint8)

    def ours(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], domain="gossamer", **attributes)  # type: ignore[arg-type]

    window = {"kernel_shape": [1, 1]}
    to_panel, image = ours("ToPanel", ["x"], "p"), [None, 4, 5, 7]
    return {
        "SparseMatMul": ([ours("SparseMatMul", ["x", "w"], "y", output_features=6)], [None, None, 4], {"w": packed}),
        "FromPanel": ([to_panel, ours("FromPanel", ["p"], "y", channels=4)], image, {}),
        "PanelMaxPool": (
            [
                to_panel,
                ours("PanelMaxPool", ["p"], "q", channels=4, **window),
                ours("FromPanel", ["q"], "y", channels=4),
            ],
            image,
            {},
        ),
        "SparseConv": (
            [
                to_panel,
                ours("SparseConv", ["p", "w"], "q", output_channels=6, **window),
                ours("FromPanel", ["q"], "y", channels=6),
            ],
            image,
            {"w": kernel},
        ),
        "StemConv": (
            [ours("StemConv", ["x", "w"], "q", output_channels=6, **window), ours("FromPanel", ["q"], "y", channels=6)],
            image,
            {"w": sparse_weight((6, 4, 1, 1))},
        ),
    }


@pytest.mark.parametrize("name", single_ops())
def test_what_is_not_known_of_a_shape_stays_unknown(name: str) -> None:
    """An open axis without a name is none of size -1, which ONNX Runtime would compute the shape from beforehand."""
    nodes, shape, constants = single_ops()[name]
    nodes = [*nodes, helper.make_node("Shape", ["y"], ["s"]), helper.make_node("Cast", ["s"], ["sizes"], to=1)]
    session = gossamer_runtime.Session(model(nodes, {"x": shape}, constants, ["y", "sizes"]), threads=1)
    for sizes in ((3, 2), (1, 4)):
        of_x = [sizes[axis] if size is None else size for axis, size in enumerate(shape)]
        y, of_y = session.run(None, {"x": RNG.standard_normal(of_x).astype(np.float32)})
        assert y.shape == tuple(of_y)
        assert y.shape[0] == sizes[0]
