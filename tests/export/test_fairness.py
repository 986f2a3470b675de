"""What rounding explains is no difference, however little is left of a sum; what one wrong weight causes is one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network, normal, run_dense, run_sparse, sparse_weight
from gossamer_runtime import weights
from onnx import helper, numpy_helper
from small_run import printed, refused

from gossamer.errors import ExportError
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.rewrite import rewrite
from gossamer.export.source import Source, open_source
from gossamer.export.verify import compare_with_dense, compare_with_source

node = helper.make_node
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


def saturated() -> onnx.ModelProto:
    """Probabilities of a few millionths, of which a function that is exact to 1e-7 leaves a digit."""
    rng = np.random.default_rng(0)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["s"]), node("Sigmoid", ["s"], ["y"])]
    constants = {"w": sparse_weight(rng, 64, 256) / 2, "b": np.full(256, -15, np.float32)}
    return network(nodes, {"x": ["n", 64]}, constants, ["y"])


def logarithms() -> onnx.ModelProto:
    model = saturated()
    model.graph.node[-1].output[0] = "p"
    model.graph.node.append(node("Log", ["p"], ["y"]))
    return model


def cancelling() -> onnx.ModelProto:
    """Two products of which 1e-5 is left."""
    rng = np.random.default_rng(1)
    first = sparse_weight(rng, 512, 128)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["x", "v"], ["b"]), node("Sub", ["a", "b"], ["y"])]
    constants = {"w": first, "v": first * np.float32(1 + 1e-5)}
    return network(nodes, {"x": ["n", 512]}, constants, ["y"])


def within_a_sum() -> onnx.ModelProto:
    """Every term has its opposite."""
    rng = np.random.default_rng(2)
    half = sparse_weight(rng, 256, 128)
    nodes = [node("Concat", ["x", "x"], ["xx"], axis=1), node("MatMul", ["xx", "w"], ["y"])]
    return network(nodes, {"x": ["n", 256]}, {"w": np.concatenate([half, -half * np.float32(1 + 3e-7)])}, ["y"])


def around_a_thousand() -> onnx.ModelProto:
    """What varies is a thousandth of what is added to it, and then made large."""
    rng = np.random.default_rng(3)
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4),
        node("InstanceNormalization", ["a", "scale", "offset"], ["y"], epsilon=1e-9),
    ]
    constants = {
        "w": sparse_weight(rng, 64, 16, 3, 3) * np.float32(0.01),
        "b": np.full(64, 1000, np.float32),
        "scale": np.ones(64, np.float32),
        "offset": np.zeros(64, np.float32),
    }
    return network(nodes, {"x": ["n", 16, 12, 12]}, constants, ["y"])


def nearly_zero() -> onnx.ModelProto:
    """SiLU far below zero, of which ONNX Runtime makes 0 and gossamer what it is."""
    rng = np.random.default_rng(4)
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"]),
        node("Sigmoid", ["a"], ["s"]),
        node("Mul", ["a", "s"], ["y"]),
    ]
    constants = {"w": sparse_weight(rng, 64, 16, 3, 3), "b": np.full(64, -60, np.float32)}
    return network(nodes, {"x": ["n", 16, 12, 12]}, constants, ["y"])


def chaotic() -> onnx.ModelProto:
    """Twenty layers, each of which makes a difference larger."""
    rng = np.random.default_rng(5)
    nodes, constants = [], {}
    for number in range(20):
        constants[f"w{number}"] = sparse_weight(rng, 128, 128, density=0.1) * np.float32(2)
        nodes += [node("MatMul", [f"v{number}", f"w{number}"], [f"a{number}"]), node("Tanh", [f"a{number}"], ["y"])]
        nodes[-1].output[0] = f"v{number + 1}"
    nodes[-1].output[0] = "y"
    nodes[0].input[0] = "x"
    return network(nodes, {"x": ["n", 128]}, constants, ["y"])


NETWORKS: list[Callable[[], onnx.ModelProto]] = [
    saturated,
    logarithms,
    cancelling,
    within_a_sum,
    around_a_thousand,
    nearly_zero,
    chaotic,
]
networks = pytest.mark.parametrize("made", NETWORKS, ids=lambda made: made.__name__)


def source_of(model: onnx.ModelProto, folder: Path) -> Source:
    onnx.save(model, folder / "dense.onnx")
    return open_source(str(folder / "dense.onnx"))


@networks
def test_rounding_is_no_defect(made: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    exported = export(source_of(made(), tmp_path), tmp_path / "m.onnx", costs=SPARSE)
    assert all(layer.form == "sparse" for layer in exported.layers)


def with_one_other_weight(packed: np.ndarray, factor: float) -> np.ndarray:
    """A packed weight, the smallest of the kept numbers another."""
    weight = weights.decode(packed.tobytes()).copy()
    kept = np.flatnonzero(weight)
    weight.reshape(-1)[kept[np.abs(weight.reshape(-1)[kept]).argmin()]] *= factor
    return np.frombuffer(weights.encode(weight), np.uint8)


@networks
@pytest.mark.parametrize("factor", [0.0, -1.0, 1.01])
def test_one_wrong_weight_in_the_file_is(made: Callable[[], onnx.ModelProto], factor: float, tmp_path: Path) -> None:
    source = source_of(made(), tmp_path)
    rewritten = rewrite(source.dense, costs=SPARSE)
    path = tmp_path / "m.onnx"
    for layer in {0, len(rewritten.layers) - 1}:
        model = onnx.ModelProto()
        model.CopyFrom(rewritten.model)
        packed = [entry.input[1] for entry in model.graph.node if entry.domain == "gossamer" and len(entry.input) > 1]
        name = packed[layer]
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        tensor.CopyFrom(numpy_helper.from_array(with_one_other_weight(numpy_helper.to_array(tensor), factor), name))
        onnx.save(model, path)
        with pytest.raises(ExportError, match=rf"the first layer that differs is {rewritten.layers[layer].name} \("):
            compare_with_dense(source.dense, path, rewritten, source.feeds)
    onnx.save(rewritten.model, path)
    compare_with_dense(source.dense, path, rewritten, source.feeds)


@pytest.mark.parametrize("made", [cancelling, within_a_sum, around_a_thousand], ids=lambda made: made.__name__)
def test_one_wrong_weight_of_whoever_wrote_the_network_is(made: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    """A weight of usual size is left out; nothing but the outputs shows it."""
    model = made()
    source = source_of(model, tmp_path)
    compare_with_source(source)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(source.dense)
    tensor = next(tensor for tensor in wrong.graph.initializer if len(tensor.dims) > 1)
    weight = numpy_helper.to_array(tensor).copy()
    kept = np.flatnonzero(weight)
    weight.reshape(-1)[kept[np.argsort(np.abs(weight.reshape(-1)[kept]))[len(kept) // 2]]] = 0
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    with pytest.raises(ExportError, match="rounding explains"):
        compare_with_source(replace(source, dense=wrong))


@pytest.mark.parametrize("attribute", ["bias", "activation"])
def test_what_else_a_layer_does_wrong_is(attribute: str, tmp_path: Path) -> None:
    """Behind 1,000 that is added no output shows it in four digits."""
    rng = np.random.default_rng(0)
    nodes = [node("Conv", ["x", "w", "b"], ["a"]), node("Relu", ["a"], ["r"]), node("Add", ["r", "large"], ["y"])]
    constants = {"w": sparse_weight(rng, 32, 16, 3, 3), "b": normal(rng, 32), "large": np.full(1, 1e6, np.float32)}
    source = source_of(network(nodes, {"x": ["n", 16, 8, 8]}, constants, ["y"]), tmp_path)
    rewritten = rewrite(source.dense, costs=SPARSE)
    (layer,) = [entry for entry in rewritten.model.graph.node if entry.op_type == "SparseConv"]
    if attribute == "bias":
        (tensor,) = [tensor for tensor in rewritten.model.graph.initializer if tensor.name == layer.input[2]]
        bias = numpy_helper.to_array(tensor).copy()
        bias[3] += 1e-3
        tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    else:
        (entry,) = [entry for entry in layer.attribute if entry.name == "activation"]
        entry.s = b"silu"
    onnx.save(rewritten.model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="the first layer that differs is w "):
        compare_with_dense(source.dense, tmp_path / "m.onnx", rewritten, source.feeds)


def test_outputs_that_prove_nothing_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = sparse_weight(rng, 64, 512, density=0.02)
    for bias, told in ((-1000, "the outputs are all 0.0"), (0, None)):
        nodes = [node("Gemm", ["x", "w", "b"], ["a"]), node("Relu", ["a"], ["y"])]
        constants = {"w": weight, "b": np.full(512, bias, np.float32)}
        source_of(network(nodes, {"x": ["n", 64]}, constants, ["y"]), tmp_path)
        output = " ".join(printed("export", tmp_path / "dense.onnx", "-o", tmp_path / f"{-bias}.onnx").split())
        assert ("that proves nothing" in output) == (told is not None)
        assert told is None or told in output
    # An output that does not depend on the input, its numbers unlike each other.
    nodes = [node("Gemm", ["x", "w", "b"], ["a"]), node("Relu", ["a"], ["r"]), node("Add", ["r", "c"], ["y"])]
    constants = {"w": weight, "b": np.full(512, -1000, np.float32), "c": normal(rng, 512)}
    source_of(network(nodes, {"x": ["n", 64]}, constants, ["y"]), tmp_path)
    output = " ".join(printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx").split())
    assert "that proves nothing: the outputs are the same for every example" in output


def normalised(scale: float) -> onnx.ModelProto:
    """Weights whose size nothing but their rounding depends on."""
    rng = np.random.default_rng(0)
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="small"),
        node("LayerNormalization", ["a", "one"], ["l"], epsilon=1e-30),
        node("MatMul", ["l", "v"], ["y"], name="usual"),
    ]
    constants = {
        "w": sparse_weight(rng, 64, 256, density=0.1) * np.float32(scale),
        "one": np.ones(256, np.float32),
        "v": sparse_weight(rng, 256, 64, density=0.1),
    }
    return network(nodes, {"x": ["n", 64]}, constants, ["y"])


@pytest.mark.parametrize(("scale", "words"), [(1e-8, "become zero"), (3e-7, "lose digits")])
def test_fp16_that_loses_a_layer_is_refused(scale: float, words: str, tmp_path: Path) -> None:
    dense = normalised(scale)
    onnx.save(dense, tmp_path / "dense.onnx")
    arguments = ["export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx", "--half"]
    message = refused(*arguments)
    assert "fp16 loses small weights of small (" in message
    assert words in message
    assert "usual" not in message
    assert "Leave --half out, or allow a larger share of the largest output with --half-difference" in message
    assert not (tmp_path / "m.onnx").exists()
    if scale == 3e-7:
        output = printed(*arguments, "--half-difference", 0.5)
        assert "small weights that fp16 loses: small (" in output
    # In fp32 nothing is lost.
    printed(*arguments[:-1], "--overwrite")
    feed = {"x": normal(np.random.default_rng(1), 4, 64)}
    (got,), (expected,) = run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_fp16_that_loses_little_names_it_and_goes_on(tmp_path: Path) -> None:
    """One weight of many is too small for fp16, and means nothing."""
    model = normalised(1.0)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    weight = numpy_helper.to_array(tensor).copy()
    weight.reshape(-1)[np.flatnonzero(weight)[:2]] = 1e-9, 1.00001e-5
    tensor.CopyFrom(numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "dense.onnx")
    output = printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx", "--half")
    kept = f"{np.count_nonzero(weight):,}"
    assert f"small weights that fp16 loses: small (1 of {kept} become zero, 1 of {kept} lose digits)" in output
