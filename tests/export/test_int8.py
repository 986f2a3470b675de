"""Quantisation after training: what the file computes, what stays in float, and what is refused."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export.onnx_graphs import Array, network, normal, run_dense, sparse_weight
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gossamer.errors import ConfigurationError, ExportError
from gossamer.export.exporting import Exported, export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source
from gossamer.export.twin import SplitScore
from gossamer.graph.sessions import Feed
from gossamer.tasks import Metric

node = helper.make_node
Bytes = NDArray[np.uint8]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def in_int8(
    tmp_path: Path, model: onnx.ModelProto, inputs: Mapping[str, NDArray[np.generic]], **options: Any
) -> tuple[onnx.ModelProto, Exported]:
    """The file of `--dense --int8`, ranges found on these inputs."""
    onnx.save(model, tmp_path / "fp32.onnx")
    np.savez(tmp_path / "examples.npz", **inputs)  # type: ignore[arg-type]
    form = FileForm(dense=True, int8=True, ranges_from=tmp_path / "examples.npz", **options)
    found = export(open_source(str(tmp_path / "fp32.onnx")), tmp_path / "int8.onnx", form=form)
    return onnx.load(tmp_path / "int8.onnx"), found


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def kinds(model: onnx.ModelProto) -> list[str]:
    return [entry.op_type for entry in model.graph.node]


def in_bytes(values: Array, low: float, high: float) -> tuple[Bytes, np.float32, int]:
    """The values as uint8, with their scale and zero point, of a range that is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((np.float64(np.float32(high)) - np.float64(np.float32(low))) / 255)
    zero = int(np.round(-np.float32(low) / np.float64(high - low) * 255))
    return np.clip(np.round(values / scale) + zero, 0, 255).astype(np.uint8), scale, zero


def test_two_layers_by_hand(rng: np.random.Generator, tmp_path: Path) -> None:
    """Sums of whole numbers, written out in numpy, against what ONNX Runtime makes of the file."""
    first, second = sparse_weight(rng, 24, 16), sparse_weight(rng, 5, 24)
    biases = normal(rng, 24), normal(rng, 5)
    nodes = [
        node("Gemm", ["x", "first.weight", "a"], ["h"], transB=1),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "second.weight", "b"], ["y"], transB=1),
    ]
    weights = {"first.weight": first, "second.weight": second, "a": biases[0], "b": biases[1]}
    model = network(nodes, {"x": ["n", 16]}, weights, ["y"])
    examples = normal(rng, 300, 16)
    written, found = in_int8(tmp_path, model, {"x": examples})

    def layer(value: Array, weight: Array, bias: Array, low: float, high: float) -> tuple[Array, Array]:
        """What a layer computes in whole numbers, in fp32, and the same in fp32 throughout."""
        given, scale, zero = in_bytes(value, low, high)
        steps = np.abs(weight).max(axis=1) / np.float32(127)
        numbers = np.round(weight / steps[:, None]).astype(np.int64)
        sums = (given.astype(np.int64) - zero) @ numbers.T + np.round(bias / (steps * scale)).astype(np.int64)
        return (sums * (steps * scale)).astype(np.float32), numbers

    hidden = np.maximum(examples @ first.T + biases[0], 0)
    outputs = hidden @ second.T + biases[1]
    x = normal(rng, 50, 16)
    made, numbers = layer(x, first, biases[0], examples.min(), examples.max())
    relu, scale, _ = in_bytes(made, 0.0, hidden.max())
    made, _ = layer(relu * scale, second, biases[1], 0.0, hidden.max())
    expected, step, zero = in_bytes(made, outputs.min(), outputs.max())
    (got,) = run_dense(written, {"x": x})
    steps = np.abs(got / step + zero - expected.astype(np.float64))
    assert steps.max() <= 1.01
    assert np.mean(steps < 0.5) > 0.98
    np.testing.assert_array_equal(constants(written)["first.weight_quantized"], numbers)
    np.testing.assert_array_equal(numbers == 0, first == 0)
    assert found.quantised is not None
    assert found.quantised.layers == ("first", "second")
    assert 0 < found.quantised.difference < 0.03
    assert "Relu" not in kinds(written)  # the range that begins at 0 is one
    facts = {entry.key: entry.value for entry in written.metadata_props}
    assert facts["gossamer.int8.ranges"] == f"minmax of 300 examples of {tmp_path / 'examples.npz'}"
    assert written.producer_name == "gossamer"
    assert "quantised after training" in written.doc_string


