"""A panel has the channels that were written; what reads it checks how many, or it would read an earlier request."""

import gossamer_runtime
import numpy as np
import pytest
from gossamer_runtime import weights
from onnx import NodeProto, TensorProto, helper, numpy_helper

try:
    gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

RNG = np.random.default_rng(0)
OPS = ("ToPanel", "FromPanel", "SparseConv", "SparseMatMul", "StemConv", "PanelMaxPool")
OPEN = ["n", "c", "h", "w"]


def node(kind: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    domain = "gossamer" if kind in OPS else ""
    return helper.make_node(kind, inputs, [output], domain=domain, **attributes)


def model(
    nodes: list[NodeProto], inputs: dict[str, list], constants: dict[str, np.ndarray], output: str = "y"
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def packed(*shape: int, density: float = 0.3) -> np.ndarray:
    weight = RNG.standard_normal(shape).astype(np.float32)
    weight[RNG.random(shape) >= density] = 0
    return np.frombuffer(weights.encode(weight), np.uint8)


def outcome(source: bytes, feed: dict[str, np.ndarray]) -> str:
    """What creating the session and running it said; empty if it ran."""
    try:
        gossamer_runtime.Session(source).run(None, feed)
    except Exception as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("size", [1, 2, 7, 14, 15, 28, 56])
def test_another_number_of_channels_is_refused(size: int) -> None:
    """Two convolutions over 64 channels and an input whose channels are open: as ONNX Runtime does with Conv."""
    square = {"output_channels": 64, "kernel_shape": [3, 3], "pads": [1] * 4}
    nodes = [
        node("ToPanel", ["x"], "p0"),
        node("SparseConv", ["p0", "w"], "p1", **square),
        node("SparseConv", ["p1", "w"], "p2", **square),
        node("FromPanel", ["p2"], "y", channels=64),
    ]
    session = gossamer_runtime.Session(model(nodes, {"x": OPEN}, {"w": packed(64, 64, 3, 3)}), threads=2)
    for channels in (*range(1, 12), *range(48, 81), 128):
        x = np.full((1, channels, size, size), 12345, np.float32)
        if channels == 64:
            assert session.run(None, {"x": x})[0].shape == x.shape
            continue
        with pytest.raises(Exception, match=f"expected an input of 64 channels, got {channels}$"):
            session.run(None, {"x": x})


@pytest.mark.parametrize("channels", [1, 3, 5, 8])
def test_nothing_of_an_earlier_request_is_returned(channels: int) -> None:
    nodes = [node("ToPanel", ["x"], "p"), node("FromPanel", ["p"], "y", channels=4)]
    session = gossamer_runtime.Session(model(nodes, {"x": OPEN}, {}))
    for size in (1, 3, 5, 7, 14):
        session.run(None, {"x": np.full((2, 4, size, size), 12345, np.float32)})
        with pytest.raises(Exception, match=f"FromPanel: expected an input of 4 channels, got {channels}"):
            session.run(None, {"x": np.zeros((2, channels, size, size), np.float32)})


@pytest.mark.parametrize("shape", [[1, 4, 7, 7], OPEN, [1, 4, 9], ["n", "c", "length"]])
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 6, 12])
def test_attributes_say_the_channels_that_were_written(channels: int, shape: list) -> None:
    feed = {"x": np.zeros((1, 4, 7, 7) if len(shape) == 4 else (1, 4, 9), np.float32)}
    pooling = {"kernel_shape": [2] * (len(shape) - 2)}
    for nodes in (
        [node("ToPanel", ["x"], "p"), node("FromPanel", ["p"], "y", channels=channels)],
        [node("ToPanel", ["x"], "p"), node("PanelMaxPool", ["p"], "y", channels=channels, **pooling)],
    ):
        assert f"expected an input of {channels} channels, got 4" in outcome(model(nodes, {"x": shape}, {}), feed)


