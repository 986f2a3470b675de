"""What is compared, and with what: inputs that are no batches, numbers that are none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import assert_same, network, run_dense, run_sparse, sparse_weight
from onnx import helper

from gossamer.errors import ExportError
from gossamer.export.agreement import compare_arrays
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source

node = helper.make_node
RNG = np.random.default_rng(0)
PRODUCT = sparse_weight(RNG, 16, 24)
KERNEL = sparse_weight(RNG, 8, 8, 3, 3)

pytestmark = pytest.mark.usefixtures("native_library")


CASES: dict[str, tuple[list[onnx.NodeProto], Mapping[str, Sequence[int | str]], Mapping[str, np.ndarray]]] = {
    "fixed batch": ([node("Conv", ["x", "w"], ["y"])], {"x": [4, 8, 9, 9]}, {"w": KERNEL}),
    "transposed": ([node("Gemm", ["x", "w"], ["y"], transA=1)], {"x": [16, "n"]}, {"w": PRODUCT}),
    "one vector": ([node("MatMul", ["x", "w"], ["y"])], {"x": [16]}, {"w": PRODUCT}),
    "stacked": ([node("MatMul", ["x", "w"], ["y"])], {"x": [4, 5, 16]}, {"w": sparse_weight(RNG, 4, 16, 24)}),
    "scalar": (
        [node("Conv", ["x", "w"], ["a"]), node("Mul", ["a", "s"], ["y"])],
        {"x": ["n", 8, 9, 9], "s": []},
        {"w": KERNEL},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_inputs_that_are_no_batches(case: str, tmp_path: Path) -> None:
    nodes, inputs, constants = CASES[case]
    dense = network(nodes, inputs, constants, ["y"])
    onnx.save(dense, tmp_path / "dense.onnx")
    export(open_source(str(tmp_path / "dense.onnx")), tmp_path / "m.onnx", costs=EverythingSparse())
    sizes = {name: [3 if isinstance(size, str) else size for size in shape] for name, shape in inputs.items()}
    feed = {name: np.asarray(RNG.standard_normal(shape), np.float32) for name, shape in sizes.items()}
    assert_same(run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed))


def test_a_difference_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """A weight that fp16 rounds to zero, and 0 / 0."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Div", ["h", "h"], ["y"])]
    dense = network(nodes, {"x": ["n", 16]}, {"w": np.full((16, 24), 1e-9, np.float32)}, ["y"])
    onnx.save(dense, tmp_path / "dense.onnx")
    with pytest.raises(ExportError, match=r"differ by nan .* fp16 loses small weights of w \(384 of 384 become zero"):
        export(open_source(str(tmp_path / "dense.onnx")), tmp_path / "m.onnx", form=FileForm(half=True))


def test_a_network_whose_preparation_went_wrong_is_refused(tmp_path: Path) -> None:
    """An ONNX file is compared as it was given, before anything was computed of it."""
    dense = network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {"w": PRODUCT}, ["y"])
    onnx.save(dense, tmp_path / "dense.onnx")
    source = open_source(str(tmp_path / "dense.onnx"))
    wrong = network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {"w": 2 * PRODUCT}, ["y"])
    with pytest.raises(ExportError, match="computes something else than that of the file"):
        export(replace(source, dense=wrong), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_arrays_agree_by_themselves_only_if_they_are_equal() -> None:
    ones = np.ones(3, np.float32)
    assert compare_arrays(ones, ones).within
    assert not compare_arrays(ones, ones + np.float32(0.5)).within
