"""Factors that are multiplied into weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import (
    assert_same,
    network,
    normal,
    ops,
    run_dense,
    run_sparse,
    sparse_weight,
)
from onnx import helper

from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.rewrite import to_sparse
from gossamer.export.source import open_source

node = helper.make_node
RNG = np.random.default_rng(0)
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_factor_of_gemm(half: bool, batch_norm: bool) -> None:
    """Rounded to fp16 once, after it was multiplied by the factor."""
    weight, alpha = sparse_weight(RNG, 24, 16), 0.3
    nodes = [node("Gemm", ["x", "w"], ["a"], transB=1, alpha=alpha)]
    constants = {"w": weight}
    expected = weight * np.float32(alpha)
    if batch_norm:
        nodes.append(node("BatchNormalization", ["a", "one", "zero", "zero", "one"], ["y"], epsilon=0.0))
        constants |= {"one": np.ones(24, np.float32), "zero": np.zeros(24, np.float32)}
    model = network(nodes, {"x": ["n", 16]}, constants, ["y" if batch_norm else "a"])
    sparse = to_sparse(model, costs=SPARSE, half=half)
    assert (ops(sparse), ops(sparse, "")) == (["SparseMatMul"], [])
    if half:
        expected = expected.astype(np.float16).astype(np.float32)
    x = normal(RNG, 5, 16)
    assert_same(run_sparse(sparse, {"x": x}), [x @ expected.T], tolerance=1e-6)


@pytest.mark.parametrize("factors", [{"alpha": 0.5}, {"beta": 0.5}, {"alpha": 0.5, "beta": 3.0}], ids=str)
def test_factors_of_weight_and_bias_before_a_normalisation(factors: dict[str, float]) -> None:
    nodes = [
        node("Gemm", ["x", "w", "b"], ["a"], **factors),
        node("BatchNormalization", ["a", "scale", "offset", "mean", "variance"], ["y"]),
    ]
    constants = {"w": sparse_weight(RNG, 16, 24), "variance": RNG.uniform(0.5, 2, 24).astype(np.float32)}
    constants |= {name: normal(RNG, 24) for name in ("b", "scale", "offset", "mean")}
    model = network(nodes, {"x": ["n", 16]}, constants, ["y"])
    feed = {"x": normal(RNG, 5, 16)}
    assert_same(run_sparse(to_sparse(model, costs=SPARSE), feed), run_dense(model, feed))


def test_two_factors_of_one_weight() -> None:
    nodes = [
        node("Gemm", ["x", "w"], ["a"], alpha=0.5),
        node("Gemm", ["x", "w"], ["b"], alpha=2.0),
        node("Gemm", ["x", "w"], ["c"]),
    ]
    model = network(nodes, {"x": ["n", 16]}, {"w": sparse_weight(RNG, 16, 24)}, ["a", "b", "c"])
    feed = {"x": normal(RNG, 5, 16)}
    assert_same(run_sparse(to_sparse(model, costs=SPARSE), feed), run_dense(model, feed))


def test_a_factor_of_gemm_is_no_reason_to_refuse_fp16(tmp_path: Path) -> None:
    """One weight for each output, so that its rounding is seen."""
    weight = np.diag(RNG.uniform(1, 2, 64)).astype(np.float32)
    onnx.save(
        network([node("Gemm", ["x", "w"], ["y"], alpha=0.3)], {"x": ["n", 64]}, {"w": weight}, ["y"]),
        tmp_path / "dense.onnx",
    )
    export(open_source(str(tmp_path / "dense.onnx")), tmp_path / "m.onnx", form=FileForm(half=True), costs=SPARSE)
    x = normal(RNG, 5, 64)
    stored = (weight * np.float32(0.3)).astype(np.float16).astype(np.float32)
    assert_same(run_sparse(onnx.load(tmp_path / "m.onnx"), {"x": x}), [x @ stored], tolerance=1e-6)
