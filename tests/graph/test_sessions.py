"""Networks in ONNX Runtime, their large constants handed over, and outputs that are remembered."""

import gc
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from export.onnx_graphs import Array, network, normal
from onnx import TensorProto, helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.graph import sessions
from gossamer.graph.sessions import HANDED_OVER, Feed, Opened, Remembering, dense_session, sparse_session

RNG = np.random.default_rng(0)


def large() -> onnx.ModelProto:
    """Two products, by a constant that is handed over and by one that is not."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["y"])]
    constants = {"w": normal(RNG, 200, 100), "v": normal(RNG, 100, 3)}
    assert constants["w"].nbytes >= HANDED_OVER > constants["v"].nbytes
    return network(nodes, {"x": ["n", 200]}, constants, ["y"])


def plain(model: onnx.ModelProto, feed: Feed) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, dict(feed))
    return outputs


def test_a_constant_that_is_handed_over_is_there_as_long_as_its_session() -> None:
    model, feed = large(), {"x": normal(RNG, 4, 200)}
    (expected,) = plain(model, feed)
    session = dense_session(model)
    assert len(model.graph.initializer[0].raw_data) == 4 * 200 * 100
    model.Clear()
    gc.collect()
    for _ in range(2):
        np.testing.assert_array_equal(session.run(None, feed)[0], expected)


def test_a_constant_that_a_caller_may_replace_is_not_handed_over() -> None:
    model = large()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [200, 100]))
    feed = {"x": normal(RNG, 4, 200), "w": normal(RNG, 200, 100)}
    np.testing.assert_array_equal(dense_session(model).run(None, feed)[0], plain(model, feed)[0])


def test_a_constant_of_another_size_than_it_says_is_an_error_of_the_network() -> None:
    model = large()
    model.graph.initializer[0].raw_data += b"more"
    with pytest.raises(Exception, match="w"):
        dense_session(model)


def test_sums_of_int8_layers_are_exact_on_every_processor() -> None:
    """Without VNNI ONNX Runtime by itself adds two products of 255 and 127 in 16 bits, which hold 32,767."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "none"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "one", "none"], ["read"]),
        helper.make_node("DequantizeLinear", ["w", "one"], ["weight"]),
        helper.make_node("MatMul", ["read", "weight"], ["y"]),
    ]
    constants = {"one": np.float32(1), "none": np.uint8(0), "w": np.full((64, 16), 127, np.int8)}
    model = network(nodes, {"x": ["n", 64]}, constants, ["y"])
    (sums,) = dense_session(model).run(None, {"x": np.full((3, 64), 255, np.float32)})
    np.testing.assert_array_equal(sums, 64 * 255 * 127)


def test_outputs_are_computed_once_for_each_input_as_far_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def run(feed: Feed) -> list[Array]:
        asked.append(float(feed["x"][0]))
        return [feed["x"] * 2]

    one, other, like_one = ({"x": np.full(10, value)} for value in (1.0, 2.0, 1.0))
    monkeypatch.setattr(sessions, "REMEMBERED", 100)
    remembering = Remembering(run)
    for feed in (one, other, one, other, like_one):
        np.testing.assert_array_equal(remembering(feed)[0], feed["x"] * 2)
    # 80 bytes are remembered; those of the second no longer fit. A feed of the same numbers is another one.
    assert asked == [1.0, 2.0, 2.0, 1.0]
    remembering.fresh(one)
    assert asked[-1] == 1.0


def test_what_a_network_returns_and_was_given_by_name() -> None:
    opened, feed = Opened(large()), {"x": normal(RNG, 2, 200)}
    values = opened.values(feed)
    assert values.keys() == {"x", "y"}
    np.testing.assert_array_equal(values["y"], opened.run(feed)[0])
    with pytest.raises(ExportError, match="cannot run the network on this input"):
        opened.run({"x": numpy_helper.to_array(opened.model.graph.initializer[1])})


@pytest.mark.parametrize("session_of", [dense_session, lambda model: sparse_session(model.SerializeToString())])
def test_what_one_of_two_added_convolutions_computes_can_be_returned(
    session_of: Callable[[onnx.ModelProto], onnxruntime.InferenceSession], capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime 1.32 joins that convolution, the addition and the activation, and then finds no such output."""
    constants = {}
    for name, shape in (("first", (16, 15)), ("second", (16, 15)), ("third", (3, 16))):
        constants |= {name: normal(RNG, *shape, 1, 1), f"{name}.bias": normal(RNG, shape[0])}
    nodes = [
        helper.make_node("Conv", ["x", "first", "first.bias"], ["a"]),
        helper.make_node("Conv", ["x", "second", "second.bias"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r"]),
        helper.make_node("Conv", ["r", "third", "third.bias"], ["y"]),
    ]
    model = network(nodes, {"x": ["n", 15, 8, 8]}, constants, ["y", "a"])
    x = normal(RNG, 2, 15, 8, 8)

    def computed(name: str, values: Array) -> Array:
        products = np.einsum("oc,nchw->nohw", constants[name][:, :, 0, 0], values)
        return np.asarray(products + constants[f"{name}.bias"][:, None, None], np.float32)

    a = computed("first", x)
    found = dict(zip(("y", "a"), session_of(model).run(["y", "a"], {"x": x}), strict=True))
    np.testing.assert_allclose(found["a"], a, rtol=1e-4, atol=1e-4)
    expected = computed("third", np.maximum(a + computed("second", x), 0))
    np.testing.assert_allclose(found["y"], expected, rtol=1e-4, atol=1e-4)
    assert capfd.readouterr().out == ""
