"""What other people's files hold: numbers that are none, sizes that say nothing, declarations that do not hold. ONNX
Runtime is the oracle."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import assert_same, network, normal, ops, run_dense, run_sparse, sparse_weight
from onnx import TensorProto, helper
from small_run import printed, refused

from gossamer.errors import ExportError
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import Exported, export
from gossamer.export.form import FileForm
from gossamer.export.rewrite import rewrite
from gossamer.export.source import open_source
from gossamer.export.verify import compare_with_dense
from gossamer.graph.graph import Graph
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import find_layers

node = helper.make_node
RNG = np.random.default_rng(0)
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


def exported(model: onnx.ModelProto, folder: Path) -> Exported:
    onnx.save(model, folder / "dense.onnx")
    return export(open_source(str(folder / "dense.onnx")), folder / "m.onnx", costs=SPARSE)


def logarithms() -> onnx.ModelProto:
    """Half of them of negative numbers, before a sparse layer and behind another."""
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Log", ["a"], ["l"]), node("MatMul", ["l", "v"], ["y"])]
    constants = {"w": sparse_weight(RNG, 32, 32), "v": sparse_weight(RNG, 32, 32)}
    return network(nodes, {"x": ["n", 32]}, constants, ["y"])


def divisions() -> onnx.ModelProto:
    """By what a rectifier has made zero."""
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Div", ["one", "r"], ["d"]),
        node("Conv", ["d", "v"], ["c"]),
        node("Relu", ["c"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 8, 8, 3, 3), "v": sparse_weight(RNG, 8, 8, 1, 1), "one": np.float32(1)}
    return network(nodes, {"x": ["n", 8, 12, 12]}, constants, ["y"])


def overflows() -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Mul", ["a", "k"], ["b"]),
        node("Exp", ["b"], ["e"]),
        node("MatMul", ["e", "v"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 32, 32), "v": sparse_weight(RNG, 32, 32), "k": np.float32(60)}
    return network(nodes, {"x": ["n", 32]}, constants, ["y"])


@pytest.mark.parametrize("made", [logarithms, divisions, overflows], ids=lambda made: made.__name__)
def test_zeros_times_infinity_are_no_defect(made, tmp_path: Path) -> None:
    """A dense layer makes NaN of infinities and NaN with its zeros, a sparse one only with its weights."""
    dense = made()
    result = exported(dense, tmp_path)
    assert result.layers[-1].form == "sparse"
    assert result.reader == result.layers[-1].name
    assert np.isfinite(result.agreement.difference)
    # Elsewhere the outputs are the same.
    (shape,) = [
        [2 if size.dim_param else size.dim_value for size in v.type.tensor_type.shape.dim] for v in dense.graph.input
    ]
    feed = {"x": normal(RNG, *shape)}
    (got,), (expected,) = run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed)
    told = ~np.isnan(expected)
    np.testing.assert_allclose(got[told], expected[told], rtol=1e-5)


def test_what_is_not_compared_is_told(tmp_path: Path) -> None:
    """By the command, which takes what is faster: a large product."""
    nodes = [node("Log", ["x"], ["l"]), node("MatMul", ["l", "w"], ["y"], name="product")]
    constants = {"w": sparse_weight(RNG, 512, 512, density=0.02)}
    onnx.save(network(nodes, {"x": [128, 512]}, constants, ["y"]), tmp_path / "dense.onnx")
    np.save(tmp_path / "x.npy", np.float32(RNG.random((128, 512)) - 0.001))
    output = " ".join(
        printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx", "--input", f"x={tmp_path}/x.npy").split()
    )
    assert "the layer product reads values that are infinite or NaN" in output
    assert "outputs that are NaN in the dense network were not compared" in output


@pytest.mark.parametrize("layer", [0, 1])
def test_one_wrong_weight_beside_nan_is_refused(layer: int, tmp_path: Path) -> None:
    dense = logarithms()
    onnx.save(dense, tmp_path / "dense.onnx")
    source = open_source(str(tmp_path / "dense.onnx"))
    wrong = onnx.ModelProto()
    wrong.CopyFrom(dense)
    weight = onnx.numpy_helper.to_array(wrong.graph.initializer[layer]).copy()
    weight.reshape(-1)[np.flatnonzero(weight)[7]] *= 1.01
    wrong.graph.initializer[layer].CopyFrom(onnx.numpy_helper.from_array(weight, "wv"[layer]))
    onnx.save(rewrite(wrong, costs=SPARSE).model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=rf"the first layer that differs is {'wv'[layer]} \(1 of its"):
        compare_with_dense(source.dense, tmp_path / "m.onnx", rewrite(dense, costs=SPARSE), source.feeds)


def test_nan_where_the_dense_network_has_numbers_is_refused(tmp_path: Path) -> None:
    """Behind a layer that reads infinities."""
    dense = overflows()
    onnx.save(dense, tmp_path / "dense.onnx")
    source = open_source(str(tmp_path / "dense.onnx"))
    rewritten = rewrite(dense, costs=SPARSE)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(rewritten.model)
    (_, last) = [made for made in wrong.graph.node if made.domain == "gossamer"]
    last.output[0] = "z"
    wrong.graph.node.extend([node("Sub", ["z", "z"], ["o"]), node("Div", ["o", "o"], ["y"])])
    onnx.save(wrong, tmp_path / "m.onnx")
    feed = {"x": np.zeros((2, 32), np.float32)}
    with pytest.raises(ExportError, match="outputs differ by nan"):
        compare_with_dense(source.dense, tmp_path / "m.onnx", rewritten, [feed])


@pytest.mark.parametrize("scale", [1e-38, 1e-42])
def test_numbers_below_the_smallest_normal_one(scale: float, tmp_path: Path) -> None:
    """They have few places, which two orders of a sum round differently."""
    weight = sparse_weight(RNG, 64, 64) * np.float32(scale)
    result = exported(network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 64]}, {"w": weight}, ["y"]), tmp_path)
    assert result.layers[0].form == "sparse"


def test_scalars_that_are_computed_stay_scalars(tmp_path: Path) -> None:
    """Range takes nothing else."""
    nodes = [
        node("Cast", ["k"], ["count"], to=TensorProto.INT64),
        node("Range", ["zero", "count", "one"], ["r"]),
        node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "f"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 32, 8), "k": np.int32(8), "zero": np.int64(0), "one": np.int64(1)}
    dense = network(nodes, {"x": ["n", 32]}, constants, ["y"])
    exported(dense, tmp_path)
    feed = {"x": normal(RNG, 3, 32)}
    assert_same(run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed))


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_a_bias_that_is_taken_zero_times_is_not_read(bias: float, tmp_path: Path) -> None:
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], beta=0.0)]
    constants = {"w": sparse_weight(RNG, 32, 24), "b": np.full(24, bias, np.float32)}
    dense = network(nodes, {"x": ["n", 32]}, constants, ["y"])
    assert exported(dense, tmp_path).layers[0].form == "sparse"
    feed = {"x": normal(RNG, 3, 32)}
    assert np.isfinite(run_dense(dense, feed)[0]).all()
    assert_same(run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed))


def two_convolutions(sizes: Sequence[int | str | None]) -> onnx.ModelProto:
    nodes = [node("Conv", ["x", "w"], ["a"], pads=[1] * 4), node("Relu", ["a"], ["r"]), node("Conv", ["r", "v"], ["y"])]
    constants = {"w": sparse_weight(RNG, 8, 8, 3, 3), "v": sparse_weight(RNG, 8, 8, 1, 1)}
    return network(nodes, {"x": sizes}, constants, ["y"])  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "sizes",
    [[None] * 4, ["n", "c", "h", "w"], [-1, -1, 12, 12], [0, 8, 12, 12], [1, 0, 12, 12]],
    ids=["unnamed", "named", "-1", "batch of 0", "0 channels"],
)
def test_channels_that_a_file_leaves_open_are_those_of_the_layer(
    sizes: Sequence[int | str | None], tmp_path: Path
) -> None:
    dense = two_convolutions(sizes)
    exported(dense, tmp_path)
    written = onnx.load(tmp_path / "m.onnx")
    assert ops(written) == ["ToPanel", "SparseConv", "SparseConv", "FromPanel"]
    feed = {"x": normal(RNG, sizes[0] if sizes[0] == 1 else 3, 8, 12, 12)}
    for axis, size in zip(dense.graph.input[0].type.tensor_type.shape.dim, feed["x"].shape, strict=True):
        axis.dim_value = size
    assert_same(run_sparse(written, feed), run_dense(dense, feed))


@pytest.mark.parametrize(
    ("made", "sizes"),
    [
        (node("Gemm", ["x", "w"], ["y"]), ["n", "k"]),
        (node("Gemm", ["x", "w"], ["y"], transA=1), ["k", "n"]),
        (node("MatMul", ["x", "w"], ["y"]), ["n", "tokens", "k"]),
    ],
    ids=["Gemm", "Gemm, transposed", "MatMul"],
)
def test_rows_that_a_file_leaves_open_are_those_of_the_weight(
    made: onnx.NodeProto, sizes: list[int | str], tmp_path: Path
) -> None:
    exported(network([made], {"x": sizes}, {"w": sparse_weight(RNG, 48, 24)}, ["y"]), tmp_path)


def test_a_batch_that_cannot_be_cut_on_one_side_alone(tmp_path: Path) -> None:
    """The unnamed second axis of a state counts the same examples as the first of the input."""
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "state"], ["y"])]
    dense = network(nodes, {"x": [None, 48], "state": [1, None, 24]}, {"w": sparse_weight(RNG, 48, 24)}, ["y"])  # type: ignore[list-item]
    onnx.save(dense, tmp_path / "dense.onnx")
    inputs = []
    for name, shape in {"x": (5, 48), "state": (1, 5, 24)}.items():
        np.save(tmp_path / f"{name}.npy", normal(RNG, *shape))
        inputs += ["--input", f"{name}={tmp_path / name}.npy"]
    printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx", *inputs)


def test_sizes_that_are_tried_are_no_larger_than_a_machine(tmp_path: Path) -> None:
    """Four open axes of 512 each are 256 GiB."""
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    onnx.save(
        network(nodes, {"x": ["a", "b", "c", "d", "e"]}, {"shape": np.asarray([7, 11])}, ["y"]), tmp_path / "dense.onnx"
    )
    assert "does not run" in refused("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx")


def declared(model: onnx.ModelProto, shape: Sequence[int | str]) -> None:
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))


def without_version(model: onnx.ModelProto) -> None:
    """Of ONNX's own ops; ONNX Runtime takes the newest."""
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


