"""`gossamer export --half`: which numbers of a file of somebody else become fp16, and that the rest stays."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import Array, network, normal, run_sparse, sparse_weight
from onnx import helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.export.exporting import Exported, export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source

pytestmark = pytest.mark.usefixtures("native_library")
SIZE = 512


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def halved(model: onnx.ModelProto, folder: Path, *, difference: float = 0.01) -> Exported:
    onnx.save(model, folder / "given.onnx")
    form = FileForm(half=True, half_difference=difference)
    return export(open_source(str(folder / "given.onnx")), folder / "half.onnx", form=form)


def rounded(numbers: Array) -> Array:
    return numbers.astype(np.float16).astype(np.float32)


def test_a_table_of_one_axis_stays(rng: np.random.Generator, tmp_path: Path) -> None:
    """A window that the input is multiplied with, as networks for sound have it, and a weight that is fp16 then."""
    window, weight = rng.uniform(0.5, 1.5, SIZE).astype(np.float32), normal(rng, SIZE, 3)
    nodes = [helper.make_node("Mul", ["x", "window"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    model = network(nodes, {"x": ["n", SIZE]}, {"window": window, "w": weight}, ["y"])
    halved(model, tmp_path)
    x = normal(rng, 2, SIZE)
    (got,) = run_sparse(onnx.load(tmp_path / "half.onnx"), {"x": x})
    np.testing.assert_allclose(got, (x * window) @ rounded(weight), rtol=0, atol=1e-4)
    # With the window in fp16 it would be another number.
    assert not np.allclose(got, (x * rounded(window)) @ rounded(weight), rtol=0, atol=1e-4)


def choosing(first: Array, second: Array) -> onnx.ModelProto:
    """Two weights in the branches of an If, one stored in an initializer and one in a Constant node."""
    (values,) = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 4]) for name in ["chosen"])
    product = helper.make_node("MatMul", ["x", "held"], ["chosen"])
    held = numpy_helper.from_array(second, "held")
    then = helper.make_graph([product], "then", [], [values], [numpy_helper.from_array(first, "held")])
    constant = helper.make_node("Constant", [], ["held"], value=held)
    otherwise = helper.make_graph([constant, product], "else", [], [values])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "nothing"], ["which"]),
        helper.make_node("If", ["which"], ["y"], then_branch=then, else_branch=otherwise),
    ]
    return network(nodes, {"x": ["n", SIZE]}, {"nothing": np.float32(0)}, ["y"])


def test_weights_in_the_branches_of_an_if(rng: np.random.Generator, tmp_path: Path) -> None:
    weights = normal(rng, SIZE, 4), normal(rng, SIZE, 4)
    exported = halved(choosing(*weights), tmp_path)
    assert exported.file_bytes < 0.6 * exported.dense_bytes
    written = onnx.load(tmp_path / "half.onnx")
    for sign, weight in zip((1, -1), weights, strict=True):
        x = sign * np.abs(normal(rng, 3, SIZE))
        (got,) = run_sparse(written, {"x": x})
        np.testing.assert_allclose(got, x @ rounded(weight), rtol=0, atol=1e-3)


@pytest.mark.parametrize("branch", [0, 1])
def test_a_weight_in_a_branch_beyond_fp16(branch: int, rng: np.random.Generator, tmp_path: Path) -> None:
    weights = [sparse_weight(rng, SIZE, 4), sparse_weight(rng, SIZE, 4)]
    weights[branch][0, 0] = 1e6
    with pytest.raises(ExportError, match=r"layer held: a weight of 1e\+06 is beyond the range of fp16"):
        halved(choosing(*weights), tmp_path)
    assert not (tmp_path / "half.onnx").exists()