@pytest.mark.parametrize("by", ["minmax", "percentile", "entropy"])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_ways_to_find_ranges(by: str, activations: str, rng: np.random.Generator, tmp_path: Path) -> None:
    weight = normal(rng, 16, 8)
    model = network([node("Gemm", ["x", "w"], ["y"])], {"x": ["n", 16]}, {"w": weight}, ["y"])
    x = normal(rng, 500, 16)
    written, _ = in_int8(tmp_path, model, {"x": x}, ranges_by=by, activations=activations)
    points = [value for name, value in constants(written).items() if name in ("x_zero_point", "y_zero_point")]
    assert {point.dtype.name for point in points} == {activations}
    (got,) = run_dense(written, {"x": x})
    assert np.linalg.norm(got - x @ weight) < 0.15 * np.linalg.norm(x @ weight)


def test_minmax_takes_all_and_percentile_leaves_an_outlier(rng: np.random.Generator, tmp_path: Path) -> None:
    x = rng.uniform(-1, 1, (400, 512)).astype(np.float32)
    x[7, 3] = 100
    model = network([node("Gemm", ["x", "w"], ["y"])], {"x": ["n", 512]}, {"w": normal(rng, 512, 8)}, ["y"])
    all_of_it, _ = in_int8(tmp_path, model, {"x": x})
    np.testing.assert_allclose(constants(all_of_it)["x_scale"], 101 / 255, rtol=0.01)
    (tmp_path / "int8.onnx").unlink()
    most, _ = in_int8(tmp_path, model, {"x": x}, ranges_by="percentile")
    assert float(constants(most)["x_scale"].item()) < 3 / 255


def test_a_channel_without_weights_is_its_bias(rng: np.random.Generator, tmp_path: Path) -> None:
    """Nothing in it asks for a scale; the bias does."""
    weight, bias = normal(rng, 6, 4, 1, 1), normal(rng, 6)
    weight[[1, 4]] = 0
    bias[1], bias[4] = 0.0123, 0
    model = network([node("Conv", ["x", "w", "b"], ["y"])], {"x": ["n", 4, 3, 3]}, {"w": weight, "b": bias}, ["y"])
    x = 50 * normal(rng, 64, 4, 3, 3)
    written, _ = in_int8(tmp_path, model, {"x": x})
    stored = constants(written)
    biases = stored["b_quantized"] * stored["b_quantized_scale"]
    np.testing.assert_allclose(biases[1], 0.0123, rtol=1e-5)
    np.testing.assert_allclose(stored["b_quantized_scale"], stored["w_scale"] * stored["x_scale"], rtol=1e-6)
    np.testing.assert_allclose(biases, bias, atol=float(stored["b_quantized_scale"].max()))
    assert not stored["w_quantized"][[1, 4]].any()


def test_biases_of_products_are_whole_numbers(rng: np.random.Generator, tmp_path: Path) -> None:
    """Else ONNX Runtime joins product and addition to one op on floats, and makes floats of the weight in every run."""
    first, second = sparse_weight(rng, 24, 32), sparse_weight(rng, 32, 8)
    first[:, 5] = 0  # a channel that is its bias alone
    a, b = normal(rng, 32), normal(rng, 8)
    nodes = [
        node("MatMul", ["x", "first"], ["h"]),
        node("Add", ["h", "a"], ["ha"]),
        node("MatMul", ["ha", "second"], ["s"]),
        node("Add", ["b", "s"], ["y"]),
    ]
    constants_given = {"first": first, "second": second, "a": a, "b": b}
    model = network(nodes, {"x": ["n", 6, 24]}, constants_given, ["y"])
    x = normal(rng, 50, 6, 24)
    written, _ = in_int8(tmp_path, model, {"x": x})
    (got,) = run_dense(written, {"x": x})
    assert np.abs(got - ((x @ first + a) @ second + b)).max() < 0.05 * np.abs(got).max()
    # With the weights at zero nothing is left but biases, exact to a step of 2^-20 of the empty channel's.
    (alone,) = run_dense(written, {"x": np.zeros((1, 6, 24), np.float32)})
    assert np.abs(alone - (a @ second + b)).max() < 0.02 * np.abs(alone).max()

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    optimised = kinds(onnx.load(tmp_path / "optimised.onnx"))
    assert not {"MatMul", "Gemm", "FusedMatMul"} & set(optimised)