@pytest.mark.parametrize(
    ("weight", "attributes", "message"),
    [
        ((6, 4, 1, 1), {"group": 2}, "expected an input of 8 channels, got 4"),
        ((6, 2, 1, 1), {"group": 3}, "expected an input of 6 channels, got 4"),
        ((6, 4, 1, 1), {"group": 4}, "groups do not divide"),
        ((6, 4, 3, 1), {"kernel_shape": [1, 3], "pads": [0, 1, 0, 1]}, "weight's shape"),
        ((6, 4, 2, 2), {"kernel_shape": [1, 4]}, "weight's shape"),
        ((6, 4, 2, 2), {"kernel_shape": [4, 1]}, "weight's shape"),
        ((6, 16, 1, 1), {"kernel_shape": [2, 2]}, "weight's shape"),
        ((6, 4, 1, 2), {"kernel_shape": [1, 1]}, "weight's shape"),
        ((6, 8, 1, 1), {"kernel_shape": [1, 2]}, "weight's shape"),
        ((6, 1, 2, 2), {"kernel_shape": [1, 1]}, "weight's shape"),
        ((6, 4), {"kernel_shape": [1, 1]}, "weight's shape"),
        ((6, 4, 1), {"kernel_shape": [1, 1]}, "weight's shape"),
        ((6, 4, 1, 1, 1), {"kernel_shape": [1, 1]}, "weight's shape"),
        ((24,), {"kernel_shape": [1, 1]}, "weight's shape"),
        ((12, 2, 1, 1), {"output_channels": 6}, "weight's shape"),
        ((6, 4, 1, 1), {"group": [1]}, "attribute group is of another type"),
        ((6, 4, 1, 1), {"activation": 3}, "attribute activation is of another type"),
        ((6, 4, 1, 1), {"activation": "clip", "lower": 1}, "attribute lower is of another type"),
        ((6, 4, 1, 1), {"activation": "leakyrelu", "slope": "0.2"}, "attribute slope is of another type"),
        ((6, 4, 1, 1), {"activation": "leakyrelu", "slope": float("nan")}, "slope is not a finite number"),
        ((6, 4, 1, 1), {"auto_pad": "SAME_UPPER"}, "auto_pad"),
    ],
)
@pytest.mark.parametrize("shape", [[1, 4, 6, 6], OPEN])
def test_attributes_that_contradict_the_weight(weight: tuple, attributes: dict, message: str, shape: list) -> None:
    attributes = {"output_channels": weight[0], "kernel_shape": [1, 1], **attributes}
    nodes = [
        node("ToPanel", ["x"], "p"),
        node("SparseConv", ["p", "w"], "q", **attributes),
        node("FromPanel", ["q"], "y", channels=attributes["output_channels"]),
    ]
    source = model(nodes, {"x": shape}, {"w": packed(*weight, density=1.0)})
    assert message in outcome(source, {"x": np.zeros((1, 4, 6, 6), np.float32)})


@pytest.mark.parametrize("shape", [(24,), (2, 3, 4), (6, 4, 1, 1)])
def test_a_product_takes_a_matrix(shape: tuple[int, ...]) -> None:
    features = int(np.prod(shape)) // shape[0]
    source = model([node("SparseMatMul", ["x", "w"], "y")], {"x": ["n", features]}, {"w": packed(*shape)})
    assert "weight's shape" in outcome(source, {"x": np.zeros((2, features), np.float32)})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"pads": [2, 0, 0, 0]}, "pads must be smaller"),
        ({"pads": [0, 2, 0, 0]}, "pads must be smaller"),
        ({"pads": [0, 0, 2, 0]}, "pads must be smaller"),
        ({"pads": [0, 0, 0, 2]}, "pads must be smaller"),
        ({"kernel_shape": [3, 1], "pads": [2, 1, 2, 0]}, "pads must be smaller"),
        ({"kernel_shape": [1, 1], "pads": [1, 1, 1, 1]}, "pads must be smaller"),
        ({"dilations": [3, 3], "pads": [3, 3, 3, 3]}, "pads must be smaller"),
        ({"ceil_mode": 1}, "ceil_mode"),
        ({"auto_pad": "VALID"}, "auto_pad"),
        ({"strides": 2}, "strides"),
    ],
)
@pytest.mark.parametrize("shape", [[1, 4, 7, 7], OPEN])
def test_poolings_that_mean_something_else(attributes: dict, message: str, shape: list) -> None:
    attributes = {"kernel_shape": [2, 2], "channels": 4, **attributes}
    nodes = [node("ToPanel", ["x"], "p"), node("PanelMaxPool", ["p"], "y", **attributes)]
    source = model(nodes, {"x": shape}, {})
    assert message in outcome(source, {"x": np.zeros((1, 4, 7, 7), np.float32)})