CHANGES = {
    "an output of other axes": lambda model: declared(model, ["n", 8]),
    "an output of other sizes": lambda model: declared(model, ["n", 8, 7, 7]),
    "no version": without_version,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_file_says_and_does_not_hold(change: str, tmp_path: Path) -> None:
    dense = two_convolutions(["n", 8, 12, 12])
    CHANGES[change](dense)
    exported(dense, tmp_path)
    feed = {"x": normal(RNG, 3, 8, 12, 12)}
    assert_same(run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed))


STATISTICS: Mapping[str, Mapping[str, np.ndarray]] = {
    "negative variances": {"variance": np.full(8, -1, np.float32)},
    "factors beyond fp32": {"scale": np.full(8, 3e38, np.float32), "variance": np.zeros(8, np.float32)},
}


@pytest.mark.parametrize("statistics", STATISTICS)
def test_batch_norm_that_makes_no_numbers(statistics: str, tmp_path: Path) -> None:
    """Without a word of numpy's on the way: warnings are errors here."""
    usual = {"scale": np.ones(8, np.float32), "offset": np.zeros(8, np.float32), "mean": np.zeros(8, np.float32)}
    usual["variance"] = np.ones(8, np.float32)
    nodes = [node("Conv", ["x", "w"], ["a"]), node("BatchNormalization", ["a", *usual], ["y"])]
    constants = {"w": sparse_weight(RNG, 8, 8, 3, 3), **usual, **STATISTICS[statistics]}
    dense = network(nodes, {"x": ["n", 8, 12, 12]}, constants, ["y"])
    exported(dense, tmp_path)
    feed = {"x": normal(RNG, 2, 8, 12, 12)}
    (got,), (expected,) = run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed)
    assert not np.isfinite(expected).all()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))