@pytest.mark.parametrize("constant", [0.0, 3.0, -2.5, 1e-42])
def test_values_that_never_change_are_numbers(constant: float, rng: np.random.Generator, tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["x", "first", "a"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "second"], ["y"]),
    ]
    weights = {
        "first": np.zeros((8, 8), np.float32),
        "a": np.full(8, constant, np.float32),
        "second": normal(rng, 8, 3),
    }
    model = network(nodes, {"x": ["n", 8]}, weights, ["y"])
    x = np.zeros((20, 8), np.float32)
    written, _ = in_int8(tmp_path, model, {"x": x})
    (got,) = run_dense(written, {"x": x})
    (expected,) = run_dense(model, {"x": x})
    np.testing.assert_allclose(got, expected, atol=0.02 * max(1e-3, float(np.abs(expected).max())))


def test_channels_of_very_different_size_each_have_a_scale(rng: np.random.Generator, tmp_path: Path) -> None:
    weight = normal(rng, 32, 8) * np.float32(10.0) ** np.arange(-4, 4, dtype=np.float32)
    model = network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 5, 32]}, {"w": weight}, ["y"])
    x = normal(rng, 100, 5, 32)
    written, _ = in_int8(tmp_path, model, {"x": x})
    stored = constants(written)
    again = stored["w_quantized"] * stored["w_scale"]
    assert (np.abs(again - weight).max(axis=0) <= np.abs(weight).max(axis=0) / 254 * 1.001).all()


def test_a_weight_on_the_left_has_a_scale_for_each_row(rng: np.random.Generator, tmp_path: Path) -> None:
    weight = normal(rng, 12, 32) * np.float32(10.0) ** np.arange(-4, 8, dtype=np.float32)[:, None]
    nodes = [node("MatMul", ["w", "x"], ["p"]), node("Add", ["p", "b"], ["y"])]
    model = network(nodes, {"x": ["n", 32, 7]}, {"w": weight, "b": normal(rng, 12, 1)}, ["y"])
    written, _ = in_int8(tmp_path, model, {"x": normal(rng, 100, 32, 7)})
    assert constants(written)["w_scale"].shape == (12,)