def test_poolings_padded_as_far_as_may_be() -> None:
    nodes = [
        node("ToPanel", ["x"], "p"),
        node("PanelMaxPool", ["p"], "q", channels=2, kernel_shape=[3, 2], pads=[2, 1, 2, 1]),
        node("FromPanel", ["q"], "y", channels=2),
    ]
    plain = [node("MaxPool", ["x"], "y", kernel_shape=[3, 2], pads=[2, 1, 2, 1])]
    x = RNG.standard_normal((1, 2, 5, 6)).astype(np.float32)
    got, expected = (
        gossamer_runtime.Session(model(nodes, {"x": OPEN}, {})).run(None, {"x": x})[0] for nodes in (nodes, plain)
    )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", [1, 3, 7, 14, 56])
@pytest.mark.parametrize("read", [3, 5, 8])
def test_joined_panels_are_no_panel(read: int, size: int) -> None:
    """Panels lie tile by tile: those of 3 and 5 channels one behind the other are none of 8."""
    nodes = [
        node("ToPanel", ["a"], "pa"),
        node("ToPanel", ["b"], "pb"),
        node("Concat", ["pa", "pb"], "p", axis=1),
        node("FromPanel", ["p"], "y", channels=read),
    ]
    feed = {name: np.ones((1, channels, size, size), np.float32) for name, channels in (("a", 3), ("b", 5))}
    assert f"FromPanel: expected an input of {read} channels" in outcome(model(nodes, {"a": OPEN, "b": OPEN}, {}), feed)


def test_panels_of_other_channels_cannot_be_added() -> None:
    for other in range(1, 12):
        nodes = [
            node("ToPanel", ["a"], "pa"),
            node("ToPanel", ["b"], "pb"),
            node("Add", ["pa", "pb"], "p"),
            node("FromPanel", ["p"], "y", channels=6),
        ]
        for size in (1, 7, 12, 56):
            feed = {name: np.ones((1, channels, size, size), np.float32) for name, channels in (("a", 6), ("b", other))}
            assert (outcome(model(nodes, {"a": OPEN, "b": OPEN}, {}), feed) == "") == (other == 6)


def test_a_residual_has_the_outputs_channels() -> None:
    nodes = [
        node("ToPanel", ["x"], "px"),
        node("ToPanel", ["r"], "pr"),
        node("SparseConv", ["px", "w", "", "pr"], "q", output_channels=6, kernel_shape=[1, 1]),
        node("FromPanel", ["q"], "y", channels=6),
    ]
    session = gossamer_runtime.Session(model(nodes, {"x": OPEN, "r": ["a", "b", "d", "e"]}, {"w": packed(6, 4, 1, 1)}))
    x = np.zeros((1, 4, 7, 7), np.float32)
    for shape in [(1, 5, 7, 7), (1, 7, 7, 7), (2, 6, 7, 7), (1, 6, 7, 8), (1, 6, 1, 1), (1, 1, 7, 7)]:
        with pytest.raises(Exception, match="residual"):
            session.run(None, {"x": x, "r": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_stems_take_the_channels_of_their_weight(channels: int) -> None:
    stem = node("StemConv", ["x", "w"], "p", output_channels=6, kernel_shape=[3, 3])
    source = model(
        [stem, node("FromPanel", ["p"], "y", channels=6)], {"x": OPEN}, {"w": np.ones((6, 3, 3, 3), np.float32)}
    )
    assert f"takes 3 channels, the input has {channels}" in outcome(
        source, {"x": np.zeros((1, channels, 8, 8), np.float32)}
    )


def test_images_of_a_batch_are_apart() -> None:
    """ONNX Runtime's own ops between panels go by the declared sizes: the second image begins where they say."""
    nodes = [
        node("ToPanel", ["a"], "pa"),
        node("ToPanel", ["b"], "pb"),
        node("Add", ["pa", "pb"], "p"),
        node("FromPanel", ["p"], "y", channels=5),
    ]
    session = gossamer_runtime.Session(model(nodes, {"a": OPEN, "b": OPEN}, {}))
    for size in (1, 3, 7, 14):
        a, b = (RNG.standard_normal((images, 5, size, size)).astype(np.float32) for images in (1, 3))
        np.testing.assert_array_equal(session.run(None, {"a": a, "b": b})[0], a + b)