def test_a_factor_of_gemm_that_the_weight_cannot_take(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "tiny"], ["t"]), node("Gemm", ["t", "w"], ["y"], alpha=1e30)]
    constants = {"w": sparse_weight(RNG, 32, 24) * np.float32(1e15), "tiny": np.float32(1e-30)}
    dense = network(nodes, {"x": ["n", 32]}, constants, ["y"])
    exported(dense, tmp_path)
    feed = {"x": normal(RNG, 3, 32)}
    assert_same(run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed))


def test_a_network_that_draws_random_numbers_is_refused_for_that(tmp_path: Path) -> None:
    nodes = [
        node("RandomNormalLike", ["x"], ["noise"]),
        node("Add", ["x", "noise"], ["a"]),
        node("MatMul", ["a", "w"], ["y"]),
    ]
    model = network(nodes, {"x": ["n", 32]}, {"w": sparse_weight(RNG, 32, 32)}, ["y"])
    with pytest.raises(ExportError, match="others in every run"):
        exported(model, tmp_path)
    # Nothing of it is computed beforehand: what is written is what was read.
    with pytest.raises(ExportError, match="others in every run"):
        export(open_source(str(tmp_path / "dense.onnx")), tmp_path / "m.onnx", form=FileForm(dense=True))
    assert not (tmp_path / "m.onnx").exists()