def block(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """A transformer's: projections, attention, a residual, layer normalisation and GELU between two layers."""
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        *(node("MatMul", ["e", f"{which}.weight"], [f"{which}.product"]) for which in "qkv"),
        *(node("Add", [f"{which}.product", f"{which}.bias"], [which]) for which in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"]),
        node("Where", ["allowed", "scores", "never"], ["masked"]),
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("MatMul", ["p", "v"], ["mixed"]),
        node("MatMul", ["mixed", "o.weight"], ["o"]),
        node("Add", ["o", "e"], ["sum"]),
        node("LayerNormalization", ["sum", "ones", "zeros"], ["normal"]),
        node("MatMul", ["normal", "up.weight"], ["up.product"]),
        node("Add", ["up.product", "up.bias"], ["up"]),
        node("Div", ["up", "root"], ["divided"]),
        node("Erf", ["divided"], ["erf"]),
        node("Add", ["erf", "one"], ["raised"]),
        node("Mul", ["up", "raised"], ["twice"]),
        node("Mul", ["twice", "half"], ["gelu"]),
        node("MatMul", ["gelu", "down.weight"], ["y"]),
    ]
    values: dict[str, NDArray[np.generic]] = {
        "table": normal(rng, 50, 16),
        "allowed": np.tril(np.ones((6, 6), bool)),
        "never": np.float32(-np.inf),
        "ones": np.ones(16, np.float32),
        "zeros": np.zeros(16, np.float32),
        "root": np.float32(2**0.5),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "up.weight": sparse_weight(rng, 16, 64),
        "up.bias": normal(rng, 64),
        "down.weight": sparse_weight(rng, 64, 16),
        "o.weight": sparse_weight(rng, 16, 16),
    }
    for which in "qkv":
        values |= {f"{which}.weight": sparse_weight(rng, 16, 16), f"{which}.bias": normal(rng, 16)}
    return nodes, values


def test_a_transformer_of_whole_numbers(rng: np.random.Generator, tmp_path: Path) -> None:
    """What layers read is quantised, and what a GELU between them reads; attention, an infinite mask, normalisation and
    residuals are floats, and so are the results that nothing else reads."""
    nodes, values = block(rng)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6, 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    ids = rng.integers(0, 50, (200, 6))
    written, found = in_int8(tmp_path, model, {"ids": ids})
    onnx.checker.check_model(written, full_check=True)
    assert found.quantised is not None
    assert found.quantised.layers == ("q", "k", "v", "o", "up", "down")
    quantised = {entry.input[0] for entry in written.graph.node if entry.op_type == "QuantizeLinear"}
    assert quantised == {"e", "mixed", "normal", "up", "gelu"}
    (residual,) = [entry for entry in written.graph.node if entry.output[0] == "sum"]
    assert list(residual.input) == ["o", "e"]
    (got,), (expected,) = run_dense(written, {"ids": ids}), run_dense(model, {"ids": ids})
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)


def test_what_stands_between_convolutions_is_in_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "a"], ["first"], pads=[1, 1, 1, 1]),
        node("Relu", ["first"], ["r"]),
        node("MaxPool", ["r"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pooled", "b"], ["second"], pads=[1, 1, 1, 1]),
        node("Add", ["second", "pooled"], ["sum"]),
        node("Relu", ["sum"], ["s"]),
        node("Concat", ["s", "pooled"], ["both"], axis=1),
        node("Conv", ["both", "c"], ["third"]),
        node("HardSwish", ["third"], ["swished"]),
        node("GlobalAveragePool", ["swished"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("Gemm", ["flat", "d"], ["scores"]),
        node("Softmax", ["scores"], ["y"]),
    ]
    weights = {
        "a": sparse_weight(rng, 8, 3, 3, 3),
        "b": sparse_weight(rng, 8, 8, 3, 3),
        "c": sparse_weight(rng, 8, 16, 1, 1),
        "d": normal(rng, 8, 5),
    }
    model = network(nodes, {"x": ["n", 3, 12, 12]}, weights, ["y"])
    x = normal(rng, 60, 3, 12, 12)
    written, _ = in_int8(tmp_path, model, {"x": x})
    quantised = {entry.input[0] for entry in written.graph.node if entry.op_type == "QuantizeLinear"}
    assert quantised == {"x", "r", "pooled", "second", "s", "both", "third", "swished", "mean", "flat"}
    (got,), (expected,) = run_dense(written, {"x": x}), run_dense(model, {"x": x})
    assert np.abs(got - expected).max() < 0.1


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_older_networks_are_converted(opset: int, rng: np.random.Generator, tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "a"], ["h"]), node("Relu", ["h"], ["r"]), node("Flatten", ["r"], ["f"])]
    nodes += [node("Gemm", ["f", "b", "c"], ["y"])]
    weights = {"a": normal(rng, 4, 3, 2, 2), "b": normal(rng, 36, 5), "c": normal(rng, 5)}
    model = network(nodes, {"x": ["n", 3, 4, 4]}, weights, ["y"], opset=opset)
    x = normal(rng, 30, 3, 4, 4)
    written, _ = in_int8(tmp_path, model, {"x": x})
    assert written.opset_import[0].version == 13
    (got,), (expected,) = run_dense(written, {"x": x}), run_dense(model, {"x": x})
    assert np.linalg.norm(got - expected) < 0.03 * np.linalg.norm(expected)


def test_several_inputs_and_outputs_and_a_fixed_batch(rng: np.random.Generator, tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["x", "a"], ["p"]),
        node("Gemm", ["z", "b"], ["q"]),
        node("Mul", ["p", "scale"], ["first"]),
        node("Identity", ["q"], ["second"]),
    ]
    weights = {"a": normal(rng, 4, 6), "b": normal(rng, 5, 7)}
    model = network(nodes, {"x": [2, 4], "z": [2, 5], "scale": [1]}, weights, ["first", "second"])
    given = {"x": normal(rng, 9, 4), "z": normal(rng, 9, 5), "scale": np.ones(1, np.float32)}
    _, found = in_int8(tmp_path, model, given)
    assert found.quantised is not None
    # The last example has no other beside it.
    assert found.quantised.inputs.words.startswith("8 examples of")


