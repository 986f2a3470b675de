"""Linear layers of bytes whose results are floats: against ONNX Runtime's own results, in each form that it has."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export.onnx_graphs import Array, exact, network, normal, ops, run_dense, run_sparse, sparse_weight
from export.quantised_networks import SPARSE, Feeds, node, quantised
from gossamer_runtime import weights
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

from gossamer.export.dense import to_dense
from gossamer.export.dequantised_checks import compare_products
from gossamer.export.exporting import save
from gossamer.export.quantise import quantised_by_minmax
from gossamer.export.rewrite import Rewritten, rewrite
from gossamer.export.verify import compare_with_dense
from gossamer.graph.constants import prepared

pytestmark = pytest.mark.usefixtures("native_library")

TOKENS = [2, 7, 30]


def block(rng: np.random.Generator) -> onnx.ModelProto:
    """Two linear layers of the same tokens, a third with a GELU, and one whose bias and residual stand behind it."""
    nodes = [
        node("MatMul", ["x", "a.weight"], ["a"], name="a"),
        node("MatMul", ["x", "b.weight"], ["b"], name="b"),
        node("Mul", ["a", "b"], ["ab"]),
        node("MatMul", ["ab", "up.weight"], ["u"], name="up"),
        node("Add", ["u", "up.bias"], ["ub"]),
        node("Gelu", ["ub"], ["ug"]),
        node("MatMul", ["ug", "down.weight"], ["d"], name="down"),
        node("Add", ["down.bias", "d"], ["db"]),
        node("Add", ["x", "db"], ["sum"]),
        node("LayerNormalization", ["sum", "scale", "shift"], ["y"]),
    ]
    constants = {
        "a.weight": sparse_weight(rng, 30, 30),
        "b.weight": sparse_weight(rng, 30, 30),
        "up.weight": sparse_weight(rng, 30, 61),
        "up.bias": normal(rng, 61),
        "down.weight": sparse_weight(rng, 61, 30),
        "down.bias": normal(rng, 30),
        "scale": np.ones(30, np.float32),
        "shift": normal(rng, 30),
    }
    return network(nodes, {"x": TOKENS}, constants, ["y"], opset=20)


def anew(model: onnx.ModelProto, folder: Path, *, per_channel: bool = True, fused: bool = False) -> onnx.ModelProto:
    """The network as ONNX Runtime quantises it for inputs that are quantised as it runs; as it fuses that, perhaps."""
    onnx.save(model, folder / "floats.onnx")
    quantize_dynamic(folder / "floats.onnx", folder / "anew.onnx", weight_type=QuantType.QInt8, per_channel=per_channel)
    if fused:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / "fused.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        onnxruntime.InferenceSession(folder / "anew.onnx", options, providers=["CPUExecutionProvider"])
        return onnx.load(folder / "fused.onnx")
    return onnx.load(folder / "anew.onnx")


def verified(model: onnx.ModelProto, feed: dict[str, Array], folder: Path) -> Rewritten:
    """The sparse network, each layer compared with ONNX Runtime's."""
    rewritten = rewrite(model, costs=SPARSE)
    save(rewritten.model, folder / "sparse.onnx")
    compare_with_dense(model, folder / "sparse.onnx", rewritten, [feed])
    return rewritten


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_block_that_is_quantised_anew_for_each_input(fused: bool, per_channel: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = anew(block(rng), tmp_path, per_channel=per_channel, fused=fused)
    feed = {"x": normal(rng, *TOKENS)}
    rewritten = verified(model, feed, tmp_path)
    assert ops(rewritten.model) == ["DequantisedMatMul"] * 4
    assert [layer.form for layer in rewritten.layers] == ["sparse"] * 4
    # What two layers read is quantised once.
    assert ops(rewritten.model, "").count("DynamicQuantizeLinear") == 3
    left = {"MatMulInteger", "Cast", "Add", "Gelu"} if not fused else {"Gelu"}
    assert not left & set(ops(rewritten.model, ""))
    (expected,), (got,) = run_dense(model, feed), run_sparse(rewritten.model, feed)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    (back,) = run_dense(to_dense(rewritten.model), feed)
    np.testing.assert_allclose(back, got, atol=2e-5)


def test_one_layer_gives_the_very_numbers(tmp_path: Path) -> None:
    """Sums are exact, and floats are rounded as ONNX Runtime's ops round them."""
    rng = np.random.default_rng(1)
    nodes = [node("MatMul", ["x", "a.weight"], ["a"], name="a"), node("Add", ["a", "a.bias"], ["y"])]
    constants = {"a.weight": sparse_weight(rng, 30, 33), "a.bias": normal(rng, 33)}
    model = anew(network(nodes, {"x": TOKENS}, constants, ["y"]), tmp_path)
    feed = {"x": normal(rng, *TOKENS)}
    options, right = exact(model)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(right.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (got,) = run_sparse(verified(model, feed, tmp_path).model, feed)
    np.testing.assert_array_equal(got, session.run(None, feed)[0])


@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
def test_results_that_nobody_quantises(activations: QuantType, tmp_path: Path) -> None:
    """Only what products read is bytes, between QuantizeLinear and DequantizeLinear."""
    rng = np.random.default_rng(2)
    onnx.save(block(rng), tmp_path / "floats.onnx")
    quantize_static(
        tmp_path / "floats.onnx",
        tmp_path / "bytes.onnx",
        Feeds(TOKENS),
        op_types_to_quantize=["MatMul"],
        activation_type=activations,
        per_channel=True,
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
    )
    model = onnx.load(tmp_path / "bytes.onnx")
    feed = {"x": normal(rng, *TOKENS)}
    rewritten = verified(model, feed, tmp_path)
    assert ops(rewritten.model) == ["DequantisedMatMul"] * 4
    assert not {"Add", "Gelu"} & set(ops(rewritten.model, "")) or activations == QuantType.QInt8
    (expected,), (got,) = run_dense(model, feed), run_sparse(rewritten.model, feed)
    np.testing.assert_allclose(got, expected, atol=0.05)
    (back,) = run_dense(to_dense(rewritten.model), feed)
    np.testing.assert_allclose(back, got, atol=0.05)


def test_another_weight_or_scale_in_the_file_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    model = anew(block(rng), tmp_path)
    feed = {"x": normal(rng, *TOKENS)}
    other = rewrite(anew(block(np.random.default_rng(4)), tmp_path), costs=SPARSE)
    assert compare_products(prepared(model), other.model, feed).wrong == "a (its weights are others)"
    same = rewrite(model, costs=SPARSE).model
    scales = next(tensor for tensor in same.graph.initializer if tensor.name.endswith(".scales"))
    scales.CopyFrom(numpy_helper.from_array(1.001 * numpy_helper.to_array(scales), scales.name))
    wrong = compare_products(prepared(model), same, feed).wrong
    assert wrong is not None
    assert wrong.startswith("a (differs by ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ws": np.float32([1, 1, 1])}, "scales do not fit"),
        ({"ws": np.float32([1, np.nan])}, "scales do not fit"),
        ({"w": np.int8(np.zeros((40, 40, 2)))}, "3 axes"),
    ],
)
def test_what_contradicts_itself_is_left_and_named(change: dict[str, Array], reason: str) -> None:
    weight = np.zeros((600, 2), np.int8)
    weight[::9] = 5
    constants = {"w": weight, "ws": np.float32([0.1]), "wz": np.int8(0), **change}
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z", "wz"], ["i"], name="layer"),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["s", "ws"], ["both"]),
        node("Mul", ["f", "both"], ["y"]),
    ]
    rewritten = rewrite(network(nodes, {"x": ["n", 600]}, constants, ["y"]), costs=SPARSE)
    assert ops(rewritten.model) == []
    assert [reason in left.reason for left in rewritten.left] == [True]