def test_one_name_for_axes_that_do_not_have_one_size(tmp_path: Path) -> None:
    # A mask of one row is spread over all of them, though its axis has the others' name.
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Where", ["mask", "a", "low"], ["b"]),
        node("MatMul", ["b", "v"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 32, 32), "v": sparse_weight(RNG, 32, 32), "low": np.float32(-1)}
    model = network(nodes, {"x": ["N", 5, 32]}, constants, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", "N", 32]))
    onnx.save(model, tmp_path / "dense.onnx")
    mask = RNG.random((1, 1, 32)) < 0.5
    for name, values in {"x": normal(RNG, 3, 5, 32), "mask": mask}.items():
        np.save(tmp_path / f"{name}.npy", values)
    files = {name: tmp_path / f"{name}.npy" for name in ("x", "mask")}
    written = export(open_source(str(tmp_path / "dense.onnx"), inputs=files), tmp_path / "m.onnx", costs=SPARSE)
    assert written.agreement.within


def test_a_layer_that_is_right_and_reads_something_wrong_where_no_output_shows_it(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Neg", ["a"], ["b"]),
        node("MatMul", ["b", "v"], ["c"]),
        node("Mul", ["c", "nothing"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 32, 32), "v": sparse_weight(RNG, 32, 32), "nothing": np.float32(0)}
    dense = network(nodes, {"x": ["n", 32]}, constants, ["y"])
    rewritten = rewrite(dense, costs=SPARSE)
    onnx.save(rewritten.model, tmp_path / "right.onnx")
    feeds = [{"x": normal(RNG, 4, 32)}]
    assert compare_with_dense(dense, tmp_path / "right.onnx", rewritten, feeds).within
    (between,) = [found for found in rewritten.model.graph.node if found.op_type == "Neg"]
    between.op_type = "Abs"
    onnx.save(rewritten.model, tmp_path / "wrong.onnx")
    with pytest.raises(ExportError, match="the first layer that differs is v"):
        compare_with_dense(dense, tmp_path / "wrong.onnx", rewritten, feeds)


def test_shapes_that_only_the_networks_outputs_declare() -> None:
    # ONNX's shape inference knows no QuickGelu.
    nodes = [
        node("QuickGelu", ["x"], ["t"], domain="com.microsoft"),
        node("Conv", ["t", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    model = network(nodes, {"x": [1, 8, 6, 6]}, {"w": sparse_weight(RNG, 8, 8, 3, 3)}, ["y"])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [1, 8, 6, 6]))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (layer,) = find_layers(Graph(model))
    assert (layer.shape.height, layer.shape.width) == (6, 6)


def test_a_layer_whose_sums_are_infinite(tmp_path: Path) -> None:
    weight = np.abs(sparse_weight(RNG, 32, 32))
    dense = network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 32]}, {"w": weight}, ["y"])
    rewritten = rewrite(dense, costs=SPARSE)
    onnx.save(rewritten.model, tmp_path / "m.onnx")
    feeds = [{"x": np.full((4, 32), 3e38, np.float32)}]
    assert np.isinf(run_dense(dense, feeds[0])[0]).any()
    assert compare_with_dense(dense, tmp_path / "m.onnx", rewritten, feeds).within