def test_names_that_onnx_runtime_would_make_are_there_already(rng: np.random.Generator, tmp_path: Path) -> None:
    """Of a bias that two layers read it makes a copy, and of every value others with endings."""
    nodes = [
        node("Conv", ["x", "a", "b"], ["y2"]),
        node("Conv", ["x", "c", "b"], ["b2"]),
        node("Mul", ["y2", "x_scale"], ["a_quantized"]),
        node("Sum", ["b2", "a_quantized", "b1"], ["y2_zero_point"]),
        node("Conv", ["y2_zero_point", "d"], ["y"]),
    ]
    weights = {name: normal(rng, 4, 4, 1, 1) for name in "acd"}
    weights |= {"b": normal(rng, 4), "x_scale": np.float32([2]), "b1": np.float32([1])}  # type: ignore[dict-item]
    model = network(nodes, {"x": ["n", 4, 3, 3]}, weights, ["y"])
    x = normal(rng, 60, 4, 3, 3)
    written, found = in_int8(tmp_path, model, {"x": x})
    (got,), (expected,) = run_dense(written, {"x": x}), run_dense(model, {"x": x})
    assert np.linalg.norm(got - expected) < 0.03 * np.linalg.norm(expected)
    assert found.quantised is not None
    assert len(found.quantised.layers) == 3


def test_lstm_stays_in_float(rng: np.random.Generator, tmp_path: Path) -> None:
    nodes = [
        node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=6),
        node("Squeeze", ["h", "axis"], ["s"]),
        node("Gemm", ["s", "a"], ["y"]),
    ]
    weights = {
        "w": normal(rng, 1, 24, 4),
        "r": normal(rng, 1, 24, 6),
        "axis": np.array([0]),
        "a": normal(rng, 6, 3),
    }
    model = network(nodes, {"x": ["time", 2, 4]}, weights, ["y"])
    written, found = in_int8(tmp_path, model, {"x": normal(rng, 40, 2, 4)})
    assert found.quantised is not None
    assert found.quantised.layers == ("a",)
    assert constants(written)["w"].dtype == np.float32