def test_a_scale_for_each_token() -> None:
    """DynamicMatMul against its inverse in ONNX's own ops."""
    rng = np.random.default_rng(5)
    weight = np.where(rng.random((13, 30)) < 0.3, rng.integers(-127, 128, (13, 30)), 0).astype(np.int8)
    constants = {
        "w": np.frombuffer(weights.encode(weight), np.uint8),
        "s": rng.uniform(0.01, 0.02, 13).astype(np.float32),
        "b": normal(rng, 13),
    }
    made = node(
        "DynamicMatMul", ["x", "w", "s", "b", "r"], ["y"], domain="gossamer", output_features=13, activation="gelu"
    )
    model = network([made], {"x": [2, 7, 30], "r": [2, 7, 13]}, constants, ["y"], opset=20)
    x = normal(rng, 2, 7, 30)
    x[0, 3] = 0
    feed = {"x": x, "r": normal(rng, 2, 7, 13)}
    (got,), (expected,) = run_sparse(model, feed), run_dense(to_dense(model), feed)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
def test_a_bias_that_is_added_to_bytes(form: QuantFormat, activations: QuantType, tmp_path: Path) -> None:
    """ONNX Runtime's tool makes bytes of a product before its bias is added: the op does the same."""
    rng = np.random.default_rng(6)
    model = quantised(block(rng), TOKENS, tmp_path, form, activations=activations)
    feed = {"x": normal(rng, *TOKENS)}
    rewritten = verified(model, feed, tmp_path)
    made = {entry.name: entry for entry in rewritten.model.graph.node if entry.op_type == "QuantisedMatMul"}
    assert len(made) == 4
    constants = {tensor.name: tuple(tensor.dims) for tensor in rewritten.model.graph.initializer}
    assert constants[made["up"].input[4]] == (61,)
    assert constants[made["down"].input[4]] == (30,)
    (expected,), (got,) = run_dense(model, feed), run_sparse(rewritten.model, feed)
    assert np.mean(expected == got) > 0.95
    np.testing.assert_allclose(got, expected, atol=0.05)
    (back,) = run_dense(to_dense(rewritten.model), feed)
    np.testing.assert_allclose(back, got, atol=0.05)


def test_a_weight_on_the_left_of_a_product(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    nodes = [
        node("MatMul", ["w", "x"], ["p"], name="mixing"),
        node("Add", ["p", "b"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["v", "r"], ["y"], name="back"),
    ]
    constants = {"w": sparse_weight(rng, 12, 32), "b": normal(rng, 12, 1), "v": sparse_weight(rng, 9, 12)}
    model = quantised_by_minmax(network(nodes, {"x": [2, 32, 7]}, constants, ["y"]), [{"x": normal(rng, 2, 32, 7)}])
    feed = {"x": normal(rng, 2, 32, 7)}
    rewritten = verified(model, feed, tmp_path)
    assert ops(rewritten.model).count("QuantisedConv") == 2
    (expected,), (got,) = run_dense(model, feed), run_sparse(rewritten.model, feed)
    np.testing.assert_allclose(got, expected, atol=0.05)