def test_rows_of_a_product_are_all_axes_but_the_last() -> None:
    model = network([node("MatMul", ["x", "w"], ["y"])], {"x": [2, 7, 32]}, {"w": sparse_weight(RNG, 32, 16)}, ["y"])
    (layer,) = find_layers(Graph(model))
    assert (layer.shape.width, layer.shape.inputs, layer.shape.outputs) == (14, 32, 16)


def test_a_layer_that_reads_only_zeros_is_tried_on_something_else(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])]
    constants = {"w": sparse_weight(RNG, 8, 8, 3, 3), "b": normal(RNG, 8)}
    dense = network(nodes, {"x": ["n", 8, 6, 6]}, constants, ["y"])
    rewritten = rewrite(dense, costs=SPARSE)
    (sparse,) = [found for found in rewritten.model.graph.node if found.op_type == "SparseConv"]
    (pads,) = [found for found in sparse.attribute if found.name == "pads"]
    pads.ints[:] = [0, 0, 2, 2]
    onnx.save(rewritten.model, tmp_path / "shifted.onnx")
    with pytest.raises(ExportError, match="the first layer that differs is w"):
        compare_with_dense(dense, tmp_path / "shifted.onnx", rewritten, [{"x": np.zeros((2, 8, 6, 6), np.float32)}])


def test_what_rounding_explains_of_a_row_follows_its_own_weights(tmp_path: Path) -> None:
    # 256 rows of one weight each: a bound that is wrong by 1e-5 is no rounding of one term, but one of 256.
    weight = np.eye(256, dtype=np.float32)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Clip", ["a", "low", "high"], ["y"])]
    constants = {"w": weight, "low": np.float32(0), "high": np.float32(6)}
    dense = network(nodes, {"x": ["n", 256]}, constants, ["y"])
    rewritten = rewrite(dense, costs=SPARSE)
    (sparse,) = [found for found in rewritten.model.graph.node if found.op_type == "SparseMatMul"]
    (high,) = [found for found in sparse.attribute if found.type == onnx.AttributeProto.FLOAT and found.f == 6]
    high.f = 6 * (1 + 5e-6)
    onnx.save(rewritten.model, tmp_path / "bound.onnx")
    with pytest.raises(ExportError, match="the first layer that differs is w"):
        compare_with_dense(dense, tmp_path / "bound.onnx", rewritten, [{"x": np.full((4, 256), 7, np.float32)}])


class PoolsOnPanels(EverythingSparse):
    def pool(self, shape: LayerShape, *, panels: bool) -> float:
        return 0.0 if panels else 1.0


def test_a_pooling_behind_a_pooling_stays_in_the_layers_layout() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["c"], ["y"]),
    ]
    dense = network(nodes, {"x": [1, 8, 16, 16]}, {"w": sparse_weight(RNG, 8, 8, 3, 3)}, ["y"])
    ops = [found.op_type for found in rewrite(dense, costs=PoolsOnPanels()).model.graph.node]
    assert ops.count("PanelMaxPool") == 2