def test_nothing_is_printed_and_no_logger_is_changed(
    rng: np.random.Generator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [*logging.getLogger().handlers], [*logging.getLogger().filters]
    model = network([node("Gemm", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"w": normal(rng, 4, 4)}, ["y"])
    in_int8(tmp_path, model, {"x": normal(rng, 30, 4)}, ranges_by="entropy")
    assert capfd.readouterr() == ("", "")
    assert before == ([*logging.getLogger().handlers], [*logging.getLogger().filters])


def refused(tmp_path: Path, model: onnx.ModelProto, inputs: Mapping[str, Any] | None, **options: Any) -> str:
    onnx.save(model, tmp_path / "fp32.onnx")
    if inputs is not None:
        np.savez(tmp_path / "examples.npz", **inputs)
        options["ranges_from"] = tmp_path / "examples.npz"
    form = FileForm(dense=True, int8=True, **options)
    source = open_source(str(tmp_path / "fp32.onnx"))
    with pytest.raises((ConfigurationError, ExportError)) as caught:
        export(source, tmp_path / "int8.onnx", form=form)
    assert not (tmp_path / "int8.onnx").exists()
    return str(caught.value)


def test_what_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    one = network([node("Gemm", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"w": normal(rng, 4, 4)}, ["y"])
    x = {"x": normal(rng, 30, 4)}
    message = refused(tmp_path, one, None)
    assert "give some hundred with --ranges-from FILE.npz" in message
    assert "the network has" not in message
    assert "has none; leave it out" in refused(tmp_path, one, x, max_drop=0.01)
    assert "name the layers" in refused(tmp_path, one, x, keep_float=("auto",))
    assert "'z*' names no layer; expected one of w" in refused(tmp_path, one, x, keep_float=("z*",))
    assert "names every layer" in refused(tmp_path, one, x, keep_float=("*",))
    none = network([node("Relu", ["x"], ["y"])], {"x": ["n", 4]}, {}, ["y"])
    assert "no layer was found that could compute in int8" in refused(tmp_path, none, x)
    written, _ = in_int8(tmp_path, one, x)
    (tmp_path / "int8.onnx").unlink()
    assert "is quantised already; leave --int8 out" in refused(tmp_path, written, x)
    infinite = network(
        [node("Gemm", ["x", "w"], ["h"]), node("Exp", ["h"], ["e"]), node("Gemm", ["e", "w"], ["y"])],
        {"x": ["n", 4]},
        {"w": 1e4 * np.abs(normal(rng, 4, 4))},
        ["y"],
    )
    assert "the value e has numbers beyond those of fp32" in refused(tmp_path, infinite, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"int8": True, "half": True}, "--int8 stores a weight in one byte and --half in two"),
        ({"max_drop": 0.01}, "--max-drop says how --int8 quantises; add --int8"),
        ({"keep_float": ("a",)}, "--keep-float says how"),
        ({"int8": True, "ranges_by": "mean"}, "--ranges-by is 'mean'; expected minmax, percentile or entropy"),
        ({"int8": True, "activations": "int4"}, "--activations is 'int4'; expected uint8 or int8"),
        ({"int8": True, "max_drop": float("nan")}, "--max-drop is nan; expected a number of at least 0"),
        ({"int8": True, "keep_float": ("auto", "a")}, "auto chooses the layers"),
    ],
)
def test_options_that_contradict(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FileForm(**options)


def chain(rng: np.random.Generator, widths: Sequence[int]) -> tuple[onnx.ModelProto, list[str]]:
    nodes, weights, value = [], {}, "x"
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        weights[f"layer_{index}.weight"] = normal(rng, inputs, outputs) / np.float32(inputs**0.5)
        nodes.append(node("Gemm", [value, f"layer_{index}.weight"], [f"v{index}"]))
        value = f"v{index}"
    nodes[-1].output[0] = "y"
    return network(nodes, {"x": ["n", widths[0]]}, weights, ["y"]), list(weights)


class TestMetric:
    """A network whose second layer reads a value with one huge channel, of which it makes nothing."""

    @pytest.fixture
    def scored(self, rng: np.random.Generator, tmp_path: Path) -> Any:
        model, names = chain(rng, [8, 8, 8, 8])
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        first, second = (np.array(numpy_helper.to_array(stored[name])) for name in names[:2])
        first[:, 3] *= 20000
        second[3] = 0
        for name, array in ((names[0], first), (names[1], second)):
            stored[name].CopyFrom(numpy_helper.from_array(array, name))
        onnx.save(model, tmp_path / "fp32.onnx")
        x = normal(rng, 200, 8)
        np.savez(tmp_path / "examples.npz", x=x)
        targets = run_dense(model, {"x": x})[0].argmax(1)
        return self.with_splits(tmp_path, x, targets)

    @staticmethod
    def with_splits(tmp_path: Path, x: Array, targets: NDArray[np.int64], better: Any = "higher") -> Any:
        def batches() -> Iterator[tuple[Feed, torch.Tensor]]:
            for rows in np.split(np.arange(len(x)), 4):
                yield {"x": x[rows]}, torch.from_numpy(targets[rows])

        def wrong(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return (outputs.argmax(1) != targets).float()

        metric = Metric() if better == "higher" else Metric("error", "lower", wrong)
        score = SplitScore(metric, batches, torch.zeros(1, 8))
        source = open_source(str(tmp_path / "fp32.onnx"))
        return replace(source, splits={"validation": score, "test": score}, feeds=({"x": x[:50]},))

    @pytest.mark.parametrize("better", ["higher", "lower"])
    def test_a_loss_names_the_layers_that_cost_most(self, better: str, scored: Any, tmp_path: Path) -> None:
        if better == "lower":
            x = np.load(tmp_path / "examples.npz")["x"]
            targets = run_dense(onnx.load(tmp_path / "fp32.onnx"), {"x": x})[0].argmax(1)
            scored = self.with_splits(tmp_path, x, targets, "lower")
        form = FileForm(dense=True, int8=True, ranges_from=tmp_path / "examples.npz")
        with pytest.raises(ExportError, match=r"may get worse by 0\.01 .*cost most: layer_[01] \(.*--keep-float auto"):
            export(scored, tmp_path / "int8.onnx", form=form)
        assert not (tmp_path / "int8.onnx").exists()
        found = export(scored, tmp_path / "int8.onnx", form=replace(form, max_drop=1.0)).quantised
        assert found is not None
        assert found.scores["validation"] == found.scores["test"]
        before, after = found.scores["test"].before, found.scores["test"].after
        assert before == (1.0 if better == "higher" else 0.0)
        assert abs(after - before) > 0.05

    def test_few_are_left_in_float(self, scored: Any, tmp_path: Path) -> None:
        form = FileForm(
            dense=True, int8=True, ranges_from=tmp_path / "examples.npz", keep_float=("auto",), max_drop=0.05
        )
        found = export(scored, tmp_path / "int8.onnx", form=form).quantised
        assert found is not None
        assert 1 <= len(found.kept_float) <= 2
        assert {*found.kept_float} <= {"layer_0", "layer_1"}
        assert found.scores["validation"].after >= 0.95
        written = onnx.load(tmp_path / "int8.onnx")
        facts = {entry.key: entry.value for entry in written.metadata_props}
        assert facts["gossamer.int8.float"] == ", ".join(found.kept_float)
        x = np.load(tmp_path / "examples.npz")["x"]
        expected = run_dense(onnx.load(tmp_path / "fp32.onnx"), {"x": x})[0].argmax(1)
        share = float(np.mean(run_dense(written, {"x": x})[0].argmax(1) == expected))
        assert found.scores["test"].after == pytest.approx(share)

    def test_named_layers_are_left_in_float(self, scored: Any, tmp_path: Path) -> None:
        form = FileForm(
            dense=True, int8=True, ranges_from=tmp_path / "examples.npz", keep_float=("layer_[01]",), max_drop=1.0
        )
        found = export(scored, tmp_path / "int8.onnx", form=form).quantised
        assert found is not None
        assert (found.layers, found.kept_float) == (("layer_2",), ("layer_0", "layer_1"))

    def test_nothing_helps(self, scored: Any, tmp_path: Path) -> None:
        x = np.load(tmp_path / "examples.npz")["x"]
        scored = self.with_splits(tmp_path, x, run_dense(onnx.load(tmp_path / "fp32.onnx"), {"x": x})[0].argmax(1))
        form = FileForm(dense=True, int8=True, ranges_from=tmp_path / "few.npz", keep_float=("auto",), max_drop=0.0)
        np.savez(tmp_path / "few.npz", x=x[:1] * np.float32(1e-3))
        with pytest.raises(ExportError, match="left all but one in float, which was not enough"):
            export(scored, tmp_path / "int8.onnx", form=form)
